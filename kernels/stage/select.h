/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The k largest of n, exactly. Numbers are ordered by a key (an integer that
 * sorts like the float: -0 equals 0, NaN below -inf), equal keys by index.
 *
 * 1. The maximum of each group of 64. The k groups with the largest maxima (of
 *    equal ones the lower) hold the answer: whatever lies outside them is
 *    beaten by k maxima. So only k groups are looked at again.
 * 2. Candidates above a threshold are gathered in order. When the buffer is
 *    full it is cut to its k largest and the threshold rises to the least of
 *    them; a later equal one loses to all of those, so it must be exceeded.
 *
 * The cut finds the k-th key by bisection over its bits: no data-dependent
 * branch, no sort, and the survivors stay in order. Up to SELECT_FEW numbers,
 * which are in the cache, are bisected as they are.
 */
#pragma once

#include "kernels/codec.h"

#define SELECT_GROUP KV_GROUP_ROWS
#define SELECT_FEW 16384u

struct select {
	const float *c;
	uint32_t k, n, room;
	int32_t least; /* candidates have at least this key */
	uint32_t *index;
	int32_t *key;
};

KV_FN int32_t select_key(float x)
{
	int32_t bits = (int32_t)kv_bits(x + 0.0f); /* -0 becomes 0 */

	if (x != x)
		return INT32_MIN;
	return bits ^ ((bits >> 31) & INT32_MAX);
}

/* The float whose comparison passes at least all keys >= least, or NaN: everything passes. */
KV_FN float select_float(int32_t least)
{
	int32_t bits = least ^ ((least >> 31) & INT32_MAX);

	return least <= select_key(-INFINITY) ? NAN : kv_float((uint32_t)bits);
}

static uint32_t select_count(const int32_t *key, uint32_t n, int32_t least)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < n; i++)
		count += key[i] >= least;
	return count;
}

/* The largest key that at least k of the candidates reach. */
static int32_t select_kth(const struct select *s)
{
	int64_t low = INT32_MIN, high = (int64_t)INT32_MAX + 1;

	while (high - low > 1) {
		int64_t mid = low + (high - low) / 2;

		if (select_count(s->key, s->n, (int32_t)mid) >= s->k)
			low = mid;
		else
			high = mid;
	}
	return (int32_t)low;
}

/* Keeps the k largest of the candidates; of equal ones the first. */
static void select_cut(struct select *s)
{
	int32_t kth;
	uint32_t ties, n = 0;

	if (s->n <= s->k)
		return;
	kth = select_kth(s);
	ties = s->k - (kth == INT32_MAX ? 0 : select_count(s->key, s->n, kth + 1));
	for (uint32_t i = 0; i < s->n; i++) {
		bool tie = s->key[i] == kth && ties > 0;

		if (!tie && s->key[i] <= kth)
			continue;
		ties -= tie;
		s->index[n] = s->index[i];
		s->key[n++] = s->key[i];
	}
	s->n = n;
	s->least = kth == INT32_MAX ? kth : kth + 1;
}

/* Candidates of c[first..end), ascending. */
static void select_gather(struct select *s, uint32_t first, uint32_t end)
{
	for (uint32_t i = first; i < end; i += VL) {
		float least = select_float(s->least);
		uint32_t lanes = end - i >= VL ? VL : end - i;
		uint32_t mask = lanes == 32 ? UINT32_MAX : (1u << lanes) - 1;

		if (lanes == VL && least == least)
			mask = vf_ge(vf_load(s->c + i), vf_set(least));
		for (; mask; mask &= mask - 1) {
			uint32_t at = i + (uint32_t)__builtin_ctz(mask);
			int32_t key = select_key(s->c[at]);

			if (key < s->least)
				continue;
			if (s->n == s->room)
				select_cut(s);
			if (key < s->least)
				continue;
			s->index[s->n] = at;
			s->key[s->n++] = key;
		}
	}
}

/* The largest number of each group, -inf if there is none. */
static void select_maxima(const float *c, uint32_t n, float *ret_max)
{
	for (uint32_t g = 0; g * SELECT_GROUP < n; g++) {
		const float *from = c + g * SELECT_GROUP;
		uint32_t m = MIN(n - g * SELECT_GROUP, SELECT_GROUP);
		vf top[2] = { vf_set(-INFINITY), vf_set(-INFINITY) };

		if (m == SELECT_GROUP) {
			KV_EACH (i, SELECT_GROUP / VL)
				top[i & 1] = vf_max(vf_load(from + i * VL), top[i & 1]);
			ret_max[g] = vf_top(vf_max(top[0], top[1]));
			continue;
		}
		ret_max[g] = -INFINITY;
		for (uint32_t i = 0; i < m; i++)
			ret_max[g] = from[i] > ret_max[g] ? from[i] : ret_max[g];
	}
}

