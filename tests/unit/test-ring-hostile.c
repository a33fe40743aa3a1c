/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's half against a client that rewrites all memory it can write
 * while it is read. The daemon relies on it that nothing such a client does
 * makes a worker touch memory outside the ring, believe an entry twice, or
 * promise a completion it has no place for.
 *
 * The segment lies between guard pages and each half of the ring in a mapping
 * of its own: one byte out of range is a SIGSEGV. The time, in ms, is the
 * first argument: 1000.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/base.h"
#include "shm/doorbell.h"
#include "shm/ring.h"

#define SQ 64u
#define CQ 128u
#define PAGE 4096u

#define PATIENCE_NS 20000000000ll

static unsigned run_ms = 1000;

/* What one run shares. `map` points into guarded memory, which the mutators know and rewrite. */
struct arena {
	struct ring_map map;
	uint32_t head, tail; /* of the daemon: a client can count along */
	uint32_t stop;
	uint64_t mutations;
	unsigned seed;
};

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	return *state ^= *state << 17;
}

/* `bytes` of zeroed memory that end at a guard page, and begin behind one if they fill pages. */
static void *guarded(size_t bytes)
{
	size_t whole = ALIGN_UP(bytes, PAGE);
	char *p = mmap(NULL, whole + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(mprotect(p + PAGE, whole, PROT_READ | PROT_WRITE), 0);
	return p + PAGE + whole - bytes;
}

static void release(void *p, size_t bytes)
{
	size_t whole = ALIGN_UP(bytes, PAGE);

	munmap((char *)p + bytes - whole - PAGE, whole + 2 * PAGE);
}

/* ---- the hostile client ------------------------------------------------- */

/* A number of the kind that breaks things: small, near a wrap, near what is true, or any. */
static uint32_t nasty(uint64_t *random, uint32_t truth)
{
	uint64_t r = random_next(random);

	switch (r % 8) {
	case 0:
		return (uint32_t)(r >> 32);
	case 1:
		return UINT32_MAX - (uint32_t)(r >> 60);
	case 2:
		return (uint32_t)(r >> 60);
	case 3:
		return truth + CQ;
	default:
		return truth + (uint32_t)(r >> 61) - 3;
	}
}

/* Rewrites one word of what a client can write: an entry, a completion, or a control word. */
static void mutate(struct arena *a, uint64_t *random)
{
	uint64_t r = random_next(random);
	uint32_t *word;

	switch (r % 16) {
#if !defined(__SANITIZE_THREAD__) /* plain stores of the daemon, which it never reads back */
	case 0: /* what only the daemon should write */
		word = (uint32_t *)(void *)a->map.cq;
		store_relaxed(&word[(r >> 8) % (CQ * 8)], nasty(random, 0));
		break;
#endif
	case 1: /* all but cq_head, which bait() has */
		word = (uint32_t *)(void *)a->map.ctl;
		store_relaxed(&word[1 + (r >> 8) % (sizeof(*a->map.ctl) / 4 - 1)],
			      (uint32_t)(r >> 32));
		break;
	default:
		word = (uint32_t *)(void *)a->map.sq;
		store_relaxed(&word[(r >> 8) % (SQ * 16)], (uint32_t)(r >> 32));
		break;
	}
}

/* Makes entries valid where the daemon looks next, so that it has plenty to copy, and tells a
 * credit that is mostly right, so that it goes on. */
static void bait(struct arena *a, uint64_t *random)
{
	uint32_t head = load_relaxed(&a->head), tail = load_relaxed(&a->tail);
	uint64_t r = random_next(random);

	for (uint32_t position = head; position != head + 24; position++)
		store_relaxed(&a->map.sq[position % SQ].seq, position + 1);
	for (unsigned i = 0; i < 8; i++) { /* valid and not, while it is copied */
		store_relaxed(&a->map.sq[head % SQ].seq, nasty(random, head));
		store_relaxed(&a->map.sq[head % SQ].seq, head + 1);
	}
	store_relaxed(&a->map.ctl->cq_head, r % 8 ? tail : nasty(random, tail));
	if (r % 64 < 16)
		store_relaxed(&a->map.ctl->cq_need, (uint32_t)(r >> 62));
}

/* Some kernels pack two busy threads on one CPU, where they would take turns of milliseconds. */
static void pin(unsigned nth)
{
	cpu_set_t allowed, one;

	CPU_ZERO(&one);
	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && nth-- == 0)
			CPU_SET(cpu, &one);
	if (CPU_COUNT(&one) == 1)
		pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
}

