/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Launches that follow each other, as one: a graph for each list of kernels that a
 * lane has had, kept with its places filled in. What differs from batch to batch
 * (grids, shared memory, the parameters' address) is changed in the graph that is
 * there, and only where it differs, so a step that is like the one before it costs the host one
 * call.
 */
#pragma once

#include "kernels/cuda/backend.h"

#define CUDA_GRAPH_NODES 8u
#define CUDA_GRAPHS 8u /* of a lane; the one that was not used for longest goes */

struct cuda_launch {
	enum cuda_kernel kernel;
	uint32_t grid[2], threads, shared;
	CUdeviceptr argument; /* the one that a kernel has */
};

struct cuda_graph {
	CUgraph graph;
	CUgraphExec exec; /* NULL: there is none */
	CUgraphNode node[CUDA_GRAPH_NODES];
	struct cuda_launch launch[CUDA_GRAPH_NODES]; /* as they are in it */
	uint32_t n;
	uint64_t used; /* when */
};

struct cuda_graphs {
	struct cuda_graph graph[CUDA_GRAPHS];
	uint64_t uses;
};

/* In their order; n <= CUDA_GRAPH_NODES. -EIO: lost. Alone, without memory for a
 * graph, or where the driver has none (kv_gpu_info.plain), they are launched one by one. */
int cuda_graphs_launch(struct kv_gpu *g, struct cuda_graphs *all, CUstream s,
		       const struct cuda_launch *launch, uint32_t n);
/* When nothing of them runs. */
void cuda_graphs_free(struct kv_gpu *g, struct cuda_graphs *all);
