/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of one KV head, when all its scores were made: bounds by the block that
 * came last of them, then the units that may have a row to choose, by the same block or a
 * launch of its own, whose last block ends it.
 *
 * Near units (choose-bound.cu) are scored again by the same code, so their scores
 * are the same bits, and only rows above the bound go on: some hundred. Of those the
 * k-th key is found by counting its bytes, and ties go to the lower row.
 */

#include "kernels/cuda/choose-bound.cu"

/* ---- candidates ----------------------------------------------------------------------------- */

/* Scores near unit `i` again, by a warp and the heads whose coefficients there are. */
static __device__ void score_near(const struct chooser *c, uint32_t i, float rank[8])
{
	uint32_t unit = state_at<const uint32_t>(c, c->at.near_at)[i], u = unit / 16;
	float *scores = state_at<float>(c, c->at.scores) +
			(uint64_t)i * c->x->heads * KV_CUDA_UNIT_ROWS + threadIdx.x % 32 * 8;

	for (uint32_t head = c->s->first; head < heads_end(c->s); head += 4) {
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
}

/* Its rows above the bound, in their order. */
static __device__ void list_candidates(const struct chooser *c, uint32_t i, const float rank[8])
{
	uint32_t unit = state_at<const uint32_t>(c, c->at.near_at)[i], u = unit / 16;
	uint32_t lane = threadIdx.x % 32, first = c->s->w.unit[u].first_row + lane * 8, at;
	uint32_t in = 0;

	for (uint32_t k = 0; k < 8; k++)
		if (lane * 8 + k < c->s->w.unit[u].rows && (unit >> lane / 8 & 1) &&
		    is_ranked(c->x, first + k) && key_of(rank[k]) >= c->least)
			in |= 1u << k;
	at = __popc(in);
	for (uint32_t o = 1; o < 32; o *= 2) {
		uint32_t other = __shfl_sync(CUDA_ALL, at, lane - o);

		at += lane >= o ? other : 0;
	}
	if (lane == 31)
		state_at<uint32_t>(c, c->at.found)[i] = at;
	at += i * KV_CUDA_UNIT_ROWS - __popc(in);
	for (uint32_t k = 0; k < 8; k++)
		if (in >> k & 1) {
			state_at<int>(c, c->at.key[0])[at] = key_of(rank[k]);
			state_at<uint32_t>(c, c->at.row[0])[at++] =
				i * KV_CUDA_UNIT_ROWS + lane * 8 + k;
		}
}

/* A near unit a warp, as in score_round. */
static __device__ void near_round(const struct chooser *c, uint32_t i)
{
	float rank[8] = { 0 };

	for (uint32_t head = 0; head < c->x->heads; head += KV_CUDA_SCORE_HEADS) {
		if (c->s->first != head)
			make_coefficients(c->s, head);
		if (i < c->n_near)
			score_near(c, i, rank);
	}
	if (i < c->n_near)
		list_candidates(c, i, rank);
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
			      0, &ties);
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

static __device__ struct chooser chooser_of(struct scoring *s)
{
	struct chooser c;

	c.s = s;
	c.x = s->w.x;
	c.at = kv_cuda_state_of(c.x, s->w.s->dim);
	c.state = state_of(&s->w);
	c.word = (uint32_t *)(s->shared + s->at.more);
	c.lse = state_at<float>(&c, c.at.lse);
	return c;
}

/* By one block, when all is scored. */
static __device__ void find_bound(struct scoring *s)
{
	struct chooser c = chooser_of(s);
	int *bound = state_at<int>(&c, c.at.bound);

	c.n_near = 0;
	c.least = INT32_MIN;
	__syncthreads();
	for (uint32_t h = threadIdx.x / 32; h < c.x->heads; h += KV_CUDA_WARPS)
		reduce_head(&c, h);
	__syncthreads();
	if (c.x->k) {
		c.least = bound_groups(&c);
		list_near(&c, c.least);
	}
	if (threadIdx.x == 0) {
		bound[0] = c.least;
		bound[1] = (int)c.n_near;
	}
	__syncthreads();
}

/* By the block that comes last, when all candidates are listed. */
static __device__ void end_choice(const struct chooser *c)
{
	struct lists l = list_rows(c, c->n_near ? pack(c) : 0);

	for (uint32_t h = threadIdx.x / 32; h < c->x->heads; h += KV_CUDA_WARPS)
		find_alpha(c, &l, h);
	__syncthreads();
	say(c, &l);
}

/* Part `part` of as many: near units in turn, four at a time. */
static __device__ void choose(struct scoring *s, uint32_t part, uint32_t parts)
{
	struct chooser c = chooser_of(s);
	uint32_t warp = threadIdx.x / 32;

	c.least = state_at<const int>(&c, c.at.bound)[0];
	c.n_near = (uint32_t)state_at<const int>(&c, c.at.bound)[1];
	for (uint32_t i = part * KV_CUDA_WARPS; i < c.n_near; i += parts * KV_CUDA_WARPS)
		near_round(&c, i + warp);
	__syncthreads();
	if (parts == 1 || comes_last(counter_of(&s->w, KV_CUDA_COUNT_CHOICE), parts, c.word))
		end_choice(&c);
}
