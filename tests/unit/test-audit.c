/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Audits: what is reported is the distance of what the client got from attention over all of its
 * rows, which is computed here a second time, from the rows that were sent; whatever becomes of the
 * sequence between the step and its audit. An administrator decides by that figure whether a
 * policy may stay.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "daemon/audit.h"
#include "daemon/seq.h"
#include "daemon/step-item.h"
#include "shm/base.h"
#include "tests/unit/store-fixture.h"

#define HEADS 4u
#define KV_HEADS 2u
#define DIM 64u
#define FLOATS_Q (HEADS * DIM)
#define FLOATS_KV (KV_HEADS * 2 * DIM)
#define ROWS 1500u /* tiles in short and long extents, and a tail */
#define SEED 2026u

#define KV_AT 0u
#define Q_AT (4u << 20)
#define O_AT (5u << 20)

struct fixture {
	struct store_fixture store;
	struct stepper stepper;
	struct session session;
	struct cache *cache;
	struct seq *seq;
	float *base; /* the arena, as floats */
	float *kv;   /* [ROWS + 512][FLOATS_KV]: what was sent */
	float q[FLOATS_Q], o[FLOATS_Q];
	uint32_t seed;
};

static float next_float(struct fixture *f)
{
	f->seed = f->seed * 1664525u + 1013904223u;
	return (float)(f->seed >> 8) / (1u << 23) - 1;
}

static int set_up(void **state, bool has_thread)
{
	const struct audit_params params = { .every = 1,
					     .bytes = AUDIT_JOB_BYTES,
					     .by_hand = !has_thread };
	struct fixture *f = calloc(1, sizeof(*f));
	struct session *s = &f->session;

	f->seed = SEED;
	fixture_open(&f->store, 64 << 20, 4 << 20);
	assert_int_equal(audit_open(&params, &f->store.store.auditor), 0);
	assert_int_equal(stepper_init(&f->stepper, &f->store.store, 64 << 20), 0);
	s->id = FIXTURE_SESSION;
	s->user = f->store.user;
	s->n_queues = 1;
	assert_int_equal(segment_plan(1, 1, 64, 8 << 20, &s->layout), 0);
	assert_int_equal(segment_create("test", s->layout.bytes, &s->segment), 0);
	s->queue[0] = (struct queue){ .session = s, .number = 1, .wake_fd = -1 };
	f->base = (float *)(void *)((char *)s->segment.base + s->layout.arena_offset);
	f->kv = calloc((ROWS + 512) * FLOATS_KV, sizeof(float));
	*state = f;
	return 0;
}

static int by_hand(void **state)
{
	return set_up(state, false);
}

static int with_thread(void **state)
{
	return set_up(state, true);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	f->store.store.auditor = audit_close(f->store.store.auditor);
	segment_deinit(&f->session.segment);
	stepper_deinit(&f->stepper);
	fixture_assert_empty(&f->store);
	fixture_close(&f->store);
	free(f->kv);
	free(f);
	return 0;
}

static void open_sequence(struct fixture *f, const char *policy, const char *options)
{
	struct sparq_msg_cache_create m = fixture_request("audited", options);
	char why[SPARQ_ERROR_TEXT] = "";

	m.layers = 1;
	snprintf(m.policy, sizeof(m.policy), "%s", policy);
	if (cache_create(&f->store.store, f->store.user, &m, &f->cache, why) < 0 ||
	    seq_create(f->cache, "", FIXTURE_SESSION, &f->seq, why) < 0)
		fail_msg("%s %s: %s", policy, options, why);
}

static void close_sequence(struct fixture *f)
{
	seq_release_session(&f->store.store, FIXTURE_SESSION);
	cache_unref(f->cache);
}

/* ---- steps -------------------------------------------------------------------------- */

static struct sparq_cqe run_entry(struct fixture *f, const struct sparq_sqe *e)
{
	struct sparq_cqe cqe;

	assert_true(step_run(&f->stepper, &f->session.queue[0], e, &cqe));
	memcpy(f->o, f->base + O_AT / 4, sizeof(f->o));
	step_settle(&f->stepper);
	return cqe;
}

/* Appends n rows to layer 0, some of which stand out, so that a policy has something to find. */
static void append(struct fixture *f, uint32_t n)
{
	while (n) {
		uint32_t row = seq_rows(f->seq, 0), now = MIN(n, 500u);
		float *kv = f->kv + (size_t)row * FLOATS_KV;
		struct sparq_sqe e = { .op = SPARQ_OP_APPEND,
				       .sequence = f->seq->id,
				       .row = row,
				       .n_rows = (uint16_t)now,
				       .kv = KV_AT };

		assert_true(row + now <= ROWS + 512);
		for (size_t i = 0; i < (size_t)now * FLOATS_KV; i++)
			kv[i] = next_float(f) * ((i / FLOATS_KV) % 37 ? 0.5f : 2);
		memcpy(f->base + KV_AT / 4, kv, (size_t)now * FLOATS_KV * sizeof(float));
		assert_int_equal(run_entry(f, &e).res, 1);
		n -= now;
	}
}

