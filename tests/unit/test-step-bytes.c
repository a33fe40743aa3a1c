/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that are counted, on their way from the kernels to the stats page: for every format and
 * policy, at every length, what a report says by plane adds up to what the completion says in
 * total, and all completions to what the page says by operation, node, sequence and user. Where
 * every row is attended the planes are those of the formulas, one row at a time
 * (tests/kernels/exec-bytes.h; tests/kernels holds selections to them). Metrics and quotas of
 * bandwidth rely on these figures being exact.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/seq.h"
#include "daemon/stats.h"
#include "daemon/step-item.h"
#include "kernels/map.h"
#include "shm/base.h"
#include "tests/kernels/exec-bytes.h"
#include "tests/unit/store-fixture.h"

#define LAYERS 2u
#define HEADS 4u
#define KV_HEADS 2u
#define DIM 64u
#define FLOATS_Q (HEADS * DIM)
#define FLOATS_KV (KV_HEADS * 2 * DIM)

#define CROWD 2048u /* pages */

#define KV_AT 0u
#define Q_AT (2u << 20)
#define O_AT (3u << 20)
#define REPORT_AT (4u << 20)
#define ITEM_AT (5u << 20)

struct sums {
	struct stats_read op[STATS_OPS], all;
	uint64_t written_bytes, rows, steps, failed;
};

struct fixture {
	struct store_fixture store;
	struct stats_page page;
	struct stepper stepper;
	struct session session;
	struct cache *cache;
	struct seq *seq;
	float *base; /* the arena, as floats */
	struct sums sums;
};

static int set_up(void **state)
{
	const struct stats_params params = {
		.n = { 1, 1, 1, 4, 6, 32 },
		.generation = 1,
	};
	struct fixture *f = calloc(1, sizeof(*f));
	struct session *s = &f->session;

	fixture_open(&f->store, 64 << 20, 4 << 20);
	assert_int_equal(stats_page_create(&params, &f->page), 0);
	f->store.store.stats = &f->page;
	f->store.user->stats = stats_page_user(&f->page, FIXTURE_UID);
	assert_int_equal(stepper_init(&f->stepper, &f->store.store, 64 << 20), 0);
	f->stepper.stats = stats_page_block(&f->page, STATS_WORKER, 0);
	s->id = FIXTURE_SESSION;
	s->user = f->store.user;
	s->n_queues = 1;
	assert_int_equal(segment_plan(1, 1, 64, 8 << 20, &s->layout), 0);
	assert_int_equal(segment_create("test", s->layout.bytes, &s->segment), 0);
	s->queue[0] = (struct queue){ .session = s, .number = 1, .wake_fd = -1 };
	f->base = (float *)(void *)((char *)s->segment.base + s->layout.arena_offset);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	segment_deinit(&f->session.segment);
	stepper_deinit(&f->stepper);
	fixture_assert_empty(&f->store);
	fixture_close(&f->store);
	stats_page_deinit(&f->page);
	free(f);
	return 0;
}

static void open_sequence(struct fixture *f, const char *format, const char *policy,
			  const char *options)
{
	struct sparq_msg_cache_create m = fixture_request("bytes", options);
	char why[SPARQ_ERROR_TEXT] = "";

	snprintf(m.k_format, sizeof(m.k_format), "%s", format);
	snprintf(m.v_format, sizeof(m.v_format), "%s", format);
	snprintf(m.policy, sizeof(m.policy), "%s", policy);
	if (cache_create(&f->store.store, f->store.user, &m, &f->cache, why) < 0 ||
	    seq_create(f->cache, "", FIXTURE_SESSION, &f->seq, why) < 0)
		fail_msg("%s %s %s: %s", format, policy, options, why);
}

static void close_sequence(struct fixture *f)
{
	seq_release_session(&f->store.store, FIXTURE_SESSION);
	cache_unref(f->cache);
}

/* ---- what must be read ---------------------------------------------------------- */

