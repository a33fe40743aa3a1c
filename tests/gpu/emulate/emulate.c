/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of fibres: see emulate.h. */
#include "tests/gpu/emulate/emulate.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/base.h"

#ifndef __x86_64__
#error "the switch of stacks is written for x86-64 only"
#endif

#define WARP 32u
#define MAX_THREADS 1024u
#define STACK_BYTES (64 * KIB)
#define GUARD 4096u
#define POISON 0xff /* four of them are no number */
#define MAX_COPIES 256u

enum wait { RUNS, AT_WARP, AT_BLOCK, ENDED };

struct copy {
	void *to;
	const void *from;
	uint32_t bytes, group;
};

struct fibre {
	void *stack; /* pointer, while it does not run */
	enum wait wait;
	enum emulate_exchange what;
	uint32_t mask, from;
	uint64_t value, result;
	uint32_t group, n_copies;
	struct copy copy[MAX_COPIES];
};

static struct world {
	struct fibre *fibre;
	char *stacks, *shared;
	void *scheduler; /* its stack pointer, while a fibre runs */
	emulate_kernel *kernel;
	const void *params;
	const struct emulate_grid *grid;
	uint64_t random;
} world;
struct emulate_place emulate_here;

/* ---- stacks -------------------------------------------------------------------------- */

void emulate_switch(void **save, void *load);
__asm__(".text\n"
	".type emulate_switch, @function\n"
	"emulate_switch:\n"
	"	push %rbp\n	push %rbx\n	push %r12\n	push %r13\n	push %r14\n	"
	"push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbx\n	"
	"pop %rbp\n"
	"	ret\n"
	".size emulate_switch, .-emulate_switch\n");

static void run_fibre(uint32_t thread)
{
	emulate_here.thread = thread;
	emulate_switch(&world.scheduler, world.fibre[thread].stack);
}

static void yield(enum wait why)
{
	struct fibre *f = &world.fibre[emulate_here.thread];

	f->wait = why;
	emulate_switch(&f->stack, world.scheduler);
}

static void begin(void)
{
	world.kernel(world.params);
	yield(ENDED);
}

static void fibre_init(uint32_t thread)
{
	void **top = (void **)(world.stacks + (thread + 1) * STACK_BYTES) - 2;
	struct fibre *f = &world.fibre[thread];

	*top = (void *)begin; /* where the switch returns to, on an aligned stack */
	f->stack = top - 6;
	f->wait = RUNS;
	f->group = f->n_copies = 0;
}

/* ---- what device code calls ------------------------------------------------------------ */

uint64_t emulate_warp(enum emulate_exchange what, uint32_t mask, uint64_t value, uint32_t from)
{
	struct fibre *f = &world.fibre[emulate_here.thread];

	f->what = what;
	f->mask = mask;
	f->value = value;
	f->from = from % WARP;
	yield(AT_WARP);
	return f->result;
}

void emulate_block_barrier(void)
{
	yield(AT_BLOCK);
}

void *emulate_shared(void)
{
	return world.shared + GUARD;
}

void emulate_copy(void *to, const void *from, uint32_t bytes)
{
	struct fibre *f = &world.fibre[emulate_here.thread];

	if (f->n_copies == MAX_COPIES || (uintptr_t)to % bytes || (uintptr_t)from % bytes) {
		fprintf(stderr, "emulate: thread %u: %u copies, or not aligned to %u: %p %p\n",
			emulate_here.thread, f->n_copies, bytes, to, from);
		abort();
	}
	f->copy[f->n_copies++] = (struct copy){ to, from, bytes, f->group };
}

void emulate_copy_commit(void)
{
	world.fibre[emulate_here.thread].group++;
}

void emulate_copy_wait(uint32_t left)
{
	struct fibre *f = &world.fibre[emulate_here.thread];
	uint32_t kept = 0;

	for (uint32_t i = 0; i < f->n_copies; i++) {
		if (f->copy[i].group + left >= f->group)
			f->copy[kept++] = f->copy[i]; /* or no part of a group yet */
		else
			memcpy(f->copy[i].to, f->copy[i].from, f->copy[i].bytes);
	}
	f->n_copies = kept;
}

/* ---- scheduling -------------------------------------------------------------------------- */

static uint32_t random_below(uint32_t n)
{
	if (!world.grid->seed)
		return 0;
	world.random = world.random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(world.random >> 33) % n;
}

static void shuffle(uint32_t *order, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	for (uint32_t i = n; i > 1 && world.grid->seed; i--) {
		uint32_t j = random_below(i), other = order[j];

		order[j] = order[i - 1];
		order[i - 1] = other;
	}
}

/* All lanes of the mask are there, for the same. */
static bool complete(uint32_t warp, uint32_t mask, enum emulate_exchange what)
{
	for (uint32_t i = 0; i < WARP; i++) {
		const struct fibre *f = &world.fibre[warp * WARP + i];

		if (!(mask >> i & 1))
			continue;
		if (warp * WARP + i >= world.grid->threads || f->wait != AT_WARP ||
		    f->mask != mask || f->what != what)
			return false;
	}
	return true;
}