static void *mutator_main(void *arg)
{
	struct arena *a = arg;
	uint64_t random = 0x9e3779b97f4a7c15ull + a->seed;

	pin(1);
	while (!load_relaxed(&a->stop)) {
		for (unsigned i = 0; i < 8; i++)
			mutate(a, &random);
		bait(a, &random);
		a->mutations += 8;
		if (a->mutations % 4096 == 0)
			sched_yield(); /* there may be one CPU only */
		/* Gives the lines away for a moment, or nobody else gets on. */
		for (unsigned i = random_next(&random) % 32; i > 0; i--)
			cpu_pause();
	}
	return NULL;
}

/* ---- the daemon --------------------------------------------------------- */

struct outcome {
	uint64_t passes, copied, refused, woken;
};

/* One entry, and what must hold of it. */
static int step(struct ring_daemon *r, struct outcome *o)
{
	struct sparq_sqe copy, again;
	uint32_t head = r->sq_head, in_flight = r->in_flight;
	int result = ring_daemon_copy(r, &copy);

	if (result != 1) {
		assert_int_equal(r->sq_head, head);
		assert_int_equal(r->in_flight, in_flight);
		return result;
	}
	o->copied++;
	/* The copy is private: it stays what it was while the shared entry changes under it, and
	 * its position is the daemon's, not what stands there. */
	again = copy;
	for (unsigned i = 0; i < 8; i++)
		cpu_pause();
	assert_memory_equal(&again, &copy, sizeof(copy));
	assert_int_equal(copy.seq, head + 1);
	assert_int_equal(r->sq_head, head + 1);
	assert_int_equal(r->in_flight, in_flight + 1);
	assert_true(r->sq_head - r->cq_head <= CQ);
	return 1;
}

/* A pass: copies, completes some of what is in flight, wakes. The state it works from is its own.
 */
static int pass(struct arena *a, struct ring_daemon *r, struct outcome *o, int queue_fd,
		uint64_t *random)
{
	unsigned most = (unsigned)random_next(random) % 32;
	int result = 0;

	o->passes++;
	for (unsigned i = 0; i < most; i++) {
		result = step(r, o);
		if (result != 1)
			break;
	}
	for (unsigned i = (unsigned)random_next(random) % 40; i > 0 && r->in_flight > 0; i--)
		ring_daemon_post(r, &(struct sparq_cqe){ .user_data = i, .res = 1 });
	ring_daemon_tell(r, most == 0);
	store_relaxed(&a->head, r->sq_head);
	store_relaxed(&a->tail, r->cq_tail);
	o->woken += (uint64_t)waiter_wake(&a->map.ctl[0], queue_fd);
	return result;
}

/* All of it happened, or it was no test. */
static bool enough(const struct outcome *o)
{
	return o->copied > 1000 && o->refused > 0 && o->woken > 0;
}

