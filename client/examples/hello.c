/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest whole use of libsparq: one cache, one sequence, one token.
 */
#include <stdio.h>
#include <string.h>

#include <sparq.h>

enum { HEADS = 8, KV_HEADS = 2, DIM = 64 };

/* What one step reads and writes. In the arena, so that the daemon sees it. */
struct step {
	_Alignas(16) float q[HEADS][DIM];
	_Alignas(16) float kv[2][KV_HEADS][DIM]; /* k, then v */
	_Alignas(16) float o[HEADS][DIM];
};

static int fail(const char *what, int error, const char *text)
{
	fprintf(stderr, "hello: %s: %s%s%s\n", what, strerror(-error), *text ? ": " : "", text);
	return 1;
}

static int token(sparq *c, sparq_queue *queue, sparq_seq *sequence, sparq_buf *buf)
{
	struct step *s = sparq_buf_data(buf, NULL);
	uint64_t at = sparq_buf_addr(buf);
	struct sparq_cqe *done;
	int r;

	for (int h = 0; h < HEADS; h++)
		for (int i = 0; i < DIM; i++)
			s->q[h][i] = 0.01f * i;
	for (int h = 0; h < KV_HEADS; h++)
		for (int i = 0; i < DIM; i++) {
			s->kv[0][h][i] = 0.02f * i;
			s->kv[1][h][i] = h + 0.5f;
		}
	sparq_prep_step(sparq_get_sqe(queue), sparq_seq_id(sequence), 0,
			at + offsetof(struct step, q), at + offsetof(struct step, kv),
			at + offsetof(struct step, o), 0, 1, 1);
	r = sparq_submit(queue, 0);
	if (r >= 0)
		r = sparq_wait(queue, &done, 1000000000);
	if (r < 0)
		return fail("step", r, sparq_error(c));
	if (done->res < 0)
		return fail("step", done->res, sparq_reason(done->aux >> 16));
	printf("o[0][0] = %g, o[%d][0] = %g, %llu bytes of cache read\n", s->o[0][0], HEADS - 1,
	       s->o[HEADS - 1][0], (unsigned long long)done->bytes_read);
	sparq_seen(queue, 1);
	return 0;
}

int main(void)
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
	sparq *c = NULL;
	sparq_cache *cache = NULL;
	sparq_seq *sequence = NULL;
	sparq_buf *buf = NULL;
	sparq_queue *queue = NULL;
	int r, status;

	r = sparq_open(NULL, &session, &c);
	if (r < 0)
		return fail("open", r, why);
	r = sparq_cache_create(c, &shape, &cache);
	if (r >= 0)
		r = sparq_seq_create(cache, NULL, &sequence);
	if (r >= 0)
		r = sparq_buf_alloc(c, sizeof(struct step), &buf);
	if (r >= 0)
		r = sparq_queue_create(c, NULL, &queue);
	status = r < 0 ? fail("set up", r, sparq_error(c)) : token(c, queue, sequence, buf);

	sparq_queue_close(queue);
	sparq_buf_unref(buf);
	sparq_seq_unref(sequence);
	sparq_cache_unref(cache);
	sparq_close(c);
	return status;
}