static void exchange(uint32_t warp, uint32_t mask)
{
	struct fibre *f = &world.fibre[warp * WARP];
	uint32_t ballot = 0;

	for (uint32_t i = 0; i < WARP; i++)
		if (mask >> i & 1)
			ballot |= (uint32_t)(f[i].value != 0) << i;
	for (uint32_t i = 0; i < WARP; i++) {
		if (!(mask >> i & 1))
			continue;
		/* What a lane that does not take part would send is not defined. */
		f[i].result = f[i].what == EMULATE_BALLOT ? ballot
			      : mask >> f[i].from & 1     ? f[f[i].from].value
							  : UINT64_MAX;
		f[i].wait = RUNS;
	}
}

/* Runs what can run; false: nothing could. */
static bool run_warp(uint32_t warp)
{
	uint32_t order[WARP];
	bool ran = false;

	shuffle(order, WARP);
	for (uint32_t i = 0; i < WARP; i++) {
		uint32_t thread = warp * WARP + order[i];

		if (thread < world.grid->threads && world.fibre[thread].wait == RUNS) {
			run_fibre(thread);
			ran = true;
		}
	}
	for (uint32_t i = 0; i < WARP && warp * WARP + i < world.grid->threads; i++) {
		const struct fibre *f = &world.fibre[warp * WARP + i];

		if (f->wait == AT_WARP && (f->mask >> i & 1) && complete(warp, f->mask, f->what)) {
			exchange(warp, f->mask);
			ran = true;
		}
	}
	return ran;
}

static uint32_t count(enum wait wait)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < world.grid->threads; i++)
		n += world.fibre[i].wait == wait;
	return n;
}

static int check_guards(char *why)
{
	const unsigned char *low = (unsigned char *)world.shared;
	const unsigned char *high = low + GUARD + world.grid->shared_bytes;

	for (uint32_t i = 0; i < GUARD; i++)
		if (low[i] != POISON || high[i] != POISON) {
			snprintf(why, EMULATE_WHY,
				 "block %u,%u: a store %u bytes %s its %zu bytes of shared memory",
				 emulate_here.block_x, emulate_here.block_y,
				 low[i] != POISON ? GUARD - i : i,
				 low[i] != POISON ? "before" : "behind", world.grid->shared_bytes);
			return -EFAULT;
		}
	return 0;
}

static int stuck(char *why)
{
	snprintf(why, EMULATE_WHY,
		 "block %u,%u: of %u threads %u wait for the block, %u for their warp, %u ended",
		 emulate_here.block_x, emulate_here.block_y, world.grid->threads, count(AT_BLOCK),
		 count(AT_WARP), count(ENDED));
	return -EDEADLK;
}

static int run_block(char *why)
{
	uint32_t threads = world.grid->threads, warps = DIV_UP(threads, WARP);
	uint32_t order[MAX_THREADS / WARP];

	memset(world.shared, POISON, 2 * GUARD + world.grid->shared_bytes);
	for (uint32_t i = 0; i < threads; i++)
		fibre_init(i);
	while (count(ENDED) < threads) {
		bool ran = false;

		shuffle(order, warps);
		for (uint32_t i = 0; i < warps; i++)
			for (uint32_t turns = 1 + random_below(8); turns && run_warp(order[i]);
			     turns--)
				ran = true;
		if (ran)
			continue;
		if (count(AT_BLOCK) < threads)
			return stuck(why);
		for (uint32_t i = 0; i < threads; i++)
			world.fibre[i].wait = RUNS;
	}
	return check_guards(why);
}

static int run_blocks(char *why)
{
	uint32_t n = world.grid->x * world.grid->y;
	FREE_MEMORY uint32_t *order = malloc((n + 1) * sizeof(*order));
	int r = 0;

	if (!order)
		return -ENOMEM;
	shuffle(order, n);
	for (uint32_t i = 0; i < n && r == 0; i++) {
		emulate_here = (struct emulate_place){
			.block_x = order[i] % world.grid->x,
			.block_y = order[i] / world.grid->x,
			.threads = world.grid->threads,
			.grid_x = world.grid->x,
			.grid_y = world.grid->y,
		};
		r = run_block(why);
	}
	return r;
}

static int run(emulate_kernel *kernel, const void *params, const struct emulate_grid *grid,
	       char *why)
{
	size_t stacks = MAX_THREADS * STACK_BYTES;
	int r = -ENOMEM;

	world = (struct world){
		.kernel = kernel, .params = params, .grid = grid, .random = grid->seed
	};
	world.fibre = calloc(MAX_THREADS, sizeof(*world.fibre));
	world.shared = aligned_alloc(GUARD, ALIGN_UP(2 * GUARD + grid->shared_bytes, GUARD));
	world.stacks = mmap(NULL, stacks, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (world.fibre && world.shared && world.stacks != MAP_FAILED)
		r = run_blocks(why);
	if (world.stacks != MAP_FAILED)
		munmap(world.stacks, stacks);
	free(world.shared);
	free(world.fibre);
	return r;
}

/* One grid at a time, whoever asks. */
int emulate_run(emulate_kernel *kernel, const void *params, const struct emulate_grid *grid,
		char *why)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	int r;

	pthread_mutex_lock(&mutex);
	r = run(kernel, params, grid, why);
	pthread_mutex_unlock(&mutex);
	return r;
}
