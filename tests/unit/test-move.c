/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that move to other nodes: rows stay what they are for everybody who has them, at any moment
 * and after a restart; charges stay to the byte; and no page is given back that a step could still
 * read. Users rely on the first, administrators on the second, the third is what both rest on.
 */
#include "daemon/census.h"
#include "daemon/move.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/audit.h"
#include "daemon/seq.h"
#include "seq-model.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define PARTS 2u
#define ALL UINT32_MAX
#define RING 9 /* another's than the model's */
#define MODELS 6u
#define ROUNDS 120u /* of each thread */

static char why[SPARQ_ERROR_TEXT];

struct world {
	struct store_fixture f;
	struct cache *cache;
	struct mover mover;
	struct model model[MODELS];
	unsigned n, to;                         /* models; where pages are to go */
	uint32_t seed;                          /* of what goes where; 0: `to` says */
	uint32_t seen[POOL_MAX_NODES], striped; /* pages that a look came by */
};

static uint32_t next(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* ---- a store with sequences --------------------------------------------------------------- */

#define HOME POOL_MAX_NODES

static unsigned goal(void *arg, const struct seq *s, unsigned home, page_ref page, uint64_t bytes)
{
	unsigned from = pool_node_of(page), to;
	struct world *w = arg;

	(void)bytes;
	if (from == POOL_STRIPED)
		w->striped++;
	else
		w->seen[from]++;
	to = w->to == HOME ? home : w->to;
	if (w->seed) {
		to = next(&w->seed) % (PARTS + 1 + (s->cache->parts != NULL));
		to = to == PARTS ? MOVE_STAY : to > PARTS ? POOL_STRIPED : to;
	}
	return to == from ? MOVE_STAY : to;
}

static void open_world(struct world *w, const char *options, const char *format)
{
	struct sparq_msg_cache_create m;

	setenv("FIXTURE_PARTS", "2", 1);
	memset(w, 0, sizeof(*w));
	fixture_open(&w->f, 128 * MIB, 8 * MIB);
	m = fixture_request("c", options);
	snprintf(m.k_format, sizeof(m.k_format), "%s", format);
	snprintf(m.v_format, sizeof(m.v_format), "%s", format);
	assert_int_equal(cache_create(&w->f.store, w->f.user, &m, &w->cache, why), 0);
	w->mover = (struct mover){ .store = &w->f.store, .goal = goal, .arg = w };
	w->to = HOME;
}

static struct model *add(struct world *w)
{
	struct seq *s;

	if (seq_create(w->cache, "", FIXTURE_SESSION, &s, why) < 0)
		fail_msg("%s", why);
	model_init(&w->model[w->n], &w->f, s, w->n * 100000);
	return &w->model[w->n++];
}

static struct model *add_fork(struct world *w, struct model *of, uint32_t rows)
{
	struct seq *s;

	if (seq_fork(of->seq, rows, FIXTURE_SESSION, &s, why) < 0)
		fail_msg("%s", why);
	model_fork(&w->model[w->n], of, s, rows, w->n * 100000);
	return &w->model[w->n++];
}

static void drop(struct world *w, unsigned i)
{
	assert_int_equal(seq_drop(w->model[i].seq, why), 0);
	model_deinit(&w->model[i]);
	w->model[i] = w->model[--w->n];
}

static void check_all(struct world *w)
{
	for (unsigned i = 0; i < w->n; i++) {
		const char *what = model_check(&w->model[i], ALL);

		if (!what)
			what = model_check_record(&w->model[i]);
		if (what)
			fail_msg("sequence %u: %s", i, what);
	}
}

static void close_world(struct world *w)
{
	while (w->n)
		drop(w, 0);
	for (unsigned i = 0; w->mover.n_left && i < 3; i++)
		move_put_left(&w->mover, ALL);
	assert_int_equal(w->mover.n_left, 0);
	cache_unref(w->cache);
	fixture_assert_empty(&w->f);
	fixture_close(&w->f);
}

static void grow(struct model *m, uint32_t rows)
{
	for (uint32_t l = 0; l < MODEL_LAYERS; l++)
		while (m->rows[l] < rows)
			assert_int_equal(model_append(m, l, MIN(rows - m->rows[l], 200)), 0);
}

/* Everything of a sequence once; pages moved. */
static uint32_t move_all(struct world *w, struct seq *s)
{
	struct move_at at = { 0 };
	uint32_t looks = ALL, n = 0;
	int64_t moved;

	memset(w->seen, 0, sizeof(w->seen));
	w->striped = 0;
	w->mover.round++;
	do {
		moved = move_next(&w->mover, s, &at, &looks);
		n += moved > 0;
		if (w->mover.n_left == MOVE_WAITING)
			move_put_left(&w->mover, ALL);
	} while (moved > 0 || moved == -EAGAIN);
	assert_int_equal(moved, 0);
	return n;
}

/* Takes what is free of a node. */
static unsigned crowd(struct world *w, unsigned node, page_ref *taken, unsigned most)
{
	const struct page_size size = { .whole = 2 * MIB - 64 };
	unsigned n = 0;

	while (n < most && pool_take_there(&w->f.pool, node, size, 9, &taken[n]) == 0)
		n++;
	assert_true(n > 0 && n < most);
	return n;
}

static uint64_t charged(const struct world *w)
{
	assert_int_equal(w->cache->charged_bytes, w->f.user->charged[USER_BYTES]);
	return w->cache->charged_bytes;
}

/* ---- there and back -------------------------------------------------------------------------- */

/* As if its session had ended; what is large and still written to has to wait for that. */
static uint32_t move_parked(struct world *w, struct seq *s)
{
	uint32_t n;

	census_attach(s, 0);
	n = move_all(w, s);
	census_attach(s, FIXTURE_SESSION);
	return n;
}

/* Of rows that came while node 1 had no room. */
static void come_home(struct world *w, struct model *m, bool striped)
{
	static page_ref taken[256];
	uint64_t bytes;
	unsigned n;

	grow(m, 700);
	n = crowd(w, m->seq->node, taken, ARRAY_SIZE(taken));
	grow(m, 5000);
	bytes = charged(w);
	while (n)
		pool_put(&w->f.pool, taken[--n]);
	assert_true(move_all(w, m->seq) > 5);
	assert_true(move_parked(w, m->seq) == w->mover.refused);
	assert_int_equal(charged(w), bytes);
	assert_int_equal(move_all(w, m->seq), 0);
	assert_int_equal(w->seen[!m->seq->node], 0);
	assert_int_equal(striped ? w->seen[m->seq->node] : w->striped, 0);
	assert_true(w->striped + w->seen[m->seq->node] > 20);
}

/* What found its node full comes home, be it whole or in parts. */
static void comes_home(void **state)
{
	static const char *const placement[] = { "placement=local sinks=4", "placement=heads",
						 "placement=rows" };
	static const char *const format[] = { "f32", "f32", "hier4" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(placement); i++) {
		struct world w;
		struct model *m;

		open_world(&w, placement[i], format[i]);
		m = add(&w);
		come_home(&w, m, i == 1);
		if (i != 2) /* the model knows what comes back exactly */
			check_all(&w);
		grow(m, 6000);
		if (i != 2)
			check_all(&w);
		close_world(&w);
	}
}

/* A goal without room leaves everything as it was. */
static void no_room(void **state)
{
	static page_ref taken[256];
	struct world w;
	uint64_t bytes, used;
	struct model *m;
	unsigned n;

	(void)state;
	open_world(&w, "placement=local", "f32");
	m = add(&w);
	grow(m, 3000);
	w.to = !m->seq->node;
	n = crowd(&w, w.to, taken, ARRAY_SIZE(taken));
	bytes = charged(&w);
	used = w.f.pool.used_bytes;
	assert_int_equal(move_all(&w, m->seq), 0);
	assert_true(w.mover.refused > 10);
	assert_int_equal(charged(&w), bytes);
	assert_int_equal(w.f.pool.used_bytes, used);
	while (n)
		pool_put(&w.f.pool, taken[--n]);
	check_all(&w);
	close_world(&w);
}

/* ---- who else has them -------------------------------------------------------------------- */

/* A step of a fork began before the page lost its name: it stays until that has ended. */
static void waits_for_readers(void **state)
{
	struct model *parent, *child;
	struct seq *held = NULL;
	uint64_t used, most;
	struct world w;

	(void)state;
	open_world(&w, "placement=local", "f32");
	parent = add(&w);
	grow(parent, 1000);
	child = add_fork(&w, parent, 1000);
	used = w.f.pool.used_bytes;
	assert_int_equal(seq_hold(&w.f.store, FIXTURE_SESSION, child->id, RING, &held), 0);
	w.to = !parent->seq->node;
	assert_true(move_all(&w, parent->seq) > 0);
	assert_true(w.mover.n_left > 0);
	most = w.f.pool.used_bytes;
	assert_true(most > used);
	/* Not before: it may be reading. */
	assert_true(move_put_left(&w.mover, ALL) > 0);
	assert_int_equal(w.f.pool.used_bytes, most);
	seq_release(held);
	assert_int_equal(move_put_left(&w.mover, ALL), 0);
	assert_int_equal(w.f.pool.used_bytes, used);
	check_all(&w);
	close_world(&w);
}

/* Nor has an audit that a step began before it let go of its sequence. */
static void waits_for_an_audit(void **state)
{
	static struct auditor auditor;
	struct model *parent;
	struct world w;

	(void)state;
	open_world(&w, "placement=local", "f32");
	parent = add(&w);
	grow(parent, 1000);
	add_fork(&w, parent, 1000);
	w.to = !parent->seq->node;
	w.f.store.auditor = &auditor;
	store_release(&auditor.job.state, AUDIT_RUNNING);
	assert_true(move_all(&w, parent->seq) > 0);
	assert_true(move_put_left(&w.mover, ALL) > 0);
	store_release(&auditor.job.state, AUDIT_FREE);
	assert_int_equal(move_put_left(&w.mover, ALL), 0);
	w.f.store.auditor = NULL;
	check_all(&w);
	close_world(&w);
}

/* A table that took the page over before it lost its name has it alone now, and pays for it. */
static void charges_what_another_keeps(void **state)
{
	struct move_left left;
	struct model *parent;
	struct world w;
	uint64_t bytes;

	(void)state;
	open_world(&w, "placement=local", "f32");
	parent = add(&w);
	grow(parent, 1000);
	add_fork(&w, parent, 1000);
	bytes = charged(&w);
	w.to = !parent->seq->node;
	assert_true(move_all(&w, parent->seq) > 0);
	assert_int_equal(charged(&w), bytes);
	left = w.mover.left[0];
	pool_ref(&w.f.pool, left.page);
	assert_int_equal(move_put_left(&w.mover, ALL), 0);
	assert_int_equal(charged(&w), bytes + left.bytes);
	assert_true(pool_put(&w.f.pool, left.page));
	cache_refund(w.cache, left.bytes);
	check_all(&w);
	close_world(&w);
}

/* What a sequence has in hand is passed over, by a worker or a save. */
static void passes_over_the_busy(void **state)
{
	struct move_at at = { 0 };
	struct seq *held = NULL;
	uint32_t looks = ALL;
	struct world w;
	struct model *m;

	(void)state;
	open_world(&w, "placement=local", "f32");
	m = add(&w);
	grow(m, 500);
	w.to = !m->seq->node;
	assert_int_equal(seq_hold(&w.f.store, FIXTURE_SESSION, m->id, RING, &held), 0);
	assert_int_equal(move_next(&w.mover, m->seq, &at, &looks), -EBUSY);
	seq_release(held);
	assert_true(seq_try_control(m->seq));
	assert_int_equal(move_next(&w.mover, m->seq, &at, &looks), -EBUSY);
	seq_end_control(m->seq);
	assert_true(move_next(&w.mover, m->seq, &at, &looks) > 0);
	check_all(&w);
	close_world(&w);
}

/* Pages of several holders stay: moved for one, they would be there twice. */
static void leaves_what_is_shared(void **state)
{
	struct model *parent;
	struct world w;
	uint64_t bytes;

	(void)state;
	open_world(&w, "placement=local", "f32");
	parent = add(&w);
	grow(parent, 3000);
	add_fork(&w, parent, 3000);
	assert_int_equal(model_overwrite(parent, 0, 100, 5), 0);
	bytes = charged(&w);
	w.to = !parent->seq->node;
	assert_true(move_all(&w, parent->seq) > 0);
	assert_true(w.mover.refused > 0);
	assert_true(move_all(&w, w.model[1].seq) > 0);
	check_all(&w);
	move_put_left(&w.mover, ALL);
	assert_int_equal(charged(&w), bytes);
	check_all(&w);
	close_world(&w);
}

/* ---- anything ------------------------------------------------------------------------------ */

static void change(struct world *w, uint32_t *seed)
{
	struct model *m = &w->model[next(seed) % w->n];
	uint32_t layer = next(seed) % MODEL_LAYERS, rows = m->rows[layer];
	uint32_t least = MIN(m->rows[0], m->rows[1]);

	switch (next(seed) % 8) {
	case 0:
		assert_int_equal(model_cut(m, layer, next(seed) % (rows + 1)), 0);
		break;
	case 1:
		if (rows > 10)
			assert_int_equal(model_overwrite(m, layer, next(seed) % (rows - 5), 5), 0);
		break;
	case 2:
		if (w->n < MODELS)
			add_fork(w, m, next(seed) % (least + 1));
		break;
	case 3:
		if (w->n > 1)
			drop(w, next(seed) % w->n);
		break;
	default:
		if (rows < MODEL_ROWS - 600)
			assert_int_equal(model_append(m, layer, 1 + next(seed) % 500), 0);
	}
}

static void restart(struct world *w)
{
	struct recovered r;

	move_end(&w->mover);
	fixture_restart(&w->f, &r);
	assert_int_equal(r.dropped, 0);
	assert_int_equal(r.sequences, w->n);
	w->cache = w->f.store.caches;
	assert_int_equal(cache_attach(&w->f.store, w->f.user, w->cache->id, "", &w->cache, why), 0);
	for (unsigned i = 0; i < w->n; i++)
		assert_int_equal(seq_adopt(&w->f.store, w->f.user, w->model[i].id, FIXTURE_SESSION,
					   &w->model[i].seq, why),
				 0);
}

static void survives_anything(void **state)
{
	static const char *const placement[] = { "placement=local sinks=4", "placement=heads" };

	(void)state;
	for (uint32_t run = 0; run < 8; run++) {
		uint32_t seed = run * 77 + 5;
		struct world w;

		open_world(&w, placement[run % 2], "f32");
		add(&w);
		for (unsigned i = 0; i < 300; i++) {
			change(&w, &seed);
			w.seed = next(&seed) | 1;
			if (i % 3 == 0)
				move_all(&w, w.model[next(&seed) % w.n].seq);
			if (i % 7 == 0)
				move_put_left(&w.mover, next(&seed) % 64);
			if (i % 60 == 0)
				restart(&w);
			if (i % 10 == 0)
				check_all(&w);
		}
		assert_true(w.mover.moved_pages > 100);
		check_all(&w);
		close_world(&w);
	}
}

/* ---- while others work ---------------------------------------------------------------------- */

struct user_thread {
	struct model *m;
	uint32_t seed;
	uint32_t *over; /* atomic */
	const char *wrong;
};

/* Appends, cuts, overwrites, and looks at all rows. */
static void *use(void *arg)
{
	struct user_thread *u = arg;

	for (uint32_t i = 0; i < ROUNDS && !u->wrong; i++) {
		uint32_t layer = next(&u->seed) % MODEL_LAYERS, rows = u->m->rows[layer];
		int r = 0;

		if (rows > 4000)
			r = model_cut(u->m, layer, next(&u->seed) % rows);
		else if (rows > 600 && i % 7 == 0)
			r = model_overwrite(u->m, layer, next(&u->seed) % (rows - 5), 5);
		else
			r = model_append(u->m, layer, 1 + next(&u->seed) % 300);
		u->wrong = r < 0 ? strerror(-r) : model_check(u->m, ALL);
	}
	fetch_add(u->over, 1u);
	return NULL;
}

static void while_others_work(void **state)
{
	uint32_t over = 0;
	struct user_thread u[3] = { 0 };
	pthread_t thread[3];
	struct world w;

	(void)state;
	open_world(&w, "placement=heads", "f32");
	grow(add(&w), 3000);
	add_fork(&w, &w.model[0], 2500);
	add_fork(&w, &w.model[1], 2000);
	w.seed = 3;
	for (unsigned i = 0; i < 3; i++) {
		u[i] = (struct user_thread){ &w.model[i], i + 1, &over, NULL };
		assert_int_equal(pthread_create(&thread[i], NULL, use, &u[i]), 0);
	}
	while (load_acquire(&over) < 3) {
		struct move_at at = { 0 };
		uint32_t looks = 200, i = next(&w.seed) % 3;

		w.mover.round++;
		at.layer = next(&w.seed) % MODEL_LAYERS;
		while (looks && move_next(&w.mover, w.model[i].seq, &at, &looks) != -EBUSY &&
		       at.layer < MODEL_LAYERS)
			;
		move_put_left(&w.mover, 8);
	}
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(thread[i], NULL);
		if (u[i].wrong)
			fail_msg("sequence %u: %s", i, u[i].wrong);
	}
	assert_true(w.mover.moved_pages > 100);
	check_all(&w);
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_home),
		cmocka_unit_test(no_room),
		cmocka_unit_test(waits_for_readers),
		cmocka_unit_test(waits_for_an_audit),
		cmocka_unit_test(charges_what_another_keeps),
		cmocka_unit_test(passes_over_the_busy),
		cmocka_unit_test(leaves_what_is_shared),
		cmocka_unit_test(survives_anything),
		cmocka_unit_test(while_others_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
