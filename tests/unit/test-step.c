/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an entry promises (sparq-protocol(7) is what clients read): rows are
 * numbered, a wrong number is -ESTALE and changes nothing, REPEAT passes over
 * what is there, each item of a batch stands for itself, LINK cancels, a late
 * entry leaves no row behind. A whole store, one stepper, no thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/seq.h"
#include "daemon/step.h"
#include "numa/arena.h"

#define LAYERS 2u
#define HEADS 4u
#define KV_HEADS 2u
#define DIM 64u
#define MAX_ROWS_HERE 700u
#define Q_FLOATS (HEADS * DIM)
#define KV_FLOATS (KV_HEADS * 2 * DIM)

struct fixture {
	struct arena arena;
	struct pool pool;
	struct catalogue *catalogue;
	struct users users;
	struct user *user;
	struct store store;
	struct stepper stepper;
	struct session *session;
	struct cache *cache;
	struct seq *seq[3];
	float *base;                           /* the arena of the session, as floats */
	float kv[3][MAX_ROWS_HERE][KV_FLOATS]; /* what was appended to layer 0 */
};

static struct cache *new_cache(struct fixture *f, const char *name, const char *format,
			       const char *options)
{
	struct sparq_msg_cache_create m = {
		.layers = LAYERS,
		.heads = HEADS,
		.kv_heads = KV_HEADS,
		.k_dim = DIM,
		.v_dim = DIM,
		.dtype = SPARQ_DTYPE_F32,
	};
	char why[SPARQ_ERROR_TEXT] = "";
	struct cache *c = NULL;

	strcpy(m.name, name);
	strcpy(m.k_format, format);
	strcpy(m.v_format, format);
	strcpy(m.policy, "dense");
	strcpy(m.device, "cpu");
	strcpy(m.options, options);
	if (cache_create(&f->store, f->user, &m, &c, why) < 0)
		fail_msg("%s", why);
	return c;
}

static void set_up_session(struct fixture *f)
{
	struct session *s = calloc(1, sizeof(*s));

	s->id = 1;
	s->user = f->user;
	s->n_queues = 2;
	assert_int_equal(segment_plan(1, 2, 64, 8 << 20, &s->layout), 0);
	assert_int_equal(segment_create("test", s->layout.bytes, &s->segment), 0);
	for (uint32_t i = 0; i < 2; i++)
		s->queue[i] = (struct queue){ .session = s, .number = i + 1, .wake_fd = -1 };
	f->base = (float *)((char *)s->segment.base + s->layout.arena_offset);
	f->session = s;
}

static int set_up(void **state)
{
	const uint64_t limits[USER_WHATS] = {
		[USER_BYTES] = 1ull << 30, [USER_SESSIONS] = 4,  [USER_QUEUES] = 4,
		[USER_CACHES] = 4,         [USER_SEQUENCES] = 8,
	};
	const struct arena_params memory = { .name = "test", .bytes = 32 << 20, .node = -1 };
	const struct catalogue_params catalogue = {
		.bytes = 4 << 20,
		.max_caches = 8,
		.max_sequences = 16,
	};
	struct fixture *f = calloc(1, sizeof(*f));
	char why[SPARQ_ERROR_TEXT];

	assert_int_equal(arena_create(&memory, &f->arena, NULL), 0);
	assert_int_equal(pool_init(&f->pool, &f->arena, 1, NULL, false), 0);
	assert_int_equal(catalogue_create(&catalogue, &f->catalogue), 0);
	users_limit(&f->users, limits);
	assert_int_equal(users_get(&f->users, 1000, &f->user), 0);
	assert_int_equal(store_init(&f->store, &f->pool, f->catalogue, &f->users, 1 << 20), 0);
	assert_int_equal(stepper_init(&f->stepper, &f->store, 64 << 20), 0);
	set_up_session(f);
	f->cache = new_cache(f, "test", "f32", "sinks=4 rollback=8");
	for (int i = 0; i < 3; i++)
		if (seq_create(f->cache, "", 1, &f->seq[i], why) < 0)
			fail_msg("%s", why);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	seq_release_session(&f->store, 1);
	cache_unref(f->cache);
	stepper_deinit(&f->stepper);
	store_deinit(&f->store);
	/* Whatever the test did, nothing is left charged or taken. */
	assert_int_equal(f->user->charged[USER_BYTES], 0);
	assert_int_equal(f->pool.used_bytes, 0);
	users_put(&f->users, f->user);
	users_deinit(&f->users);
	catalogue_free(f->catalogue);
	pool_deinit(&f->pool);
	arena_deinit(&f->arena);
	segment_deinit(&f->session->segment);
	free(f->session);
	free(f);
	return 0;
}

