/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device has of an arena. A bit that says too much is a step that attends
 * to rows that were never sent: the model is an array of bytes, and two threads.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/present.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define BYTES (3 * MIB + 5 * PRESENT_BLOCK)
#define BLOCKS (BYTES / PRESENT_BLOCK)

static uint32_t random_below(uint32_t n)
{
	static uint64_t x = 88172645463325252ull;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x >> 16) % n;
}

/* Runs that are missing in [from, to) are those that the model lacks, whole and in order. */
static void compare(const struct present *p, const bool *has, uint32_t from, uint32_t to)
{
	size_t at = (size_t)from * PRESENT_BLOCK, end = (size_t)to * PRESENT_BLOCK, run, n;
	uint32_t i = from;

	while (present_missing(p, at, end, &run, &n)) {
		assert_true(n > 0 && run >= at && run + n <= end);
		assert_int_equal(run % PRESENT_BLOCK, 0);
		for (; i < run / PRESENT_BLOCK; i++)
			assert_true(has[i]);
		for (; i < (run + n) / PRESENT_BLOCK; i++)
			assert_false(has[i]);
		at = run + n;
	}
	for (; i < to; i++)
		assert_true(has[i]);
}

static void test_model(void **state)
{
	static bool has[BLOCKS];
	struct present p;

	assert_int_equal(present_init(&p, BYTES), 0);
	for (unsigned i = 0; i < 20000; i++) {
		uint32_t most = random_below(2) ? BLOCKS : 200, from = random_below(BLOCKS);
		uint32_t n = random_below(MIN(most, BLOCKS - from) + 1);
		bool note = random_below(5) > 1;

		if (note)
			present_note(&p, (size_t)from * PRESENT_BLOCK, (size_t)n * PRESENT_BLOCK);
		else
			present_forget(&p, (size_t)from * PRESENT_BLOCK, (size_t)n * PRESENT_BLOCK);
		memset(has + from, note, n);
		if (i % 50 == 0)
			compare(&p, has, 0, BLOCKS);
		from = random_below(BLOCKS);
		compare(&p, has, from, from + random_below(MIN(500u, BLOCKS - from) + 1));
	}
	present_deinit(&p);
}

/* A few bytes are all blocks that they touch, and none besides. */
static void test_odd_bytes(void **state)
{
	struct present p;
	size_t at, n;

	assert_int_equal(present_init(&p, BYTES), 0);
	present_note(&p, 0, BYTES);
	assert_false(present_missing(&p, 0, BYTES, &at, &n));
	present_forget(&p, 64 * KIB - 1, 2);
	assert_true(present_missing(&p, 0, BYTES, &at, &n));
	assert_int_equal(at, 64 * KIB - PRESENT_BLOCK);
	assert_int_equal(n, 2 * PRESENT_BLOCK);
	present_note(&p, at, n);
	present_forget(&p, 100, 0);
	assert_false(present_missing(&p, 0, BYTES, &at, &n));
	present_deinit(&p);
}

/* ---- two threads -------------------------------------------------------------------- */

#define WORDS 64u /* of 4 KiB: one coarse word */
#define ROUNDS 200000u

struct race {
	struct present p;
	uint32_t host[WORDS * 64]; /* atomic; a number in each block */
	uint32_t done;             /* atomic */
};

static void *write_blocks(void *arg)
{
	struct race *r = arg;

	for (uint32_t i = 1; i <= ROUNDS; i++) {
		uint32_t block = (i * 2654435761u >> 16) % (WORDS * 64);

		store_relaxed(&r->host[block], i);
		present_forget(&r->p, (size_t)block * PRESENT_BLOCK, PRESENT_BLOCK);
	}
	store_release(&r->done, 1);
	return NULL;
}

/* While one writes, the other copies all that is missing; when the first has ended, a last look
 * makes the copy equal. A bit that got lost would leave a block as it was. */
static void test_race(void **state)
{
	static uint32_t copy[WORDS * 64];
	struct race *r = calloc(1, sizeof(*r));
	bool last = false;
	pthread_t thread;

	assert_non_null(r);
	assert_int_equal(present_init(&r->p, sizeof(copy) / 4 * PRESENT_BLOCK), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_blocks, r), 0);
	for (;;) {
		size_t at = 0, run, n;
		bool done = load_acquire(&r->done);

		while (present_missing(&r->p, at, r->p.bytes, &run, &n)) {
			present_note(&r->p, run, n);
			for (size_t i = run / PRESENT_BLOCK; i < (run + n) / PRESENT_BLOCK; i++)
				copy[i] = load_relaxed(&r->host[i]);
			at = run + n;
		}
		if (last)
			break;
		last = done;
	}
	pthread_join(thread, NULL);
	assert_memory_equal(copy, r->host, sizeof(copy));
	present_deinit(&r->p);
	free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_odd_bytes),
		cmocka_unit_test(test_race),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
