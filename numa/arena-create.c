/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arenas that are made: of the best pages that can be had.
 *
 * A page that cannot be had must show as an error here and never as SIGBUS
 * later: each byte is populated before anyone gets the address, and an arena
 * that cannot be populated to its end is given back whole.
 *
 * Several are made in rounds. In a round each that is not done yet is mapped in
 * the next kind of pages that has room, and all that are mapped are filled side
 * by side; who could not be filled to its end goes into the next round.
 */
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "numa/arena-private.h"
#include "shm/base.h"

#ifndef MFD_NOEXEC_SEAL /* Linux 6.3 */
#define MFD_NOEXEC_SEAL 0x0008U
#endif

const struct arena_kind arena_kinds[] = {
	[ARENA_HUGETLB_1G] = { ARENA_HUGETLB_1G, MFD_HUGETLB | MFD_HUGE_1GB, GIB, "hugetlb 1 GiB" },
	[ARENA_HUGETLB_2M] = { ARENA_HUGETLB_2M, MFD_HUGETLB | MFD_HUGE_2MB, 2 * MIB,
			       "hugetlb 2 MiB" },
	[ARENA_THP] = { ARENA_THP, 0, 2 * MIB, "THP shmem" },
	[ARENA_SMALL] = { ARENA_SMALL, 0, 0, "shmem 4 KiB" },
};

struct making {
	const struct arena_params *p;
	struct arena a;
	size_t bytes;
	enum arena_pages kind; /* that is tried, or comes next */
	bool open, done;
	char *why;
};

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

static bool wanted(const struct making *m)
{
	return m->kind == ARENA_HUGETLB_1G   ? m->p->want_1g
	       : m->kind == ARENA_HUGETLB_2M ? m->p->want_2m
					     : true;
}

static int open_kind(struct making *m, size_t promised)
{
	const struct arena_kind *k = &arena_kinds[m->kind];
	CLEANUP(arena_deinit) struct arena a = ARENA_NULL;
	int r;

	if (m->bytes % k->page_bytes)
		return -ERANGE;
	a.bytes = m->bytes;
	a.page_bytes = k->page_bytes;
	a.pages = k->pages;
	a.node = m->p->node;
	/* Asking first spares minutes of clearing pages, and for shmem the OOM killer. */
	if (!arena_has_room(k, a.node, a.bytes, promised))
		return -ENOMEM;
	r = make_memfd(k, m->p->name, a.bytes, &a.fd);
	if (r == 0)
		r = arena_map(&a);
	if (r < 0)
		return r;
	m->a = STEAL(a, ARENA_NULL);
	m->open = true;
	return 0;
}

static void explain(struct making *m, int error)
{
	arena_explain(&arena_kinds[m->kind], m->p->node, m->bytes, error, m->why);
}

/* In the next kind that can be had; counts what it is to take of the group's memory. */
static int open_next(struct making *m, size_t *promised)
{
	int r = -EINVAL;

	for (; m->kind <= ARENA_THP && !m->open; m->kind += !m->open) {
		if (!wanted(m))
			continue;
		r = open_kind(m, *promised);
		if (r < 0)
			explain(m, r);
		else if (!arena_is_hugetlb(m->kind))
			*promised += m->bytes;
	}
	return r;
}

/* After the filling: done, or the next kind, or an error where there is none. */
static int finish(struct making *m, int error)
{
	int r = error < 0 ? error : arena_look(&m->a);

	m->open = false;
	if (r == 0) {
		m->done = true;
		if (!arena_is_hugetlb(m->a.pages))
			arena_explain_shmem(&m->a, m->why);
		return 0;
	}
	explain(m, r);
	arena_deinit(&m->a);
	return m->kind++ < ARENA_THP ? 0 : r;
}

/* The reason that counts is that of the one that failed. */
static int blame(struct making *m, unsigned n, unsigned failed, int error)
{
	for (unsigned i = 0; i < n; i++)
		if (i != failed)
			m[i].why[0] = '\0';
	return error;
}

/* One round: how many are still to be made, -errno. */
static int make_round(struct making *m, unsigned n, struct fill_range *range,
		      fill_progress *progress, void *arg)
{
	unsigned opened = 0, left = 0;
	size_t promised = 0;
	int r;

	for (unsigned i = 0; i < n; i++) {
		if (m[i].done)
			continue;
		r = open_next(&m[i], &promised);
		if (r < 0)
			return blame(m, n, i, r);
		range[opened++] = (struct fill_range){ .base = m[i].a.base,
						       .bytes = m[i].bytes,
						       .page_bytes = m[i].a.page_bytes,
						       .cpus = m[i].p->cpus };
	}
	r = fill_ranges(range, opened, progress, arg);
	if (r != 0)
		return blame(m, n, n, r);
	opened = 0;
	for (unsigned i = 0; i < n; i++) {
		if (m[i].done)
			continue;
		r = finish(&m[i], range[opened++].error);
		if (r < 0)
			return blame(m, n, i, r);
		left += !m[i].done;
	}
	return (int)left;
}

static int making_init(struct making *m, const struct arena_params *p, char *why)
{
	*m = (struct making){ .p = p, .a = ARENA_NULL, .why = why };
	why[0] = '\0';
	if (p->bytes == 0 || p->bytes > SIZE_MAX / 4)
		return -EINVAL;
	m->bytes = ALIGN_UP(p->bytes, 2 * MIB);
	return 0;
}

int arena_create_all(const struct arena_params *p, unsigned n, fill_progress *progress, void *arg,
		     struct arena *ret, char (*why)[ARENA_WHY_BYTES])
{
	FREE_MEMORY struct making *m = calloc(MAX(n, 1u), sizeof(*m));
	FREE_MEMORY struct fill_range *range = calloc(MAX(n, 1u), sizeof(*range));
	unsigned begun = 0;
	int r = m && range ? 0 : -ENOMEM;

	for (; r == 0 && begun < n; begun++)
		r = making_init(&m[begun], &p[begun], why[begun]);
	if (r == 0)
		do
			r = make_round(m, n, range, progress, arg);
		while (r > 0);
	for (unsigned i = 0; i < begun; i++) {
		if (r == 0)
			ret[i] = m[i].a;
		else
			arena_deinit(&m[i].a);
	}
	return r;
}

int arena_create(const struct arena_params *p, struct arena *ret, char *why)
{
	char unread[1][ARENA_WHY_BYTES];

	return arena_create_all(p, 1, NULL, NULL, ret,
				why ? (char(*)[ARENA_WHY_BYTES])why : unread);
}
