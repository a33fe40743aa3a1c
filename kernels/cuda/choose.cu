/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of one KV head, by one block, when all its scores were made.
 *
 * Which 64 rows may have one to choose follows from bounds, as in exec-rank.c: a
 * group's rank is at least that of its good row and at most the sum of its heads'
 * largest; k groups have a row above the k-th largest lower bound. The units of the
 * others are passed over, near ones are scored again by the same code, so their scores
 * are the same bits, and only rows above the bound go on: some hundred. Of those the
 * k-th key is found by counting its bytes, and ties go to the lower row.
 */

#define CHOOSE_SLACK 1e-3f /* of fast exponentials and of sums in another order */
#define RADIX 256u

struct chooser {
	const struct scoring *s;
	const struct kv_cuda_item *x;
	struct kv_cuda_state at;
	char *state;
	uint32_t *word; /* shared: [16] of the block's sums, then [RADIX] counts */
	float *lse;     /* shared: [heads] */
	uint32_t n_near;
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

/* Of n >= k keys; how many of the equal ones belong to the k. */
static __device__ int kth_key(const struct chooser *c, const int *key, uint32_t n, uint32_t k,
			      uint32_t *ret_ties)
{
	uint32_t *count = c->word + 16, prefix = 0, mask = 0;

	for (int shift = 24; shift >= 0; shift -= 8) {
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
	return all < c->x->k ? INT32_MIN : kth_key(c, lower, n, c->x->k, &ties);
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

/* ---- candidates ----------------------------------------------------------------------------- */

/* Scores near unit i again, by a warp: its rows above the bound, in their order. */
static __device__ void score_again(const struct chooser *c, uint32_t i, int least)
{
	uint32_t unit = state_at<const uint32_t>(c, c->at.near_at)[i], u = unit / 16;
	uint32_t lane = threadIdx.x % 32, first = c->s->w.unit[u].first_row + lane * 8, n = 0, at;
	float *scores = state_at<float>(c, c->at.scores) +
			(uint64_t)i * c->x->heads * KV_CUDA_UNIT_ROWS + lane * 8;
	float rank[8] = { 0 };

	for (uint32_t head = 0; head < c->x->heads; head += 4) {
		float a[4][8];

		score_four(c->s, u, head, unit & 15, a);
#pragma unroll
		for (uint32_t h = 0; h < 4; h++)
#pragma unroll
			for (int k = 0; k < 8; k++)
				if (head + h < c->x->heads) {
					scores[(head + h) * KV_CUDA_UNIT_ROWS + k] = a[h][k];
					if (c->x->softmax)
						rank[k] += cuda_exp_near(a[h][k], c->lse[head + h]);
				}
		if (!c->x->softmax)
			add_ranks(c->s, u, head, a, rank);
	}
	for (uint32_t k = 0; k < 8; k++) {
		bool in = lane * 8 + k < c->s->w.unit[u].rows && (unit >> lane / 8 & 1);

		in = in && is_ranked(c->x, first + k) && key_of(rank[k]) >= least;
		rank[k] = in ? rank[k] : INFINITY * 0;
		n += in;
		if (in)
			n |= 1u << (8 + k);
	}
	at = n & 255;
	for (uint32_t o = 1; o < 32; o *= 2) {
		uint32_t other = __shfl_sync(CUDA_ALL, at, lane - o);

		at += lane >= o ? other : 0;
	}
	if (lane == 31)
		state_at<uint32_t>(c, c->at.found)[i] = at;
	at += i * KV_CUDA_UNIT_ROWS - (n & 255);
	for (uint32_t k = 0; k < 8; k++)
		if (n >> (8 + k) & 1) {
			state_at<int>(c, c->at.key[0])[at] = key_of(rank[k]);
			state_at<uint32_t>(c, c->at.row[0])[at++] =
				i * KV_CUDA_UNIT_ROWS + lane * 8 + k;
		}
}

/* All candidates one after the other; how many. */
static __device__ uint32_t pack(const struct chooser *c)
{
	const uint32_t *found = state_at<const uint32_t>(c, c->at.found);
	uint32_t *start = state_at<uint32_t>(c, c->at.start), n = 0, all;

	for (uint32_t first = 0; first < c->n_near; first += KV_CUDA_THREADS) {
		uint32_t i = first + threadIdx.x;
		uint32_t at = block_scan(c, i < c->n_near ? found[i] : 0, &all);

		if (i < c->n_near)
			start[i] = n + at;
		n += all;
	}
	__syncthreads();
	for (uint32_t i = threadIdx.x / 32; i < c->n_near; i += KV_CUDA_WARPS)
		for (uint32_t j = threadIdx.x % 32; j < found[i]; j += 32) {
			uint32_t from = i * KV_CUDA_UNIT_ROWS + j;

			state_at<int>(c, c->at.key[1])[start[i] + j] =
				state_at<const int>(c, c->at.key[0])[from];
			state_at<uint32_t>(c, c->at.row[1])[start[i] + j] =
				state_at<const uint32_t>(c, c->at.row[0])[from];
		}
	__syncthreads();
	return n;
}

/* ---- lists -------------------------------------------------------------------------------------
 */

struct lists {
	uint32_t n[2], chosen; /* of tiles, as sent; those that the choice brought */
};

static __device__ bool is_fixed(const struct kv_cuda_item *x, uint32_t row)
{
	for (uint32_t i = 0; i < x->n_runs; i++)
		if (row - x->run[i].first < x->run[i].n)
			return true;
	return false;
}

static __device__ void mark_tile(const struct chooser *c, uint32_t u, uint32_t row)
{
	uint32_t tile = u * 2 + row / 128;

	atomicOr(state_at<uint32_t>(c, c->at.tiles) + tile / 32, 1u << tile % 32);
}

static __device__ bool unit_sent(const struct chooser *c, uint32_t u)
{
	return cuda_array<const struct kv_cuda_block>(c->s->w.p,
						      c->s->w.p->blocks)[c->s->w.unit[u].block]
		.sent;
}

/* Candidates [first, first + threads), in their order: the k best, without those chosen anyway. */
static __device__ void list_some(const struct chooser *c, uint32_t i, uint32_t n, int kth,
				 uint32_t *ties, struct lists *l)
{
	int key = i < n ? state_at<const int>(c, c->at.key[1])[i] : INT32_MIN;
	uint32_t at = i < n ? state_at<const uint32_t>(c, c->at.row[1])[i] : 0;
	uint32_t u = state_at<const uint32_t>(c, c->at.near_at)[at / KV_CUDA_UNIT_ROWS] / 16;
	uint32_t in_unit = at % KV_CUDA_UNIT_ROWS, row = c->s->w.unit[u].first_row + in_unit;
	bool tie = i < n && key == kth, sent = unit_sent(c, u), in;
	uint32_t before, all, places[2];

	before = block_scan(c, tie, &all);
	in = i < n && (key > kth || (tie && before < *ties)) && !is_fixed(c->x, row);
	*ties -= all < *ties ? all : *ties;
	before = block_scan(c, in, &all);
	if (in)
		state_at<uint32_t>(c, c->at.chosen)[l->chosen + before] = at;
	l->chosen += all;
	for (uint32_t of = 0; of < 2; of++) {
		places[of] = l->n[of] + block_scan(c, in && sent == (of == 1), &all);
		l->n[of] += all;
	}
	if (!in)
		return;
	state_at<uint32_t>(c, c->at.list[sent])[places[sent]] = u * KV_CUDA_UNIT_ROWS + in_unit;
	if (!sent)
		mark_tile(c, u, in_unit);
	for (uint32_t q = 0; q < c->x->n_q; q++)
		if (row < cuda_limit(c->x, q))
			atomicAdd(state_at<uint32_t>(c, c->at.below) + q, 1);
}

/* A unit's rows that are chosen anyway. */
static __device__ void list_fixed(const struct chooser *c, uint32_t u)
{
	const struct kv_cuda_unit *unit = &c->s->w.unit[u];

	for (uint32_t i = 0; i < c->x->n_runs; i++) {
		const struct kv_cuda_run *run = &c->x->run[i];
		uint32_t first = run->first > unit->first_row ? run->first : unit->first_row;
		uint32_t end = run->first + run->n;
		uint32_t *list = state_at<uint32_t>(c, c->at.list[run->sent]) + run->at;

		end = end < unit->first_row + unit->rows ? end : unit->first_row + unit->rows;
		for (uint32_t row = first; row < end; row++) {
			list[row - run->first] = u * KV_CUDA_UNIT_ROWS + row - unit->first_row;
			if (!run->sent)
				mark_tile(c, u, row - unit->first_row);
		}
	}
}

static __device__ uint32_t fixed_below(const struct kv_cuda_item *x, uint32_t limit)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < x->n_runs; i++)
		if (x->run[i].first < limit)
			n += limit - x->run[i].first < x->run[i].n ? limit - x->run[i].first
								   : x->run[i].n;
	return n;
}

static __device__ struct lists list_rows(const struct chooser *c, uint32_t n)
{
	struct lists l = { { c->x->fixed - c->x->fixed_sent, c->x->fixed_sent }, 0 };
	uint32_t words = c->x->n_units * 2 / 32 + 1, ties = 0;
	int kth = INT32_MAX;

	for (uint32_t i = threadIdx.x; i < words; i += KV_CUDA_THREADS)
		state_at<uint32_t>(c, c->at.tiles)[i] = 0;
	for (uint32_t q = threadIdx.x; q < c->x->n_q; q += KV_CUDA_THREADS)
		state_at<uint32_t>(c, c->at.below)[q] = fixed_below(c->x, cuda_limit(c->x, q));
	__syncthreads();
	for (uint32_t u = threadIdx.x; u < c->x->n_units; u += KV_CUDA_THREADS)
		list_fixed(c, u);
	if (n)
		kth = kth_key(c, state_at<const int>(c, c->at.key[1]), n, n < c->x->k ? n : c->x->k,
			      &ties);
	for (uint32_t first = 0; first < n; first += KV_CUDA_THREADS)
		list_some(c, first + threadIdx.x, n, kth, &ties, &l);
	if (threadIdx.x < 2)
		state_at<uint32_t>(c, c->at.n)[threadIdx.x] = l.n[threadIdx.x];
	__syncthreads();
	return l;
}

/* ---- what is said of it
 * -------------------------------------------------------------------------- */

/* What part of the approximate mass the selected rows hold, by a warp. */
static __device__ void find_alpha(const struct chooser *c, const struct lists *l, uint32_t h)
{
	const float *fixed = state_at<const float>(c, c->at.fixed) + (uint64_t)h * c->x->fixed;
	const float *scores = state_at<const float>(c, c->at.scores);
	uint32_t lane = threadIdx.x % 32, query = h / c->s->w.s->group;
	float sum = 0, top = -INFINITY;

	for (uint32_t i = lane; i < c->x->fixed; i += 32) {
		sum += cuda_exp(fixed[i] - c->lse[h]);
		top = fmaxf(top, fixed[i]);
	}
	for (uint32_t i = lane; i < l->chosen; i += 32) {
		uint32_t at = state_at<const uint32_t>(c, c->at.chosen)[i];
		uint64_t of = (uint64_t)(at / KV_CUDA_UNIT_ROWS) * c->x->heads + h;
		float a = scores[of * KV_CUDA_UNIT_ROWS + at % KV_CUDA_UNIT_ROWS];

		sum += cuda_exp(a - c->lse[h]);
		top = fmaxf(top, a);
	}
	sum = warp_sum(sum);
	sum = warp_max(top) == INFINITY ? 0 : sum; /* as relative to it nothing is left */
	if (state_at<const uint32_t>(c, c->at.below)[query] == cuda_limit(c->x, query) ||
	    !(sum < 1))
		sum = 1;
	if (lane == 0)
		state_at<float>(c, c->at.alpha)[h] = sum;
}

static __device__ void say(const struct chooser *c, const struct lists *l)
{
	const struct kv_cuda_item *x = c->x;
	struct kv_cuda_said *said = (struct kv_cuda_said *)(c->s->w.p->output + x->output +
							    c->s->w.head * x->output_bytes);
	const float *alpha = state_at<const float>(c, c->at.alpha);
	uint32_t words = x->n_units * 2 / 32 + 1, mine = 0, tiles;

	for (uint32_t i = threadIdx.x; i < words; i += KV_CUDA_THREADS)
		mine += __popc(state_at<const uint32_t>(c, c->at.tiles)[i]);
	block_scan(c, mine, &tiles);
	if (threadIdx.x)
		return;
	said->n_selected = l->n[0] + l->n[1];
	said->sealed = l->n[0];
	said->tiles = tiles;
	said->outliers = c->s->outliers;
	said->alpha_min = alpha[0];
	said->alpha_sum = 0;
	for (uint32_t h = 0; h < x->heads; h++) {
		said->alpha_min = alpha[h] < said->alpha_min ? alpha[h] : said->alpha_min;
		said->alpha_sum += (double)alpha[h];
	}
}

static __device__ void choose(const struct scoring *s)
{
	uint32_t warp = threadIdx.x / 32, n = 0;
	struct chooser c;
	struct lists l;

	c.s = s;
	c.x = s->w.x;
	c.at = kv_cuda_state_of(c.x, s->w.s->dim);
	c.state = state_of(&s->w);
	c.word = (uint32_t *)(s->shared + s->at.more);
	c.lse = (float *)(c.word + 16 + RADIX);
	c.n_near = 0;
	__syncthreads();
	for (uint32_t h = warp; h < c.x->heads; h += KV_CUDA_WARPS)
		reduce_head(&c, h);
	__syncthreads();
	if (c.x->k) {
		int least = bound_groups(&c);

		list_near(&c, least);
		for (uint32_t i = warp; i < c.n_near; i += KV_CUDA_WARPS)
			score_again(&c, i, least);
		__syncthreads();
		n = pack(&c);
	}
	l = list_rows(&c, n);
	for (uint32_t h = warp; h < c.x->heads; h += KV_CUDA_WARPS)
		find_alpha(&c, &l, h);
	__syncthreads();
	say(&c, &l);
}
