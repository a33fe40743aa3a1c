/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs of launches: see backend-graph.h. */
#include "kernels/cuda/backend-graph.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* ---- one by one ------------------------------------------------------------------ */

static int launch_each(struct kv_gpu *g, CUstream s, const struct cuda_launch *x, uint32_t n)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < n; i++) {
		CUdeviceptr argument = x[i].argument;
		void *arguments[] = { &argument };

		r = CUDA_MUST(g, launch, g->kernel[x[i].kernel], x[i].grid[0], x[i].grid[1], 1,
			      x[i].threads, 1, 1, x[i].shared, s, arguments, NULL);
	}
	return r;
}

/* ---- making ---------------------------------------------------------------------- */

/* `arguments` is filled in, and needed as long as what is returned. */
static CUDA_KERNEL_NODE_PARAMS describe(struct kv_gpu *g, const struct cuda_launch *x,
					CUdeviceptr *argument, void *arguments[1])
{
	*argument = x->argument;
	arguments[0] = argument;
	return (CUDA_KERNEL_NODE_PARAMS){ .func = g->kernel[x->kernel],
					  .gridDimX = x->grid[0],
					  .gridDimY = x->grid[1],
					  .gridDimZ = 1,
					  .blockDimX = x->threads,
					  .blockDimY = 1,
					  .blockDimZ = 1,
					  .sharedMemBytes = x->shared,
					  .kernelParams = arguments };
}

static void graph_free(struct kv_gpu *g, struct cuda_graph *x)
{
	if (x->exec)
		g->driver.graph_exec_destroy(x->exec);
	if (x->graph)
		g->driver.graph_destroy(x->graph);
	*x = (struct cuda_graph){ 0 };
}

/* Each after the one before it. */
static CUresult add_nodes(struct kv_gpu *g, struct cuda_graph *x)
{
	CUresult r = CUDA_SUCCESS;

	for (uint32_t i = 0; r == CUDA_SUCCESS && i < x->n; i++) {
		CUdeviceptr argument;
		void *arguments[1];
		CUDA_KERNEL_NODE_PARAMS p = describe(g, &x->launch[i], &argument, arguments);

		r = g->driver.graph_add_kernel(&x->node[i], x->graph, i ? &x->node[i - 1] : NULL,
					       i > 0, &p);
	}
	return r;
}

/* -ENOMEM: there is none, and all is well; -EIO. */
static int graph_make(struct kv_gpu *g, struct cuda_graph *x, const struct cuda_launch *launch,
		      uint32_t n)
{
	CUresult r;

	*x = (struct cuda_graph){ .n = n };
	memcpy(x->launch, launch, n * sizeof(*launch));
	r = g->driver.graph_create(&x->graph, 0);
	if (r != CUDA_SUCCESS)
		x->graph = NULL;
	if (r == CUDA_SUCCESS)
		r = add_nodes(g, x);
	if (r == CUDA_SUCCESS)
		r = g->driver.graph_instantiate(&x->exec, x->graph, 0);
	if (r == CUDA_SUCCESS)
		return 0;
	x->exec = NULL;
	graph_free(g, x);
	return cuda_check(g, r, "graph");
}

/* ---- using ------------------------------------------------------------------------ */

static bool is_for(const struct cuda_graph *x, const struct cuda_launch *launch, uint32_t n)
{
	if (!x->exec || x->n != n)
		return false;
	for (uint32_t i = 0; i < n; i++)
		if (x->launch[i].kernel != launch[i].kernel)
			return false;
	return true;
}

static struct cuda_graph *find(struct cuda_graphs *all, const struct cuda_launch *launch,
			       uint32_t n, struct cuda_graph **ret_oldest)
{
	*ret_oldest = &all->graph[0];
	for (uint32_t i = 0; i < CUDA_GRAPHS; i++) {
		if (is_for(&all->graph[i], launch, n))
			return &all->graph[i];
		if (all->graph[i].used < (*ret_oldest)->used)
			*ret_oldest = &all->graph[i];
	}
	return NULL;
}

static bool differ(const struct cuda_launch *a, const struct cuda_launch *b)
{
	return a->grid[0] != b->grid[0] || a->grid[1] != b->grid[1] || a->threads != b->threads ||
	       a->shared != b->shared || a->argument != b->argument;
}

static int update(struct kv_gpu *g, struct cuda_graph *x, const struct cuda_launch *launch)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < x->n; i++) {
		CUdeviceptr argument;
		void *arguments[1];
		CUDA_KERNEL_NODE_PARAMS p;

		if (!differ(&x->launch[i], &launch[i]))
			continue;
		p = describe(g, &launch[i], &argument, arguments);
		r = CUDA_MUST(g, graph_set_kernel, x->exec, x->node[i], &p);
		x->launch[i] = launch[i];
	}
	return r;
}

int cuda_graphs_launch(struct kv_gpu *g, struct cuda_graphs *all, CUstream s,
		       const struct cuda_launch *launch, uint32_t n)
{
	struct cuda_graph *oldest, *x;
	int r;

	assert(n <= CUDA_GRAPH_NODES);
	if (n < 2 || g->info.plain[0])
		return launch_each(g, s, launch, n);
	x = find(all, launch, n, &oldest);
	if (x) {
		r = update(g, x, launch);
	} else {
		x = oldest;
		graph_free(g, x);
		r = graph_make(g, x, launch, n);
	}
	if (r == -ENOMEM)
		return launch_each(g, s, launch, n);
	x->used = ++all->uses;
	return r < 0 ? r : CUDA_MUST(g, graph_launch, x->exec, s);
}

void cuda_graphs_free(struct kv_gpu *g, struct cuda_graphs *all)
{
	for (uint32_t i = 0; i < CUDA_GRAPHS; i++)
		graph_free(g, &all->graph[i]);
}
