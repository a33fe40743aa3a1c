/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences to files and back. What comes back is what went, to the last bit and for every
 * format; who wants a sequence has it, wherever it is. Everybody who sets spill_dir relies on
 * it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/image.h"
#include "daemon/log.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "spill-world.h"

static char why[SPARQ_ERROR_TEXT];

struct bytes {
	uint8_t *data;
	uint64_t n;
};

static struct bytes image_of(struct seq *s)
{
	struct image *im = NULL;
	struct bytes b;

	assert_true(seq_try_control(s));
	if (image_open(s, &im, why) < 0)
		fail_msg("%s", why);
	b.n = image_bytes(im);
	b.data = malloc(b.n);
	image_read(im, 0, b.data, b.n, NULL);
	image_close(im);
	seq_end_control(s);
	return b;
}

static void assert_image(struct bytes was, struct seq *s)
{
	struct bytes is = image_of(s);

	assert_int_equal(is.n, was.n);
	assert_memory_equal(is.data, was.data, is.n);
	free(is.data);
	free(was.data);
}

/* ---- there and back ----------------------------------------------------------------------- */

static void test_there_and_back(void **state)
{
	struct world *w = *state;
	struct seq *s = world_fill(w, "a", 3000, 1);
	uint64_t used = w->f.pool.used_bytes, charged = w->f.user->charged[USER_BYTES];
	struct sparq_msg_seq_stat stat;

	assert_true(used > 0);
	world_spill(w, s);
	assert_int_equal(w->f.pool.used_bytes, 0);
	assert_true(w->f.user->charged[USER_BYTES] < charged - used + 1);
	assert_true(w->f.user->charged[USER_SPILLED] >= 3000 * 2 * 2 * 128 * 4);
	assert_int_equal(spill_stat(w->spill).bytes, w->f.user->charged[USER_SPILLED]);
	assert_int_equal(spill_stat(w->spill).sequences, 1);
	assert_int_equal(world_files(w, ".seq"), 1);
	assert_int_equal(world_files(w, ".tmp"), 0);
	/* What it says of itself stays. */
	assert_int_equal(seq_stat(s, SPARQ_LAYER_ALL, &stat), 0);
	assert_int_equal(stat.rows_least, 3000);
	assert_int_equal(stat.rows_most, 3000);

	world_load(w, s);
	world_check(&w->model);
	assert_int_equal(w->f.pool.used_bytes, used);
	assert_int_equal(w->f.user->charged[USER_BYTES], charged);
	assert_int_equal(w->f.user->charged[USER_SPILLED], 0);
	while (world_files(w, ".seq")) /* removed after it is back */
		assert_int_equal(loop_step(w->loop, SECOND / 10), 0);
	/* And it goes on. */
	world_take(w, s);
	assert_int_equal(model_append(&w->model, 0, 500), 0);
	assert_int_equal(model_append(&w->model, 1, 500), 0);
	world_check(&w->model);
	world_drop(s);
	model_deinit(&w->model);
}

/* Attention over what comes back is the same because each bit and the shape of its extents is. */
static void test_formats(void **state)
{
	struct world *w = *state;
	char name[16];

	for (unsigned i = 0; kv_format_at(i); i++) {
		const char *format = kv_format_at(i);
		struct cache *c, *was = w->cache;
		struct bytes b;
		struct seq *s;

		snprintf(name, sizeof(name), "k%u", i);
		c = world_cache(w, name, format, format, i % 2 ? "sparq" : "dense",
				"sinks=4 rollback=32 on_disconnect=park");
		w->cache = c;
		for (unsigned rows = 0; rows < 2600; rows = rows * 3 + 61) {
			s = world_fill(w, "s", rows, i * 10000);
			b = image_of(s);
			world_spill(w, s);
			assert_int_equal(w->f.pool.used_bytes, 0);
			world_load(w, s);
			assert_image(b, s);
			world_drop(s);
			model_deinit(&w->model);
		}
		cache_unref(c);
		w->cache = was;
	}
}

