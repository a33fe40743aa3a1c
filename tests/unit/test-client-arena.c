/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena's allocator: engines keep q, k, v and o of many sequences in it, so
 * two blocks that overlap would be two requests that overwrite each other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "client/private.h"

#define ARENA_BYTES (1 << 20)

static uint64_t random_state = 88172645463325252u;

static uint32_t random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 32) % n;
}

/* Every byte is in exactly one block, no two free ones touch, the free list has all free ones. */
static void check(const struct arena *a)
{
	uint64_t at = ARENA_ALIGN;
	unsigned n_free = 0, n_listed = 0;

	for (const struct sparq_buf *b = a->first; b; b = b->after) {
		assert_int_equal(b->offset, at);
		assert_true(b->bytes > 0 && b->bytes % ARENA_ALIGN == 0);
		assert_true(!b->after || b->after->before == b);
		assert_true(b->taken || !b->after || b->after->taken);
		n_free += !b->taken;
		at += b->bytes;
	}
	assert_int_equal(at, ARENA_BYTES);
	for (const struct sparq_buf *b = a->free; b; b = b->free_next) {
		assert_false(b->taken);
		assert_true(!b->free_next || b->free_next->free_prev == b);
		n_listed++;
	}
	assert_int_equal(n_free, n_listed);
}

static void test_random(void **state)
{
	struct sparq_buf *held[64] = {};
	unsigned refused = 0;
	struct arena a;

	assert_int_equal(arena_init(&a, ARENA_BYTES), 0);
	for (unsigned round = 0; round < 20000; round++) {
		unsigned i = random_below(ARRAY_SIZE(held));

		if (held[i]) {
			arena_give(&a, held[i]);
			held[i] = NULL;
		} else {
			uint64_t bytes = 1 + random_below(random_below(8) ? 4096 : ARENA_BYTES / 2);
			int r = arena_take(&a, bytes, &held[i]);

			assert_true(r == 0 || r == -ENOMEM);
			refused += r != 0;
			assert_true(r != 0 || held[i]->bytes >= bytes);
			assert_true(r != 0 || held[i]->bytes < bytes + ARENA_ALIGN);
		}
		if (round % 64 == 0)
			check(&a);
	}
	assert_true(refused > 0); /* else the arena never was full, and half of this untested */
	for (unsigned i = 0; i < ARRAY_SIZE(held); i++)
		if (held[i])
			arena_give(&a, held[i]);
	check(&a);
	assert_int_equal(a.first->bytes, ARENA_BYTES - ARENA_ALIGN); /* all in one piece again */
	arena_deinit(&a);
}

/* Offset 0 would mean "no lse wanted", and sizes come from a program's arithmetic. */
static void test_edges(void **state)
{
	struct sparq_buf *b = NULL, *second = NULL;
	struct arena a;

	assert_int_equal(arena_init(&a, ARENA_ALIGN), -EINVAL);
	assert_int_equal(arena_init(&a, 0), -EINVAL);
	assert_int_equal(arena_init(&a, ARENA_BYTES + 5), 0);
	assert_int_equal(arena_take(&a, 0, &b), -EINVAL);
	assert_int_equal(arena_take(&a, UINT64_MAX, &b), -ENOMEM);
	assert_int_equal(arena_take(&a, UINT64_MAX - ARENA_ALIGN, &b), -ENOMEM);
	assert_int_equal(arena_take(&a, ARENA_BYTES, &b), -ENOMEM);
	assert_null(b);
	assert_int_equal(arena_take(&a, ARENA_BYTES - ARENA_ALIGN, &b), 0);
	assert_int_equal(b->offset, ARENA_ALIGN);
	assert_int_equal(arena_take(&a, 1, &second), -ENOMEM);
	arena_give(&a, b);
	check(&a);
	arena_deinit(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_edges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
