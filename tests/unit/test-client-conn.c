/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a session, and what control calls make of answers: an engine that
 * links the library lives as long as its worst daemon allows, so every wrong
 * handshake must end in an errno and a sentence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "client/private.h"
#include "fake-daemon.h"
#include "shm/atomic.h"

/* ---- lies in the handshake -------------------------------------------------- */

typedef struct sparq_msg_hello_reply reply;
typedef struct sparq_daemon_page page;

#define LIE(name, statement)                                                                       \
	static void lie_##name(reply *r, page *p)                                                  \
	{                                                                                          \
		statement;                                                                         \
	}
LIE(magic, p->magic++)
LIE(page_generation, p->generation++)
LIE(page_abi, p->abi++)
LIE(no_pollers, p->n_pollers = 0)
LIE(many_pollers, p->n_pollers = 65)
LIE(poller, r->poller = 1)
LIE(abi, r->abi = SPARQ_ABI_MAJOR + 1)
LIE(incompat, r->features_incompat = 1ull << 40)
LIE(segment_small, r->segment_bytes -= 4096)
LIE(segment_large, r->segment_bytes += 4096)
LIE(segment_none, r->segment_bytes = 0)
LIE(segment_huge, r->segment_bytes = UINT64_MAX)
LIE(arena_far, r->arena_offset = r->segment_bytes)
LIE(arena_wrap, r->arena_offset = UINT64_MAX - 127)
LIE(arena_odd, r->arena_offset += 64)
LIE(arena_long, r->arena_bytes = UINT64_MAX)
LIE(queues, r->n_queues = 3)
LIE(queues_none, r->n_queues = 0)
LIE(sq_odd, r->sq_entries = 100)
LIE(sq_many, r->sq_entries = 8192)
LIE(cq_few, r->cq_entries = r->sq_entries / 2)
LIE(cq_none, r->cq_entries = 0)
LIE(ctl_far, r->ring[1].ctl = r->segment_bytes - 64)
LIE(sq_wrap, r->ring[0].sq = UINT64_MAX - 63)
LIE(cq_far, r->ring[1].cq = r->segment_bytes)
LIE(ctl_odd, r->ring[0].ctl += 4)
LIE(rows, r->max_rows = SPARQ_MAX_ROWS + 1)
LIE(items, r->max_items = 0)

#define ANY_ERROR 0
static const struct lie {
	const char *name;
	void (*lie)(reply *r, page *p);
	int error;
} lies[] = {
#define SAYS(name, error)                                                                          \
	{                                                                                          \
#name, lie_##name, error                                                           \
	}
	SAYS(magic, -EPROTO),
	SAYS(page_generation, -EPROTO),
	SAYS(page_abi, -EPROTO),
	SAYS(no_pollers, -EPROTO),
	SAYS(many_pollers, -EPROTO),
	SAYS(poller, -EPROTO),
	SAYS(abi, -EPROTONOSUPPORT),
	SAYS(incompat, -EPROTONOSUPPORT),
	SAYS(segment_small, ANY_ERROR),
	SAYS(segment_large, ANY_ERROR),
	SAYS(segment_none, -EPROTO),
	SAYS(segment_huge, -EPROTO),
	SAYS(arena_far, -EPROTO),
	SAYS(arena_wrap, -EPROTO),
	SAYS(arena_odd, -EPROTO),
	SAYS(arena_long, -EPROTO),
	SAYS(queues, -EPROTO),
	SAYS(queues_none, -EPROTO),
	SAYS(sq_odd, -EPROTO),
	SAYS(sq_many, -EPROTO),
	SAYS(cq_few, -EPROTO),
	SAYS(cq_none, -EPROTO),
	SAYS(ctl_far, -EPROTO),
	SAYS(sq_wrap, -EPROTO),
	SAYS(cq_far, -EPROTO),
	SAYS(ctl_odd, -EPROTO),
	SAYS(rows, -EPROTO),
	SAYS(items, -EPROTO),
};

static void test_lies(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
		char why[SPARQ_ERROR_TEXT] = "";
		struct sparq_open_params p = { .size = sizeof(p), .queues = 2, .why = why };
		struct fake f = { .lie = lies[i].lie };
		sparq *c = NULL;
		int r;

		fake_start(&f);
		r = sparq_open(f.path, &p, &c);
		if (r >= 0 || (lies[i].error && r != lies[i].error) || c || !why[0])
			fail_msg("%s: %d \"%s\"", lies[i].name, r, why);
		fake_stop(&f);
	}
}

