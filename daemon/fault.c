/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SIGBUS handler. It gets no argument, so the table it reads is the one
 * global here. The control thread fills slots; the handler runs in whichever
 * thread touched the segment, which is one that still has it attached, so its
 * slot does not change meanwhile.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "daemon/fault.h"
#include "shm/atomic.h"
#include "shm/base.h"

struct range {
	uintptr_t base; /* 0: free; stored last */
	size_t bytes;
	uint32_t hit;
};

static struct {
	struct range *range;
	uint32_t n;
	int wake;
	size_t page_bytes;
	struct sigaction before;
} faults = { .wake = -1 };

static struct range *range_of(uintptr_t address)
{
	for (uint32_t i = 0; i < faults.n; i++) {
		struct range *r = &faults.range[i];
		/* After its base is seen, its size is. */
		uintptr_t base = load_acquire(&r->base);

		if (base != 0 && address >= base && address - base < r->bytes)
			return r;
	}
	return NULL;
}

/* Only what is safe in a handler: mmap is a bare system call, errno is kept. */
static void on_sigbus(int number, siginfo_t *info, void *context)
{
	uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(faults.page_bytes - 1);
	struct range *r = range_of((uintptr_t)info->si_addr);
	uint64_t one = 1;
	int saved = errno;

	if (r == NULL || mmap((void *)page, faults.page_bytes, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
		/* Not ours: the access is repeated and ends the process with its core. */
		sigaction(SIGBUS, &faults.before, NULL);
		return;
	}
	store_release(&r->hit, 1);
	if (write(faults.wake, &one, sizeof(one)) < 0)
		errno = saved; /* a full counter wakes as well */
	errno = saved;
}

int fault_open(uint32_t n, int wake)
{
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };

	assert(faults.range == NULL);
	faults.range = calloc(n, sizeof(*faults.range));
	if (faults.range == NULL)
		return -ENOMEM;
	faults.n = n;
	faults.wake = wake;
	faults.page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	sigemptyset(&action.sa_mask);
	return sigaction(SIGBUS, &action, &faults.before) < 0 ? -errno : 0;
}

void fault_close(void)
{
	if (faults.range == NULL)
		return;
	sigaction(SIGBUS, &faults.before, NULL);
	free(faults.range);
	faults.range = NULL;
	faults.n = 0;
	faults.wake = -1;
}

int fault_watch(void *base, size_t bytes, uint32_t *ret_slot)
{
	for (uint32_t i = 0; i < faults.n; i++) {
		struct range *r = &faults.range[i];

		if (r->base != 0)
			continue;
		r->hit = 0;
		r->bytes = bytes;
		/* The size above is seen by the handler that sees the base. */
		store_release(&r->base, (uintptr_t)base);
		*ret_slot = i;
		return 0;
	}
	return -ENOSPC;
}

void fault_forget(uint32_t slot)
{
	store_release(&faults.range[slot].base, 0);
}

bool fault_hit(uint32_t slot)
{
	return load_acquire(&faults.range[slot].hit) != 0;
}
