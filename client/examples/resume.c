/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens that outlive the daemon: whatever it left undone is done again.
 *
 *   resume [tokens]
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sparq.h>

enum { HEADS = 8, KV_HEADS = 2, DIM = 64 };

/* What one step reads and writes. In the arena, so that the daemon sees it. */
struct step {
	_Alignas(16) float q[HEADS * DIM];
	_Alignas(16) float kv[2 * KV_HEADS * DIM]; /* k, then v */
	_Alignas(16) float o[HEADS * DIM];
};

struct work {
	sparq *c;
	sparq_cache *cache;
	sparq_seq *sequence;
	sparq_buf *buf;
	sparq_queue *queue;
	struct step *step;
	double sum;
};

static int fail(const char *what, int error, const char *text)
{
	fprintf(stderr, "resume: %s: %s%s%s\n", what, strerror(-error), *text ? ": " : "", text);
	return error;
}

/* One token, from what this process knows: what it had put into the arena went with it. */
static int token(struct work *w, uint32_t row, uint16_t flags)
{
	struct sparq_sqe *entry = sparq_get_sqe(w->queue);
	uint64_t at = sparq_buf_addr(w->buf);
	struct sparq_cqe *done;
	int r;

	if (!entry)
		return -ENOTCONN;
	for (int i = 0; i < HEADS * DIM; i++)
		w->step->q[i] = 0.01f * (float)((row + i) % 100);
	for (int i = 0; i < 2 * KV_HEADS * DIM; i++)
		w->step->kv[i] = 0.02f * (float)((row * 7 + i) % 50);
	sparq_prep_step(entry, sparq_seq_id(w->sequence), 0, at + offsetof(struct step, q),
			at + offsetof(struct step, kv), at + offsetof(struct step, o), row, 1, 1);
	entry->flags = flags;
	r = sparq_submit(w->queue, 0);
	if (r >= 0)
		r = sparq_wait(w->queue, &done, 60000000000);
	if (r < 0)
		return r;
	r = done->res; /* -ECONNRESET: the daemon ended before this was done, or said to be */
	if (r < 0 && r != -ECONNRESET)
		fail("step", r, sparq_reason(done->aux >> 16));
	sparq_seen(w->queue, 1);
	return r;
}

/* The queue goes on in a new session, whose arena lies elsewhere. Is the sequence there as well? */
static int resume(struct work *w)
{
	struct sparq_seq_stat stat = { .size = sizeof(stat) };
	int r = sparq_queue_resume(w->queue, 60000000000);

	if (r < 0)
		return fail("resume", r, sparq_queue_error(w->queue));
	w->step = sparq_buf_data(w->buf, NULL);
	r = sparq_seq_stat_get(w->sequence, 0, &stat);
	if (r < 0)
		return fail("sequence", r, sparq_error(w->c));
	fprintf(stderr, "resume: the daemon is back, with %llu rows\n",
		(unsigned long long)stat.rows_least);
	return 0;
}

static int run(struct work *w, uint32_t tokens)
{
	for (uint32_t row = 0; row < tokens; row++) {
		uint16_t flags = 0;
		int r;

		while ((r = token(w, row, flags)) < 0) {
			if (r == -ENOTCONN)
				r = resume(w);
			if (r < 0 && r != -ECONNRESET)
				return r;
			flags = SPARQ_SQE_REPEAT; /* the row may be there */
		}
		for (int i = 0; i < HEADS * DIM; i++)
			w->sum += w->step->o[i];
	}
	return 0;
}

static int set_up(struct work *w)
{
	char why[SPARQ_ERROR_TEXT] = "";
	struct sparq_open_params session = { .size = sizeof(session), .why = why };
	struct sparq_cache_params shape = {
		.size = sizeof(shape),
		.layers = 1,
		.heads = HEADS,
		.kv_heads = KV_HEADS,
		.k_dim = DIM,
		.v_dim = DIM,
		.dtype = SPARQ_DTYPE_F32,
	};
	int r = sparq_open(NULL, &session, &w->c);

	if (r < 0)
		return fail("open", r, why);
	r = sparq_cache_create(w->c, &shape, &w->cache);
	if (r >= 0)
		r = sparq_seq_create(w->cache, NULL, &w->sequence);
	if (r >= 0)
		r = sparq_buf_alloc(w->c, sizeof(struct step), &w->buf);
	if (r >= 0)
		r = sparq_queue_create(w->c, NULL, &w->queue);
	if (r < 0)
		return fail("set up", r, sparq_error(w->c));
	w->step = sparq_buf_data(w->buf, NULL);
	return 0;
}

int main(int argc, char **argv)
{
	uint32_t tokens = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000;
	struct work w = { 0 };
	int r = set_up(&w);

	if (r >= 0)
		r = run(&w, tokens);
	if (r >= 0)
		printf("%u tokens, sum of o %.9g\n", tokens, w.sum);
	sparq_queue_close(w.queue);
	sparq_buf_unref(w.buf);
	sparq_seq_unref(w.sequence);
	sparq_cache_unref(w.cache);
	sparq_close(w.c);
	return r < 0;
}
