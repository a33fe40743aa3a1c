/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles across the daemon's end. An engine that holds thousands of them relies
 * on getting each back or hearing of it by name, and on no request being done twice
 * that must be done once.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "client/private.h"
#include "fake-daemon.h"
#include "shm/atomic.h"
#include "shm/clock.h"

struct setup {
	struct fake f;
	sparq *c;
	sparq_cache *k;
	sparq_seq *named, *unnamed;
};

static const struct sparq_cache_params shape = {
	.size = sizeof(shape),
	.layers = 1,
	.name = "chat",
	.options = "r=16",
};

static void start(struct setup *t, uint32_t reconnect_ms)
{
	struct sparq_open_params p = { .size = sizeof(p), .reconnect_ms = reconnect_ms };

	fake_start(&t->f);
	assert_int_equal(sparq_open(t->f.path, &p, &t->c), 0);
	assert_int_equal(sparq_cache_create(t->c, &shape, &t->k), 0);
	assert_int_equal(sparq_seq_create(t->k, "turn", &t->named), 0);
	assert_int_equal(sparq_seq_create(t->k, NULL, &t->unnamed), 0);
}

static void stop(struct setup *t)
{
	sparq_seq_unref(t->named);
	sparq_seq_unref(t->unnamed);
	sparq_cache_unref(t->k);
	sparq_close(t->c);
	fake_stop(&t->f);
}

/* How many messages of a type the daemon has had. */
static uint32_t count(struct setup *t, uint32_t type)
{
	return load_acquire(&t->f.n[type]);
}

static int64_t now_ms(void)
{
	return clock_now_ns() / NS_PER_MS;
}

static int ask(sparq_seq *s)
{
	struct sparq_seq_stat stat = { .size = sizeof(stat) };

	return sparq_seq_stat_get(s, 0, &stat);
}

static int ask_cache(sparq_cache *k)
{
	struct sparq_cache_stat stat = { .size = sizeof(stat) };

	return sparq_cache_stat_get(k, &stat);
}

/* ---- attached again ------------------------------------------------------------- */

static void test_again(void **state)
{
	struct sparq_info info = { .size = sizeof(info) };
	uint64_t named, unnamed;
	struct setup t = {};

	start(&t, 2000);
	assert_int_equal(sparq_info_get(t.c, &info), 0);
	assert_int_equal(info.generation, 7);
	named = sparq_seq_id(t.named);
	unnamed = sparq_seq_id(t.unnamed);
	for (unsigned round = 1; round <= 3; round++) {
		fake_restart(&t.f);
		assert_int_equal(ask(t.named), 0);
		assert_int_equal(ask(t.unnamed), 0);
		assert_int_equal(ask_cache(t.k), 0);
		assert_int_equal(sparq_info_get(t.c, &info), 0);
		assert_int_equal(info.generation, 7 + round);
		assert_int_equal(load_acquire(&t.f.n_sessions), 1 + round);
		assert_int_equal(count(&t, SPARQ_MSG_CACHE_ATTACH), round);
		assert_int_equal(count(&t, SPARQ_MSG_SEQ_ADOPT), 2 * round);
	}
	assert_int_equal(count(&t, SPARQ_MSG_CACHE_CREATE), 1);
	assert_int_equal(sparq_seq_id(t.named), named);
	assert_int_equal(sparq_seq_id(t.unnamed), unnamed);
	/* What was let go of is not attached again. */
	t.unnamed = sparq_seq_unref(t.unnamed);
	assert_int_equal(t.f.n_drops, 1);
	fake_restart(&t.f);
	assert_int_equal(ask(t.named), 0);
	assert_int_equal(count(&t, SPARQ_MSG_SEQ_ADOPT), 7);
	stop(&t);
}

/* One is gone; it says so by its name, for ever, and the others live. */
static void test_lost(void **state)
{
	struct setup t = {};

	start(&t, 2000);
	t.f.gone[0] = sparq_seq_id(t.named);
	fake_restart(&t.f);
	assert_int_equal(ask(t.named), -ESTALE);
	assert_non_null(strstr(sparq_error(t.c), "\"turn\""));
	assert_non_null(strstr(sparq_error(t.c), "lost"));
	assert_non_null(strstr(sparq_error(t.c), "there is no sequence"));
	assert_int_equal(ask(t.unnamed), 0);
	assert_string_equal(sparq_error(t.c), "");
	t.f.gone[0] = 0; /* were it found now, it would be another */
	fake_restart(&t.f);
	assert_int_equal(ask(t.named), -ESTALE);
	assert_int_equal(sparq_seq_truncate(t.named, 0), -ESTALE);
	assert_int_equal(ask(t.unnamed), 0);
	assert_int_equal(sparq_seq_drop(STEAL_PTR(t.named)), -ESTALE);
	assert_int_equal(t.f.n_drops, 0);
	stop(&t);
}