/* The liar with nothing to lie about is a daemon like any other: else the above proves nothing. */
static void test_truth(void **state)
{
	struct sparq_open_params p = { .size = sizeof(p), .queues = 2, .arena_bytes = 1 << 20 };
	struct sparq_info info = { .size = sizeof(info) };
	struct fake f = {};
	const char *name;
	sparq *c = NULL;

	fake_start(&f);
	assert_int_equal(sparq_open(f.path, &p, &c), 0);
	assert_int_equal(sparq_info_get(c, &info), 0);
	assert_int_equal(info.size, sizeof(info));
	assert_int_equal(info.generation, 7);
	assert_int_equal(info.pool_bytes, 1 << 20);
	assert_string_equal(info.version, "fake");
	assert_int_equal(sparq_name(c, "format", 1, &name), 0);
	assert_string_equal(name, "hier4");
	assert_int_equal(sparq_name(c, "format", 2, &name), -ENOENT);
	assert_string_equal(sparq_error(c), "format: no number 2");
	assert_int_equal(sparq_name(c, "a kind of sixteen and more", 0, &name), -EINVAL);
	assert_int_equal(sparq_dispatch(c), 0);
	assert_null(sparq_close(c));
	fake_stop(&f);
}

static void test_refused(void **state)
{
	char why[SPARQ_ERROR_TEXT] = "";
	struct sparq_open_params p = { .size = sizeof(p), .why = why };
	struct fake f = { .refuse = "sessions=4: the user has 4 of 4" };
	sparq *c = NULL;

	fake_start(&f);
	assert_int_equal(sparq_open(f.path, &p, &c), -EDQUOT);
	assert_string_equal(why, f.refuse);
	assert_null(c);
	fake_stop(&f);
	assert_int_equal(sparq_open(f.path, &p, &c), -ENOENT);
	assert_non_null(strstr(why, f.path));
	assert_int_equal(sparq_open("", &p, &c), -EINVAL);
}

/* ---- parameters ---------------------------------------------------------------- */

/* A program compiled against a later or an earlier header must not be misread. */
static void test_sizes(void **state)
{
	struct {
		struct sparq_open_params p;
		uint64_t later;
	} longer = { .p = { .size = sizeof(longer) } };
	struct {
		uint32_t size, queues;
	} shorter = { sizeof(shorter), 2 };
	struct sparq_open_params bad = { .size = 3 };
	struct {
		struct sparq_info i;
		uint64_t later;
	} info = { .i.size = sizeof(info), .later = 9 };
	struct fake f = {};
	sparq *c = NULL;

	fake_start(&f);
	assert_int_equal(sparq_open(f.path, &longer.p, &c), 0);
	assert_int_equal(sparq_info_get(c, &info.i), 0);
	assert_int_equal(info.later, 0);
	info.i.size = 8;
	info.i.generation = 1234;
	assert_int_equal(sparq_info_get(c, &info.i), 0);
	assert_int_equal(info.i.abi, SPARQ_ABI_MAJOR);
	assert_int_equal(info.i.generation, 1234); /* past the size that was told */
	c = sparq_close(c);
	longer.later = 1;
	assert_int_equal(sparq_open(f.path, &longer.p, &c), -E2BIG);
	assert_int_equal(sparq_open(f.path, (const struct sparq_open_params *)&shorter, &c), 0);
	assert_int_equal(c->session->told.n_queues, 2);
	c = sparq_close(c);
	assert_int_equal(sparq_open(f.path, &bad, &c), -EINVAL);
	bad = (struct sparq_open_params){ .size = sizeof(bad), .queues = SPARQ_MAX_QUEUES + 1 };
	assert_int_equal(sparq_open(f.path, &bad, &c), -EINVAL);
	bad = (struct sparq_open_params){ .size = sizeof(bad), .sq_entries = 48 };
	assert_int_equal(sparq_open(f.path, &bad, &c), -EINVAL);
	fake_stop(&f);
}

