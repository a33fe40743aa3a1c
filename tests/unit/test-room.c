/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An append that finds no room: it succeeds if something can be evicted, fails with the limit's
 * name if not, and nobody but its own ring waits. Whoever appends relies on it, on the entry
 * running wholly and once whatever happens in between, and on its deadline.
 */
#include "daemon/room.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/evict.h"
#include "daemon/step.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "store-fixture.h"

#define ROW_BYTES (2 * 2 * 64 * sizeof(float)) /* k and v of fixture_request */
#define ITEMS_AT (2u << 20)
#define MS 1000000ull

static char why[SPARQ_ERROR_TEXT];

struct fixture {
	struct store_fixture f;
	struct evictor e;
	struct stepper stepper;
	struct session *session;
	struct cache *cache;
	uint64_t next_session;
};

static struct sparq_cqe cqe;

static struct session *make_session(struct user *user, uint64_t id)
{
	struct session *s = calloc(1, sizeof(*s));

	s->id = id;
	s->user = user;
	s->n_queues = 2;
	assert_int_equal(segment_plan((unsigned)id, 2, 64, 4 << 20, &s->layout), 0);
	assert_int_equal(segment_create("test", s->layout.bytes, &s->segment), 0);
	for (uint32_t i = 0; i < 2; i++)
		s->queue[i] = (struct queue){ .session = s, .number = i + 1, .wake_fd = -1 };
	return s;
}

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct sparq_msg_cache_create m =
		fixture_request("a", "on_disconnect=park evict=lru sinks=0 rollback=0");

	fixture_open(&x->f, 64 << 20, 4 << 20);
	assert_int_equal(evict_init(&x->e, &x->f.store), 0);
	assert_int_equal(stepper_init(&x->stepper, &x->f.store, 32 << 20), 0);
	assert_int_equal(cache_create(&x->f.store, x->f.user, &m, &x->cache, why), 0);
	x->session = make_session(x->f.user, 1);
	x->next_session = 100;
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	x->cache->on_disconnect = ON_DISCONNECT_DROP;
	for (struct seq *s = x->cache->first, *next; s; s = next) {
		next = s->next;
		assert_int_equal(seq_drop(s, why), 0);
	}
	cache_unref(x->cache);
	fixture_assert_empty(&x->f);
	segment_deinit(&x->session->segment);
	free(x->session);
	stepper_deinit(&x->stepper);
	evict_deinit(&x->e);
	fixture_close(&x->f);
	free(x);
	return 0;
}

static struct seq *begin(struct fixture *x, const char *name, uint64_t session)
{
	struct seq *s = NULL;

	if (seq_create(x->cache, name, session, &s, why) < 0)
		fail_msg("%s", why);
	return s;
}

static struct sparq_sqe append_of(const struct seq *s, uint16_t layer, uint32_t row, uint16_t n)
{
	return (struct sparq_sqe){ .op = SPARQ_OP_APPEND,
				   .sequence = s->id,
				   .layer = layer,
				   .row = row,
				   .n_rows = n,
				   .user_data = row };
}

/* As a worker does; false: it waits. */
static bool run(struct fixture *x, struct queue *q, const struct sparq_sqe *e)
{
	if (!step_run(&x->stepper, q, e, &cqe))
		return false;
	step_settle(&x->stepper);
	if (q->room.waits)
		room_done(q);
	return true;
}

static bool again(struct fixture *x, struct queue *q)
{
	return room_is_due(q) && run(x, q, &q->room.entry);
}

static void fill(struct fixture *x, struct seq *s, uint32_t rows)
{
	for (uint32_t row = 0; row < rows; row += 64)
		for (uint16_t layer = 0; layer < 2; layer++) {
			struct sparq_sqe e = append_of(s, layer, row, 64);

			assert_true(run(x, &x->session->queue[0], &e));
			assert_int_equal(cqe.res, 1);
		}
}

/* 256 rows in both layers, and nobody attached to it. */
static void park(struct fixture *x, const char *name)
{
	struct seq *s = begin(x, name, x->session->id);

	fill(x, s, 256);
	store_release(&s->session, ++x->next_session);
	seq_release_session(&x->f.store, x->next_session);
}

