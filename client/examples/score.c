/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows of all texts are lanes of one batch: the matrix products of a step
 * then serve all of them.
 */
#include <assert.h>
#include <errno.h>
#include <math.h>

#include "client/examples/progress.h"
#include "client/examples/score.h"
#include "client/examples/why.h"

#define VOCAB 256u /* what llama-config.c lets through */

double score_nats(const float *logits, uint32_t vocab, uint8_t next)
{
	double sum = 0;
	float most = logits[0];

	for (uint32_t i = 1; i < vocab; i++)
		most = fmaxf(most, logits[i]);
	for (uint32_t i = 0; i < vocab; i++)
		sum += exp((double)logits[i] - most);
	return most + log(sum) - logits[next];
}

/* A window of n predictions needs the byte after it as well. */
static uint32_t windows_of(const struct score_job *job, const struct text *t)
{
	uint64_t n = t->n ? (t->n - 1) / job->positions : 0;

	return (uint32_t)(job->max_windows ? MIN(n, job->max_windows) : n);
}

int score_lanes(const struct score_job *job, char *why)
{
	uint32_t lanes = 0;

	for (uint32_t i = 0; i < job->n_texts; i++) {
		uint32_t n = windows_of(job, &job->texts[i]);

		if (n == 0)
			return why_set(why, -EINVAL, "%s: %zu bytes; a window needs %u",
				       job->texts[i].name, job->texts[i].n, job->positions + 1);
		lanes += n;
	}
	if (lanes > SPARQ_MAX_ITEMS)
		return why_set(why, -E2BIG, "%u windows of %u bytes; at most %u at once", lanes,
			       job->positions, SPARQ_MAX_ITEMS);
	return (int)lanes;
}

struct lane {
	const uint8_t *bytes;
	uint32_t text;
};

static void place_lanes(const struct score_job *job, struct lane *ret)
{
	for (uint32_t i = 0; i < job->n_texts; i++) {
		const struct text *t = &job->texts[i];
		uint32_t n = windows_of(job, t);

		for (uint32_t w = 0; w < n; w++)
			*ret++ = (struct lane){ t->bytes + (size_t)w * job->positions, i };
	}
}

static int feed(struct forward *f, const struct score_job *job, const struct lane *lanes, char *why)
{
	int r = forward_restart(f, why);

	for (uint32_t i = 0; r == 0 && i < forward_lanes(f); i++)
		r = forward_feed(f, i, lanes[i].bytes, job->context, why);
	forward_take_count(f);
	return r;
}

/* nats[text] and times[text] are added to. */
static int decode(struct forward *f, const struct score_job *job, const struct lane *lanes,
		  const char *label, char *why, double *nats, uint64_t *times)
{
	const uint32_t n = forward_lanes(f);
	uint8_t bytes[SPARQ_MAX_ITEMS];

	for (uint32_t at = job->context; at < job->context + job->count; at++) {
		int r;

		for (uint32_t i = 0; i < n; i++)
			bytes[i] = lanes[i].bytes[at];
		r = forward_step(f, bytes, why);
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < n; i++) {
			const uint32_t text = lanes[i].text;

			nats[text] +=
				score_nats(forward_logits(f, i), VOCAB, lanes[i].bytes[at + 1]);
			times[text]++;
		}
		progress_tick("%s: byte %u of %u in %u windows", label, at - job->context + 1,
			      job->count, n);
	}
	return 0;
}

int score_run(struct forward *f, const struct score_job *job, const char *label, char *why,
	      struct score *ret)
{
	FREE_MEMORY struct lane *lanes = calloc(forward_lanes(f), sizeof(*lanes));
	double nats[SCORE_TEXTS] = { 0 }, start;
	uint64_t times[SCORE_TEXTS] = { 0 };
	int r;

	assert(forward_lanes(f) <= SPARQ_MAX_ITEMS && job->n_texts <= SCORE_TEXTS);
	assert(job->context + job->count <= job->positions);
	if (!lanes)
		return why_set(why, -ENOMEM, "no memory for the windows");
	place_lanes(job, lanes);
	r = feed(f, job, lanes, why);
	if (r < 0)
		return r;
	start = progress_seconds();
	r = decode(f, job, lanes, label, why, nats, times);
	if (r < 0)
		return r;
	ret->seconds = progress_seconds() - start;
	ret->count = forward_take_count(f);
	for (uint32_t i = 0; i < job->n_texts; i++)
		ret->bits_per_byte[i] = nats[i] / (double)times[i] / log(2);
	return 0;
}

int score_blocks(struct forward *f, const struct text *t, uint32_t n, uint32_t vocab, char *why,
		 double *ret)
{
	const uint32_t block = 128; /* several, so that they depend on each other */
	int r;

	if (t->n < (size_t)n + 1)
		return why_set(why, -EINVAL, "%s: %zu bytes, %u are needed", t->name, t->n, n + 1);
	r = forward_restart(f, why);
	for (uint32_t at = 0; r == 0 && at < n; at += block) {
		const uint32_t rows = MIN(block, n - at);

		r = forward_feed(f, 0, t->bytes + at, rows, why);
		for (uint32_t i = 0; r == 0 && i < rows; i++)
			ret[at + i] = score_nats(forward_logits(f, i), vocab, t->bytes[at + i + 1]);
	}
	return r;
}