/* A fork's parent goes, the fork does not notice; what comes back shares nothing. */
static void test_fork(void **state)
{
	struct world *w = *state;
	struct seq *s = world_fill(w, "a", 4000, 1), *child;
	struct model m = w->model, fork;
	uint64_t used = w->f.pool.used_bytes;
	struct bytes b = image_of(s);

	assert_int_equal(seq_fork(s, 3333, FIXTURE_SESSION, &child, why), 0);
	model_fork(&fork, &m, child, 3333, 900000);
	world_spill(w, s);
	assert_true(w->f.pool.used_bytes > used / 2);
	world_check(&fork);
	assert_int_equal(model_append(&fork, 0, 300), 0);
	assert_int_equal(model_append(&fork, 1, 300), 0);
	world_load(w, s);
	assert_image(b, s);
	world_check(&m);
	world_check(&fork);
	assert_true(w->f.pool.used_bytes > used + used / 2);
	world_drop(s);
	world_check(&fork);
	world_drop(child);
	model_deinit(&m);
	model_deinit(&fork);
}

/* ---- who wants it ----------------------------------------------------------------------- */

/* Nobody gets a sequence that is not there, everybody gets it when it is. */
static void test_attach(void **state)
{
	struct world *w = *state;
	struct seq *s = world_fill(w, "a", 1000, 1), *got = NULL;
	struct client c[3];

	world_spill(w, s);
	assert_int_equal(seq_attach(w->cache, "a", 7, &got, why), SEQ_ELSEWHERE);
	assert_ptr_equal(got, s);
	assert_int_equal(s->session, 0);
	assert_int_equal(seq_adopt(&w->f.store, w->f.user, s->id, 7, &got, why), SEQ_ELSEWHERE);
	for (unsigned i = 0; i < 3; i++)
		client_await(w, s, &c[i]);
	spill_leave(&c[1].wait); /* hung up */
	world_settle(w);
	assert_int_equal(c[0].calls, 1);
	assert_int_equal(c[1].calls, 0);
	assert_int_equal(c[2].calls, 1);
	assert_int_equal(c[0].error, 0);
	world_take(w, s);
	world_check(&w->model);
	assert_int_equal(spill_sequence(w->spill, s), -EBUSY);
	world_drop(s);
	model_deinit(&w->model);
}

struct pair {
	struct client first;
	struct client *other;
};

static void on_first(struct spill_wait *wait, int error, const char *text)
{
	struct pair *p = container_of(wait, struct pair, first.wait);

	p->first.calls++;
	spill_leave(&p->other->wait);
}

/* Who is told may be the end of somebody who was to be told next. */
static void test_end_of_another(void **state)
{
	struct world *w = *state;
	struct seq *s = world_fill(w, "a", 1000, 1);
	struct client other;
	struct pair p = { .other = &other };

	world_spill(w, s);
	client_await(w, s, &other);
	client_await(w, s, &p.first);
	p.first.wait.done = on_first;
	world_settle(w);
	assert_int_equal(p.first.calls, 1);
	assert_int_equal(other.calls, 0);
	assert_null(other.wait.seq);
	world_drop(s);
	model_deinit(&w->model);
}

/* It is wanted while it is on its way out: it never leaves, or comes back at once. */
static void test_wanted_early(void **state)
{
	struct world *w = *state;
	struct seq *s = world_fill(w, "a", 8000, 1);

	for (unsigned i = 0; i < 20; i++) {
		struct seq *got;
		struct client c;

		assert_int_equal(spill_sequence(w->spill, s), 0);
		assert_int_equal(seq_attach(w->cache, "a", 7, &got, why), SEQ_ELSEWHERE);
		for (unsigned k = 0; k < i * 200000; k++)
			cpu_pause();
		client_await(w, s, &c);
		world_settle(w);
		assert_int_equal(c.calls, 1);
		assert_int_equal(c.error, 0);
		assert_true(seq_is_here(s));
		world_check(&w->model);
	}
	/* Not all of them went to the end and back. */
	assert_true(spill_stat(w->spill).spilled < 20);
	assert_int_equal(w->f.user->charged[USER_SPILLED], 0);
	world_take(w, s);
	world_drop(s);
	model_deinit(&w->model);
}

/* Dropped where it lies: its file goes with it. */
static void test_drop(void **state)
{
	struct world *w = *state;
	struct seq *s = world_fill(w, "a", 1000, 1);

	world_spill(w, s);
	world_drop(s);
	while (world_files(w, ".seq"))
		assert_int_equal(loop_step(w->loop, SECOND / 10), 0);
	assert_int_equal(spill_stat(w->spill).sequences, 0);
	assert_int_equal(spill_stat(w->spill).bytes, 0);
	model_deinit(&w->model);
}