static void test_cache(void **state)
{
	char long_options[2000];
	struct sparq_cache_params p = {
		.size = sizeof(p),
		.layers = 3,
		.heads = 8,
		.kv_heads = 2,
		.k_dim = 64,
		.v_dim = 64,
		.dtype = SPARQ_DTYPE_F16,
		.scale = 0.5f,
		.name = "chat",
		.options = "r=16 k=32",
	};
	struct fake f = {};
	sparq_cache *k = NULL;
	sparq *c = NULL;

	fake_start(&f);
	assert_int_equal(sparq_open(f.path, NULL, &c), 0);
	assert_int_equal(sparq_cache_create(c, &p, &k), 0);
	assert_int_equal(f.cache_create.layers, 3);
	assert_int_equal(f.cache_create.kv_heads, 2);
	assert_int_equal(f.cache_create.dtype, SPARQ_DTYPE_F16);
	assert_string_equal(f.cache_create.name, "chat");
	assert_string_equal(f.cache_create.k_format, "hier4");
	assert_string_equal(f.cache_create.v_format, "hier4");
	assert_string_equal(f.cache_create.policy, "sparq");
	assert_string_equal(f.cache_create.options, "r=16 k=32");
	assert_int_equal(sparq_cache_set(k, "r", "9999"), -EINVAL);
	assert_string_equal(sparq_error(c), "r=9999: at most 4096");
	k = sparq_cache_unref(k);
	assert_int_equal(f.n_unrefs, 1);
	p.flags = 1;
	assert_int_equal(sparq_cache_create(c, &p, &k), -EINVAL);
	p.flags = 0;
	memset(long_options, 'x', sizeof(long_options));
	long_options[sizeof(long_options) - 1] = '\0';
	p.options = long_options;
	assert_int_equal(sparq_cache_create(c, &p, &k), -EINVAL);
	assert_non_null(strstr(sparq_error(c), "options="));
	sparq_close(c);
	fake_stop(&f);
}

/* The message has what the program said, and what it cannot hold is refused here. */
static void test_tables(void **state)
{
	struct sparq_cache_params p = { .size = sizeof(p), .layers = 1 };
	uint8_t order[SPARQ_MAX_CHANNELS];
	struct sparq_cache_table_params t = { .size = sizeof(t), .layer = 3, .kv_head = 2,
					      .n_outliers = 1, .n_k = 64, .k_channels = order };
	struct fake f = {};
	sparq_cache *k = NULL;
	sparq *c = NULL;

	for (unsigned i = 0; i < sizeof(order); i++)
		order[i] = (uint8_t)(255 - i);
	fake_start(&f);
	assert_int_equal(sparq_open(f.path, NULL, &c), 0);
	assert_int_equal(sparq_cache_create(c, &p, &k), 0);
	assert_int_equal(sparq_cache_table(k, &t), 0);
	assert_int_equal(f.cache_table.layer, 3);
	assert_int_equal(f.cache_table.kv_head, 2);
	assert_int_equal(f.cache_table.n_outliers, 1);
	assert_int_equal(f.cache_table.n_k, 64);
	assert_int_equal(f.cache_table.n_v, 0);
	assert_memory_equal(f.cache_table.k_channels, order, 64);
	assert_int_equal(f.cache_table.k_channels[64], 0);
	t.n_v = 1;
	assert_int_equal(sparq_cache_table(k, &t), -EINVAL);
	assert_string_equal(sparq_error(c), "n_v=1, and no channels");
	t.n_k = 257;
	assert_int_equal(sparq_cache_table(k, &t), -EINVAL);
	assert_string_equal(sparq_error(c), "n_k=257: at most 256");
	t.size = 2;
	assert_int_equal(sparq_cache_table(k, &t), -EINVAL);
	sparq_cache_unref(k);
	sparq_close(c);
	fake_stop(&f);
}

static void lie_old(struct sparq_msg_hello_reply *r, page *p)
{
	const uint64_t later = SPARQ_FEATURE_TABLE | SPARQ_FEATURE_EVICT |
			       SPARQ_FEATURE_PLACEMENT;

	r->features &= ~later;
	p->features &= ~later;
}

/* An older daemon would end the session over a message that it does not know. */
static void test_unknown_to_daemon(void **state)
{
	struct sparq_cache_table_params t = { .size = sizeof(t) };
	struct sparq_cache_params p = { .size = sizeof(p), .layers = 1 };
	struct fake f = { .lie = lie_old, .placement = SPARQ_PLACEMENT_HEADS };
	struct sparq_cache_stat stat = { .size = sizeof(stat) };
	sparq_cache *k = NULL;
	sparq_seq *s = NULL;
	sparq *c = NULL;

	fake_start(&f);
	assert_int_equal(sparq_open(f.path, NULL, &c), 0);
	assert_int_equal(sparq_cache_create(c, &p, &k), 0);
	assert_int_equal(sparq_cache_table(k, &t), -EOPNOTSUPP);
	assert_string_equal(sparq_error(c), "this daemon has no channel tables");
	assert_int_equal(sparq_seq_create(k, NULL, &s), 0);
	assert_int_equal(sparq_seq_pin(s, 1), -EOPNOTSUPP);
	assert_string_equal(sparq_error(c), "this daemon never evicts a sequence");
	assert_int_equal(sparq_cache_stat_get(k, &stat), 0);
	assert_int_equal(stat.placement, SPARQ_PLACEMENT_UNKNOWN);
	sparq_seq_unref(s);
	sparq_cache_unref(k);
	sparq_close(c);
	fake_stop(&f);
}

