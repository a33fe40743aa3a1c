/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The race of the two bits of daemon/present.h, exhaustively: its code itself, with a
 * scheduler in front of each operation that others can see. Threads are contexts of
 * this one; every order of their operations is gone through. What the device has must
 * be what the host has once all is over, or a step attends to rows that were
 * never sent.
 *
 * Orders of operations are all that is tried: that the processor keeps them in order
 * is for test-present, whose threads are real. Without the controls at the end, each
 * of which must go wrong in some order, the rest would prove little.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <cmocka.h>

#include "shm/atomic.h"
#include "shm/base.h"

/* ---- operations -------------------------------------------------------------------- */

static void turn(void);
static uint64_t clear_bits(uint64_t *word, uint64_t mask);
static uint64_t set_bits(uint64_t *word, uint64_t mask);
static uint64_t look_again(const uint64_t *word);
static uint64_t look(const uint64_t *word);

#undef fetch_and
#undef fetch_or
#undef load_relaxed
#undef load_acquire
#define fetch_and(p, v) clear_bits((p), (v))
#define fetch_or(p, v) set_bits((p), (v))
#define load_relaxed(p) look_again(p)
#define load_acquire(p) look(p)
#include "daemon/present.c"

enum control { NONE, NO_SECOND_LOOK, NO_COARSE_CLEAR, COARSE_FIRST, NOTE_LATE, CONTROLS };

static enum control control;
static struct present present;
static uint64_t kept_back; /* of COARSE_FIRST: what is cleared in the fine word behind it */
static bool initial;

static bool is_fine(const uint64_t *word)
{
	return word == present.fine;
}

static uint64_t clear_bits(uint64_t *word, uint64_t mask)
{
	uint64_t before = *word;

	turn();
	if (control == COARSE_FIRST && is_fine(word)) {
		kept_back = mask;
		return before;
	}
	before = *word;
	if (control != NO_COARSE_CLEAR || is_fine(word) || initial)
		*word = before & mask;
	if (control == COARSE_FIRST) {
		turn();
		present.fine[0] &= kept_back;
	}
	return before;
}

static uint64_t set_bits(uint64_t *word, uint64_t mask)
{
	uint64_t before;

	turn();
	before = *word;
	*word |= mask;
	return before;
}

/* Of present_note, behind the coarse bit. */
static uint64_t look_again(const uint64_t *word)
{
	turn();
	return control == NO_SECOND_LOOK ? UINT64_MAX : *word;
}

static uint64_t look(const uint64_t *word)
{
	turn();
	return *word;
}

/* ---- threads ------------------------------------------------------------------------- */

#define BLOCKS 64u /* of the one fine word */
#define MOST_THREADS 3u
#define MOST_TURNS 64u
#define STACK_BYTES (64 * KIB)

static unsigned host[BLOCKS], device[BLOCKS];

struct thread {
	ucontext_t context;
	void (*run)(unsigned block);
	unsigned block;
	bool over;
	char *stack;
};
static struct thread thread[MOST_THREADS];
static unsigned n_threads, running;
static ucontext_t scheduler;
static bool scheduled; /* else a turn is nobody else's */

/* The order that is gone through: which of those that can go on did, and of how many. */
static unsigned chosen[MOST_TURNS], choices[MOST_TURNS], n_turns;

static void turn(void)
{
	if (scheduled)
		swapcontext(&thread[running].context, &scheduler);
}

static void enter(void)
{
	struct thread *t = &thread[running];

	t->run(t->block);
	t->over = true;
}

/* The n-th that is not over. */
static unsigned pick(unsigned n)
{
	for (unsigned i = 0; i < n_threads; i++)
		if (!thread[i].over && n-- == 0)
			return i;
	return n_threads;
}

static unsigned alive(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < n_threads; i++)
		n += !thread[i].over;
	return n;
}

static void make_thread(struct thread *t)
{
	getcontext(&t->context);
	t->context.uc_stack.ss_sp = t->stack;
	t->context.uc_stack.ss_size = STACK_BYTES;
	t->context.uc_link = &scheduler;
	t->over = false;
	makecontext(&t->context, enter, 0);
}

static void run_threads(void)
{
	for (unsigned i = 0; i < n_threads; i++)
		make_thread(&thread[i]);
	scheduled = true;
	for (unsigned k = 0; alive(); k++) {
		assert_true(k < MOST_TURNS);
		if (k >= n_turns) {
			chosen[k] = 0;
			n_turns = k + 1;
		}
		choices[k] = alive();
		running = pick(chosen[k]);
		swapcontext(&scheduler, &thread[running].context);
	}
	scheduled = false;
}

