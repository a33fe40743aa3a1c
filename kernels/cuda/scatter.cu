/* SPDX-License-Identifier: Apache-2.0 */
/* Spreads changed bytes: see scatter.h. Block i of threads copies run i. */
#include "kernels/cuda/scatter.h"

extern "C" __global__ void kv_cuda_scatter(const struct cuda_scatter *s)
{
	const struct cuda_run r = s->run[blockIdx.x];
	const uint4 *from = (const uint4 *)(s->lane + r.at);
	uint4 *to = (uint4 *)r.to;

	for (uint32_t i = threadIdx.x; i < r.n / sizeof(uint4); i += blockDim.x)
		to[i] = from[i];
}
