/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same seed gives the same bytes for the same attention: what differs
 * between two settings comes from their attention alone.
 */
#include <errno.h>
#include <math.h>

#include "client/examples/progress.h"
#include "client/examples/sample.h"
#include "client/examples/why.h"

static double draw(uint64_t *state) /* splitmix64 */
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static uint32_t most_probable(const float *logits, uint32_t vocab)
{
	uint32_t best = 0;

	for (uint32_t i = 1; i < vocab; i++)
		if (logits[i] > logits[best])
			best = i;
	return best;
}

uint32_t sample_choose(const float *logits, uint32_t vocab, float temperature, double number)
{
	const uint32_t best = most_probable(logits, vocab);
	double sum = 0, left;

	if (temperature <= 0)
		return best;
	for (uint32_t i = 0; i < vocab; i++)
		sum += exp(((double)logits[i] - logits[best]) / temperature);
	left = number * sum;
	for (uint32_t i = 0; i < vocab; i++) {
		left -= exp(((double)logits[i] - logits[best]) / temperature);
		if (left < 0)
			return i;
	}
	return best; /* rounding: number was next to 1 */
}

static int feed(struct forward *f, const struct llama_config *c, const struct sample_params *p,
		const char *label, char *why, struct sample *s)
{
	const uint32_t room = c->positions - p->tokens;
	const double start = progress_seconds();
	int r;

	if (p->tokens >= c->positions || p->prompt->n == 0)
		return why_set(why, -EINVAL,
			       "%s: %zu bytes to be continued by %u; 1 or more, and "
			       "the model has %u positions",
			       p->prompt->name, p->prompt->n, p->tokens, c->positions);
	s->prompt_bytes = (uint32_t)MIN(p->prompt->n, room);
	if (s->prompt_bytes < p->prompt->n)
		progress_say("%s: the last %u of %zu bytes, for %u positions", p->prompt->name,
			     s->prompt_bytes, p->prompt->n, c->positions);
	r = forward_feed(f, 0, p->prompt->bytes + p->prompt->n - s->prompt_bytes, s->prompt_bytes,
			 why);
	s->prompt_seconds = progress_seconds() - start;
	if (r == 0)
		progress_say("%s: prompt of %u bytes in %.2f s", label, s->prompt_bytes,
			     s->prompt_seconds);
	forward_take_count(f);
	return r;
}

static int speak(struct forward *f, const struct llama_config *c, const struct sample_params *p,
		 const char *label, char *why, struct sample *s)
{
	/* The last row of the prompt, whose block may have been a short one. */
	const float *logits = forward_logits(f, (s->prompt_bytes - 1) % forward_block(f));
	const double start = progress_seconds();
	uint64_t state = p->seed;

	for (s->n = 0; s->n < p->tokens; s->n++) {
		uint8_t *byte = &s->bytes[s->n];
		int r;

		*byte = (uint8_t)sample_choose(logits, c->vocab, p->temperature, draw(&state));
		r = forward_step(f, byte, why);
		if (r < 0)
			return r;
		logits = forward_logits(f, 0);
		progress_tick("%s: %u of %u bytes written", label, s->n + 1, p->tokens);
	}
	s->seconds = progress_seconds() - start;
	s->count = forward_take_count(f);
	return 0;
}

int sample_run(struct forward *f, const struct llama_config *c, const struct sample_params *p,
	       const char *label, char *why, struct sample *ret)
{
	struct sample s = { .bytes = calloc((size_t)p->tokens + 1, 1) };
	int r;

	if (!s.bytes)
		return why_set(why, -ENOMEM, "no memory for %u bytes of text", p->tokens);
	r = feed(f, c, p, label, why, &s);
	if (r == 0)
		r = speak(f, c, p, label, why, &s);
	if (r < 0) {
		sample_deinit(&s);
		return r;
	}
	*ret = s;
	return 0;
}

void sample_deinit(struct sample *s)
{
	free(s->bytes);
	*s = (struct sample){ 0 };
}