static bool is_called(const struct fixture *x)
{
	struct pollfd p = { .fd = x->f.store.room_fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void forget_calls(const struct fixture *x)
{
	uint64_t n;

	if (read(x->f.store.room_fd, &n, sizeof(n)) < 0)
		assert_int_equal(errno, EAGAIN);
}

/* One sequence in use that is full to the brim, and `parked` others. */
static struct seq *brim(struct fixture *x, unsigned parked)
{
	char name[16];
	struct seq *s;

	for (unsigned i = 0; i < parked; i++) {
		snprintf(name, sizeof(name), "p%u", i);
		park(x, name);
	}
	s = begin(x, "used", x->session->id);
	fill(x, s, 64);
	x->cache->budget_bytes = x->cache->charged_bytes;
	forget_calls(x);
	return s;
}

/* ---- one ring ----------------------------------------------------------------------- */

static void succeeds_by_eviction(void **state)
{
	struct fixture *x = *state;
	struct seq *s = brim(x, 2);
	struct queue *q = &x->session->queue[0];
	struct sparq_sqe e = append_of(s, 0, 64, 64);
	uint64_t steps = x->stepper.steps;

	assert_false(run(x, q, &e));
	assert_true(q->room.waits && is_called(x));
	assert_int_equal(s->owner, 0); /* nothing is held */
	assert_int_equal(seq_rows(s, 0), 64);
	assert_false(again(x, q)); /* no answer yet */
	assert_true(evict_answer(&x->e, x->session));
	assert_false(evict_answer(&x->e, x->session));
	assert_int_equal(x->cache->n_sequences, 2);
	assert_true(again(x, q));
	assert_int_equal(cqe.res, 1);
	assert_int_equal(cqe.user_data, 64);
	assert_int_equal(seq_rows(s, 0), 128);
	assert_int_equal(x->stepper.steps, steps + 1);
	assert_int_equal(x->e.sum[LIMIT_BUDGET].sequences, 1);
	assert_false(q->room.waits || q->room.last || q->room.asked);
	assert_int_equal(q->room.answer, ROOM_NONE);
}

static void fails_with_the_name(void **state)
{
	struct fixture *x = *state;
	struct seq *s = brim(x, 0);
	struct queue *q = &x->session->queue[0];
	struct sparq_sqe e = append_of(s, 0, 64, 64);

	/* Nothing was ever parked: nobody is asked. */
	assert_true(run(x, q, &e));
	assert_int_equal(cqe.res, -ENOSPC);
	assert_int_equal(cqe.aux >> 16, SPARQ_REASON_BUDGET);
	assert_false(is_called(x));
	/* Something is, and cannot go. */
	x->cache->budget_bytes = 0;
	park(x, "pinned");
	evict_pin(x->cache->first, true);
	x->f.user->limit[USER_BYTES] = x->f.user->charged[USER_BYTES];
	forget_calls(x);
	assert_false(run(x, q, &e));
	assert_true(is_called(x) && evict_answer(&x->e, x->session));
	assert_true(again(x, q));
	assert_int_equal(cqe.res, -ENOSPC);
	assert_int_equal(cqe.aux >> 16, SPARQ_REASON_QUOTA);
	assert_int_equal(seq_rows(s, 0), 64);
	/* And from then on nobody is asked again. */
	forget_calls(x);
	assert_true(run(x, q, &e));
	assert_int_equal(cqe.res, -ENOSPC);
	assert_false(is_called(x));
	x->f.user->limit[USER_BYTES] = UINT64_MAX;
	assert_true(run(x, q, &e));
	assert_int_equal(cqe.res, 1);
}

static void fails_without_an_evictor(void **state)
{
	struct fixture *x = *state;
	struct seq *s = brim(x, 1);
	struct sparq_sqe e = append_of(s, 0, 64, 64);
	int fd = x->f.store.room_fd;

	x->f.store.room_fd = -1;
	assert_true(run(x, &x->session->queue[0], &e));
	assert_int_equal(cqe.res, -ENOSPC);
	x->f.store.room_fd = fd;
}

/* The deadline counts from the first time; the answer that comes after it is not the next one's. */
static void deadline_comes_first(void **state)
{
	struct fixture *x = *state;
	struct seq *s = brim(x, 1);
	struct queue *q = &x->session->queue[0];
	struct sparq_sqe e = append_of(s, 0, 64, 64);

	e.timeout_us = 2000;
	assert_false(run(x, q, &e));
	assert_false(again(x, q));
	usleep(3000);
	assert_true(again(x, q));
	assert_int_equal(cqe.res, -ETIME);
	assert_int_equal(cqe.aux >> 16, SPARQ_REASON_DEADLINE);
	assert_int_equal(q->room.answer, ROOM_ASKED);
	/* The next one waits for the same answer; if that is a no it was not about it. */
	e.timeout_us = 0;
	assert_false(run(x, q, &e));
	assert_false(q->room.asked);
	evict_pin(x->cache->first->next, true);
	assert_true(evict_answer(&x->e, x->session));
	assert_int_equal(q->room.answer, ROOM_NOTHING);
	evict_pin(x->cache->first->next, false);
	evict_offer(x->cache->first->next);
	assert_false(again(x, q));
	assert_true(q->room.asked && evict_answer(&x->e, x->session));
	assert_true(again(x, q));
	assert_int_equal(cqe.res, 1);
}

/* What a dead client waited for makes nobody go. */
static void ending_session(void **state)
{
	struct fixture *x = *state;
	struct seq *s = brim(x, 1);
	struct queue *q = &x->session->queue[0];
	struct sparq_sqe e = append_of(s, 0, 64, 64);

	assert_false(run(x, q, &e));
	x->session->ending = 1;
	room_done(q);
	assert_true(evict_answer(&x->e, x->session));
	assert_int_equal(x->cache->n_sequences, 2);
}

/* The sequence goes while its entry waits. */
static void dropped_meanwhile(void **state)
{
	struct fixture *x = *state;
	struct seq *s = brim(x, 1);
	struct queue *q = &x->session->queue[0];
	struct sparq_sqe e = append_of(s, 0, 64, 64);

	assert_false(run(x, q, &e));
	assert_int_equal(seq_drop(s, why), 0);
	assert_true(evict_answer(&x->e, x->session));
	assert_true(again(x, q));
	assert_int_equal(cqe.res, -ENOENT);
	/* There was room by then: the parked one is still there. */
	assert_int_equal(x->cache->n_sequences, 1);
}

/* ---- several ------------------------------------------------------------------------- */

static void put_items(struct fixture *x, struct seq *const *s, uint16_t n, uint32_t row)
{
	struct sparq_item *item = (struct sparq_item *)((char *)x->session->segment.base +
							x->session->layout.arena_offset + ITEMS_AT);

	memset(item, 0, n * sizeof(*item));
	for (uint16_t i = 0; i < n; i++) {
		item[i].sequence = s[i]->id;
		item[i].kv = i * 64 * ROW_BYTES;
		item[i].row = row;
		item[i].n_rows = 64;
	}
}

/* A batch waits as a whole; in the end each item stands for itself. */
static void batch(void **state)
{
	struct fixture *x = *state;
	struct queue *q = &x->session->queue[1];
	struct sparq_sqe e = { .op = SPARQ_OP_APPEND, .sequence = ITEMS_AT, .n_items = 3 };
	struct seq *s[3];
	uint64_t chunk;

	park(x, "p");
	for (unsigned i = 0; i < 3; i++)
		s[i] = begin(x, "", x->session->id);
	chunk = x->cache->charged_bytes;
	fill(x, s[0], 64);
	chunk = (x->cache->charged_bytes - chunk) / 2;
	put_items(x, s + 1, 2, 0);
	e.n_items = 2;
	x->cache->budget_bytes = x->cache->charged_bytes + chunk;
	assert_false(run(x, q, &e));
	/* The first has its chunk already, and no row. */
	assert_int_equal(seq_rows(s[1], 0), 0);
	assert_int_equal(s[1]->owner, 0);
	assert_true(evict_answer(&x->e, x->session));
	assert_true(again(x, q));
	assert_int_equal(cqe.res, 2);
	assert_int_equal(seq_rows(s[1], 0), 64);
	assert_int_equal(seq_rows(s[2], 0), 64);
	assert_int_equal(x->cache->n_sequences, 3);
	/* Nothing is left to go: who has room has its rows. */
	x->cache->budget_bytes = x->cache->charged_bytes + chunk;
	x->cache->pressure.may_evict = 1;
	put_items(x, s + 1, 2, 64);
	assert_false(run(x, q, &e));
	assert_true(evict_answer(&x->e, x->session));
	assert_true(again(x, q));
	assert_int_equal(cqe.res, -ENOSPC);
	assert_int_equal(cqe.aux, SPARQ_REASON_BUDGET << 16 | 1);
	assert_int_equal(seq_rows(s[1], 0), 128);
	assert_int_equal(seq_rows(s[2], 0), 64);
}

/* Another ring of the same worker goes on. */
static void other_rings(void **state)
{
	struct fixture *x = *state;
	struct seq *s = brim(x, 1), *other = NULL;
	struct queue *q = x->session->queue;
	struct sparq_sqe e = append_of(s, 0, 64, 64), of_other;

	x->cache->budget_bytes += CATALOGUE_BLOCK;
	other = begin(x, "", x->session->id);
	of_other = append_of(other, 1, 0, 64);
	assert_false(run(x, &q[0], &e));
	e = append_of(s, 0, 63, 1);
	e.flags = SPARQ_SQE_REPEAT;
	assert_true(run(x, &q[1], &e));
	assert_int_equal(cqe.res, 1);
	/* It waits as well, for the same call. */
	assert_false(run(x, &q[1], &of_other));
	assert_true(evict_answer(&x->e, x->session));
	assert_true(again(x, &q[0]));
	assert_int_equal(cqe.res, 1);
	assert_true(again(x, &q[1]));
	assert_int_equal(cqe.res, 1);
	assert_int_equal(x->cache->n_sequences, 2);
}

/* ---- two threads ---------------------------------------------------------------------- */

struct actor {
	struct fixture *x;
	struct seq *s;
	uint32_t done, waits; /* atomic */
	uint32_t appended, refused, waited;
};

/* A worker with one ring: appends, cuts when it has many rows, and waits for room in between. */
static void *work(void *arg)
{
	struct actor *a = arg;
	struct queue *q = &a->x->session->queue[0];
	struct sparq_cqe c;

	for (unsigned i = 0; i < 3000; i++) {
		uint32_t rows = seq_rows(a->s, 0);
		struct sparq_sqe e = append_of(a->s, 0, rows, 64);

		if (rows > 4000) {
			e = append_of(a->s, 0, i % 3000, 0);
			e.op = SPARQ_OP_TRUNCATE;
		}
		if (!step_run(&a->x->stepper, q, &e, &c)) {
			a->waited++;
			store_release(&a->waits, 1u);
			do
				while (!room_is_due(q))
					usleep(10);
			while (!step_run(&a->x->stepper, q, &q->room.entry, &c));
			room_done(q);
			store_release(&a->waits, 0u);
		}
		step_settle(&a->x->stepper);
		a->appended += c.res > 0;
		a->refused += c.res == -ENOSPC;
		if (c.res < 0 && c.res != -ENOSPC)
			break;
	}
	store_release(&a->done, 1u);
	return NULL;
}

/* The control thread parks, attaches, evicts ahead and answers, while a worker wants more. */
static void threads(void **state)
{
	struct fixture *x = *state;
	struct actor a = { .x = x, .s = begin(x, "used", 1) };
	pthread_t t;
	char name[16];
	struct seq *s;
	unsigned parked = 0;

	x->cache->budget_bytes = 5 << 20;
	assert_int_equal(pthread_create(&t, NULL, work, &a), 0);
	while (!load_acquire(&a.done)) {
		forget_calls(x);
		evict_answer(&x->e, x->session);
		evict_ahead(&x->e);
		/* Or it would take, again and again, what it has made. */
		if (load_acquire(&a.waits)) {
			sched_yield();
			continue;
		}
		snprintf(name, sizeof(name), "p%u", parked % 8);
		if (seq_create(x->cache, name, ++x->next_session, &s, why) == 0) {
			assert_true(seq_try_control(s));
			if (seq_reserve(s, 0, 256) == 0)
				seq_commit(s, 0, 256);
			seq_end_control(s);
			parked++;
		} else if (seq_attach(x->cache, name, x->next_session, &s, why) < 0) {
			evict_again(&x->e, x->f.user);
		}
		seq_release_session(&x->f.store, x->next_session);
	}
	pthread_join(t, NULL);
	assert_int_equal(a.appended + a.refused, 3000);
	assert_true(x->cache->evicted_sequences > 0);
	assert_int_equal(seq_drop(a.s, why), 0);
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(succeeds_by_eviction),
		ONE(fails_with_the_name),
		ONE(fails_without_an_evictor),
		ONE(deadline_comes_first),
		ONE(ending_session),
		ONE(dropped_meanwhile),
		ONE(batch),
		ONE(other_rings),
		ONE(threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