/* ---- what is asked ------------------------------------------------------------ */

#define KV_AT 0u
#define Q_AT (3u << 20)
#define O_AT (4u << 20)
#define LSE_AT (5u << 20)
#define REPORT_AT (6u << 20)
#define ITEMS_AT (7u << 20)

static void noise(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = (float)(random() % 2001 - 1000) / 500;
}

static struct sparq_cqe run(struct fixture *f, const struct sparq_sqe *e)
{
	struct sparq_cqe cqe;

	step_run(&f->stepper, &f->session->queue[0], e, &cqe);
	step_settle(&f->stepper);
	return cqe;
}

static struct sparq_sqe step_of(struct fixture *f, int s, uint32_t row, uint16_t n_rows,
				uint16_t n_q)
{
	return (struct sparq_sqe){
		.op = SPARQ_OP_STEP,
		.sequence = f->seq[s]->id,
		.kv = KV_AT,
		.q = Q_AT,
		.o = O_AT,
		.row = row,
		.n_rows = n_rows,
		.n_q = n_q,
		.user_data = row,
	};
}

/* Fresh rows in the arena, remembered as sequence s's rows from `row` on. */
static void put_rows(struct fixture *f, int s, uint32_t row, uint32_t n)
{
	noise(f->base + KV_AT / 4, (size_t)n * KV_FLOATS);
	memcpy(f->kv[s][row], f->base + KV_AT / 4, (size_t)n * KV_FLOATS * sizeof(float));
}

/* ---- what must come back -------------------------------------------------------- */

static void reference(struct fixture *f, int s, const float *q, uint32_t head, uint32_t rows,
		      double y[DIM], double *lse)
{
	const uint32_t kv = head / (HEADS / KV_HEADS);
	static double p[MAX_ROWS_HERE];
	double max = -INFINITY, sum = 0;

	for (uint32_t t = 0; t < rows; t++) {
		p[t] = 0;
		for (uint32_t c = 0; c < DIM; c++)
			p[t] += (double)q[head * DIM + c] * f->kv[s][t][kv * DIM + c];
		p[t] /= sqrt(DIM);
		max = fmax(max, p[t]);
	}
	memset(y, 0, DIM * sizeof(*y));
	for (uint32_t t = 0; t < rows; t++) {
		double w = exp(p[t] - max);

		sum += w;
		for (uint32_t c = 0; c < DIM; c++)
			y[c] += w * f->kv[s][t][KV_HEADS * DIM + kv * DIM + c];
	}
	for (uint32_t c = 0; c < DIM; c++)
		y[c] /= sum;
	*lse = max + log(sum);
}

static void check_o(struct fixture *f, int s, uint32_t o_at, uint32_t q_at, uint32_t n_q,
		    uint32_t first_limit)
{
	double y[DIM], lse;

	for (uint32_t i = 0; i < n_q; i++) {
		for (uint32_t h = 0; h < HEADS; h++) {
			const float *o = f->base + o_at / 4 + i * Q_FLOATS + h * DIM;

			reference(f, s, f->base + q_at / 4 + i * Q_FLOATS, h, first_limit + i, y,
				  &lse);
			for (uint32_t c = 0; c < DIM; c++)
				assert_true(fabs(o[c] - y[c]) < 1e-5);
		}
	}
}

