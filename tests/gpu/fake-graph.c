/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs of the fake driver: chains of kernels, each node behind the one before it. */
#include <stdlib.h>

#include "tests/gpu/fake-private.h"

#define NODES 16u

struct CUgraphNode_st {
	struct fake_op op;
};

struct CUgraph_st {
	struct CUgraphNode_st node[NODES];
	unsigned n;
};

struct CUgraphExec_st {
	const struct CUgraph_st *of; /* whose nodes are named */
	struct CUgraph_st graph;
};

static CUresult describe(const CUDA_KERNEL_NODE_PARAMS *p, struct fake_op *ret)
{
	const struct fake_kernel *k = (const struct fake_kernel *)(uintptr_t)p->func;

	if (!p->gridDimX || !p->gridDimY || p->gridDimZ != 1 || !p->blockDimX ||
	    p->blockDimX > 1024 || p->gridDimY > 65535)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = (struct fake_op){
		.kind = FAKE_LAUNCH,
		.kernel = k->run,
		.launch = { k,
			    { p->gridDimX, p->gridDimY, p->gridDimZ },
			    { p->blockDimX, p->blockDimY, p->blockDimZ },
			    p->sharedMemBytes,
			    *(void **)p->kernelParams[0] },
	};
	return CUDA_SUCCESS;
}

CUresult cuGraphCreate(CUgraph *ret, unsigned int flags)
{
	CUresult r = fake_call();

	if (r != CUDA_SUCCESS)
		return r;
	if (!fake.knobs.graphs)
		return CUDA_ERROR_NOT_SUPPORTED;
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return CUDA_ERROR_OUT_OF_MEMORY;
	fake_live(1, 0);
	return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph g)
{
	free(g);
	fake_live(-1, 0);
	return fake_call();
}

/* A node that is behind another one than the last is none that we make. */
CUresult cuGraphAddKernelNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *after, size_t n,
			      const CUDA_KERNEL_NODE_PARAMS *p)
{
	CUresult r = fake_call();

	if (r != CUDA_SUCCESS)
		return r;
	if (g->n == NODES || n != (g->n > 0) || (n && *after != &g->node[g->n - 1]))
		return CUDA_ERROR_INVALID_VALUE;
	r = describe(p, &g->node[g->n].op);
	if (r == CUDA_SUCCESS)
		*ret = &g->node[g->n++];
	return r;
}

CUresult cuGraphInstantiate(CUgraphExec *ret, CUgraph g, unsigned long long flags)
{
	CUresult r = fake_take(0);

	if (r != CUDA_SUCCESS)
		return r;
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return CUDA_ERROR_OUT_OF_MEMORY;
	(*ret)->of = g;
	(*ret)->graph = *g;
	fake_live(1, 0);
	return CUDA_SUCCESS;
}

CUresult cuGraphExecKernelNodeSetParams(CUgraphExec x, CUgraphNode node,
					const CUDA_KERNEL_NODE_PARAMS *p)
{
	size_t i = (size_t)(node - x->of->node);
	CUresult r = fake_call();

	if (r != CUDA_SUCCESS)
		return r;
	return i < x->graph.n ? describe(p, &x->graph.node[i].op) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphLaunch(CUgraphExec x, CUstream s)
{
	CUresult r = fake_call();

	for (unsigned i = 0; r == CUDA_SUCCESS && i < x->graph.n; i++)
		r = fake_enqueue(s, &x->graph.node[i].op);
	return r;
}

CUresult cuGraphExecDestroy(CUgraphExec x)
{
	fake_quiesce();
	free(x);
	fake_live(-1, 0);
	return fake_call();
}