/* The least key that was kept. */
static int32_t select_least(const struct select *s)
{
	int32_t least = INT32_MAX;

	for (uint32_t i = 0; i < s->n; i++)
		least = MIN(least, s->key[i]);
	return least;
}

KV_FN float select_number(int32_t key)
{
	return kv_float((uint32_t)(key ^ ((key >> 31) & INT32_MAX)));
}

/* How many numbers are at least x; `equal`: at most as well. */
static uint32_t select_reach(const float *c, uint32_t n, float x, bool equal)
{
	vf at = vf_set(x);
	uint32_t count = 0, i = 0;

	for (; i + VL <= n; i += VL) {
		vf v = vf_load(c + i);
		uint32_t mask = equal ? vf_ge(at, v) : UINT32_MAX;

		count += (uint32_t)__builtin_popcount(vf_ge(v, at) & mask);
	}
	for (; i < n; i++)
		count += c[i] >= x && (!equal || x >= c[i]);
	return count;
}

/* The k-th key of n > k numbers; less than that of -inf: there are not so many numbers. Where the
 * thread takes denormals for zero, they are compared as zeros here. */
static int32_t select_kth_of(const float *c, uint32_t n, uint32_t k)
{
	int64_t low = (int64_t)select_key(-INFINITY) - 1, high = (int64_t)select_key(INFINITY) + 1;

	while (high - low > 1) {
		int64_t mid = low + (high - low) / 2;

		if (select_reach(c, n, select_number((int32_t)mid), false) >= k)
			low = mid;
		else
			high = mid;
	}
	return (int32_t)low;
}

/* All above x, the k-th number, and of those that equal it the first. */
static uint32_t select_few(const float *c, uint32_t n, uint32_t k, float x, uint32_t *ret_index)
{
	uint32_t above = select_reach(c, n, x, false) - select_reach(c, n, x, true);
	uint32_t ties = k - above, found = 0;

	for (uint32_t i = 0; i < n; i += VL) {
		uint32_t lanes = MIN(n - i, (uint32_t)VL), mask = (1u << lanes) - 1;

		if (lanes == VL)
			mask = vf_ge(vf_load(c + i), vf_set(x));
		for (; mask; mask &= mask - 1) {
			uint32_t row = i + (uint32_t)__builtin_ctz(mask);
			bool tie = x >= c[row];

			if (!(c[row] >= x) || (tie && ties == 0))
				continue;
			ties -= tie;
			ret_index[found++] = row;
		}
	}
	return found;
}

/* Only those from `least` up, if k are. */
static bool select_above(struct select *s, uint32_t n, float least, uint32_t *ret_index)
{
	s->least = select_key(least);
	select_gather(s, 0, n);
	if (s->n < s->k)
		return false;
	select_cut(s);
	memcpy(ret_index, s->index, s->n * sizeof(*ret_index));
	return true;
}

/* Where less than k groups have a number above -inf, every row is looked at: the argument of
 * the title needs numbers. */
static uint32_t op_topk(const float *c, uint32_t n, uint32_t k, float least, uint32_t *ret_index,
			void *tmp)
{
	uint32_t groups = n / SELECT_GROUP, *word = tmp;
	uint32_t words = groups + 2 * k + 64;
	struct select s = { c, MIN(k, n), 0, words / 2, INT32_MIN, word, NULL };
	uint32_t from = 0;

	s.key = (int32_t *)word + s.room;
	if (s.k == 0)
		return 0;
	if (least > -INFINITY && select_above(&s, n, least, ret_index))
		return s.k;
	s.n = 0;
	s.least = INT32_MIN;
	if (n > k && n <= SELECT_FEW) {
		int32_t kth = select_kth_of(c, n, k);

		if (kth >= select_key(-INFINITY))
			return select_few(c, n, k, select_number(kth), ret_index);
	}
	if (groups > k) {
		struct select g = { tmp, k, 0, (words - groups) / 2, INT32_MIN, NULL, NULL };

		g.index = word + groups;
		g.key = (int32_t *)(g.index + g.room);
		select_maxima(c, groups * SELECT_GROUP, tmp);
		select_gather(&g, 0, groups);
		select_cut(&g);
		memcpy(ret_index, g.index, k * sizeof(*ret_index));
		s.least = select_least(&g);
	}
	if (s.least > select_key(-INFINITY)) {
		for (uint32_t i = 0; i < k; i++)
			select_gather(&s, ret_index[i] * SELECT_GROUP,
				      (ret_index[i] + 1) * SELECT_GROUP);
		from = groups * SELECT_GROUP;
	}
	select_gather(&s, from, n);
	select_cut(&s);
	memcpy(ret_index, s.index, s.n * sizeof(*ret_index));
	return s.n;
}