/* ---- tests ------------------------------------------------------------------------ */

static void grow(struct fixture *f, int s, uint32_t rows)
{
	for (uint32_t row = seq_rows(f->seq[s], 0); row < rows;) {
		uint16_t n = (uint16_t)(rows - row < 100 ? rows - row : 100);
		struct sparq_sqe e = step_of(f, s, row, n, n);

		put_rows(f, s, row, n);
		noise(f->base + Q_AT / 4, (size_t)n * Q_FLOATS);
		assert_int_equal(run(f, &e).res, 1);
		check_o(f, s, O_AT, Q_AT, n, row + 1);
		row += n;
	}
}

/* Blocks and single rows, through sinks, tail and several flushes. */
static void steps_equal_the_reference(void **state)
{
	struct fixture *f = *state;

	grow(f, 0, 450);
	for (uint32_t row = 450; row < 600; row++) {
		struct sparq_sqe e = step_of(f, 0, row, 1, 1);
		struct sparq_cqe cqe;

		put_rows(f, 0, row, 1);
		noise(f->base + Q_AT / 4, Q_FLOATS);
		cqe = run(f, &e);
		assert_int_equal(cqe.res, 1);
		assert_true(cqe.flags & SPARQ_CQE_DENSE);
		/* K and V of f32: 8 bytes a channel and KV head; a dense plan reads no sums of V.
		 */
		assert_int_equal(cqe.bytes_read, (uint64_t)(row + 1) * KV_HEADS * DIM * 8);
		check_o(f, 0, O_AT, Q_AT, 1, row + 1);
	}
}

static void a_wrong_row_changes_nothing(void **state)
{
	const uint32_t wrong[] = { 0, 99, 101, 5000 };
	struct fixture *f = *state;

	grow(f, 0, 100);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct sparq_sqe e = step_of(f, 0, wrong[i], 1, 1);
		struct sparq_cqe cqe = run(f, &e);

		assert_int_equal(cqe.res, -ESTALE);
		assert_int_equal(cqe.aux >> 16, SPARQ_REASON_ROW);
		assert_int_equal(cqe.user_data, wrong[i]);
		assert_int_equal(seq_rows(f->seq[0], 0), 100);
	}
	grow(f, 0, 101);
}

static void repeat_passes_over_what_is_there(void **state)
{
	struct fixture *f = *state;
	struct sparq_sqe e;
	struct sparq_cqe cqe;

	grow(f, 0, 90);
	put_rows(f, 0, 90, 20);
	noise(f->base + Q_AT / 4, 20 * Q_FLOATS);
	e = step_of(f, 0, 90, 20, 20);
	cqe = run(f, &e);
	assert_int_equal(cqe.res, 1);
	assert_int_equal(cqe.flags & SPARQ_CQE_REPEATED, 0);
	e.flags = SPARQ_SQE_REPEAT;
	cqe = run(f, &e); /* all of them are there */
	assert_int_equal(cqe.res, 1);
	assert_true(cqe.flags & SPARQ_CQE_REPEATED);
	assert_int_equal(seq_rows(f->seq[0], 0), 110);
	check_o(f, 0, O_AT, Q_AT, 20, 91);
	/* A longer block that begins with them: only the missing rows are appended. */
	noise(f->base + KV_AT / 4 + 20 * KV_FLOATS, 5 * KV_FLOATS);
	memcpy(f->kv[0][110], f->base + KV_AT / 4 + 20 * KV_FLOATS, 5 * KV_FLOATS * sizeof(float));
	e.n_rows = 25;
	cqe = run(f, &e);
	assert_int_equal(cqe.res, 1);
	assert_true(cqe.flags & SPARQ_CQE_REPEATED);
	assert_int_equal(seq_rows(f->seq[0], 0), 115);
	check_o(f, 0, O_AT, Q_AT, 20, 96);
	e.row = 116; /* a gap is no repeat */
	assert_int_equal(run(f, &e).res, -ESTALE);
}