static struct sparq_cqe attend(struct fixture *f, uint16_t flags)
{
	struct sparq_sqe e = {
		.op = SPARQ_OP_ATTEND,
		.flags = flags,
		.sequence = f->seq->id,
		.row = seq_rows(f->seq, 0),
		.n_q = 1,
		.q = Q_AT,
		.o = O_AT,
	};

	for (uint32_t i = 0; i < FLOATS_Q; i++)
		f->q[i] = next_float(f);
	memcpy(f->base + Q_AT / 4, f->q, sizeof(f->q));
	return run_entry(f, &e);
}

/* ---- what an audit has to find ------------------------------------------------------ */

static double score(const struct fixture *f, uint32_t head, uint32_t row)
{
	const float *k = f->kv + (size_t)row * FLOATS_KV + head / (HEADS / KV_HEADS) * DIM;
	double sum = 0;

	for (uint32_t c = 0; c < DIM; c++)
		sum += (double)f->q[head * DIM + c] * (double)k[c];
	return sum / sqrt(DIM);
}

static void attend_all(const struct fixture *f, uint32_t rows, uint32_t head, double *ret)
{
	double total = 0;

	memset(ret, 0, DIM * sizeof(*ret));
	for (uint32_t row = 0; row < rows; row++) {
		const float *v = f->kv + (size_t)row * FLOATS_KV +
				 (KV_HEADS + head / (HEADS / KV_HEADS)) * DIM;
		double weight = exp(score(f, head, row));

		total += weight;
		for (uint32_t c = 0; c < DIM; c++)
			ret[c] += weight * (double)v[c];
	}
	for (uint32_t c = 0; c < DIM; c++)
		ret[c] /= total;
}

/* Of the o that the client has. */
static double error_of(const struct fixture *f, uint32_t rows)
{
	double difference = 0, reference = 0, want[DIM];

	for (uint32_t head = 0; head < HEADS; head++) {
		attend_all(f, rows, head, want);
		for (uint32_t c = 0; c < DIM; c++) {
			double by = (double)f->o[head * DIM + c] - want[c];

			difference += by * by;
			reference += want[c] * want[c];
		}
	}
	return sqrt(difference / reference);
}

/* The audit of the last step, which is run here and now where no thread does it. */
static struct audit_result await(struct fixture *f)
{
	struct auditor *a = f->store.store.auditor;
	struct pollfd fd = { .fd = audit_fd(a), .events = POLLIN };
	struct audit_result r;

	if (!a->started)
		audit_run(a);
	assert_int_equal(poll(&fd, 1, 20000), 1);
	assert_true(audit_next(a, &r));
	assert_ptr_equal(r.cache, f->cache);
	audit_collect(a);
	return r;
}

static void assert_error(const struct audit_result *r, double want)
{
	assert_int_equal(r->r, 0);
	if (fabs(r->error - want) > 1e-5 * (1 + want))
		fail_msg("error %.9g, it is %.9g", r->error, want);
}

/* ---- tests -------------------------------------------------------------------------- */

static void test_error_is_that_of_a_second_computation(void **state)
{
	static const char *const options[] = {
		"r=4 k=16 dense_below=0",
		"r=16 k=64 dense_below=0 tail=select",
		"r=32 k=128 dense_below=0 mean=rest",
		"r=1 k=1 l=0 dense_below=0 tail=select sinks=0",
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
		struct audit_result r;
		double want;

		open_sequence(f, "sparq", options[i]);
		append(f, ROWS);
		assert_int_equal(attend(f, 0).flags & SPARQ_CQE_DENSE, 0);
		want = error_of(f, ROWS);
		assert_true(want > 1e-3);
		r = await(f);
		assert_error(&r, want);
		assert_int_equal(r.rows, ROWS);
		assert_int_equal(r.sequence, f->seq->id);
		close_sequence(f);
	}
}

static void test_tiny_choice_is_far_off(void **state)
{
	struct fixture *f = *state;
	struct audit_result r;

	open_sequence(f, "sparq", "r=1 k=1 l=0 dense_below=0 tail=select sinks=0");
	append(f, ROWS);
	attend(f, 0);
	r = await(f);
	assert_true(r.error > 0.5);
	close_sequence(f);
}

static void test_choice_of_all_rows_has_no_error(void **state)
{
	struct fixture *f = *state;
	struct audit_result r;

	open_sequence(f, "sparq", "r=64 k=4096 dense_below=0");
	append(f, ROWS);
	assert_int_equal(attend(f, 0).flags & SPARQ_CQE_DENSE, 0);
	r = await(f);
	assert_int_equal(r.r, 0);
	assert_true(r.error < 1e-6);
	close_sequence(f);
}