/* All rows of the last query are attended: the formulas, over the view that the step had. */
static void expect_planes(struct fixture *f, const struct sparq_sqe *e, const uint64_t *bytes)
{
	const struct kv_space *space = cache_layer(f->cache, e->layer);
	uint32_t rows = e->row + e->n_rows, n = seq_extents(f->seq, e->layer);
	struct kv_extent *extent = calloc(n + 1, sizeof(*extent));
	bool *chosen = malloc(rows);
	const struct kv_query query = {
		.n_q = e->n_q,
		.first_limit = rows - e->n_q + 1,
		.level = e->flags & SPARQ_SQE_DRAFT ? 1 : 0,
	};
	struct rig rig = { .space = space };
	uint64_t planes[KV_PLANES] = { 0 };
	struct kv_plan plan;

	memset(chosen, 1, rows);
	assert_int_equal(seq_view(f->seq, e->layer, rows, extent, n, &rig.view), 0);
	assert_int_equal(kv_plan_step(space, &rig.view, &query, e->layer, LAYERS,
				      e->flags & SPARQ_SQE_DENSE, &plan),
			 0);
	bytes_expected(&rig, &plan, &query, (struct bytes_apart){ 0 }, chosen, planes);
	for (unsigned p = 0; p < KV_PLANES; p++)
		assert_int_equal(bytes[p], planes[p] * KV_HEADS);
	free(chosen);
	free(extent);
}

/* ---- one step ------------------------------------------------------------------- */

static void add_step(struct sums *s, const struct sparq_sqe *e, const struct sparq_report *r)
{
	for (unsigned p = 0; p < SPARQ_PLANES; p++) {
		s->op[e->op].bytes[p] += r->bytes[p];
		s->all.bytes[p] += r->bytes[p];
	}
	s->op[e->op].dense_bytes += r->dense_bytes;
	s->all.dense_bytes += r->dense_bytes;
	if (e->op != SPARQ_OP_ATTEND) {
		s->written_bytes += e->n_rows * FLOATS_KV * sizeof(float);
		s->rows += e->n_rows;
	}
	s->steps++;
}

static void run(struct fixture *f, uint8_t op, uint32_t layer, uint16_t n, uint16_t flags,
		bool all_rows)
{
	const struct sparq_report *report = (void *)(f->base + REPORT_AT / 4);
	struct sparq_item *item = (void *)(f->base + ITEM_AT / 4);
	uint32_t have = seq_rows(f->seq, layer);
	struct sparq_sqe e = {
		.op = op,
		.layer = (uint16_t)layer,
		.flags = flags,
		.n_items = 1,
		.sequence = ITEM_AT,
	}, plain = e;
	struct sparq_cqe cqe;
	uint64_t sum = 0;

	plain.row = have;
	plain.n_rows = op == SPARQ_OP_ATTEND ? 0 : n;
	plain.n_q = op == SPARQ_OP_APPEND ? 0 : MIN(n, 4);
	*item = (struct sparq_item){
		.sequence = f->seq->id,
		.kv = plain.n_rows ? KV_AT : 0,
		.q = plain.n_q ? Q_AT : 0,
		.o = plain.n_q ? O_AT : 0,
		.row = plain.row,
		.n_rows = plain.n_rows,
		.n_q = plain.n_q,
		.report = REPORT_AT,
	};
	for (uint32_t i = 0; i < 512 * FLOATS_KV; i++)
		f->base[i % ((O_AT - KV_AT) / 4)] =
			(float)((i * 2654435761u >> 16) % 997) / 500 - 1;
	assert_true(step_run(&f->stepper, &f->session.queue[0], &e, &cqe));
	if (cqe.res != 1)
		fail_msg("res %d reason %u", cqe.res, cqe.aux >> 16);
	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		sum += report->bytes[p];
	assert_int_equal(cqe.bytes_read, sum);
	assert_true(!plain.n_q || sum > 0);
	if (all_rows && plain.n_q)
		expect_planes(f, &plain, report->bytes);
	add_step(&f->sums, &plain, report);
	step_settle(&f->stepper);
}

