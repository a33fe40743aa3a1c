/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything after check.c trusts its answer: an entry that it lets through
 * must not lead outside the arena, and one that it refuses must say why. Each
 * case spoils one field of a good entry.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/check.h"

#define ARENA 65536u

static const struct check_limits limits = { .arena_bytes = ARENA,
					    .max_items = 256,
					    .max_rows = 512 };
static const struct check_shape shape = {
	.layers = 4,
	.heads = 4,
	.kv_heads = 2,
	.k_dim = 64,
	.v_dim = 64,
	.dtype_bytes = 4,
};
#define Q_BYTES (4 * 64 * 4)
#define KV_BYTES (2 * 128 * 4)

static struct sparq_sqe good_step(void)
{
	return (struct sparq_sqe){
		.op = SPARQ_OP_STEP,
		.layer = 1,
		.sequence = 7,
		.q = 0,
		.kv = 4096,
		.o = 8192,
		.row = 10,
		.n_rows = 2,
		.n_q = 2,
	};
}

static int check_both(const struct sparq_sqe *e, const struct sparq_item *i, uint32_t *reason)
{
	int r = check_entry(e, &limits, reason);

	return r < 0 ? r : check_item(e, i, &limits, &shape, reason);
}

static void expect(const struct sparq_sqe *e, uint32_t want)
{
	struct sparq_item i = check_item_of_entry(e);
	uint32_t reason = SPARQ_REASON_NONE;
	int r = check_both(e, &i, &reason);

	assert_int_equal(reason, want);
	assert_int_equal(r, want == SPARQ_REASON_NONE ? 0 : -EINVAL);
}

#define SPOILED(want, ...)                                                                         \
	do {                                                                                       \
		struct sparq_sqe e = good_step();                                                  \
		__VA_ARGS__;                                                                       \
		expect(&e, want);                                                                  \
	} while (0)

static void good_entries_pass(void **state)
{
	SPOILED(SPARQ_REASON_NONE, (void)0);
	SPOILED(SPARQ_REASON_NONE, e.flags = SPARQ_SQE_FLAGS);
	SPOILED(SPARQ_REASON_NONE, (e.op = SPARQ_OP_APPEND, e.q = e.o = e.n_q = 0));
	SPOILED(SPARQ_REASON_NONE, (e.op = SPARQ_OP_ATTEND, e.kv = e.n_rows = 0));
	SPOILED(SPARQ_REASON_NONE, e.o = ARENA - 2 * Q_BYTES);
	expect(&(struct sparq_sqe){ .op = SPARQ_OP_TRUNCATE, .layer = SPARQ_LAYER_ALL, .row = 3 },
	       SPARQ_REASON_NONE);
	SPOILED(SPARQ_REASON_NONE, (e.op = SPARQ_OP_OVERWRITE, e.q = e.o = e.n_q = 0));
	expect(&(struct sparq_sqe){ .op = SPARQ_OP_NOP, .user_data = 1 }, SPARQ_REASON_NONE);
}

static void each_field_has_its_reason(void **state)
{
	SPOILED(SPARQ_REASON_OP, e.op = SPARQ_OP_COUNT);
	SPOILED(SPARQ_REASON_FLAGS, e.flags = SPARQ_SQE_FLAGS + 1);
	SPOILED(SPARQ_REASON_FLAGS, (e.op = SPARQ_OP_APPEND, e.flags = SPARQ_SQE_DENSE));
	SPOILED(SPARQ_REASON_CLASS, e.class_ = 2);
	SPOILED(SPARQ_REASON_LAYER, e.layer = 4);
	SPOILED(SPARQ_REASON_LAYER, e.layer = SPARQ_LAYER_ALL);
	SPOILED(SPARQ_REASON_UNUSED, e.op = SPARQ_OP_APPEND);
	SPOILED(SPARQ_REASON_UNUSED, e.op = SPARQ_OP_ATTEND);
	SPOILED(SPARQ_REASON_UNUSED, e.op = SPARQ_OP_TRUNCATE);
	SPOILED(SPARQ_REASON_UNUSED, e.op = SPARQ_OP_NOP);
	SPOILED(SPARQ_REASON_UNUSED, e.op = SPARQ_OP_OVERWRITE);
	SPOILED(SPARQ_REASON_FLAGS, (e.op = SPARQ_OP_OVERWRITE, e.flags = SPARQ_SQE_REPEAT));
	SPOILED(SPARQ_REASON_LAYER, (e.op = SPARQ_OP_OVERWRITE, e.layer = SPARQ_LAYER_ALL));
	SPOILED(SPARQ_REASON_ROWS, (e.op = SPARQ_OP_OVERWRITE, e.q = e.o = e.n_q = e.n_rows = 0));
	SPOILED(SPARQ_REASON_ADDRESS,
		(e.op = SPARQ_OP_OVERWRITE, e.q = e.o = e.n_q = 0, e.kv = ARENA));
	SPOILED(SPARQ_REASON_ROWS, e.n_rows = 0);
	SPOILED(SPARQ_REASON_ROWS, e.n_rows = 513);
	SPOILED(SPARQ_REASON_QUERIES, e.n_q = 0);
	SPOILED(SPARQ_REASON_QUERIES, e.n_q = 513);
	SPOILED(SPARQ_REASON_QUERIES, e.n_q = 13); /* more than row + n_rows */
	SPOILED(SPARQ_REASON_ROW, e.row = SPARQ_ROW_LIMIT - 1);
	SPOILED(SPARQ_REASON_ROW, e.row = UINT32_MAX);
}