static void append_attend_truncate(void **state)
{
	struct fixture *f = *state;
	struct sparq_sqe append = {
		.op = SPARQ_OP_APPEND, .sequence = f->seq[0]->id, .kv = KV_AT, .n_rows = 300
	};
	struct sparq_sqe attend = {
		.op = SPARQ_OP_ATTEND, .sequence = f->seq[0]->id, .q = Q_AT, .o = O_AT, .n_q = 3
	};
	struct sparq_sqe cut = { .op = SPARQ_OP_TRUNCATE,
				 .sequence = f->seq[0]->id,
				 .layer = SPARQ_LAYER_ALL,
				 .row = 1 };

	put_rows(f, 0, 0, 300);
	assert_int_equal(run(f, &append).res, 1);
	noise(f->base + Q_AT / 4, 3 * Q_FLOATS);
	for (attend.row = 300; attend.row > 3; attend.row -= 27) {
		/* row: what its last query sees; rows that follow are not read */
		assert_int_equal(run(f, &attend).res, 1);
		check_o(f, 0, O_AT, Q_AT, 3, attend.row - 2);
	}
	attend.row = 301;
	assert_int_equal(run(f, &attend).res, -ESTALE);
	assert_int_equal(run(f, &cut).res, -EINVAL); /* layer 1 has none */
	cut.layer = 0;
	cut.row = 200;
	assert_int_equal(run(f, &cut).res, 1);
	assert_int_equal(seq_rows(f->seq[0], 0), 200);
	grow(f, 0, 420);
	cut.row = 421;
	assert_int_equal(run(f, &cut).res, -EINVAL);
	assert_int_equal(seq_rows(f->seq[0], 0), 420);
}

/* Rows of sinks, tiles and tail; what is not there is refused, and nothing changes. */
static void overwrite(void **state)
{
	static const uint32_t at[][2] = { { 0, 2 },   { 3, 3 },     { 100, 1 }, { 130, 9 },
					  { 0, 420 }, { 250, 170 }, { 419, 1 }, { 131, 128 } };
	struct fixture *f = *state;
	struct sparq_sqe e = { .op = SPARQ_OP_OVERWRITE, .sequence = f->seq[0]->id, .kv = KV_AT };
	struct sparq_sqe attend = {
		.op = SPARQ_OP_ATTEND, .sequence = f->seq[0]->id, .q = Q_AT, .o = O_AT, .n_q = 1
	};
	struct sparq_cqe cqe;

	grow(f, 0, 420);
	noise(f->base + Q_AT / 4, Q_FLOATS);
	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		e.row = at[i][0];
		e.n_rows = (uint16_t)at[i][1];
		put_rows(f, 0, e.row, e.n_rows);
		assert_int_equal(run(f, &e).res, 1);
		assert_int_equal(run(f, &e).res, 1); /* again: the same */
		for (attend.row = 420; attend.row > 70; attend.row -= 69) {
			assert_int_equal(run(f, &attend).res, 1);
			check_o(f, 0, O_AT, Q_AT, 1, attend.row);
		}
	}
	assert_int_equal(seq_rows(f->seq[0], 0), 420);
	e.row = 400;
	e.n_rows = 21;
	noise(f->base + KV_AT / 4, 21 * KV_FLOATS);
	cqe = run(f, &e);
	assert_int_equal(cqe.res, -ESTALE);
	assert_int_equal(cqe.aux >> 16, SPARQ_REASON_ROW);
	e.layer = 1; /* has none */
	assert_int_equal(run(f, &e).res, -ESTALE);
	attend.row = 420;
	assert_int_equal(run(f, &attend).res, 1);
	check_o(f, 0, O_AT, Q_AT, 1, 420);
}

static struct sparq_item item_of(struct fixture *f, int s, uint32_t row)
{
	return (struct sparq_item){
		.sequence = f->seq[s]->id,
		.q = Q_AT + s * Q_FLOATS * 4,
		.kv = KV_AT + s * KV_FLOATS * 4,
		.o = O_AT + s * Q_FLOATS * 4,
		.row = row,
		.n_rows = 1,
		.n_q = 1,
		.lse = LSE_AT + s * 16,
		.report = REPORT_AT + s * 128,
	};
}

