/* SPDX-License-Identifier: Apache-2.0 */
/* Arenas: mapped and adopted. How they are made: arena-create.c; verified: arena-verify.c. */
#include "numa/arena.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <numaif.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "numa/arena-private.h"
#include "shm/base.h"

#define MAX_NODES 1024 /* CONFIG_NODES_SHIFT is at most 10 */

const char *arena_pages_name(enum arena_pages p)
{
	return (unsigned)p <= ARENA_SMALL ? arena_kinds[p].name : "unknown";
}

bool arena_is_hugetlb(enum arena_pages p)
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

/* What the kernel says of populated shmem decides what it is called. */
static void classify_shmem(struct arena *a)
{
	size_t huge = arena_huge_bytes(a);

	a->pages = huge > 0 ? ARENA_THP : ARENA_SMALL;
	a->page_bytes = huge == a->bytes ? 2 * MIB : (size_t)sysconf(_SC_PAGESIZE);
}

int arena_map(struct arena *a)
{
	int r = map_aligned(a);

	if (r == 0)
		r = bind_to_node(a);
	if (r == 0 && !arena_is_hugetlb(a->pages))
		madvise(a->base, a->bytes, MADV_HUGEPAGE); /* refused without THP: shown below */
	return r;
}

int arena_look(struct arena *a)
{
	if (!arena_is_hugetlb(a->pages))
		classify_shmem(a);
	return arena_verify(a);
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

/* The pages are there: what is filled is the page table, by all who may. */
static int enter_pages(struct arena *a)
{
	struct fill_range range = { .base = a->base,
				    .bytes = a->bytes,
				    .page_bytes = a->page_bytes };
	cpu_set_t cpus;
	int r;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		range.cpus = &cpus;
	r = fill_ranges(&range, 1, NULL, NULL);
	return r < 0 ? r : range.error;
}

int arena_adopt(int fd, int node, struct arena *ret)
{
	struct arena a = ARENA_NULL;
	int r = read_backing(fd, &a);

	if (r < 0)
		return r;
	a.node = node;
	a.fd = fd;
	r = arena_map(&a);
	if (r == 0)
		r = enter_pages(&a);
	if (r == 0)
		r = arena_look(&a);
	if (r < 0) {
		a.fd = -1; /* still the caller's */
		arena_deinit(&a);
		return r;
	}
	*ret = a;
	return 0;
}
