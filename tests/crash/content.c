/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that can be read back: see content.h. */
#include "tests/crash/content.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "shm/base.h"

#define WORD_BITS 32u
#define GROUP_ROWS 32u
#define VERSIONS 2048u
#define LEAST_V                                                                                    \
	16 /* so that the last bit of V in f16 is worth much more than a rounding in f32           \
	    */

/* By how much a query separates, and what is no error: of the sum of V over the set (exact), or of
 * its root mean square over the channels. */
#define SHARP_EXACT 16.0f
#define SHARP_QUANTISED 1.0f
#define ERROR_EXACT 0.004f
#define ERROR_LSE 0.003f
#define ERROR_QUANTISED 12.0f

static uint64_t mix(uint64_t z)
{
	z += 0x9e3779b97f4a7c15;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* Word number `index` of the Reed-Muller code RM(2, 5): any two differ in 8 of 32 places. */
static uint32_t code_word(uint32_t index)
{
	static const uint32_t x[5] = {
		0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0, 0xff00ff00, 0xffff0000,
	};
	uint32_t word = index & 1 ? UINT32_MAX : 0, bit = 1;

	for (unsigned i = 0; i < 5; i++)
		word ^= index >> bit++ & 1 ? x[i] : 0;
	for (unsigned i = 0; i < 5; i++)
		for (unsigned j = 0; j < i; j++)
			word ^= index >> bit++ & 1 ? x[i] & x[j] : 0;
	return word;
}

/* Two layers, or two sequences, have no row in common: another word is added to all of theirs. */
static uint32_t group_word(uint64_t key, uint32_t layer, uint32_t row)
{
	return code_word(row / GROUP_ROWS) ^ (uint32_t)mix(key ^ layer);
}

static uint32_t row_word(uint64_t key, uint32_t layer, uint32_t row, uint16_t version)
{
	return code_word(row % GROUP_ROWS | version % VERSIONS * GROUP_ROWS) ^
	       (uint32_t)(mix(key ^ layer) >> 32);
}

static void signs(uint32_t word, float size, float *ret)
{
	for (unsigned i = 0; i < WORD_BITS; i++)
		ret[i] = word >> i & 1 ? size : -size;
}

static void values(uint64_t key, uint32_t layer, uint32_t row, uint16_t version, int8_t *ret)
{
	uint64_t state = mix(key ^ layer) ^ ((uint64_t)version << 32 | row);

	for (unsigned i = 0; i < CONTENT_DIM; i += 8) {
		state = mix(state);
		for (unsigned j = 0; j < 8; j++) {
			int8_t byte = (int8_t)(state >> j * 8);

			ret[i + j] =
				(int8_t)(byte < 0 ? -LEAST_V - (byte & 63) : LEAST_V + (byte & 63));
		}
	}
}

void content_row(uint64_t key, uint32_t layer, uint32_t row, uint16_t version, float *ret)
{
	int8_t v[CONTENT_DIM];

	signs(group_word(key, layer, row), 1, ret);
	signs(row_word(key, layer, row, version), 1, ret + WORD_BITS);
	values(key, layer, row, version, v);
	for (unsigned i = 0; i < CONTENT_DIM; i++)
		ret[CONTENT_DIM + i] = v[i];
}

/* ---- sets ------------------------------------------------------------------ */

static void set_add(struct content_set *set, const int8_t *v)
{
	set->n++;
	for (unsigned i = 0; i < CONTENT_DIM; i++)
		set->sum[i] += v[i];
}

static struct content_set *set_new(struct content_sets *s, uint32_t word, bool upper)
{
	struct content_set *set = &s->set[s->n++];

	memset(set, 0, sizeof(*set));
	set->word = word;
	set->upper = upper;
	return set;
}

/* Rows a multiple of GROUP_ROWS apart, by version: rows of one age lie together, so the newest set
 * of a place mostly is the right one. */
static struct content_set *set_of_row(struct content_sets *s, uint32_t word, uint16_t *newest,
				      uint16_t *next)
{
	for (uint16_t i = *newest; i; i = next[i - 1])
		if (s->set[i - 1].word == word)
			return &s->set[i - 1];
	next[s->n] = *newest;
	*newest = (uint16_t)(s->n + 1);
	return set_new(s, word, true);
}

void content_sets(const struct content *c, struct content_sets *ret)
{
	uint16_t newest[GROUP_ROWS] = { 0 }, next[CONTENT_SETS];
	struct content_set *group = NULL;
	int8_t v[CONTENT_DIM];

	assert(c->rows <= CONTENT_MAX_ROWS);
	ret->n = 0;
	for (uint32_t row = 0; row < c->rows; row++) {
		uint32_t word = row_word(c->key, c->layer, row, c->version[row]);

		values(c->key, c->layer, row, c->version[row], v);
		if (row % GROUP_ROWS == 0)
			group = set_new(ret, group_word(c->key, c->layer, row), false);
		set_add(group, v);
		set_add(set_of_row(ret, word, &newest[row % GROUP_ROWS], next), v);
	}
}

uint32_t content_queries(const struct content_sets *s, bool exact, float *ret)
{
	uint32_t n = DIV_UP(s->n, CONTENT_HEADS);
	float size = exact ? SHARP_EXACT : SHARP_QUANTISED;

	memset(ret, 0, (size_t)n * CONTENT_HEADS * CONTENT_DIM * sizeof(*ret));
	for (uint32_t i = 0; i < s->n; i++)
		signs(s->set[i].word, size,
		      ret + (size_t)i * CONTENT_DIM + (s->set[i].upper ? WORD_BITS : 0));
	return n;
}

static bool is_right(const struct content_set *set, bool exact, const float *o, float lse)
{
	float size = exact ? SHARP_EXACT : SHARP_QUANTISED, worst = 0, squares = 0;
	float scored = size * (float)WORD_BITS * CONTENT_SCALE + logf((float)set->n);

	for (unsigned i = 0; i < CONTENT_DIM; i++) {
		float error = fabsf(o[i] * (float)set->n - (float)set->sum[i]);

		if (!isfinite(error))
			return false;
		worst = MAX(worst, error);
		squares += error * error;
	}
	if (exact)
		return worst <= ERROR_EXACT && fabsf(lse - scored) <= ERROR_LSE;
	return sqrtf(squares / CONTENT_DIM) <= ERROR_QUANTISED;
}

uint32_t content_check(const struct content_sets *s, bool exact, const float *o, const float *lse)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < s->n; i++)
		if (!is_right(&s->set[i], exact, o + (size_t)i * CONTENT_DIM, lse[i]))
			wrong += s->set[i].n;
	return wrong;
}