/* The next order; false: that was the last. */
static bool next_order(void)
{
	while (n_turns && chosen[n_turns - 1] + 1 == choices[n_turns - 1])
		n_turns--;
	if (n_turns)
		chosen[n_turns - 1]++;
	return n_turns > 0;
}

/* ---- what they do -------------------------------------------------------------------- */

/* A worker: writes a block, then says so. */
static void write_block(unsigned block)
{
	host[block]++;
	present_forget(&present, block * PRESENT_BLOCK, PRESENT_BLOCK);
}

static void copy(size_t at, size_t n)
{
	for (size_t i = at / PRESENT_BLOCK; i < (at + n) / PRESENT_BLOCK; i++) {
		if (i < 2)
			turn();
		device[i] = host[i];
	}
}

/* The device's thread: brings what is missing, as device-pages.c does. */
static void bring(unsigned rounds)
{
	size_t at, n;

	for (unsigned i = 0; i < rounds; i++) {
		size_t from = 0;

		while (present_missing(&present, from, present.bytes, &at, &n)) {
			if (control == NOTE_LATE)
				copy(at, n);
			present_note(&present, at, n);
			if (control != NOTE_LATE)
				copy(at, n);
			from = at + n;
		}
	}
}

/* All but `missing` is there, whose bit is all that the word lacks. */
static void begin(unsigned missing)
{
	initial = true;
	memset(host, 0, sizeof(host));
	memset(device, 0, sizeof(device));
	present_note(&present, 0, present.bytes);
	host[missing] = 1;
	present_forget(&present, missing * PRESENT_BLOCK, PRESENT_BLOCK);
	if (control == COARSE_FIRST)
		present.fine[0] &= ~(1ull << missing);
	initial = false;
	kept_back = UINT64_MAX;
}

static void add_thread(void (*run)(unsigned), unsigned block)
{
	thread[n_threads].run = run;
	thread[n_threads++].block = block;
}

/* Orders in which the copy is not the host's, at the end. */
static unsigned count_wrong(unsigned *ret_orders)
{
	unsigned wrong = 0, orders = 0;

	n_turns = 0;
	do {
		begin(0);
		run_threads();
		bring(1); /* nobody writes any more: what is missing is found */
		wrong += memcmp(host, device, sizeof(host)) != 0;
		orders++;
	} while (next_order());
	*ret_orders = orders;
	return wrong;
}

/* One writer, of the block that is being brought or of another one, and two looks. */
static unsigned one_writer(unsigned block, unsigned *ret_orders)
{
	n_threads = 0;
	add_thread(bring, 2);
	add_thread(write_block, block);
	return count_wrong(ret_orders);
}

/* Two workers in one word: what one clears, the other must not have set again. */
static unsigned two_writers(unsigned *ret_orders)
{
	n_threads = 0;
	add_thread(bring, 1);
	add_thread(write_block, 0);
	add_thread(write_block, 1);
	return count_wrong(ret_orders);
}

static void test_orders(void **state)
{
	unsigned orders;

	control = NONE;
	for (unsigned block = 0; block < 2; block++) {
		assert_int_equal(one_writer(block, &orders), 0);
		assert_true(orders > 200);
	}
	assert_int_equal(two_writers(&orders), 0);
	assert_true(orders > 10000);
}

static void test_controls(void **state)
{
	for (control = NONE + 1; control < CONTROLS; control++) {
		unsigned same, other, wrong = one_writer(0, &same) + one_writer(1, &other);

		/* In some orders, not whatever happens: that would be a mistake of this test. */
		assert_true(wrong > 0 && wrong < same + other);
	}
	control = NONE;
}

static int set_up(void **state)
{
	for (unsigned i = 0; i < MOST_THREADS; i++) {
		thread[i].stack = malloc(STACK_BYTES);
		assert_non_null(thread[i].stack);
	}
	return present_init(&present, BLOCKS * PRESENT_BLOCK);
}

static int tear_down(void **state)
{
	for (unsigned i = 0; i < MOST_THREADS; i++)
		free(thread[i].stack);
	present_deinit(&present);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_orders),
		cmocka_unit_test(test_controls),
	};

#if defined(__SANITIZE_THREAD__)
	return 77; /* it is told nothing of contexts; test-present has threads for it */
#endif
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
