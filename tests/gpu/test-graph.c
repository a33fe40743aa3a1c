/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Launches as graphs, over a driver that writes down what it is asked: a lane relies on
 * every batch running what it was given, whatever the batches before it were, and on a
 * bounded number of graphs.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/backend-graph.h"

#define MOST 4096u

struct CUgraph_st {
	CUDA_KERNEL_NODE_PARAMS node[CUDA_GRAPH_NODES];
	CUdeviceptr argument[CUDA_GRAPH_NODES];
	unsigned n;
};
struct CUgraphExec_st {
	struct CUgraph_st graph;
};

static struct {
	unsigned plain, graphs, sets, live, made;
	CUresult instantiate; /* what it answers */
	/* what ran, in order */
	struct ran {
		CUfunction f;
		unsigned x, y, shared;
		CUdeviceptr argument;
	} ran[MOST];
	unsigned n;
} driver;

static void run(CUfunction f, unsigned x, unsigned y, unsigned shared, CUdeviceptr argument)
{
	assert_true(driver.n < MOST);
	driver.ran[driver.n++] = (struct ran){ f, x, y, shared, argument };
}

static CUresult plain(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
		      unsigned bz, unsigned shared, CUstream s, void **arguments, void **extra)
{
	driver.plain++;
	run(f, gx, gy, shared, *(CUdeviceptr *)arguments[0]);
	return CUDA_SUCCESS;
}

static CUresult create(CUgraph *ret, unsigned flags)
{
	*ret = calloc(1, sizeof(**ret));
	driver.live++;
	driver.made++;
	return CUDA_SUCCESS;
}

static CUresult destroy(CUgraph g)
{
	free(g);
	driver.live--;
	return CUDA_SUCCESS;
}

static void put(struct CUgraph_st *g, unsigned i, const CUDA_KERNEL_NODE_PARAMS *p)
{
	g->node[i] = *p;
	g->argument[i] = *(CUdeviceptr *)p->kernelParams[0];
}

/* A node is known by its place. */
static CUresult add(CUgraphNode *ret, CUgraph g, const CUgraphNode *after, size_t n,
		    const CUDA_KERNEL_NODE_PARAMS *p)
{
	assert_int_equal(n, g->n > 0);
	if (n)
		assert_int_equal((uintptr_t)*after, g->n);
	put(g, g->n++, p);
	*ret = (CUgraphNode)(uintptr_t)g->n;
	return CUDA_SUCCESS;
}

static CUresult instantiate(CUgraphExec *ret, CUgraph g, unsigned long long flags)
{
	if (driver.instantiate != CUDA_SUCCESS)
		return driver.instantiate;
	*ret = calloc(1, sizeof(**ret));
	(*ret)->graph = *g;
	driver.live++;
	return CUDA_SUCCESS;
}

static CUresult set(CUgraphExec x, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *p)
{
	driver.sets++;
	put(&x->graph, (unsigned)(uintptr_t)node - 1, p);
	return CUDA_SUCCESS;
}

static CUresult launch(CUgraphExec x, CUstream s)
{
	driver.graphs++;
	for (unsigned i = 0; i < x->graph.n; i++)
		run(x->graph.node[i].func, x->graph.node[i].gridDimX, x->graph.node[i].gridDimY,
		    x->graph.node[i].sharedMemBytes, x->graph.argument[i]);
	return CUDA_SUCCESS;
}

static CUresult exec_destroy(CUgraphExec x)
{
	free(x);
	driver.live--;
	return CUDA_SUCCESS;
}

int cuda_check(struct kv_gpu *g, CUresult r, const char *what)
{
	return r == CUDA_SUCCESS ? 0 : r == CUDA_ERROR_OUT_OF_MEMORY ? -ENOMEM : -EIO;
}

int cuda_must(struct kv_gpu *g, CUresult r, const char *what)
{
	return r == CUDA_SUCCESS ? 0 : -EIO;
}

static struct kv_gpu gpu;
static struct cuda_graphs graphs;

static int fresh(void **state)
{
	memset(&driver, 0, sizeof(driver));
	memset(&graphs, 0, sizeof(graphs));
	memset(&gpu, 0, sizeof(gpu));
	gpu.driver = (struct cuda_driver){ .launch = plain,
					   .graph_create = create,
					   .graph_destroy = destroy,
					   .graph_add_kernel = add,
					   .graph_instantiate = instantiate,
					   .graph_set_kernel = set,
					   .graph_launch = launch,
					   .graph_exec_destroy = exec_destroy };
	for (unsigned i = 0; i < CUDA_KERNELS; i++)
		gpu.kernel[i] = (CUfunction)(uintptr_t)(i + 1);
	return 0;
}