/* Who lets go of a named sequence means to come back to it. */
static void test_sequences(void **state)
{
	struct sparq_cache_params p = { .size = sizeof(p), .layers = 1 };
	struct sparq_seq_stat stat = { .size = sizeof(stat) };
	struct sparq_cache_stat cache_stat = { .size = sizeof(cache_stat) };
	sparq_seq *named = NULL, *unnamed = NULL, *fork = NULL;
	struct fake f = {};
	sparq_cache *k = NULL;
	sparq *c = NULL;
	uint64_t id;

	fake_start(&f);
	assert_int_equal(sparq_open(f.path, NULL, &c), 0);
	assert_int_equal(sparq_cache_create(c, &p, &k), 0);
	assert_int_equal(sparq_seq_attach(k, NULL, &named), -EINVAL);
	assert_int_equal(sparq_seq_create(k, "turn-1", &named), 0);
	assert_int_equal(sparq_seq_create(k, NULL, &unnamed), 0);
	assert_int_equal(sparq_seq_fork(named, 7, &fork), 0);
	assert_int_equal(sparq_seq_stat_get(fork, 2, &stat), 0);
	assert_int_equal(stat.rows_least, 2);
	assert_int_equal(stat.rows_most, 5);
	assert_int_equal(stat.flags, 0);
	assert_int_equal(stat.placement, SPARQ_PLACEMENT_UNKNOWN);
	f.placement = SPARQ_PLACEMENT_ROWS;
	assert_int_equal(sparq_seq_stat_get(fork, 2, &stat), 0);
	assert_int_equal(stat.placement, SPARQ_PLACEMENT_ROWS);
	assert_int_equal(sparq_cache_stat_get(k, &cache_stat), 0);
	assert_int_equal(cache_stat.placement, SPARQ_PLACEMENT_ROWS);
	f.placement = 4; /* of a later release */
	assert_int_equal(sparq_cache_stat_get(k, &cache_stat), 0);
	assert_int_equal(cache_stat.placement, SPARQ_PLACEMENT_UNKNOWN);
	/* A program of before has shorter ones. */
	cache_stat.size = offsetof(struct sparq_cache_stat, placement);
	stat.size = offsetof(struct sparq_seq_stat, placement);
	cache_stat.placement = stat.placement = 77;
	assert_int_equal(sparq_cache_stat_get(k, &cache_stat), 0);
	assert_int_equal(sparq_seq_stat_get(fork, 2, &stat), 0);
	assert_int_equal(cache_stat.placement, 77);
	assert_int_equal(stat.placement, 77);
	stat.size = sizeof(stat);
	assert_int_equal(sparq_seq_pin(fork, 2), 0);
	assert_int_equal(f.pinned, 1);
	assert_int_equal(sparq_seq_stat_get(fork, 2, &stat), 0);
	assert_int_equal(stat.flags, SPARQ_SEQ_PINNED);
	assert_int_equal(sparq_seq_pin(fork, 0), 0);
	assert_int_equal(f.pinned, 0);
	assert_int_equal(sparq_seq_truncate(fork, 3), 0);
	named = sparq_seq_unref(named);
	assert_int_equal(f.n_drops, 0);
	id = sparq_seq_id(unnamed);
	unnamed = sparq_seq_unref(unnamed);
	assert_int_equal(f.n_drops, 1);
	assert_int_equal(f.dropped, id);
	assert_int_equal(sparq_seq_attach(k, "turn-1", &named), 0);
	assert_int_equal(sparq_seq_drop(named), 0);
	assert_int_equal(f.n_drops, 2);
	/* Handles may outlive the connection: they are dead, and still can be let go. */
	sparq_close(c);
	assert_int_equal(sparq_seq_truncate(fork, 1), -ENOTCONN);
	fork = sparq_seq_unref(fork);
	k = sparq_cache_unref(k);
	assert_int_equal(f.n_drops, 2);
	fake_stop(&f);
}