/* ---- what the page says ----------------------------------------------------------- */

static void assert_read(const struct stats_read *have, const struct stats_read *want)
{
	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		assert_int_equal(have->bytes[p], want->bytes[p]);
	assert_int_equal(have->dense_bytes, want->dense_bytes);
}

static void assert_page(const struct fixture *f, const struct sums *of_seq)
{
	const struct stats_worker *w = stats_page_block(&f->page, STATS_WORKER, 0);
	const struct stats_user *u = f->store.user->stats;
	const struct stats_sequence *q = f->seq->stats;
	uint64_t done = 0, timed = 0;

	for (unsigned op = 0; op < STATS_OPS; op++) {
		assert_read(&w->op[op], &f->sums.op[op]);
		for (unsigned policy = 0; policy < STATS_POLICIES; policy++)
			done += w->steps[op][policy].done;
	}
	for (unsigned i = 0; i < STATS_BUCKETS; i++)
		timed += w->step_count[i];
	assert_int_equal(done, f->sums.steps);
	assert_int_equal(timed, f->sums.steps);
	assert_int_equal(w->appended_rows, f->sums.rows);
	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		assert_int_equal(w->read_node_bytes[0][p], f->sums.all.bytes[p]);
	assert_read(&u->read, &f->sums.all);
	assert_int_equal(u->steps, f->sums.steps);
	assert_int_equal(u->written_bytes, f->sums.written_bytes);
	assert_read(&q->read, &of_seq->all);
	assert_int_equal(q->steps, of_seq->steps);
	assert_int_equal(q->written_bytes, of_seq->written_bytes);
	assert_int_equal(q->seq % 2, 0);
}

static struct sums minus(const struct sums *a, const struct sums *b)
{
	struct sums d = *a;

	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		d.all.bytes[p] -= b->all.bytes[p];
	d.all.dense_bytes -= b->all.dense_bytes;
	d.steps -= b->steps;
	d.written_bytes -= b->written_bytes;
	return d;
}

static void check(struct fixture *f, const char *format, const char *policy, const char *options,
		  bool all_rows)
{
	const struct sums before = f->sums;
	struct sums mine;

	open_sequence(f, format, policy, options);
	for (uint32_t layer = 0; layer < LAYERS; layer++) {
		/* Sinks, a tail, several sealed tiles, and rows that fall due in between. */
		for (unsigned i = 0; i < 6; i++) {
			run(f, SPARQ_OP_STEP, layer, (uint16_t)(1 + i * 37), 0, all_rows);
			run(f, SPARQ_OP_STEP, layer, 1, 0, all_rows);
		}
		run(f, SPARQ_OP_APPEND, layer, 100, 0, all_rows);
		run(f, SPARQ_OP_ATTEND, layer, 1, 0, all_rows);
		run(f, SPARQ_OP_STEP, layer, 3, SPARQ_SQE_DENSE, true);
	}
	mine = minus(&f->sums, &before);
	assert_page(f, &mine);
	close_sequence(f);
}

static void test_bytes_of_every_format_and_policy(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; kv_format_at(i); i++) {
		const char *format = kv_format_at(i);

		for (unsigned k = 0; kv_policy_at(k, true); k++)
			check(f, format, kv_policy_at(k, true)->name, "", k == 0);
		check(f, format, "sparq", "r=16 k=4096 dense_below=0", true);
		check(f, format, "sparq", "r=16 k=64 dense_below=0", false);
		check(f, format, "sparq", "r=8 k=16 dense_below=0 tail=select sinks=0", false);
	}
	assert_string_equal(kv_policy_at(0, true)->name, "dense");
}

/* ---- by node ------------------------------------------------------------------------ */

static int set_up_parts(void **state)
{
	setenv("FIXTURE_PARTS", "2", 1);
	return set_up(state);
}