/* For `run_ms`; on a machine that is busy, until there was something to see. */
static void serve(struct arena *a, struct outcome *o)
{
	int64_t start = now_ns(), until_ns = start + run_ms * 1000000ll;
	int queue_fd, client_fd;
	uint64_t random = a->seed + 1;
	struct ring_daemon r;

	assert_int_equal(waiter_pair(&queue_fd, &client_fd), 0);
	ring_daemon_init(&r, &a->map);
	while (now_ns() < until_ns || (!enough(o) && now_ns() < start + PATIENCE_NS)) {
		struct ring_map before = r.map;
		uint64_t copied = o->copied;

		if (pass(a, &r, o, queue_fd, &random) == -EPROTO) {
			o->refused++;
			/* The session is over. The next one begins anywhere in the 32 bits. */
			ring_daemon_init(&r, &a->map);
			r.sq_head = r.sq_told = r.cq_tail = r.cq_head =
				(uint32_t)random_next(&random);
		}
		assert_memory_equal(&before, &r.map, sizeof(before));
		if (o->copied == copied)
			sched_yield();
	}
	close(queue_fd);
	close(client_fd);
}

static void test_hostile_client(void **state)
{
	struct arena *a = calloc(1, sizeof(*a));
	struct outcome o = { 0 };
	pthread_t thread;
	cpu_set_t before;

	a->seed = (unsigned)now_ns();
	print_message("seed %u\n", a->seed);
	a->map = (struct ring_map){
		guarded(sizeof(struct sparq_ring_ctl)),
		guarded(SQ * sizeof(struct sparq_sqe)),
		guarded(CQ * sizeof(struct sparq_cqe)),
		SQ,
		CQ,
	};
	assert_int_equal(pthread_create(&thread, NULL, mutator_main, a), 0);
	sched_getaffinity(0, sizeof(before), &before);
	pin(0);
	serve(a, &o);
	store_relaxed(&a->stop, 1);
	pthread_join(thread, NULL);
	print_message(
		"%lu mutations, %lu passes, %lu entries copied, %lu sessions refused, %lu wakes\n",
		a->mutations, o.passes, o.copied, o.refused, o.woken);
	assert_true(enough(&o));
	release(a->map.ctl, sizeof(struct sparq_ring_ctl));
	release(a->map.sq, SQ * sizeof(struct sparq_sqe));
	release(a->map.cq, CQ * sizeof(struct sparq_cqe));
	free(a);
}

/* ---- an entry whose word changes during the copy is still one copy ------ */

/* The client flips a whole entry between two patterns. A copy may mix them, for it is not atomic,
 * but each word is of one of them: nothing is torn below 8 bytes, nothing comes from elsewhere. */
static void *flip(void *arg)
{
	struct arena *a = arg;
	uint64_t *word = (uint64_t *)(void *)a->map.sq;

	for (uint64_t n = 0; !load_relaxed(&a->stop); n++)
		for (unsigned i = 0; i < 7; i++)
			store_relaxed(&word[i], n % 2 ? UINT64_MAX : 0);
	return NULL;
}

static void test_words_are_whole(void **state)
{
	struct arena *a = calloc(1, sizeof(*a));
	int64_t until = now_ns() + run_ms * 100000ll;
	uint64_t copies = 0, mixed = 0;
	pthread_t thread;

	a->map.sq = guarded(sizeof(struct sparq_sqe));
	assert_int_equal(pthread_create(&thread, NULL, flip, a), 0);
	while (now_ns() < until || (mixed == 0 && now_ns() < until + 20000000000ll)) {
		struct sparq_sqe copy;
		uint64_t word[8];
		bool same = true;

		ring_copy_sqe(&copy, a->map.sq);
		memcpy(word, &copy, sizeof(word));
		for (unsigned i = 0; i < 7; i++) {
			assert_true(word[i] == 0 || word[i] == UINT64_MAX);
			same = same && word[i] == word[0];
		}
		mixed += !same;
		copies++;
	}
	store_relaxed(&a->stop, 1);
	pthread_join(thread, NULL);
	print_message("%lu copies, %lu caught in the middle\n", copies, mixed);
	assert_true(mixed > 0);
	release(a->map.sq, sizeof(struct sparq_sqe));
	free(a);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hostile_client),
		cmocka_unit_test(test_words_are_whole),
	};

	if (argc > 1)
		run_ms = (unsigned)strtoul(argv[1], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