static void test_lost_cache(void **state)
{
	sparq_seq *s = NULL;
	struct setup t = {};

	start(&t, 2000);
	t.f.gone[0] = t.f.next_id - 2;
	fake_restart(&t.f);
	assert_int_equal(sparq_seq_create(t.k, NULL, &s), -ESTALE);
	assert_null(s);
	assert_non_null(strstr(sparq_error(t.c), "cache \"chat\""));
	assert_int_equal(count(&t, SPARQ_MSG_CACHE_CREATE), 1); /* none is made in its place */
	t.k = sparq_cache_unref(t.k);
	assert_int_equal(t.f.n_unrefs, 0);
	assert_int_equal(ask(t.unnamed), 0);
	stop(&t);
}

/* The daemon may not have heard yet of the end of the session before. */
static void test_busy(void **state)
{
	int64_t begin = now_ms();
	struct setup t = {};

	start(&t, 2000);
	store_release(&t.f.busy, 5);
	fake_restart(&t.f);
	assert_int_equal(ask(t.named), 0);
	assert_int_equal(ask(t.unnamed), 0);
	assert_int_equal(load_acquire(&t.f.busy), 0);
	store_release(&t.f.busy, 1000000); /* it is really somebody else's now */
	fake_restart(&t.f);
	assert_int_equal(ask(t.named), -ESTALE);
	assert_non_null(strstr(sparq_error(t.c), "another session"));
	assert_int_equal(ask(t.unnamed), -ESTALE);
	assert_in_range(now_ms() - begin, 900, 4000); /* not a second for each */
	stop(&t);
}

/* The daemon dies again while it is asked: all of it is done again. */
static void test_dies_again(void **state)
{
	static const uint32_t types[] = { SPARQ_MSG_HELLO, SPARQ_MSG_MAPPED, SPARQ_MSG_CACHE_ATTACH,
					  SPARQ_MSG_SEQ_ADOPT };

	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		struct setup t = {};

		start(&t, 2000);
		store_release(&t.f.die_at, types[i]);
		fake_restart(&t.f);
		assert_int_equal(ask(t.named), 0);
		assert_int_equal(ask(t.unnamed), 0);
		assert_int_equal(load_acquire(&t.f.n_sessions), 3);
		stop(&t);
	}
}

/* ---- a daemon that knows no ids ------------------------------------------------------ */

static void lie_old(struct sparq_msg_hello_reply *r, struct sparq_daemon_page *p)
{
	r->features &= ~SPARQ_FEATURE_ADOPT;
}

static void test_by_name(void **state)
{
	struct setup t = { .f = { .lie = lie_old, .sequences = 1, .kept = "turn" } };
	sparq_seq *other = NULL;
	uint64_t before;

	start(&t, 2000);
	assert_int_equal(sparq_seq_create(t.k, "other", &other), 0);
	before = sparq_seq_id(t.named);
	fake_restart(&t.f);
	assert_int_equal(ask(t.named), 0);
	assert_int_not_equal(sparq_seq_id(t.named), before);
	assert_int_equal(count(&t, SPARQ_MSG_CACHE_CREATE), 2);
	assert_string_equal(t.f.cache_create.options, "r=16");
	assert_int_equal(ask(other), -ESTALE);
	assert_non_null(strstr(sparq_error(t.c), "\"other\""));
	assert_int_equal(ask(t.unnamed), -ESTALE);
	assert_non_null(strstr(sparq_error(t.c), "has no name"));
	assert_int_equal(ask_cache(t.k), 0);
	assert_int_equal(count(&t, SPARQ_MSG_CACHE_ATTACH) + count(&t, SPARQ_MSG_SEQ_ADOPT), 0);
	sparq_seq_unref(other);
	stop(&t);
}

/* It came back empty: attaching has made a cache, which is let go of, not shown as the old one. */
static void test_by_name_empty(void **state)
{
	struct setup t = { .f = { .lie = lie_old } };

	start(&t, 2000);
	fake_restart(&t.f);
	assert_int_equal(ask_cache(t.k), -ESTALE);
	assert_non_null(strstr(sparq_error(t.c), "kept no sequence"));
	assert_int_equal(t.f.n_unrefs, 1);
	assert_int_equal(ask(t.named), -ESTALE);
	stop(&t);
}