static int tear_down_parts(void **state)
{
	int r = tear_down(state);

	unsetenv("FIXTURE_PARTS");
	return r;
}

/* All units of the sequence's node, and what is free in slabs of its extents. */
static unsigned crowd(struct fixture *f, page_ref taken[CROWD])
{
	const struct kv_space *space = cache_layer(f->cache, 0);
	const struct page_size size[] = {
		{ .whole = 2 * MIB - 64 },
		spread_size(f->cache, kv_extent_bytes(space, KV_EXTENT_TILES)),
		spread_size(f->cache, kv_extent_bytes(space, 1)),
	};
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(size); i++)
		while (n < CROWD &&
		       pool_take_there(&f->store.pool, f->seq->node, size[i], 9, &taken[n]) == 0)
			n++;
	assert_true(n < CROWD);
	return n;
}

/* Rows that came while their node was full lie on the other one. */
static void grow_over_two_nodes(struct fixture *f)
{
	static page_ref taken[CROWD];
	unsigned n;

	for (unsigned i = 0; i < 3; i++)
		run(f, SPARQ_OP_APPEND, 0, 500, 0, true);
	n = crowd(f, taken);
	for (unsigned i = 0; i < 5; i++)
		run(f, SPARQ_OP_APPEND, 0, 500, 0, true);
	assert_true(pool_node_strayed(&f->store.pool, f->seq->node) > 0);
	while (n)
		pool_put(&f->store.pool, taken[--n]);
}

/* Which rows of the first layer a node has. */
static uint32_t rows_on(struct fixture *f, struct rig *rig, uint32_t node, bool *ret)
{
	struct kv_piece p = { 0 };
	struct kv_map map;
	uint32_t n = 0;

	kv_map_init(&map, rig->space, &rig->view, 0);
	for (uint32_t row = 0; row < rig->view.rows; row += p.n) {
		kv_map_find(&map, row, rig->view.rows, &p);
		for (uint32_t i = 0; i < p.n; i++)
			ret[row + i] = pool_node_at(&f->store.pool, p.k.base) == node;
		n += ret[row] ? p.n : 0;
	}
	return n;
}

/* The formulas over the rows of each node. */
static void expect_nodes(struct fixture *f, const struct stats_worker *before)
{
	const struct stats_worker *now = stats_page_block(&f->page, STATS_WORKER, 0);
	const struct kv_space *space = cache_layer(f->cache, 0);
	uint32_t rows = seq_rows(f->seq, 0), n = seq_extents(f->seq, 0);
	const struct kv_query query = { .n_q = 1, .first_limit = rows };
	struct kv_extent *extent = calloc(n + 1, sizeof(*extent));
	struct rig rig = { .space = space };
	bool *there = malloc(rows);
	struct kv_plan plan;

	assert_int_equal(seq_view(f->seq, 0, rows, extent, n, &rig.view), 0);
	assert_int_equal(kv_plan_step(space, &rig.view, &query, 0, LAYERS, true, &plan), 0);
	for (uint32_t node = 0; node < 2; node++) {
		uint64_t planes[KV_PLANES] = { 0 };

		assert_true(rows_on(f, &rig, node, there) > 500);
		bytes_expected(&rig, &plan, &query, (struct bytes_apart){ 0 }, there, planes);
		for (unsigned p = 0; p < KV_PLANES; p++)
			assert_int_equal(now->read_node_bytes[node][p] -
						 before->read_node_bytes[node][p],
					 planes[p] * KV_HEADS);
	}
	free(there);
	free(extent);
}

static void assert_nodes_add_up(const struct fixture *f)
{
	const struct stats_worker *w = stats_page_block(&f->page, STATS_WORKER, 0);

	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		assert_int_equal(w->read_node_bytes[0][p] + w->read_node_bytes[1][p],
				 f->sums.all.bytes[p]);
}

