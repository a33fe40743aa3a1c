/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which 64 rows may have one to choose, by one block: it follows from bounds, as in
 * exec-rank.c. A group's rank is at least that of its good row and at most the sum of
 * its heads' largest; k groups have a row above the k-th largest lower bound. The units
 * of the others are passed over.
 */

#define CHOOSE_SLACK 1e-3f /* of fast exponentials and of sums in another order */
#define RADIX 256u
#define BOUND_BITS 16 /* of a bound's key that are left out: two walks over the groups less */

struct chooser {
	struct scoring *s;
	const struct kv_cuda_item *x;
	struct kv_cuda_state at;
	char *state;
	uint32_t *word; /* shared: [16] of the block's sums, then [RADIX] counts */
	float *lse;     /* [heads] */
	uint32_t n_near;
	int least;
};

template <typename T>
static __device__ __forceinline__ T *state_at(const struct chooser *c, uint64_t at)
{
	return (T *)(c->state + at);
}

/* The sum of x over the threads before this one; of all threads. */
static __device__ uint32_t block_scan(const struct chooser *c, uint32_t x, uint32_t *ret_all)
{
	uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, sum = x, before = 0, all = 0;

	for (uint32_t o = 1; o < 32; o *= 2) {
		uint32_t other = __shfl_sync(CUDA_ALL, sum, lane - o);

		sum += lane >= o ? other : 0;
	}
	__syncthreads();
	if (lane == 31)
		c->word[warp] = sum;
	__syncthreads();
	for (uint32_t w = 0; w < KV_CUDA_WARPS; w++) {
		before += w < warp ? c->word[w] : 0;
		all += c->word[w];
	}
	*ret_all = all;
	return before + sum - x;
}

/* ---- the k-th key ------------------------------------------------------------------------- */

/* The bin that the k-th largest is in, by one warp: 8 bins a lane, from above. What remains of k,
 * and the bin, to word[4] and word[5]. */
static __device__ void find_bin(const struct chooser *c, const uint32_t *count, uint32_t k)
{
	uint32_t lane = threadIdx.x, sum = 0, upto;

	for (uint32_t i = 0; i < RADIX / 32; i++)
		sum += count[RADIX - 1 - (lane * (RADIX / 32) + i)];
	upto = sum;
	for (uint32_t o = 1; o < 32; o *= 2) {
		uint32_t other = __shfl_sync(CUDA_ALL, upto, lane - o);

		upto += lane >= o ? other : 0;
	}
	if (upto < k || upto - sum >= k)
		return;
	k -= upto - sum;
	for (uint32_t i = 0; i < RADIX / 32; i++) {
		uint32_t bin = RADIX - 1 - (lane * (RADIX / 32) + i);

		if (count[bin] >= k) {
			c->word[4] = k;
			c->word[5] = bin;
			return;
		}
		k -= count[bin];
	}
}

/* Of n >= k keys; how many of the equal ones belong to the k. With `last` > 0 that many of its bits
 * are not looked for: the least key that begins as it does. */
static __device__ int kth_key(const struct chooser *c, const int *key, uint32_t n, uint32_t k,
			      int last, uint32_t *ret_ties)
{
	uint32_t *count = c->word + 16, prefix = 0, mask = 0;

	for (int shift = 24; shift >= last; shift -= 8) {
		for (uint32_t i = threadIdx.x; i < RADIX; i += KV_CUDA_THREADS)
			count[i] = 0;
		__syncthreads();
		for (uint32_t i = threadIdx.x; i < n; i += KV_CUDA_THREADS) {
			uint32_t bits = (uint32_t)key[i] ^ 0x80000000;

			if ((bits & mask) == prefix)
				atomicAdd(&count[bits >> shift & 255], 1);
		}
		__syncthreads();
		if (threadIdx.x < 32)
			find_bin(c, count, k);
		__syncthreads();
		k = c->word[4];
		prefix |= c->word[5] << shift;
		mask |= 255u << shift;
	}
	__syncthreads();
	*ret_ties = k;
	return (int)(prefix ^ 0x80000000);
}

/* ---- bounds -------------------------------------------------------------------------------- */