static void check_lse(struct fixture *f, int s, uint32_t rows)
{
	double y[DIM], lse;

	for (uint32_t h = 0; h < HEADS; h++) {
		reference(f, s, f->base + Q_AT / 4 + s * Q_FLOATS, h, rows, y, &lse);
		assert_true(fabs(f->base[LSE_AT / 4 + s * 4 + h] - lse) < 1e-5);
	}
}

static void a_batch_fails_item_by_item(void **state)
{
	struct fixture *f = *state;
	struct sparq_sqe e = { .op = SPARQ_OP_STEP, .sequence = ITEMS_AT, .n_items = 3 };
	struct sparq_report *report = (void *)((char *)f->base + REPORT_AT);
	struct sparq_item item[3];
	struct sparq_cqe cqe;

	for (int s = 0; s < 3; s++)
		grow(f, s, 20 + 30 * s);
	for (int s = 0; s < 3; s++) {
		noise(f->base + KV_AT / 4 + s * KV_FLOATS, KV_FLOATS);
		memcpy(f->kv[s][20 + 30 * s], f->base + KV_AT / 4 + s * KV_FLOATS,
		       KV_FLOATS * sizeof(float));
		item[s] = item_of(f, s, 20 + 30 * s);
	}
	noise(f->base + Q_AT / 4, 3 * Q_FLOATS);
	item[1].row++; /* stale */
	memcpy((char *)f->base + ITEMS_AT, item, sizeof(item));
	cqe = run(f, &e);
	assert_int_equal(cqe.res, -ESTALE);
	assert_int_equal(cqe.aux, SPARQ_REASON_ROW << 16 | 1);
	assert_int_equal(seq_rows(f->seq[0], 0), 21);
	assert_int_equal(seq_rows(f->seq[1], 0), 50);
	assert_int_equal(seq_rows(f->seq[2], 0), 81);
	assert_int_equal(report[0].status, 0);
	assert_int_equal(report[1].status, -ESTALE);
	/* dense f16 reads K and V, 2 bytes each, once per KV head */
	assert_int_equal(report[0].dense_bytes, 21ull * KV_HEADS * DIM * 2 * 2);
	check_o(f, 0, O_AT, Q_AT, 1, 21);
	check_o(f, 2, O_AT + 2 * Q_FLOATS * 4, Q_AT + 2 * Q_FLOATS * 4, 1, 81);
	check_lse(f, 2, 81);
}

static void no_sequence_twice_in_one_entry(void **state)
{
	struct fixture *f = *state;
	struct sparq_sqe e = { .op = SPARQ_OP_APPEND, .sequence = ITEMS_AT, .n_items = 2 };
	struct sparq_item item[2] = { 0 };
	struct sparq_cqe cqe;

	item[0] = (struct sparq_item){ .sequence = f->seq[0]->id, .kv = KV_AT, .n_rows = 1 };
	item[1] = item[0];
	item[1].row = 1;
	memcpy((char *)f->base + ITEMS_AT, item, sizeof(item));
	cqe = run(f, &e);
	assert_int_equal(cqe.res, -EINVAL);
	assert_int_equal(cqe.aux, SPARQ_REASON_DUPLICATE << 16 | 1);
	assert_int_equal(seq_rows(f->seq[0], 0), 1);
}

