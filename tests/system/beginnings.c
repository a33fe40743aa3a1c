/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two programs with prompts that begin alike: the second one gets the rows that the
 * first has computed. Attention over them is bit by bit what it is over rows that it
 * computed itself; over those that it appends to them it is what it is after a fork
 * of its own rows, bit by bit, and without any fork but for the order of sums.
 *
 *   beginnings SOCKET FORMAT POLICY
 *
 * Exit: 0 it is, 1 it is not.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/sparq.h"

#define LAYERS 2u
#define HEADS 4u
#define KV_HEADS 2u
#define DIM 64u
#define ROWS 2600u
#define ALIKE 1500u /* tokens; then the prompts differ */
#define SHARED (16u + 11 * 128u)
#define BATCH 100u
#define ROW (2 * KV_HEADS * DIM)
#define WAIT_NS 20000000000

struct program {
	sparq *c;
	sparq_cache *cache;
	sparq_queue *queue;
	sparq_buf *buf;
	sparq_seq *seq;
	uint32_t token[ROWS];
	float o[HEADS * DIM];
};

static const char *format, *policy;

__attribute__((noreturn, format(printf, 2, 3))) static void die(const struct program *p,
								const char *text, ...)
{
	va_list args;

	va_start(args, text);
	vprintf(text, args);
	va_end(args);
	printf(": %s\n", p->c ? sparq_error(p->c) : "");
	exit(1);
}

static float uniform(uint64_t *state) /* -1 .. 1 */
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(*state >> 11) / (double)(1ull << 52) - 1.0);
}

static void open_program(struct program *p, const char *socket, uint32_t text)
{
	struct sparq_cache_params params = { .size = sizeof(params),
					     .layers = LAYERS,
					     .heads = HEADS,
					     .kv_heads = KV_HEADS,
					     .k_dim = DIM,
					     .v_dim = DIM,
					     .dtype = SPARQ_DTYPE_F32,
					     .k_format = format,
					     .policy = policy,
					     .name = "beginnings",
					     .options = "evict=lru" };

	if (sparq_open(socket, NULL, &p->c) < 0 || sparq_queue_create(p->c, NULL, &p->queue) < 0 ||
	    sparq_buf_alloc(p->c, BATCH * ROW * sizeof(float), &p->buf) < 0 ||
	    sparq_cache_create(p->c, &params, &p->cache) < 0)
		die(p, "session");
	for (uint32_t i = 0; i < ROWS; i++)
		p->token[i] = (i < ALIKE ? 0 : text * 100000) + i * 7919;
}

static void close_program(struct program *p)
{
	sparq_seq_unref(p->seq);
	sparq_cache_unref(p->cache);
	sparq_buf_unref(p->buf);
	sparq_queue_close(p->queue);
	sparq_close(p->c);
}

/* ---- steps ---------------------------------------------------------------------- */

static void run(struct program *p)
{
	struct sparq_cqe *cqe;

	if (sparq_submit(p->queue, 0) < 0 || sparq_wait(p->queue, &cqe, WAIT_NS) < 0)
		die(p, "submit");
	if (cqe->res < 0)
		die(p, "%s, %s", strerror(-cqe->res), sparq_reason(cqe->aux >> 16));
	sparq_seen(p->queue, 1);
}

/* What a model would compute of this token and all before it; here of its number. */
static void make_row(uint32_t token, uint32_t layer, float *kv)
{
	uint64_t random = token * 2654435761u + layer;

	for (uint32_t i = 0; i < ROW; i++)
		kv[i] = uniform(&random);
}

static void append(struct program *p, sparq_seq *s, uint32_t from, uint32_t to)
{
	float *kv = sparq_buf_data(p->buf, NULL);

	for (uint32_t row = from, n; row < to; row += n)
		for (uint16_t layer = 0; layer < LAYERS; layer++) {
			n = to - row < BATCH ? to - row : BATCH;
			for (uint32_t i = 0; i < n; i++)
				make_row(p->token[row + i], layer, kv + (size_t)i * ROW);
			sparq_prep_append(sparq_get_sqe(p->queue), sparq_seq_id(s), layer,
					  sparq_buf_addr(p->buf), row, (uint16_t)n);
			run(p);
		}
}