/* A head's lse over all rows that it sees, by a warp. */
static __device__ void reduce_head(const struct chooser *c, uint32_t h)
{
	const float *ref = state_at<const float>(c, c->at.ref) + h * 2;
	uint32_t lane = threadIdx.x % 32, step = c->x->heads * 2;
	float top = -INFINITY;
	double all = 0;

	for (uint32_t u = lane; u < c->x->n_units; u += 32)
		if (ref[(uint64_t)u * step + 1] > 0)
			top = fmaxf(top, ref[(uint64_t)u * step]);
	top = warp_max(top);
	for (uint32_t u = lane; u < c->x->n_units; u += 32) {
		const float *r = ref + (uint64_t)u * step;

		if (r[1] > 0)
			all += exp((double)(r[0] - top)) * (double)r[1];
	}
	all = warp_sum_double(all);
	if (lane == 0)
		c->lse[h] = top == -INFINITY ? top : (float)((double)top + log(all));
}

static __device__ bool has_ranked(const struct chooser *c, uint32_t group)
{
	const struct kv_cuda_unit *u = &c->s->w.unit[group / KV_CUDA_UNIT_GROUPS];
	uint32_t from = group % KV_CUDA_UNIT_GROUPS * KV_CUDA_GROUP_ROWS, to = from;

	to = from + KV_CUDA_GROUP_ROWS < u->rows ? from + KV_CUDA_GROUP_ROWS : u->rows;
	return from < to && u->first_row + from < c->x->rank_end &&
	       u->first_row + to > c->x->rank_first;
}

static __device__ void bound_group(const struct chooser *c, uint32_t g, float *ret_lower,
				   float *ret_upper)
{
	const float *top = state_at<const float>(c, c->at.top) + (uint64_t)g * c->x->heads;
	const float *best = state_at<const float>(c, c->at.best) + (uint64_t)g * c->x->heads;
	float lower = 0, upper = 0;

	if (!c->x->softmax) {
		float rank = state_at<const float>(c, c->at.rank)[g];

		*ret_lower = rank - fabsf(rank) * 1e-5f;
		*ret_upper = rank + fabsf(rank) * 1e-5f;
		return;
	}
	for (uint32_t h = 0; h < c->x->heads; h++) {
		lower += cuda_exp_near(best[h], c->lse[h]);
		upper += cuda_exp_near(top[h], c->lse[h]);
	}
	*ret_lower = lower * (1 - CHOOSE_SLACK);
	*ret_upper = upper * (1 + CHOOSE_SLACK);
}

/* The key that k rows reach for sure. */
static __device__ int bound_groups(const struct chooser *c)
{
	int *lower = state_at<int>(c, c->at.lower), *upper = state_at<int>(c, c->at.upper);
	uint32_t n = c->x->n_units * KV_CUDA_UNIT_GROUPS, mine = 0, all, ties;

	for (uint32_t g = threadIdx.x; g < n; g += KV_CUDA_THREADS) {
		float low, high;

		lower[g] = INT32_MIN;
		if (!has_ranked(c, g))
			continue;
		bound_group(c, g, &low, &high);
		lower[g] = key_of(low);
		upper[g] = key_of(high);
		mine += lower[g] > key_of(-INFINITY);
	}
	block_scan(c, mine, &all);
	__syncthreads();
	return all < c->x->k ? INT32_MIN : kth_key(c, lower, n, c->x->k, BOUND_BITS, &ties);
}

/* Lists the units that have a group above the bound, ascending. */
static __device__ void list_near(struct chooser *c, int least)
{
	const int *upper = state_at<const int>(c, c->at.upper);
	uint32_t *near_at = state_at<uint32_t>(c, c->at.near_at), all;

	c->n_near = 0;
	for (uint32_t first = 0; first < c->x->n_units; first += KV_CUDA_THREADS) {
		uint32_t u = first + threadIdx.x, mask = 0, at;

		for (uint32_t i = 0; i < KV_CUDA_UNIT_GROUPS && u < c->x->n_units; i++) {
			uint32_t g = u * KV_CUDA_UNIT_GROUPS + i;

			if (has_ranked(c, g) && upper[g] >= least)
				mask |= 1u << i;
		}
		at = block_scan(c, mask != 0, &all);
		if (mask)
			near_at[c->n_near + at] = u * 16 | mask;
		c->n_near += all;
	}
	__syncthreads();
}