static void test_dense_steps_are_not_audited(void **state)
{
	struct fixture *f = *state;
	struct auditor *a = f->store.store.auditor;

	open_sequence(f, "sparq", "r=4 k=16 dense_below=0");
	append(f, ROWS);
	assert_int_equal(attend(f, SPARQ_SQE_DENSE).flags & SPARQ_CQE_DENSE, SPARQ_CQE_DENSE);
	assert_int_equal(a->job.state, AUDIT_FREE);
	assert_int_equal(a->left_out[STATS_AUDIT_BUSY], 0);
	close_sequence(f);
}

/* All that can become of rows before they are compared. */
enum change { GROWS, IS_CUT, IS_OVERWRITTEN, IS_FORKED, CHANGES };
static void change(struct fixture *f, enum change how)
{
	struct sparq_sqe overwrite = { .op = SPARQ_OP_OVERWRITE,
				       .sequence = f->seq->id,
				       .row = 100,
				       .n_rows = 300,
				       .kv = KV_AT };
	char why[SPARQ_ERROR_TEXT] = "";
	struct seq *child;

	if (how == GROWS)
		append(f, 300); /* its tail becomes tiles */
	if (how == IS_CUT) {
		assert_int_equal(seq_truncate(f->seq, 70, why), 0);
		append(f, 400);
	}
	if (how == IS_OVERWRITTEN)
		assert_int_equal(run_entry(f, &overwrite).res, 1);
	if (how == IS_FORKED) {
		assert_int_equal(seq_fork(f->seq, 700, FIXTURE_SESSION, &child, why), 0);
		assert_int_equal(seq_truncate(f->seq, 0, why), 0);
		append(f, 200);
	}
}

static void test_rows_are_those_that_the_step_saw(void **state)
{
	struct fixture *f = *state;

	for (unsigned how = 0; how < CHANGES; how++) {
		struct audit_result r;
		double want;

		open_sequence(f, "sparq", "r=4 k=16 dense_below=0");
		append(f, ROWS);
		attend(f, 0);
		want = error_of(f, ROWS);
		change(f, how);
		r = await(f);
		assert_error(&r, want);
		close_sequence(f);
	}
}

/* Its pages are given back when the audit is, and the cache outlives it. */
static void test_a_dropped_sequence_ends_its_audit(void **state)
{
	struct fixture *f = *state;
	struct auditor *a = f->store.store.auditor;
	struct audit_result r;

	open_sequence(f, "sparq", "r=4 k=16 dense_below=0");
	append(f, ROWS);
	attend(f, 0);
	close_sequence(f);
	assert_ptr_equal(f->store.store.caches, f->cache);
	audit_run(a);
	assert_true(audit_next(a, &r));
	assert_int_equal(r.r, -ECANCELED);
	assert_int_equal(a->left_out[STATS_AUDIT_DROPPED], 1);
	audit_collect(a);
	assert_null(f->store.store.caches);
}

static void test_one_at_a_time(void **state)
{
	struct fixture *f = *state;
	struct auditor *a = f->store.store.auditor;

	open_sequence(f, "sparq", "r=4 k=16 dense_below=0");
	append(f, ROWS);
	attend(f, 0);
	attend(f, 0);
	attend(f, 0);
	assert_int_equal(a->left_out[STATS_AUDIT_BUSY], 2);
	await(f);
	/* It rests: an hour for each nanosecond. */
	a->rest = UINT32_MAX;
	attend(f, 0);
	await(f);
	attend(f, 0);
	assert_int_equal(a->left_out[STATS_AUDIT_BUSY], 3);
	assert_int_equal(a->job.state, AUDIT_FREE);
	close_sequence(f);
}

static void test_what_does_not_fit_is_left_out(void **state)
{
	struct fixture *f = *state;
	struct auditor *a = f->store.store.auditor;
	size_t bytes = a->job.lane.bytes;

	open_sequence(f, "sparq", "r=4 k=16 dense_below=0");
	append(f, ROWS);
	/* Not the queries, not the rows. */
	for (a->job.lane.bytes = 1024; a->job.lane.bytes <= 32 * KIB; a->job.lane.bytes *= 32) {
		uint64_t before = a->left_out[STATS_AUDIT_LARGE];

		attend(f, 0);
		assert_int_equal(a->job.state, AUDIT_FREE);
		assert_int_equal(a->left_out[STATS_AUDIT_LARGE], before + 1);
	}
	a->job.lane.bytes = bytes;
	attend(f, 0);
	await(f);
	close_sequence(f);
}