/* One query over the first n rows of a layer. */
static void attend(struct program *p, sparq_seq *s, uint16_t layer, uint32_t n)
{
	float *q = sparq_buf_data(p->buf, NULL);
	uint64_t random = n * 31 + layer, at = sparq_buf_addr(p->buf);

	for (uint32_t i = 0; i < HEADS * DIM; i++)
		q[i] = uniform(&random) * 2;
	sparq_prep_attend(sparq_get_sqe(p->queue), sparq_seq_id(s), layer, at,
			  at + HEADS * DIM * sizeof(*q), n, 1);
	run(p);
	memcpy(p->o, q + HEADS * DIM, sizeof(p->o));
}

static void compare(struct program *p, sparq_seq *alone, uint32_t n, float most)
{
	for (uint16_t layer = 0; layer < LAYERS; layer++) {
		float with[HEADS * DIM], apart = 0;

		attend(p, p->seq, layer, n);
		memcpy(with, p->o, sizeof(with));
		attend(p, alone, layer, n);
		for (uint32_t i = 0; i < HEADS * DIM; i++)
			apart = fmaxf(apart, fabsf(with[i] - p->o[i]));
		if (!(apart <= most) || (most == 0 && memcmp(with, p->o, sizeof(with))))
			die(p, "%s, %s: layer %u is %g apart over %u rows", format, policy, layer,
			    (double)apart, n);
	}
}

/* ---- what must hold --------------------------------------------------------------- */

static uint64_t create(struct program *p, uint32_t n)
{
	uint64_t rows;

	if (sparq_seq_create_prefix(p->cache, NULL, p->token, n, &p->seq, &rows) < 0)
		die(p, "create");
	return rows;
}

static void expect_rows(const struct program *p, uint64_t rows, uint64_t want)
{
	if (rows != want)
		die(p, "%llu rows are shared, not %llu", (unsigned long long)rows,
		    (unsigned long long)want);
}

/* Rows that nobody else has computed, forked where the others' are. */
static sparq_seq *fork_alone(struct program *p, sparq_seq **ret_whole)
{
	sparq_seq *child;

	if (sparq_seq_create(p->cache, NULL, ret_whole) < 0)
		die(p, "alone");
	append(p, *ret_whole, 0, SHARED + 300);
	if (sparq_seq_fork(*ret_whole, SHARED, &child) < 0)
		die(p, "fork");
	return child;
}

static void check_beginning(struct program *first, struct program *second)
{
	sparq_seq *whole, *forked;

	expect_rows(first, create(first, 2000), 0);
	append(first, first->seq, 0, 2000);
	if (sparq_seq_tokens(first->seq, 2000, first->token + 2000, 100) < 0)
		die(first, "tokens");
	expect_rows(second, create(second, ROWS), SHARED);
	forked = fork_alone(second, &whole);
	for (uint32_t n = 1; n <= SHARED; n += 97)
		compare(second, whole, n, 0);
	compare(second, whole, SHARED, 0);
	/* Each goes its way. */
	append(second, second->seq, SHARED, ROWS);
	append(second, forked, SHARED, ROWS);
	append(second, whole, SHARED + 300, ROWS);
	append(first, first->seq, 2000, 2300);
	for (uint32_t n = SHARED - 200; n <= ROWS; n += 61) {
		compare(second, forked, n, 0);
		compare(second, whole, n, 1e-5f);
	}
	sparq_seq_unref(forked);
	sparq_seq_unref(whole);
}

/* The programs that computed the rows have gone: the cache has kept them. */
static void check_kept(const char *socket)
{
	struct program *p = calloc(1, sizeof(*p)), *holder = calloc(1, sizeof(*holder));

	open_program(holder, socket, 5);
	open_program(p, socket, 2);
	expect_rows(p, create(p, ROWS), 16 + (ROWS - 16) / 128 * 128);
	if (sparq_seq_tokens(p->seq, ROWS + 1, p->token, 1) != -ENODATA)
		die(p, "ids after a gap");
	close_program(p);
	close_program(holder);
	free(p);
	free(holder);
}

int main(int argc, char **argv)
{
	struct program *first = calloc(1, sizeof(*first)), *second = calloc(1, sizeof(*second));

	if (argc != 4 || !first || !second)
		return 64;
	format = argv[2];
	policy = argv[3];
	open_program(first, argv[1], 1);
	open_program(second, argv[1], 2);
	check_beginning(first, second);
	close_program(first);
	close_program(second);
	check_kept(argv[1]);
	free(first);
	free(second);
	return 0;
}