static void test_attach(void **state)
{
	struct sparq_cache_shape s = { .size = sizeof(s) };
	sparq_cache *k = NULL;
	struct setup t = {};

	start(&t, 2000);
	assert_int_equal(sparq_cache_attach(t.c, "chat", &s, &k), 0);
	assert_int_equal(s.layers, 3);
	assert_string_equal(s.policy, "dense");
	fake_restart(&t.f);
	assert_int_equal(ask_cache(k), 0);
	k = sparq_cache_unref(k);
	s.size = 0;
	assert_int_equal(sparq_cache_attach(t.c, "chat", &s, &k), -EINVAL);
	assert_int_equal(sparq_cache_attach(t.c, "chat", NULL, &k), 0);
	sparq_cache_unref(k);
	stop(&t);
	t = (struct setup){ .f = { .lie = lie_old } };
	start(&t, 2000);
	k = NULL;
	assert_int_equal(sparq_cache_attach(t.c, "chat", NULL, &k), -EOPNOTSUPP);
	assert_null(k);
	stop(&t);
}

/* ---- requests that the daemon saw, and did not answer ------------------------------------ */

/* Asks what ends the daemon, and says what came of it. */
static int ask_deadly(struct setup *t, uint32_t type)
{
	struct sparq_cache_table_params table = { .size = sizeof(table) };
	struct sparq_info info = { .size = sizeof(info) };
	sparq_cache *k = NULL;
	sparq_seq *s = NULL;
	const char *name;
	int r = -1;

	switch (type) {
	case SPARQ_MSG_NAME:
		return sparq_name(t->c, "format", 0, &name);
	case SPARQ_MSG_INFO:
		return sparq_info_get(t->c, &info);
	case SPARQ_MSG_CACHE_STAT:
		return ask_cache(t->k);
	case SPARQ_MSG_SEQ_STAT:
		return ask(t->named);
	case SPARQ_MSG_CACHE_TABLE:
		return sparq_cache_table(t->k, &table);
	case SPARQ_MSG_SEQ_TRUNCATE:
		return sparq_seq_truncate(t->named, 0);
	case SPARQ_MSG_SEQ_PIN:
		return sparq_seq_pin(t->named, 1);
	case SPARQ_MSG_CACHE_CREATE:
		r = sparq_cache_create(t->c, &shape, &k);
		break;
	case SPARQ_MSG_SEQ_ATTACH:
		r = sparq_seq_attach(t->k, "left", &s);
		break;
	case SPARQ_MSG_SEQ_FORK:
		r = sparq_seq_fork(t->named, 0, &s);
		break;
	case SPARQ_MSG_SEQ_CREATE:
		r = sparq_seq_create(t->k, NULL, &s);
		break;
	default:
		fail();
		break;
	}
	assert_true((r == 0) == (k || s));
	sparq_seq_unref(s);
	sparq_cache_unref(k);
	return r;
}

static void test_repeated(void **state)
{
	static const uint32_t types[] = {
		SPARQ_MSG_NAME,         SPARQ_MSG_INFO,        SPARQ_MSG_CACHE_STAT,
		SPARQ_MSG_SEQ_STAT,     SPARQ_MSG_CACHE_TABLE, SPARQ_MSG_SEQ_TRUNCATE,
		SPARQ_MSG_CACHE_CREATE, SPARQ_MSG_SEQ_ATTACH,  SPARQ_MSG_SEQ_FORK,
		SPARQ_MSG_SEQ_CREATE,   SPARQ_MSG_SEQ_PIN,
	};
	struct setup t = {};

	start(&t, 2000);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		uint32_t before = count(&t, types[i]);

		store_release(&t.f.die_at, types[i]);
		if (ask_deadly(&t, types[i]) != 0)
			fail_msg("message %u: %s", types[i], sparq_error(t.c));
		assert_int_equal(count(&t, types[i]), before + 2);
	}
	stop(&t);
}