static void test_what_is_not_finite_is_left_out(void **state)
{
	struct fixture *f = *state;
	struct auditor *a = f->store.store.auditor;

	open_sequence(f, "sparq", "r=4 k=16 dense_below=0");
	append(f, ROWS);
	f->base[Q_AT / 4] = NAN;
	attend(f, 0);
	a->job.o[7] = NAN;
	assert_int_equal(await(f).r, -EDOM);
	assert_int_equal(a->left_out[STATS_AUDIT_ODD], 1);
	close_sequence(f);
}

/* A cache says for itself, unless nothing is audited at all; and its steps are nobody else's turn.
 */
static void test_how_often_of_a_cache(void **state)
{
	struct auditor a = { .every = 1u << 30 };
	struct audit_turn turn = { 0 };
	uint32_t turns = 0, n = 640000;

	for (uint32_t i = 0; i < n; i++)
		turns += audit_is_turn(&a, &turn, 64);
	assert_in_range(turns, n / 64 * 95 / 100, n / 64 * 105 / 100);
	a.every = 1;
	for (uint32_t i = 0; i < 1000; i++)
		assert_false(audit_is_turn(&a, &turn, AUDIT_OFF));
	a.every = 0;
	for (uint32_t i = 0; i < 1000; i++)
		assert_false(audit_is_turn(&a, &turn, 1));
}

/* One in so many, by no fixed rhythm. */
static void test_how_often(void **state)
{
	struct auditor a = { .every = 64 };
	struct audit_turn turn = { 0 };
	uint32_t turns = 0, at_a_multiple = 0, n = 640000;

	for (uint32_t i = 0; i < n; i++)
		if (audit_is_turn(&a, &turn, 0)) {
			turns++;
			at_a_multiple += i % 64 == 0;
		}
	assert_in_range(turns, n / 64 * 95 / 100, n / 64 * 105 / 100);
	assert_in_range(at_a_multiple, 1, turns / 16);
	a.every = 0;
	for (uint32_t i = 0; i < 1000; i++)
		assert_false(audit_is_turn(&a, &turn, 0));
	a.every = 1;
	for (uint32_t i = 0; i < 1000; i++)
		assert_true(audit_is_turn(&a, &turn, 0));
	assert_false(audit_is_turn(NULL, &turn, 1));
}

/* With its thread, which reads while the rows' sequence is changed. */
static void test_beside_the_steps(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 5 * CHANGES; i++) {
		struct audit_result r;
		double want;

		open_sequence(f, "sparq", "r=4 k=16 dense_below=0");
		append(f, ROWS);
		attend(f, 0);
		want = error_of(f, ROWS);
		change(f, (enum change)(i % CHANGES));
		r = await(f);
		assert_error(&r, want);
		attend(f, 0);
		seq_release_session(&f->store.store, FIXTURE_SESSION);
		r = await(f);
		assert_true(r.r == 0 || r.r == -ECANCELED);
		cache_unref(f->cache);
	}
}

/* It goes while one is queued, or under way. */
static void test_its_end(void **state)
{
	struct fixture *f = *state;

	open_sequence(f, "sparq", "r=4 k=16 dense_below=0");
	append(f, ROWS);
	attend(f, 0);
	f->store.store.auditor = audit_close(f->store.store.auditor);
	attend(f, 0);
	close_sequence(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_error_is_that_of_a_second_computation, by_hand,
						tear_down),
		cmocka_unit_test_setup_teardown(test_tiny_choice_is_far_off, by_hand, tear_down),
		cmocka_unit_test_setup_teardown(test_choice_of_all_rows_has_no_error, by_hand,
						tear_down),
		cmocka_unit_test_setup_teardown(test_dense_steps_are_not_audited, by_hand,
						tear_down),
		cmocka_unit_test_setup_teardown(test_rows_are_those_that_the_step_saw, by_hand,
						tear_down),
		cmocka_unit_test_setup_teardown(test_a_dropped_sequence_ends_its_audit, by_hand,
						tear_down),
		cmocka_unit_test_setup_teardown(test_one_at_a_time, by_hand, tear_down),
		cmocka_unit_test_setup_teardown(test_what_does_not_fit_is_left_out, by_hand,
						tear_down),
		cmocka_unit_test_setup_teardown(test_what_is_not_finite_is_left_out, by_hand,
						tear_down),
		cmocka_unit_test(test_how_often),
		cmocka_unit_test(test_how_often_of_a_cache),
		cmocka_unit_test_setup_teardown(test_beside_the_steps, with_thread, tear_down),
		cmocka_unit_test_setup_teardown(test_its_end, by_hand, tear_down),
		cmocka_unit_test_setup_teardown(test_its_end, with_thread, tear_down),
	};

	return cmocka_run_group_tests_name("audit", tests, NULL, NULL);
}
