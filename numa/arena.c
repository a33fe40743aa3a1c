/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arenas: create, adopt, verify.
 *
 * A page that cannot be had must show as an error here and never as SIGBUS
 * later: each byte is populated before anyone gets the address, and an arena
 * that cannot be populated to its end is given back whole.
 */
#include "numa/arena.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <numaif.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "numa/arena-why.h"
#include "shm/base.h"

#ifndef MFD_NOEXEC_SEAL /* Linux 6.3 */
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define SLICE_BYTES (64 * MIB) /* between two calls of progress */
#define MAX_NODES 1024         /* CONFIG_NODES_SHIFT is at most 10 */
#define VERIFY_PAGES 512       /* asked at once */

static const struct arena_kind kinds[] = {
	[ARENA_HUGETLB_1G] = { ARENA_HUGETLB_1G, MFD_HUGETLB | MFD_HUGE_1GB, GIB, "hugetlb 1 GiB" },
	[ARENA_HUGETLB_2M] = { ARENA_HUGETLB_2M, MFD_HUGETLB | MFD_HUGE_2MB, 2 * MIB,
			       "hugetlb 2 MiB" },
	[ARENA_THP] = { ARENA_THP, 0, 2 * MIB, "THP shmem" },
	[ARENA_SMALL] = { ARENA_SMALL, 0, 0, "shmem 4 KiB" },
};

const char *arena_pages_name(enum arena_pages p)
{
	return (unsigned)p < ARRAY_SIZE(kinds) ? kinds[p].name : "unknown";
}

static bool is_hugetlb(enum arena_pages p)
{
	return p == ARENA_HUGETLB_1G || p == ARENA_HUGETLB_2M;
}

void arena_deinit(struct arena *a)
{
	int saved = errno;

	if (a->base)
		munmap(a->base, a->bytes);
	close_fd(&a->fd);
	*a = ARENA_NULL;
	errno = saved;
}

static int make_memfd(const struct arena_kind *k, const char *name, size_t bytes, int *ret)
{
	CLOSE_FD int fd = memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL | k->memfd_flags);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | k->memfd_flags);
	if (fd < 0)
		return -errno;
	/* The default mode lets another uid that gets hold of it open it again for writing. */
	if (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)bytes) < 0)
		return -errno;
	*ret = STEAL_FD(fd);
	return 0;
}

