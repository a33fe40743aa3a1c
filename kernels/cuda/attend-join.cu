/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All shares of some heads' attention, merged by the block that comes last: a warp
 * has a head, the mean of V gets the mass that was not attended to, and channels go back
 * to the client's order.
 */

/* Who comes last of `n` blocks sees what the others wrote. */
static __device__ bool comes_last(uint32_t *counter, uint32_t n, uint32_t *shared)
{
	__threadfence();
	__syncthreads();
	if (threadIdx.x == 0)
		*shared = atomicAdd(counter, 1) == n - 1;
	__syncthreads();
	__threadfence();
	return *shared;
}

static __device__ float warp_max(float x)
{
	for (uint32_t o = 16; o; o /= 2)
		x = fmaxf(x, __shfl_xor_sync(CUDA_ALL, x, o));
	return x;
}

static __device__ float warp_sum(float x)
{
	for (uint32_t o = 16; o; o /= 2)
		x += __shfl_xor_sync(CUDA_ALL, x, o);
	return x;
}

/* Weights of the shares of a head into by[shares], for a warp; what they sum to, and the maximum
 * that they are relative to. */
static __device__ float weigh_shares(const struct attend *a, uint32_t h, float *by, float *ret_max)
{
	uint32_t lane = threadIdx.x % 32, shares = a->w.x->shares;
	bool adds = h >= a->w.x->heads;
	float max = -INFINITY, sum = 0;

	for (uint32_t i = lane; i < shares; i += 32)
		max = fmaxf(max, partial_of(a, i, h)[0]);
	max = warp_max(max);
	for (uint32_t i = lane; i < shares; i += 32) {
		const float *p = partial_of(a, i, h);

		by[i] = adds ? 1 : cuda_exp(p[0] - max);
		sum += by[i] > 0 ? by[i] * p[1] : 0;
	}
	__syncwarp();
	*ret_max = max;
	return warp_sum(sum);
}

static __device__ float join_channel(const struct attend *a, uint32_t h, uint32_t c,
				     const float *by)
{
	float y = 0;

	for (uint32_t i = 0; i < a->w.x->shares; i++)
		if (by[i] > 0)
			y = fmaf(by[i], partial_of(a, i, h)[2 + c], y);
	return y;
}

/* The mean of V that a query's unattended mass gets; see exec-mean.c. */
static __device__ float mean_of(const struct attend *a, uint32_t query, uint32_t c, float chosen)
{
	const struct kv_cuda_item *x = a->w.x;
	struct kv_cuda_state s = kv_cuda_state_of(x, a->w.s->dim);
	const char *state = (const char *)(a->w.p->scratch + x->state + a->w.head * x->state_bytes);
	double sum = ((const double *)(state + s.sum))[(uint64_t)query * a->w.s->dim + c];
	uint32_t seen = cuda_limit(x, query);
	const uint32_t *below = (const uint32_t *)(state + s.below);

	if (x->mean == KV_CUDA_MEAN_ALL)
		return (float)(sum / seen);
	return (float)((sum - (double)chosen) / (seen - below[query]));
}

static __device__ float head_alpha(const struct attend *a, uint32_t h, bool *ret_all)
{
	const struct kv_cuda_item *x = a->w.x;
	struct kv_cuda_state s = kv_cuda_state_of(x, a->w.s->dim);
	const char *state = (const char *)(a->w.p->scratch + x->state + a->w.head * x->state_bytes);
	uint32_t query = h / a->w.s->group;

	*ret_all = ((const uint32_t *)(state + s.below))[query] == cuda_limit(x, query);
	return ((const float *)(state + s.alpha))[h];
}

/* A head, by one warp. */
static __device__ void join_head(const struct attend *a, uint32_t h, float *by, uint8_t *out)
{
	const struct kv_cuda_item *x = a->w.x;
	uint32_t dim = a->w.s->dim, lane = threadIdx.x % 32, query = h / a->w.s->group;
	float max, sum = weigh_shares(a, h, by, &max), alpha = 1;
	float *y = (float *)(out + kv_cuda_y_at(x->heads)) + h * dim;
	bool all = true;

	if (x->sums)
		alpha = head_alpha(a, h, &all);
	for (uint32_t c = lane; c < dim; c += 32) {
		float value = sum > 0 ? join_channel(a, h, c, by) / sum : 0;

		if (!all) {
			float chosen = 0;

			for (uint32_t i = 0; i < x->shares; i++)
				chosen += partial_of(a, i, x->heads + query)[2 + c];
			value = fmaf(alpha, value, (1 - alpha) * mean_of(a, query, c, chosen));
		}
		y[a->w.table ? a->w.table->v[c] : c] = value;
	}
	if (lane == 0)
		((float *)(out + kv_cuda_lse_at()))[h] = sum > 0 ? max + logf(sum) : -INFINITY;
	__syncwarp();
}

static __device__ void join_shares(const struct attend *a, uint32_t first, uint32_t end)
{
	const struct kv_cuda_item *x = a->w.x;
	uint8_t *out = (uint8_t *)(a->w.p->output + x->output + a->w.head * x->output_bytes);
	uint32_t warp = threadIdx.x / 32;
	float *by = (float *)(a->shared + a->stage.stages_at) + warp * KV_CUDA_MAX_SHARES;

	for (uint32_t h = first + warp; h < end; h += KV_CUDA_WARPS)
		join_head(a, h, by, out);
}