/* The report of an item that was refused goes nowhere: its address may be what was wrong. */
static void a_refused_report_is_not_written(void **state)
{
	static const uint64_t address[] = { (8u << 20) - 64, 8u << 20, 1ull << 46, -128ull };
	struct fixture *f = *state;
	struct sparq_sqe e = { .op = SPARQ_OP_APPEND, .sequence = ITEMS_AT, .n_items = 1 };
	struct sparq_item *item = (void *)((char *)f->base + ITEMS_AT);
	struct sparq_cqe cqe;

	for (size_t i = 0; i < 4; i++) {
		*item = (struct sparq_item){ .sequence = f->seq[0]->id, .kv = KV_AT, .n_rows = 1 };
		item->report = address[i];
		cqe = run(f, &e);
		assert_int_equal(cqe.res, -EINVAL);
		assert_int_equal(cqe.aux, SPARQ_REASON_ADDRESS << 16);
	}
	/* Nor where something else was wrong. */
	memset((char *)f->base + REPORT_AT, 0x55, sizeof(struct sparq_report));
	item->report = REPORT_AT;
	item->rsv[0] = 1;
	assert_int_equal(run(f, &e).res, -EINVAL);
	assert_int_equal(*(uint8_t *)((char *)f->base + REPORT_AT), 0x55);
}

static void links_cancel(void **state)
{
	struct fixture *f = *state;
	struct sparq_sqe bad = step_of(f, 0, 9, 1, 1), nop = { .op = SPARQ_OP_NOP };

	bad.flags = SPARQ_SQE_LINK;
	nop.flags = SPARQ_SQE_LINK;
	assert_int_equal(run(f, &bad).res, -ESTALE);
	assert_int_equal(run(f, &nop).res, -ECANCELED); /* and hands it on */
	nop.flags = 0;
	assert_int_equal(run(f, &nop).res, -ECANCELED);
	assert_int_equal(run(f, &nop).res, 0);
}

static void ids_of_others_do_not_exist(void **state)
{
	struct fixture *f = *state;
	struct sparq_sqe e = step_of(f, 0, 0, 1, 1);
	struct sparq_cqe cqe;

	f->session->id = 2;
	cqe = run(f, &e);
	assert_int_equal(cqe.res, -ENOENT);
	assert_int_equal(cqe.aux >> 16, SPARQ_REASON_SEQUENCE);
	f->session->id = 1;
	e.sequence += 1ull << 32; /* a later generation of the slot */
	assert_int_equal(run(f, &e).res, -ENOENT);
	e.sequence = UINT64_MAX;
	assert_int_equal(run(f, &e).res, -ENOENT);
}

static void a_late_entry_leaves_no_row(void **state)
{
	struct fixture *f = *state;
	struct sparq_sqe e = step_of(f, 0, 400, 200, 200);
	struct sparq_cqe cqe;

	grow(f, 0, 400);
	put_rows(f, 0, 400, 200);
	e.timeout_us = 1;
	cqe = run(f, &e);
	assert_int_equal(cqe.res, -ETIME);
	assert_int_equal(cqe.aux >> 16, SPARQ_REASON_DEADLINE);
	assert_int_equal(seq_rows(f->seq[0], 0), 400);
	grow(f, 0, 600);
}

/* An entry that names no deadline has that of its cache, before the daemon's; one that names one
 * has its own. Engines set it once. */
static void a_cache_has_a_deadline(void **state)
{
	struct fixture *f = *state;
	struct sparq_sqe e = step_of(f, 0, 400, 200, 200);
	struct sparq_cqe cqe;

	grow(f, 0, 400);
	put_rows(f, 0, 400, 200);
	f->stepper.timeout_us = 60000000;
	f->cache->timeout_us = 1;
	cqe = run(f, &e);
	assert_int_equal(cqe.res, -ETIME);
	assert_int_equal(cqe.aux >> 16, SPARQ_REASON_DEADLINE);
	assert_int_equal(seq_rows(f->seq[0], 0), 400);
	e.timeout_us = 60000000;
	assert_int_equal(run(f, &e).res, 1);
	assert_int_equal(seq_rows(f->seq[0], 0), 600);
	/* Without one of its own it has the daemon's. */
	f->cache->timeout_us = 0;
	f->stepper.timeout_us = 1;
	e = step_of(f, 0, 600, 200, 200);
	assert_int_equal(run(f, &e).res, -ETIME);
	f->cache->timeout_us = 60000000;
	assert_int_equal(run(f, &e).res, 1);
	f->cache->timeout_us = f->stepper.timeout_us = 0;
}

