/* SPDX-License-Identifier: Apache-2.0 */
/* How fast this machine, now, with this many threads, reads memory. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/base.h"
#include "tests/bench/attend.h"
#include "tests/bench/bench.h"

#define ROOF_BYTES (256 * MIB)
#define ROOF_PIECE (2 * MIB)
#define ROOF_PASSES 3

typedef uint64_t lanes __attribute__((vector_size(64)));

struct roofline {
	char *memory;
	_Alignas(64) uint64_t sums[ROOF_BYTES / ROOF_PIECE]; /* or the reading would be left out */
};

static void read_piece(void *argument, unsigned i)
{
	struct roofline *r = argument;
	const lanes *p = (const lanes *)(const void *)(r->memory + i * ROOF_PIECE);
	lanes a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };

	for (size_t at = 0; at < ROOF_PIECE / sizeof(*p); at += 4) {
		a += p[at];
		b += p[at + 1];
		c += p[at + 2];
		d += p[at + 3];
	}
	a += b + c + d;
	r->sums[i] = a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}

struct roofline *roofline_new(enum rig_pages pages)
{
	struct roofline *r = aligned_alloc(64, ALIGN_UP(sizeof(*r), 64));

	if (!r)
		return NULL;
	r->memory = rig_map(ROOF_BYTES, pages);
	if (!r->memory) {
		free(r);
		return NULL;
	}
	memset(r->memory, 1, ROOF_BYTES);
	return r;
}

void roofline_free(struct roofline *r)
{
	if (!r)
		return;
	munmap(r->memory, ROOF_BYTES);
	free(r);
}

/* The best of few passes: what the memory gives in these milliseconds. */
double roofline_gbps(struct roofline *r, struct crew *c)
{
	double best = 0;

	for (int pass = 0; pass < ROOF_PASSES; pass++) {
		double begin = bench_now_ns(), gbps;

		crew_run(c, read_piece, r, ROOF_BYTES / ROOF_PIECE);
		gbps = (double)ROOF_BYTES / (bench_now_ns() - begin);
		best = MAX(best, gbps);
	}
	return best;
}