static void test_idle(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 500, 1), *b, *c;
	struct model m = w->model;

	b = world_fill(w, "b", 500, 1);
	model_deinit(&w->model);
	c = world_fill(w, "c", 500, 1);
	store_relaxed(&c->session, FIXTURE_SESSION);
	((struct sequence_record *)a->record)->used_s = (uint64_t)time(NULL) - 100;
	((struct sequence_record *)b->record)->used_s = (uint64_t)time(NULL) - 10;
	((struct sequence_record *)c->record)->used_s = (uint64_t)time(NULL) - 100;
	w->config.spill_idle_s = 50;
	while (seq_is_here(a))
		assert_int_equal(loop_step(w->loop, 3 * SECOND), 0);
	world_settle(w);
	assert_true(seq_is_spilled(a));
	assert_true(seq_is_here(b) && seq_is_here(c));
	/* Who was wanted is not the next to go. */
	world_load(w, a);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(loop_step(w->loop, 3 * SECOND), 0);
	world_settle(w);
	assert_true(seq_is_here(a));
	world_check(&m);
	world_drop(a);
	world_drop(b);
	world_drop(c);
	model_deinit(&m);
	model_deinit(&w->model);
}

/* ---- limits -----------------------------------------------------------------------------------
 */

static void test_limits(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 2000, 1), *b;
	uint64_t bytes;

	model_deinit(&w->model);
	b = world_fill(w, "b", 2000, 1);
	world_spill(w, a);
	bytes = spill_stat(w->spill).bytes;
	w->config.spill_bytes = bytes + bytes / 2;
	assert_int_equal(spill_sequence(w->spill, b), -ENOSPC);
	w->config.spill_bytes = 0;
	store_relaxed(&w->f.user->limit[USER_SPILLED], bytes + bytes / 2);
	assert_int_equal(spill_sequence(w->spill, b), -EDQUOT);
	assert_true(seq_is_here(b));
	store_relaxed(&w->f.user->limit[USER_SPILLED], 2 * bytes);
	/* Who has spent all his memory is who needs it most. */
	store_relaxed(&w->f.user->limit[USER_BYTES], w->f.user->charged[USER_BYTES]);
	world_spill(w, b);
	world_load(w, b);
	world_check(&w->model);
	world_drop(a);
	world_drop(b);
	model_deinit(&w->model);
}

struct room {
	struct seq *victim;
	unsigned asked;
};

static enum evicted give_room(void *arg, struct user *u, const struct shortage *s)
{
	struct room *r = arg;

	r->asked++;
	assert_int_equal(s->limit, LIMIT_QUOTA);
	if (!r->victim)
		return EVICTED_NOTHING;
	world_drop(STEAL_PTR(r->victim));
	return EVICTED_SOME;
}

/* There is no room for what comes back: it stays where it is, or somebody makes some. */
static void test_no_room(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 4000, 1), *b;
	struct model m = w->model;
	struct room room = { NULL, 0 };
	const struct spill_hooks hooks = { .make_room = give_room, .arg = &room };
	struct client c;

	world_spill(w, a);
	b = world_fill(w, "b", 4000, 5);
	store_relaxed(&w->f.user->limit[USER_BYTES], w->f.user->charged[USER_BYTES] + MIB);
	spill_hook(w->spill, &hooks);
	client_await(w, a, &c);
	world_settle(w);
	assert_int_equal(c.calls, 1);
	assert_int_equal(c.error, -ENOSPC);
	assert_non_null(strstr(c.why, "1.seq"));
	assert_int_equal(room.asked, 1);
	assert_true(seq_is_spilled(a));
	world_check(&w->model);

	room.victim = b;
	client_await(w, a, &c);
	world_settle(w);
	assert_int_equal(c.error, 0);
	assert_int_equal(room.asked, 2);
	world_check(&m);
	world_drop(a);
	model_deinit(&m);
	model_deinit(&w->model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_there_and_back, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_formats, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_fork, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_attach, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_end_of_another, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_wanted_early, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_drop, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_idle, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_limits, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_no_room, world_set_up, world_tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