static void check_nodes(struct fixture *f, const char *format, const char *policy,
			const char *options)
{
	struct stats_worker *before = malloc(sizeof(*before));

	open_sequence(f, format, policy, options);
	grow_over_two_nodes(f);
	run(f, SPARQ_OP_STEP, 0, 1, 0, false);
	assert_nodes_add_up(f);
	*before = *(struct stats_worker *)stats_page_block(&f->page, STATS_WORKER, 0);
	run(f, SPARQ_OP_ATTEND, 0, 1, SPARQ_SQE_DENSE, true);
	expect_nodes(f, before);
	assert_nodes_add_up(f);
	close_sequence(f);
	free(before);
}

static void test_bytes_of_each_node(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; kv_format_at(i); i++) {
		check_nodes(f, kv_format_at(i), "dense", "placement=local");
		check_nodes(f, kv_format_at(i), "sparq", "placement=local r=16 k=64 dense_below=0");
		check_nodes(f, kv_format_at(i), "sparq",
			    "placement=rows r=8 k=16 dense_below=0 tail=select sinks=4");
	}
}

/* ---- what fails -------------------------------------------------------------------- */

static void test_refused_entries_are_counted_by_reason(void **state)
{
	struct fixture *f = *state;
	const struct stats_worker *w = stats_page_block(&f->page, STATS_WORKER, 0);
	struct sparq_sqe e = { .op = SPARQ_OP_STEP, .sequence = 1, .n_rows = 1, .n_q = 1 };
	struct sparq_cqe cqe;

	open_sequence(f, "f32", "dense", "");
	assert_true(step_run(&f->stepper, &f->session.queue[0], &e, &cqe));
	assert_int_equal(cqe.res, -ENOENT);
	step_settle(&f->stepper);
	assert_int_equal(w->refused[SPARQ_REASON_SEQUENCE], 1);
	assert_int_equal(w->steps[SPARQ_OP_STEP][STATS_POLICY_NONE].failed, 1);
	e.sequence = f->seq->id;
	e.row = 5;
	assert_true(step_run(&f->stepper, &f->session.queue[0], &e, &cqe));
	assert_int_equal(cqe.res, -ESTALE);
	step_settle(&f->stepper);
	assert_int_equal(w->refused[SPARQ_REASON_ROW], 1);
	assert_int_equal(w->steps[SPARQ_OP_STEP][0].failed, 1);
	e.op = 200;
	assert_true(step_run(&f->stepper, &f->session.queue[0], &e, &cqe));
	assert_int_equal(w->refused[SPARQ_REASON_OP], 1);
	close_sequence(f);
}

/* An item that fails behind its append has written rows that nobody ever sees. */
static void test_rows_that_did_not_stay_are_not_appended(void **state)
{
	struct fixture *f = *state;
	const struct stats_worker *w = stats_page_block(&f->page, STATS_WORKER, 0);
	struct sparq_sqe e = {
		.op = SPARQ_OP_STEP,
		.flags = SPARQ_SQE_DRAFT, /* f32 has one level */
		.kv = KV_AT,
		.q = Q_AT,
		.o = O_AT,
		.n_rows = 1,
		.n_q = 1,
	};
	struct sparq_cqe cqe;

	open_sequence(f, "f32", "dense", "");
	e.sequence = f->seq->id;
	assert_true(step_run(&f->stepper, &f->session.queue[0], &e, &cqe));
	assert_int_equal(cqe.res, -EOPNOTSUPP);
	step_settle(&f->stepper);
	assert_int_equal(seq_rows(f->seq, 0), 0);
	assert_int_equal(w->appended_rows, 0);
	assert_true(w->written_bytes[SPARQ_OP_STEP] > 0);
	close_sequence(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bytes_of_every_format_and_policy, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_refused_entries_are_counted_by_reason, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_rows_that_did_not_stay_are_not_appended,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bytes_of_each_node, set_up_parts,
						tear_down_parts),
	};

	kv_thread_init();
	return cmocka_run_group_tests_name("step-bytes", tests, NULL, NULL);
}