/* A session that ends does not keep its worker: the shares of its step are passed over. */
static void an_ending_session_is_not_computed(void **state)
{
	struct fixture *f = *state;
	struct sparq_sqe e = step_of(f, 0, 400, 200, 200);
	uint8_t *o = (uint8_t *)f->base + O_AT;
	struct sparq_cqe cqe;

	grow(f, 0, 400);
	put_rows(f, 0, 400, 200);
	memset(o, 0x55, Q_FLOATS * sizeof(float));
	f->session->ending = 1;
	cqe = run(f, &e);
	assert_int_equal(cqe.res, -ECONNRESET);
	assert_int_equal(cqe.bytes_read, 0);
	assert_int_equal(o[0], 0x55);
	assert_int_equal(seq_rows(f->seq[0], 0), 400);
	f->session->ending = 0;
	grow(f, 0, 600);
}

/* The smallest lane that runs a block has room for one KV head and not for two: each of its waves
 * is staged anew. A smaller one says so, and nothing is appended. */
static void a_small_lane_runs_in_waves(void **state)
{
	struct fixture *f = *state;
	struct sparq_sqe e = step_of(f, 0, 0, 100, 100);
	struct sparq_cqe cqe = { .res = -ENOMEM };
	size_t refused = 0;

	put_rows(f, 0, 0, 100);
	noise(f->base + Q_AT / 4, 100 * Q_FLOATS);
	for (f->stepper.lane.bytes = 64 << 10; cqe.res == -ENOMEM; refused++) {
		assert_int_equal(seq_rows(f->seq[0], 0), 0);
		f->stepper.lane.bytes += 64 << 10;
		assert_true(f->stepper.lane.bytes < 8 << 20);
		cqe = run(f, &e);
	}
	assert_int_equal(cqe.res, 1);
	assert_true(refused > 1);
	check_o(f, 0, O_AT, Q_AT, 100, 1);
	grow(f, 0, 400);
}

/* No room for a tile: rows stay in the tail until that is full, which is said; with room again the
 * next append flushes first. */
static void a_flush_without_room_is_made_up_for(void **state)
{
	struct fixture *f = *state;
	struct sparq_sqe e;
	struct sparq_cqe cqe = { .res = 1 };
	uint64_t limit = f->user->limit[USER_BYTES];
	uint32_t row = 100;

	grow(f, 0, row);
	put_rows(f, 0, row, 500);
	e = step_of(f, 0, row, 500, 1);
	f->stepper.lane.bytes = 64 << 20;
	/* Room for the block's chunks, and then for nothing. */
	assert_int_equal(seq_reserve(f->seq[0], 0, 500), 0);
	f->user->limit[USER_BYTES] = f->user->charged[USER_BYTES];
	assert_int_equal(run(f, &e).res, 1);
	assert_true(seq_flush_due(f->seq[0], 0));
	for (row = 600; cqe.res == 1; row += cqe.res == 1) {
		put_rows(f, 0, row, 1);
		e = step_of(f, 0, row, 1, 1);
		cqe = run(f, &e);
	}
	assert_int_equal(cqe.res, -ENOSPC);
	assert_int_equal(cqe.aux >> 16, SPARQ_REASON_QUOTA);
	assert_int_equal(seq_rows(f->seq[0], 0), row);
	f->user->limit[USER_BYTES] = limit;
	grow(f, 0, row + 30);
	assert_false(seq_flush_due(f->seq[0], 0));
}

/* ---- formats by layer -------------------------------------------------------------- */

/* The same rows and queries into one layer of a sequence; the output of the last row. */
static void feed(struct fixture *f, struct seq *s, uint16_t layer, uint32_t rows, float *ret_o)
{
	srandom(layer + 1u);
	for (uint32_t row = 0; row < rows; row++) {
		struct sparq_sqe e = step_of(f, 0, row, 1, 1);

		e.sequence = s->id;
		e.layer = layer;
		noise(f->base + KV_AT / 4, KV_FLOATS);
		noise(f->base + Q_AT / 4, Q_FLOATS);
		assert_int_equal(run(f, &e).res, 1);
	}
	memcpy(ret_o, f->base + O_AT / 4, Q_FLOATS * sizeof(float));
}