/* Offsets near 2^64, sizes whose sum wraps, the last byte outside. */
static void addresses(void **state)
{
	SPOILED(SPARQ_REASON_ADDRESS, e.q = 8);
	SPOILED(SPARQ_REASON_ADDRESS, e.kv = ARENA - 2 * KV_BYTES + 16);
	SPOILED(SPARQ_REASON_ADDRESS, e.o = ARENA - 2 * Q_BYTES + 16);
	SPOILED(SPARQ_REASON_ADDRESS, e.o = ARENA);
	SPOILED(SPARQ_REASON_ADDRESS, e.q = UINT64_MAX - 15);
	SPOILED(SPARQ_REASON_ADDRESS, e.q = 1ull << SPARQ_ADDR_OFFSET_BITS);
	SPOILED(SPARQ_REASON_ADDRESS, e.kv = (1ull << 48) - 16);
}

static void expect_item(const struct sparq_item *i, uint32_t want)
{
	struct sparq_sqe e = good_step();
	uint32_t reason = SPARQ_REASON_NONE;

	check_item(&e, i, &limits, &shape, &reason);
	assert_int_equal(reason, want);
}

static void items(void **state)
{
	struct sparq_sqe e = good_step();
	const struct sparq_item good = check_item_of_entry(&e);
	struct sparq_item i = good;

	i.lse = 16384, i.report = 20480, i.q_stride = Q_BYTES + 16;
	expect_item(&i, SPARQ_REASON_NONE);
	i = good, i.rsv[14] = 1;
	expect_item(&i, SPARQ_REASON_RESERVED);
	i = good, i.q_stride = Q_BYTES + 8;
	expect_item(&i, SPARQ_REASON_STRIDE);
	i = good, i.o_stride = Q_BYTES - 16; /* rows would overlap */
	expect_item(&i, SPARQ_REASON_STRIDE);
	i = good, i.kv_stride = 0xfffffff0u; /* (n - 1) * stride passes 32 bits */
	expect_item(&i, SPARQ_REASON_ADDRESS);
	i = good, i.lse = ARENA - 16;
	expect_item(&i, SPARQ_REASON_ADDRESS);
	i = good, i.report = 20480 + 32;
	expect_item(&i, SPARQ_REASON_ADDRESS);
	i = good, i.report = ARENA;
	expect_item(&i, SPARQ_REASON_ADDRESS);
}

static void batches(void **state)
{
	struct sparq_sqe e = { .op = SPARQ_OP_STEP, .sequence = 1024, .n_items = 256 };
	uint32_t reason = 0;

	assert_int_equal(check_entry(&e, &limits, &reason), 0);
	e.n_items = 257;
	assert_int_equal(check_entry(&e, &limits, &reason), -EINVAL);
	assert_int_equal(reason, SPARQ_REASON_ITEMS);
	e.n_items = 256, e.sequence = ARENA - 256 * 128 + 64;
	assert_int_equal(check_entry(&e, &limits, &reason), -EINVAL);
	e.sequence = 1032;
	assert_int_equal(check_entry(&e, &limits, &reason), -EINVAL);
	e.sequence = 1024, e.row = 1;
	assert_int_equal(check_entry(&e, &limits, &reason), -EINVAL);
	assert_int_equal(reason, SPARQ_REASON_UNUSED);
}

/* Whatever passes stays inside: random entries, judged by 128-bit arithmetic. */
static void nothing_leads_outside(void **state)
{
	unsigned passed = 0;

	srandom(1);
	for (int n = 0; n < 300000; n++) {
		struct sparq_sqe e = good_step();
		struct sparq_item i;
		uint32_t reason;

		e.q = ((uint64_t)random() << 4) % (ARENA + ARENA / 8);
		e.kv = ((uint64_t)random() << 4) % (ARENA + ARENA / 8);
		e.o = (uint64_t)(random() % ARENA & ~15) << (random() % 4 ? 0 : random() % 45);
		e.n_rows = random() % 14;
		e.n_q = random() % 14;
		i = check_item_of_entry(&e);
		i.q_stride = (uint32_t)random() % 4096 & ~15u;
		i.kv_stride = (uint32_t)random() >> (random() % 31) & ~15u;
		if (check_both(&e, &i, &reason) < 0)
			continue;
		passed++;
		assert_true((unsigned __int128)i.q +
				    (unsigned __int128)(i.n_q - 1) *
					    (i.q_stride ? i.q_stride : Q_BYTES) +
				    Q_BYTES <=
			    ARENA);
		assert_true((unsigned __int128)i.kv +
				    (unsigned __int128)(i.n_rows - 1) *
					    (i.kv_stride ? i.kv_stride : KV_BYTES) +
				    KV_BYTES <=
			    ARENA);
		assert_true((unsigned __int128)i.o + (unsigned __int128)i.n_q * Q_BYTES <= ARENA);
	}
	assert_true(passed > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_entries_pass), cmocka_unit_test(each_field_has_its_reason),
		cmocka_unit_test(addresses),         cmocka_unit_test(items),
		cmocka_unit_test(batches),           cmocka_unit_test(nothing_leads_outside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
