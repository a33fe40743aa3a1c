/* SPDX-License-Identifier: Apache-2.0 */
/* Where an arena's pages are, asked of the kernel; and bringing them back. */
#include <numaif.h>

#include "numa/arena.h"
#include "numa/fill.h"
#include "shm/base.h"

static void name_pages(const struct arena *a, size_t first, unsigned n, void **ret)
{
	for (unsigned i = 0; i < n; i++)
		ret[i] = (char *)a->base + (first + i) * a->page_bytes;
}

/* A page without an answer has not been touched by this process, or is swapped out. */
static int ask(const struct arena *a, size_t first, unsigned n, int *status)
{
	void *page[ARENA_SLICE_PAGES];

	name_pages(a, first, n, page);
	if (move_pages(0, n, page, NULL, status, 0) < 0)
		return -errno;
	for (unsigned i = 0; i < n; i++) {
		if (status[i] < 0)
			return -ENOENT;
	}
	return 0;
}

static int ask_touched(const struct arena *a, size_t first, unsigned n, int *status)
{
	int r = ask(a, first, n, status);

	if (r == -ENOENT) {
		r = fill_here((char *)a->base + first * a->page_bytes, n * a->page_bytes);
		if (r == 0)
			r = ask(a, first, n, status);
	}
	return r == -ENOENT ? 0 : r;
}

int arena_verify_slice(const struct arena *a, size_t first, unsigned n, size_t *ret_misplaced)
{
	int status[ARENA_SLICE_PAGES], r = ask_touched(a, first, n, status);
	size_t misplaced = 0;

	if (r < 0)
		return r;
	/* Still without an answer (just swapped out): not on the node, so misplaced. */
	for (unsigned i = 0; i < n; i++)
		misplaced += a->node >= 0 && status[i] != a->node;
	*ret_misplaced = misplaced;
	return 0;
}

int arena_verify(struct arena *a)
{
	size_t n_pages = a->bytes / a->page_bytes, misplaced = 0;

	for (size_t first = 0; first < n_pages; first += ARENA_SLICE_PAGES) {
		size_t found;
		int r = arena_verify_slice(a, first,
					   (unsigned)MIN(n_pages - first,
							 (size_t)ARENA_SLICE_PAGES),
					   &found);

		if (r < 0)
			return r;
		misplaced += found;
	}
	a->misplaced_pages = misplaced;
	return 0;
}

int arena_bring_back(const struct arena *a, size_t first, unsigned n)
{
	int status[ARENA_SLICE_PAGES], node[ARENA_SLICE_PAGES];
	void *page[ARENA_SLICE_PAGES], *away[ARENA_SLICE_PAGES];
	unsigned n_away = 0;
	int r = a->node < 0 ? 0 : ask_touched(a, first, n, status);

	if (r < 0 || a->node < 0)
		return r;
	name_pages(a, first, n, page);
	for (unsigned i = 0; i < n; i++) {
		if (status[i] == a->node)
			continue;
		away[n_away] = page[i];
		node[n_away++] = a->node;
	}
	/* Above 0 is how many did not go: whoever wants to know looks again. */
	if (n_away && move_pages(0, n_away, away, node, status, MPOL_MF_MOVE) < 0)
		return -errno;
	return 0;
}