/* Maps at a multiple of the huge page size: shmem is only then backed by huge pages. */
static int map_aligned(struct arena *a)
{
	size_t align = MAX(a->page_bytes, 2 * MIB), slack;
	char *room = mmap(NULL, a->bytes + align, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *base;

	if (room == MAP_FAILED)
		return -errno;
	base = (char *)ALIGN_UP((uintptr_t)room, align);
	slack = (size_t)(base - room);
	if (mmap(base, a->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a->fd, 0) ==
	    MAP_FAILED) {
		int saved = errno;

		munmap(room, a->bytes + align);
		return -saved;
	}
	if (slack > 0)
		munmap(room, slack);
	munmap(base + a->bytes, align - slack);
	a->base = base;
	/* A core dump is no place for users' KV. */
	madvise(base, a->bytes, MADV_DONTDUMP);
	return 0;
}

static int bind_to_node(struct arena *a)
{
	unsigned long mask[MAX_NODES / (8 * sizeof(unsigned long))] = { 0 };
	unsigned word_bits = 8 * sizeof(mask[0]);

	if (a->node < 0)
		return 0;
	if (a->node >= MAX_NODES)
		return -EINVAL;
	mask[(unsigned)a->node / word_bits] = 1UL << ((unsigned)a->node % word_bits);
	/* + 1: the kernel reads one bit less than it is told. */
	return mbind(a->base, a->bytes, MPOL_BIND, mask, MAX_NODES + 1, 0) < 0 ? -errno : 0;
}

/* Unlike fallocate this honours the binding, and unlike a touch it fails instead of killing. */
static int populate(struct arena *a, size_t from, size_t bytes)
{
	for (;;) {
		if (madvise((char *)a->base + from, bytes, MADV_POPULATE_WRITE) == 0)
			return 0;
		if (errno == EFAULT) /* would have been SIGBUS */
			return -ENOMEM;
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
	}
}

static int populate_all(struct arena *a, const struct arena_params *p)
{
	size_t slice = MAX(a->page_bytes, SLICE_BYTES);

	for (size_t at = 0; at < a->bytes; at += slice) {
		int r = populate(a, at, MIN(slice, a->bytes - at));

		if (r < 0)
			return r;
		if (p && p->progress)
			p->progress(p->arg, MIN(at + slice, a->bytes), a->bytes);
	}
	return 0;
}

/* What the kernel says of populated shmem decides what it is called. */
static void classify_shmem(struct arena *a)
{
	size_t huge = arena_huge_bytes(a);

	a->pages = huge > 0 ? ARENA_THP : ARENA_SMALL;
	a->page_bytes = huge == a->bytes ? 2 * MIB : (size_t)sysconf(_SC_PAGESIZE);
}

/* Binds, populates and looks: what a new arena and an adopted one have in common. */
static int settle(struct arena *a, const struct arena_params *p)
{
	int r = map_aligned(a);

	if (r < 0)
		return r;
	r = bind_to_node(a);
	if (r < 0)
		return r;
	if (!is_hugetlb(a->pages))
		madvise(a->base, a->bytes, MADV_HUGEPAGE); /* refused without THP: shown below */
	r = populate_all(a, p);
	if (r < 0)
		return r;
	if (!is_hugetlb(a->pages))
		classify_shmem(a);
	return arena_verify(a);
}

static int create_kind(const struct arena_params *p, const struct arena_kind *k, struct arena *ret)
{
	CLEANUP(arena_deinit) struct arena a = ARENA_NULL;
	int r;

	if (p->bytes % k->page_bytes)
		return -ERANGE;
	a.bytes = p->bytes;
	a.page_bytes = k->page_bytes;
	a.pages = k->pages;
	a.node = p->node;
	/* Asking first spares minutes of clearing pages, and for shmem the OOM killer. */
	if (!arena_has_room(k, p->node, p->bytes))
		return -ENOMEM;
	r = make_memfd(k, p->name, p->bytes, &a.fd);
	if (r < 0)
		return r;
	r = settle(&a, p);
	if (r < 0)
		return r;
	*ret = STEAL(a, ARENA_NULL);
	return 0;
}

int arena_create(const struct arena_params *p, struct arena *ret, char *why)
{
	struct arena_params wanted = *p;
	char unread[ARENA_WHY_BYTES];
	bool try[] = {
		[ARENA_HUGETLB_1G] = p->want_1g,
		[ARENA_HUGETLB_2M] = p->want_2m,
		[ARENA_THP] = true,
	};
	int r = -EINVAL;

	why = why ?: unread;
	why[0] = '\0';
	if (p->bytes == 0 || p->bytes > SIZE_MAX / 4)
		return -EINVAL;
	wanted.bytes = ALIGN_UP(p->bytes, 2 * MIB);
	for (unsigned i = 0; i < ARRAY_SIZE(try); i++) {
		if (!try[i])
			continue;
		r = create_kind(&wanted, &kinds[i], ret);
		if (r == 0)
			break;
		arena_explain(&kinds[i], wanted.node, wanted.bytes, r, why);
	}
	if (r == 0 && !is_hugetlb(ret->pages))
		arena_explain_shmem(ret, why);
	return r;
}

/* What a kept descriptor is: its size, and the page size its file system has. */
static int read_backing(int fd, struct arena *a)
{
	struct stat st;
	struct statfs fs;

	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return -errno;
	if (st.st_size <= 0 || (size_t)st.st_size % (2 * MIB))
		return -EINVAL;
	a->bytes = (size_t)st.st_size;
	if (fs.f_type == TMPFS_MAGIC) {
		a->pages = ARENA_SMALL; /* until populated */
		a->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
		return 0;
	}
	if (fs.f_type != HUGETLBFS_MAGIC)
		return -EINVAL;
	a->page_bytes = (size_t)fs.f_bsize;
	if (a->page_bytes != GIB && a->page_bytes != 2 * MIB)
		return -EINVAL;
	a->pages = a->page_bytes == GIB ? ARENA_HUGETLB_1G : ARENA_HUGETLB_2M;
	return 0;
}

int arena_adopt(int fd, int node, struct arena *ret)
{
	struct arena a = ARENA_NULL;
	int r = read_backing(fd, &a);

	if (r < 0)
		return r;
	a.node = node;
	a.fd = fd;
	r = settle(&a, NULL);
	if (r < 0) {
		a.fd = -1; /* still the caller's */
		arena_deinit(&a);
		return r;
	}
	*ret = a;
	return 0;
}

/* Where `n` pages from `at` are; a page without an answer has not been touched by this process. */
static int ask(struct arena *a, size_t at, unsigned n, int *status)
{
	void *page[VERIFY_PAGES];

	for (unsigned i = 0; i < n; i++)
		page[i] = (char *)a->base + at + i * a->page_bytes;
	if (move_pages(0, n, page, NULL, status, 0) < 0)
		return -errno;
	for (unsigned i = 0; i < n; i++) {
		if (status[i] < 0)
			return -ENOENT;
	}
	return 0;
}

int arena_verify(struct arena *a)
{
	size_t n_pages = a->bytes / a->page_bytes, misplaced = 0;
	int status[VERIFY_PAGES];

	for (size_t first = 0; first < n_pages; first += VERIFY_PAGES) {
		unsigned n = (unsigned)MIN(n_pages - first, (size_t)VERIFY_PAGES);
		size_t at = first * a->page_bytes;
		int r = ask(a, at, n, status);

		if (r == -ENOENT) {
			r = populate(a, at, n * a->page_bytes);
			if (r == 0)
				r = ask(a, at, n, status);
		}
		if (r < 0 && r != -ENOENT)
			return r;
		/* Still without an answer (just swapped out): not on the node, so misplaced. */
		for (unsigned i = 0; i < n; i++)
			misplaced += a->node >= 0 && status[i] != a->node;
	}
	a->misplaced_pages = misplaced;
	return 0;
}