static struct cuda_launch one(unsigned kernel, unsigned grid, CUdeviceptr argument)
{
	return (struct cuda_launch){ (enum cuda_kernel)kernel, { grid, 2 }, 128, 64, argument };
}

/* That it ran so, last. */
static void go(const struct cuda_launch *x, unsigned n)
{
	unsigned before = driver.n;

	assert_int_equal(cuda_graphs_launch(&gpu, &graphs, NULL, x, n), 0);
	assert_int_equal(driver.n, before + n);
	for (unsigned i = 0; i < n; i++) {
		assert_ptr_equal(driver.ran[before + i].f, gpu.kernel[x[i].kernel]);
		assert_int_equal(driver.ran[before + i].x, x[i].grid[0]);
		assert_int_equal(driver.ran[before + i].y, x[i].grid[1]);
		assert_int_equal(driver.ran[before + i].shared, x[i].shared);
		assert_int_equal(driver.ran[before + i].argument, x[i].argument);
	}
}

/* A step like the one before it is one call; what differs is changed, and nothing else. */
static void test_again(void **state)
{
	struct cuda_launch x[] = { one(0, 7, 4096), one(4, 30, 8192), one(1, 5, 8192) };

	go(x, 3);
	assert_int_equal(driver.plain, 0);
	go(x, 3);
	assert_int_equal(driver.graphs, 2);
	assert_int_equal(driver.sets, 0);
	x[1].grid[0] = 31;
	go(x, 3);
	assert_int_equal(driver.sets, 1);
	x[1].argument = x[2].argument = 12288;
	x[2].shared = 96;
	go(x, 3);
	assert_int_equal(driver.sets, 3);
	go(x, 3);
	assert_int_equal(driver.sets, 3);
	assert_int_equal(driver.live, 2);
	go(x, 2); /* a part of it is another one */
	assert_int_equal(driver.live, 4);
	cuda_graphs_free(&gpu, &graphs);
	assert_int_equal(driver.live, 0);
}

/* More lists of kernels than there is room for graphs: who was away for longest goes, and what
 * comes again every time stays. */
static void test_bounded(void **state)
{
	const struct cuda_launch always[] = { one(0, 3, 1), one(0, 3, 2) };

	go(always, 2);
	for (unsigned i = 0; i < 3 * CUDA_KERNELS * CUDA_KERNELS; i++) {
		unsigned a = i / CUDA_KERNELS % CUDA_KERNELS, b = i % CUDA_KERNELS, made;
		const struct cuda_launch x[] = { one(a, 1 + i, 64), one(b, 2 + a, 128) };

		go(x, 2);
		assert_true(driver.live <= 2 * CUDA_GRAPHS);
		made = driver.made;
		go(always, 2);
		assert_int_equal(driver.made, made);
	}
	assert_int_equal(driver.plain, 0);
	cuda_graphs_free(&gpu, &graphs);
	assert_int_equal(driver.live, 0);
}

static void test_without(void **state)
{
	struct cuda_launch x[] = { one(0, 7, 4096), one(4, 30, 8192) };

	go(x, 1); /* alone it needs none */
	assert_int_equal(driver.plain, 1);
	driver.instantiate = CUDA_ERROR_OUT_OF_MEMORY;
	go(x, 2);
	assert_int_equal(driver.plain, 3);
	assert_int_equal(driver.live, 0);
	driver.instantiate = CUDA_SUCCESS; /* there is memory again */
	go(x, 2);
	assert_int_equal(driver.graphs, 1);
	cuda_graphs_free(&gpu, &graphs);
	driver.instantiate = CUDA_ERROR_LAUNCH_FAILED;
	assert_int_equal(cuda_graphs_launch(&gpu, &graphs, NULL, x, 2), -EIO);
	assert_int_equal(driver.live, 0);
	strcpy(gpu.info.plain, "cuGraphCreate: it has none");
	go(x, 2);
	assert_int_equal(driver.plain, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_again, fresh),
		cmocka_unit_test_setup(test_bounded, fresh),
		cmocka_unit_test_setup(test_without, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