static struct seq *seq_of(struct fixture *f, struct cache **ret_cache, const char *name,
			  const char *format)
{
	char why[SPARQ_ERROR_TEXT];
	struct seq *s;

	*ret_cache = new_cache(f, name, format, "");
	if (seq_create(*ret_cache, "", 1, &s, why) < 0)
		fail_msg("%s", why);
	return s;
}

/* A layer of a mixed cache computes, to the bit, what it does in a cache of its format alone: its
 * tiles have that layout, wherever the other layer's lie. */
static void layers_have_formats_of_their_own(void **state)
{
	static const char *const format[LAYERS] = { "int4", "hier4" };
	struct fixture *f = *state;
	float mixed[LAYERS][Q_FLOATS], alone[Q_FLOATS];
	struct cache *both, *one;
	struct seq *s = seq_of(f, &both, "mixed", "hier4,int4:0");
	char why[SPARQ_ERROR_TEXT];

	for (uint16_t layer = 0; layer < LAYERS; layer++)
		feed(f, s, layer, 600, mixed[layer]);
	assert_memory_not_equal(mixed[0], mixed[1], sizeof(mixed[0]));
	for (uint16_t layer = 0; layer < LAYERS; layer++) {
		struct seq *single = seq_of(f, &one, format[layer], format[layer]);

		feed(f, single, layer, 600, alone);
		assert_memory_equal(mixed[layer], alone, sizeof(alone));
		/* Told apart at all: the other format's result is another one. */
		feed(f, single, !layer, 600, alone);
		assert_memory_not_equal(mixed[!layer], alone, sizeof(alone));
		assert_int_equal(seq_drop(single, why), 0);
		cache_unref(one);
	}
	assert_int_equal(seq_drop(s, why), 0);
	cache_unref(both);
}

/* Only hier4 has planes that can be read alone; the layer decides, not the cache. */
static void a_draft_is_refused_by_layer(void **state)
{
	struct fixture *f = *state;
	struct cache *c;
	struct seq *s = seq_of(f, &c, "draft", "hier4,f16:1");
	char why[SPARQ_ERROR_TEXT];

	for (uint16_t layer = 0; layer < LAYERS; layer++) {
		struct sparq_sqe e = step_of(f, 0, 300, 1, 1);
		struct sparq_cqe cqe;
		float o[Q_FLOATS];

		feed(f, s, layer, 300, o);
		e.sequence = s->id;
		e.layer = layer;
		e.flags = SPARQ_SQE_DRAFT;
		cqe = run(f, &e);
		assert_int_equal(cqe.res, layer == 0 ? 1 : -EOPNOTSUPP);
		if (layer == 1)
			assert_int_equal(cqe.aux >> 16, SPARQ_REASON_UNSUPPORTED);
	}
	assert_int_equal(seq_drop(s, why), 0);
	cache_unref(c);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(steps_equal_the_reference),
		TEST(a_wrong_row_changes_nothing),
		TEST(repeat_passes_over_what_is_there),
		TEST(append_attend_truncate),
		TEST(overwrite),
		TEST(a_batch_fails_item_by_item),
		TEST(no_sequence_twice_in_one_entry),
		TEST(a_refused_report_is_not_written),
		TEST(links_cancel),
		TEST(ids_of_others_do_not_exist),
		TEST(a_late_entry_leaves_no_row),
		TEST(a_cache_has_a_deadline),
		TEST(an_ending_session_is_not_computed),
		TEST(a_small_lane_runs_in_waves),
		TEST(a_flush_without_room_is_made_up_for),
		TEST(layers_have_formats_of_their_own),
		TEST(a_draft_is_refused_by_layer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
