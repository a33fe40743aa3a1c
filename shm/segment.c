/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealed memfds, and the plan of a session segment:
 *
 *   | ring 0: SQ, CQ, control | ring 1: ... | arena (page aligned) |
 *
 * Each ring starts at a colour, a multiple of 128 bytes below a page, so that
 * the words which a worker polls in many sessions lie in different cache sets.
 */
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "shm/base.h"

#define PAGE_BYTES ((size_t)4096)
#define COLOURS (PAGE_BYTES / SPARQ_LINE_BYTES)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)
/* An address has 48 bits of offset; half of that leaves every sum below in range. */
#define ARENA_MAX_BYTES ((size_t)1 << (SPARQ_ADDR_OFFSET_BITS - 1))

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* ---- memfds ------------------------------------------------------------- */

static int make_memfd(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

/* The kernel does not refuse what it cannot have: it takes page by page until the OOM killer
 * comes. */
static int check_machine(size_t bytes)
{
	struct sysinfo machine;

	if (sysinfo(&machine) < 0)
		return -errno;
	return bytes > (machine.totalram + machine.totalswap) * machine.mem_unit ? -ENOMEM : 0;
}

/* Reserves pages: memory that runs out now is an error, later it is a SIGBUS. */
static int reserve(int fd, size_t at, size_t bytes)
{
	int r;

	do {
		r = fallocate(fd, 0, (off_t)at, (off_t)bytes);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return errno == ENOSPC ? -ENOMEM : -errno;
	return 0;
}

static int map_shared(int fd, size_t bytes, bool writable, void **ret)
{
	int prot = PROT_READ | (writable ? PROT_WRITE : 0);
	void *base = mmap(NULL, bytes, prot, MAP_SHARED | MAP_POPULATE, fd, 0);

	if (base == MAP_FAILED)
		return -errno;
	*ret = base;
	return 0;
}

int segment_begin(const char *name, size_t bytes, struct segment *ret)
{
	CLOSE_FD int fd = -1;
	void *base;
	int r;

	if (bytes == 0 || bytes > 2 * ARENA_MAX_BYTES)
		return -EINVAL;
	r = check_machine(bytes);
	if (r < 0)
		return r;
	fd = make_memfd(name);
	if (fd < 0)
		return fd;
	/* The default is 0777: a read-only descriptor could be opened again to write. */
	if (fchmod(fd, 0600) < 0)
		return -errno;
	base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	*ret = (struct segment){ .base = base, .bytes = bytes, .fd = STEAL_FD(fd) };
	return 0;
}

int segment_fill(struct segment *s, size_t most, size_t *at)
{
	size_t n = MIN(most, s->bytes - *at);
	char *part = (char *)s->base + *at;
	int r = n ? reserve(s->fd, *at, n) : 0;

	if (r < 0)
		return r;
	/* In its own place, with page tables for the pages that are there by now. */
	if (n && mmap(part, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE | MAP_FIXED, s->fd,
		      (off_t)*at) == MAP_FAILED)
		return -errno;
	*at += n;
	return *at < s->bytes;
}

int segment_create(const char *name, size_t bytes, struct segment *ret)
{
	CLEANUP(segment_deinit) struct segment s = SEGMENT_NULL;
	size_t at = 0;
	int r = segment_begin(name, bytes, &s);

	if (r == 0)
		r = segment_fill(&s, bytes, &at);
	if (r < 0)
		return r;
	*ret = STEAL(s, SEGMENT_NULL);
	return 0;
}

int segment_map(int fd, size_t bytes, bool writable, struct segment *ret)
{
	struct stat st;
	void *base = NULL;
	int r;

	if (bytes == 0)
		return -EINVAL;
	if (fstat(fd, &st) < 0)
		return -errno;
	/* Shorter than told, and the first touch past its end would be a SIGBUS. */
	if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size != bytes)
		return -EPROTO;
	r = map_shared(fd, bytes, writable, &base);
	if (r < 0)
		return r;
	close_fd(&fd);
	*ret = (struct segment){ .base = base, .bytes = bytes, .fd = -1 };
	return 0;
}

/* Before the seals it could be cut and punched: a page that is missing now is a SIGBUS, or memory
 * that nobody reserved. */
static bool is_whole(const struct segment *s)
{
	struct stat st;

	return fstat(s->fd, &st) == 0 && (uint64_t)st.st_size == s->bytes &&
	       (uint64_t)st.st_blocks * 512 >= s->bytes;
}

int segment_seal(struct segment *s)
{
	int seals;

	if (fcntl(s->fd, F_ADD_SEALS, SEALS) < 0)
		return -errno;
	seals = fcntl(s->fd, F_GET_SEALS);
	if (seals < 0)
		return -errno;
	/* A kernel that drops a seal it does not know would leave us open to hole punching. */
	if ((seals & SEALS) != SEALS)
		return -EOPNOTSUPP;
	return is_whole(s) ? 0 : -EPROTO;
}

void segment_deinit(struct segment *s)
{
	int saved = errno;

	if (!s)
		return;
	if (s->base)
		munmap(s->base, s->bytes);
	close_fd(&s->fd);
	*s = SEGMENT_NULL;
	errno = saved;
}

/* ---- the plan of a session segment -------------------------------------- */

static bool sizes_allowed(uint32_t n_queues, uint32_t sq_entries, uint32_t cq_entries)
{
	bool queues = n_queues >= 1 && n_queues <= SPARQ_MAX_QUEUES;
	bool entries = sq_entries >= 2 && sq_entries <= SPARQ_MAX_SQ_ENTRIES &&
		       (sq_entries & (sq_entries - 1)) == 0;

	return queues && entries && cq_entries == 2 * sq_entries;
}

/* SQ and CQ have whole lines, so all three parts of a ring start at a line. */
static void plan_ring(uint64_t start, const struct segment_layout *l, struct sparq_ring_place *ret)
{
	ret->sq = start;
	ret->cq = ret->sq + l->sq_entries * sizeof(struct sparq_sqe);
	ret->ctl = ret->cq + l->cq_entries * sizeof(struct sparq_cqe);
}

int segment_plan(unsigned session, uint32_t n_queues, uint32_t sq_entries, size_t arena_bytes,
		 struct segment_layout *ret)
{
	struct segment_layout l = {
		.n_queues = n_queues,
		.sq_entries = sq_entries,
		.cq_entries = 2 * sq_entries,
	};
	uint64_t end = 0;

	if (!sizes_allowed(n_queues, sq_entries, l.cq_entries))
		return -EINVAL;
	if (arena_bytes == 0 || arena_bytes > ARENA_MAX_BYTES)
		return -EINVAL;
	for (unsigned k = 0; k < n_queues; k++) {
		uint64_t colour = (session * 7u + k * 13u) % COLOURS * SPARQ_LINE_BYTES;

		plan_ring(ALIGN_UP(end, PAGE_BYTES) + colour, &l, &l.ring[k]);
		end = l.ring[k].ctl + sizeof(struct sparq_ring_ctl);
	}
	l.arena_offset = ALIGN_UP(end, PAGE_BYTES);
	l.arena_bytes = ALIGN_UP(arena_bytes, PAGE_BYTES);
	l.bytes = l.arena_offset + l.arena_bytes;
	*ret = l;
	return 0;
}

static bool part_inside(const struct segment *s, uint64_t offset, uint64_t bytes)
{
	return offset % SPARQ_LINE_BYTES == 0 && offset <= s->bytes && bytes <= s->bytes - offset;
}

int segment_ring(const struct segment *s, const struct segment_layout *l, unsigned i,
		 struct ring_map *ret)
{
	const struct sparq_ring_place *p;
	char *base = s->base;

	if (!sizes_allowed(l->n_queues, l->sq_entries, l->cq_entries) || i >= l->n_queues)
		return -EPROTO;
	p = &l->ring[i];
	if (!part_inside(s, p->ctl, sizeof(struct sparq_ring_ctl)) ||
	    !part_inside(s, p->sq, l->sq_entries * sizeof(struct sparq_sqe)) ||
	    !part_inside(s, p->cq, l->cq_entries * sizeof(struct sparq_cqe)))
		return -EPROTO;
	*ret = (struct ring_map){
		.ctl = (struct sparq_ring_ctl *)(void *)(base + p->ctl),
		.sq = (struct sparq_sqe *)(void *)(base + p->sq),
		.cq = (struct sparq_cqe *)(void *)(base + p->cq),
		.sq_entries = l->sq_entries,
		.cq_entries = l->cq_entries,
	};
	return 0;
}
