/* SPDX-License-Identifier: Apache-2.0 */
/*
 * REPEAT after a crash, wherever it came: an engine that submits again what was in
 * flight relies on the very bits that it would have got, for that entry and for
 * all after it, also where a tile was about to be quantised.
 *
 * Two sequences get the same entries. One is left alone; the other's daemon dies now
 * and then, before an entry is committed or between its commit and its flush.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/seq.h"
#include "daemon/step-item.h"
#include "daemon/step.h"
#include "shm/base.h"
#include "store-fixture.h"

#define HEADS 4u
#define KV_HEADS 2u
#define DIM 64u
#define Q_FLOATS (HEADS * DIM)
#define KV_FLOATS (KV_HEADS * 2 * DIM)
#define MOST_ROWS 60u /* of an entry */
#define KV_AT 0u
#define Q_AT (1u << 20)
#define O_AT (2u << 20)

struct daemon_of {
	struct store_fixture store;
	struct stepper stepper;
	struct session *session;
	float *arena;
	struct seq *whole, *struck;
	unsigned lost, uncommitted, unflushed;
};

static void open_session(struct daemon_of *d)
{
	struct session *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->id = FIXTURE_SESSION;
	s->user = d->store.user;
	s->n_queues = 1;
	assert_int_equal(segment_plan(1, 1, 64, 4 << 20, &s->layout), 0);
	assert_int_equal(segment_create("test", s->layout.bytes, &s->segment), 0);
	s->queue[0] = (struct queue){ .session = s, .number = 1, .wake_fd = -1 };
	d->arena = (float *)((char *)s->segment.base + s->layout.arena_offset);
	d->session = s;
}

static void open_all(struct daemon_of *d, const char *policy, const char *format,
		     const char *options)
{
	struct sparq_msg_cache_create m = fixture_request("test", options);
	char why[SPARQ_ERROR_TEXT] = "";
	struct cache *c;

	memset(d, 0, sizeof(*d));
	fixture_open(&d->store, 64 << 20, 2 << 20);
	strcpy(m.k_format, format);
	strcpy(m.v_format, format);
	strcpy(m.policy, policy);
	if (cache_create(&d->store.store, d->store.user, &m, &c, why) < 0)
		fail_msg("%s", why);
	assert_int_equal(stepper_init(&d->stepper, &d->store.store, 16 << 20), 0);
	open_session(d);
	assert_int_equal(seq_create(c, "", FIXTURE_SESSION, &d->whole, why), 0);
	assert_int_equal(seq_create(c, "", FIXTURE_SESSION, &d->struck, why), 0);
}

static void close_all(struct daemon_of *d)
{
	struct cache *c = d->whole->cache;

	seq_release_session(&d->store.store, FIXTURE_SESSION);
	cache_unref(c);
	fixture_assert_empty(&d->store);
	stepper_deinit(&d->stepper);
	segment_deinit(&d->session->segment);
	free(d->session);
	fixture_close(&d->store);
}

static void noise(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = (float)(random() % 2001 - 1000) / 500;
}

/* A death before the flush: the rows are committed, their completion was never seen. */
static struct sparq_cqe run(struct daemon_of *d, const struct sparq_sqe *e, bool dies)
{
	struct sparq_cqe cqe;

	assert_true(step_run(&d->stepper, &d->session->queue[0], e, &cqe));
	if (dies)
		d->stepper.item[0].commits = false;
	step_settle(&d->stepper);
	return cqe;
}

static void step_struck(struct daemon_of *d, struct sparq_sqe e)
{
	float *o = d->arena + O_AT / sizeof(float);
	unsigned how = (unsigned)random() % 4;
	struct sparq_cqe cqe;

	memset(o, 0xff, (size_t)e.n_q * Q_FLOATS * sizeof(float));
	if (how == 0) { /* committed, not answered */
		d->lost++;
		assert_int_equal(run(d, &e, true).res, 1);
		d->unflushed += seq_flush_due(d->struck, 0);
		memset(o, 0xff, (size_t)e.n_q * Q_FLOATS * sizeof(float));
	}
	if (how <= 1) { /* or not even seen */
		d->uncommitted += how == 1;
		e.flags = SPARQ_SQE_REPEAT;
	}
	cqe = run(d, &e, false);
	assert_int_equal(cqe.res, 1);
	assert_int_equal((cqe.flags & SPARQ_CQE_REPEATED) != 0, how == 0);
}

static void compare(const char *policy, const char *format, const char *options)
{
	float *expected = calloc(MOST_ROWS * Q_FLOATS, sizeof(float));
	struct daemon_of d;

	open_all(&d, policy, format, options);
	for (uint32_t row = 0; row < 4000;) {
		uint16_t n = (uint16_t)(random() % 3 ? 1 : 1 + (uint32_t)random() % MOST_ROWS);
		size_t bytes = (size_t)n * Q_FLOATS * sizeof(float);
		float *o = d.arena + O_AT / sizeof(float);
		struct sparq_sqe e = {
			.op = SPARQ_OP_STEP,
			.kv = KV_AT,
			.q = Q_AT,
			.o = O_AT,
			.row = row,
			.n_rows = n,
			.n_q = n,
		};

		noise(d.arena + KV_AT / sizeof(float), (size_t)n * KV_FLOATS);
		noise(d.arena + Q_AT / sizeof(float), (size_t)n * Q_FLOATS);
		e.sequence = d.whole->id;
		assert_int_equal(run(&d, &e, false).res, 1);
		memcpy(expected, o, bytes);
		e.sequence = d.struck->id;
		step_struck(&d, e);
		if (memcmp(expected, o, bytes))
			fail_msg("%s over %s: other bits in rows %u to %u", policy, format, row,
				 row + n);
		row += n;
	}
	assert_int_equal(seq_rows(d.struck, 0), seq_rows(d.whole, 0));
	/* Else it has not been where it matters. */
	assert_true(d.lost > 40 && d.uncommitted > 40 && d.unflushed > 3);
	free(expected);
	close_all(&d);
}

static void test_dense(void **state)
{
	compare("dense", "hier4", "sinks=4 rollback=16");
	compare("dense", "int8", "sinks=0 rollback=0");
}

static void test_sparq(void **state)
{
	compare("sparq", "hier4", "sinks=4 rollback=16 r=16 k=64 dense_below=0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dense),
		cmocka_unit_test(test_sparq),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