static void test_buffers(void **state)
{
	struct sparq_open_params p = { .size = sizeof(p), .arena_bytes = 1 << 16 };
	sparq_buf *a = NULL, *b = NULL;
	struct fake f = {};
	sparq *c = NULL;
	size_t bytes;

	fake_start(&f);
	assert_int_equal(sparq_open(f.path, &p, &c), 0);
	assert_int_equal(sparq_buf_alloc(c, 1000, &a), 0);
	assert_int_equal(sparq_buf_alloc(c, 1 << 17, &b), -ENOMEM);
	assert_non_null(strstr(sparq_error(c), "131072 bytes"));
	assert_int_equal(sparq_buf_alloc(c, 1, &b), 0);
	memset(sparq_buf_data(a, &bytes), 0xaa, 1000);
	assert_true(bytes >= 1000);
	assert_int_equal((uintptr_t)sparq_buf_data(b, NULL) % ARENA_ALIGN, 0);
	assert_int_equal((uint8_t *)sparq_buf_data(b, NULL) - (uint8_t *)sparq_buf_data(a, NULL),
			 sparq_buf_addr(b) - sparq_buf_addr(a));
	assert_true(sparq_buf_addr(a) > 0);
	b = sparq_buf_unref(b);
	/* An engine's threads may still write where the daemon read: the memory stays. */
	sparq_close(c);
	memset(sparq_buf_data(a, NULL), 0xbb, 1000);
	a = sparq_buf_unref(a);
	fake_stop(&f);
}

/* ---- ends ---------------------------------------------------------------------- */

static void test_dead_daemon(void **state)
{
	struct sparq_open_params brief = { .size = sizeof(brief), .reconnect_ms = 300 };
	struct sparq_cache_params p = { .size = sizeof(p), .layers = 1 };
	struct fake f = {};
	sparq_cache *k = NULL;
	sparq *c = NULL;
	int64_t begin;

	fake_start(&f);
	assert_int_equal(sparq_open(f.path, &brief, &c), 0);
	fake_die(&f);
	begin = clock_now_ns();
	assert_int_equal(sparq_cache_create(c, &p, &k), -ENOTCONN);
	/* It was waited for as long as was asked for. */
	assert_true(clock_now_ns() - begin >= 300 * NS_PER_MS);
	assert_non_null(strstr(sparq_error(c), "CACHE_CREATE"));
	assert_int_equal(sparq_cache_create(c, &p, &k), -ENOTCONN);
	assert_null(k);
	assert_int_equal(sparq_dispatch(c), -ENOTCONN);
	sparq_close(c);
}

static void test_dispatch_sees_death(void **state)
{
	struct fake f = {};
	sparq *c = NULL;

	fake_start(&f);
	assert_int_equal(sparq_open(f.path, NULL, &c), 0);
	assert_int_equal(sparq_dispatch(c), 0);
	fake_die(&f);
	assert_int_equal(sparq_dispatch(c), -ENOTCONN);
	assert_int_equal(sparq_dispatch(c), -ENOTCONN);
	sparq_close(c);
}

/* An interpreter that forks runs destructors in the child: they must not touch the parent's
 * session. */
static void test_fork(void **state)
{
	struct sparq_cache_params p = { .size = sizeof(p), .layers = 1 };
	struct fake f = {};
	sparq_cache *k = NULL;
	sparq_seq *s = NULL;
	const char *name;
	sparq *c = NULL;
	pid_t child;
	int status;

	fake_start(&f);
	assert_int_equal(sparq_open(f.path, NULL, &c), 0);
	assert_int_equal(sparq_cache_create(c, &p, &k), 0);
	assert_int_equal(sparq_seq_create(k, NULL, &s), 0);
	child = fork();
	if (child == 0) {
		int r = sparq_name(c, "format", 0, &name);

		sparq_seq_unref(s);
		sparq_cache_unref(k);
		sparq_close(c);
		_exit(r == -ENOTCONN ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(sparq_name(c, "format", 0, &name), 0);
	assert_int_equal(f.n_drops + f.n_unrefs, 0);
	sparq_seq_unref(s);
	sparq_cache_unref(k);
	sparq_close(c);
	fake_stop(&f);
}

static void test_words(void **state)
{
	assert_int_equal(sparq_version(), SPARQ_VERSION_MAJOR << 16 | SPARQ_VERSION_MINOR << 8 |
						  SPARQ_VERSION_PATCH);
	for (uint32_t i = 0; i < SPARQ_REASONS; i++) {
		assert_non_null(sparq_reason(i));
		assert_string_not_equal(sparq_reason(i), sparq_reason(SPARQ_REASONS));
	}
	assert_non_null(sparq_reason(UINT32_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_truth),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_unknown_to_daemon),
		cmocka_unit_test(test_sequences),
		cmocka_unit_test(test_buffers),
		cmocka_unit_test(test_dead_daemon),
		cmocka_unit_test(test_dispatch_sees_death),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