/* Was it made by the one who died? Only who knows the names can tell. */
static void test_not_repeated(void **state)
{
	sparq_seq *s = NULL;
	struct setup t = {};

	start(&t, 2000);
	store_release(&t.f.die_at, SPARQ_MSG_SEQ_CREATE);
	assert_int_equal(sparq_seq_create(t.k, "fresh", &s), -ECONNRESET);
	assert_null(s);
	assert_non_null(strstr(sparq_error(t.c), "SEQ_CREATE"));
	assert_int_equal(count(&t, SPARQ_MSG_SEQ_CREATE), 3);
	assert_int_equal(sparq_seq_attach(t.k, "fresh", &s), 0); /* in the next session */
	sparq_seq_unref(s);
	stop(&t);
}

/* A drop that was done and not answered: what it was to do is done. */
static void test_dropped(void **state)
{
	struct setup t = {};

	start(&t, 2000);
	t.f.gone[0] = sparq_seq_id(t.named);
	store_release(&t.f.die_at, SPARQ_MSG_SEQ_DROP);
	assert_int_equal(sparq_seq_drop(STEAL_PTR(t.named)), 0);
	store_release(&t.f.die_at, SPARQ_MSG_SEQ_DROP);
	assert_int_equal(sparq_seq_drop(STEAL_PTR(t.unnamed)), 0);
	assert_int_equal(t.f.n_drops, 1); /* the second had not been */
	stop(&t);
}

/* ---- time ------------------------------------------------------------------------------- */

static void *back_soon(void *arg)
{
	poll(NULL, 0, 300);
	fake_back(arg);
	return NULL;
}

static void test_waits(void **state)
{
	struct setup t = {};
	pthread_t thread;
	int64_t begin;

	start(&t, 5000);
	fake_away(&t.f);
	begin = now_ms();
	assert_int_equal(pthread_create(&thread, NULL, back_soon, &t.f), 0);
	assert_int_equal(ask(t.named), 0);
	/* 300 until it is back; an attempt is at most 640 after the one before. */
	assert_in_range(now_ms() - begin, 299, 3000);
	pthread_join(thread, NULL);
	stop(&t);
}

static void test_gives_up(void **state)
{
	struct setup t = {};
	int64_t begin;

	start(&t, 1500);
	fake_away(&t.f);
	begin = now_ms();
	assert_int_equal(ask(t.named), -ENOTCONN);
	assert_in_range(now_ms() - begin, 1499, 6000);
	assert_non_null(strstr(sparq_error(t.c), "SEQ_STAT"));
	assert_non_null(strstr(sparq_error(t.c), t.f.path));
	/* Letting go waits for nobody. */
	begin = now_ms();
	t.unnamed = sparq_seq_unref(t.unnamed);
	assert_in_range(now_ms() - begin, 0, 1000);
	fake_back(&t.f);
	assert_int_equal(ask(t.named), 0);
	stop(&t);
}

/* A program that wants its sessions to end is told at once. */
static void test_never(void **state)
{
	struct setup t = {};
	int64_t begin;

	start(&t, UINT32_MAX);
	fake_restart(&t.f);
	begin = now_ms();
	while (ask(t.named) == 0) /* until the end is seen */
		assert_true(now_ms() - begin < 5000);
	assert_int_equal(ask(t.named), -ENOTCONN);
	assert_int_equal(sparq_dispatch(t.c), -ENOTCONN);
	assert_int_equal(load_acquire(&t.f.n_sessions), 1);
	stop(&t);
}

static void lie_small(struct sparq_msg_hello_reply *r, struct sparq_daemon_page *p)
{
	if (p->generation > 7)
		r->arena_bytes -= 4096;
}

/* No waiting mends what another daemon says. */
static void test_final(void **state)
{
	struct setup t = { .f = { .lie = lie_small } };
	int64_t begin = now_ms();

	start(&t, 20000);
	fake_restart(&t.f);
	assert_int_equal(ask(t.named), -ENOTCONN);
	assert_non_null(strstr(sparq_error(t.c), "new arena has"));
	assert_in_range(now_ms() - begin, 0, 5000);
	stop(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_again),         cmocka_unit_test(test_lost),
		cmocka_unit_test(test_lost_cache),    cmocka_unit_test(test_busy),
		cmocka_unit_test(test_dies_again),    cmocka_unit_test(test_by_name),
		cmocka_unit_test(test_by_name_empty), cmocka_unit_test(test_attach),
		cmocka_unit_test(test_repeated),      cmocka_unit_test(test_not_repeated),
		cmocka_unit_test(test_dropped),       cmocka_unit_test(test_waits),
		cmocka_unit_test(test_gives_up),      cmocka_unit_test(test_never),
		cmocka_unit_test(test_final),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
