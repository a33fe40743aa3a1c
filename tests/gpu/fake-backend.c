/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A back end for tests of the daemon (kernels/gpu.h): memory of its own, in which it
 * runs the kernels of the CPU. So results are those of a cache without a device, bit
 * by bit, if every byte was brought; what is not mapped cannot be touched; and steps
 * end when nobody expects it any more.
 *
 * FAKE_GPU names a file of words that is read whenever something happens; so a test may change
 * them while a daemon runs:
 *
 *   absent         there is no device
 *   old            its driver is too old, as far as a probe tells
 *   none           there is no driver, as far as a probe tells
 *   refuse         it has no kernels for anything
 *   lost           every call fails
 *   lost_at=N      so do all from the Nth on
 *   oom_at=N       the Nth that maps memory finds none
 *   full=N         memory for N granules
 *   queries=N      it has kernels for so many, 16 without the word
 *   slow_us=N      a step takes so long
 *   forget=N       every Nth run of bytes that is brought gets lost
 *   busy=N         its memory is busy for N percent of the time; without it nobody tells
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernels/gpu.h"
#include "shm/base.h"

#define GRANULE (2 * MIB)
#define MIRRORS 16u
#define HEADS 64u /* KV heads of an item */

struct kv_gpu {
	struct kv_gpu_mirror *mirror[MIRRORS];
	unsigned n_mirrors;
	uint64_t mapped, runs;
	_Atomic long calls;
	long maps;
	_Atomic bool lost;
};

struct kv_gpu_mirror {
	struct kv_gpu *gpu;
	const char *host;
	char *copy;
	size_t bytes;
	uint64_t mapped; /* granules */
};

struct run {
	char *to, *bytes;
	size_t n;
	struct run *next;
};

struct kv_gpu_lane {
	struct kv_gpu *gpu;
	size_t bytes, used;
	struct run *first, **last;
	bool busy;
	struct timespec until;
	struct kv_gpu_item item[KV_GPU_MAX_ITEMS];
	struct kv_result result[KV_GPU_MAX_ITEMS][HEADS];
	void *scratch[KV_GPU_MAX_ITEMS][HEADS];
	uint32_t n;
};

/* ---- knobs ------------------------------------------------------------------------ */

/* -1: the word is not there. */
static long knob(const char *name)
{
	const char *path = getenv("FAKE_GPU");
	FILE *f = path ? fopen(path, "re") : NULL;
	char word[64];
	long value = -1;

	while (f && value < 0 && fscanf(f, "%63s", word) == 1) {
		size_t n = strlen(name);

		if (!strncmp(word, name, n) && (word[n] == '=' || !word[n]))
			value = word[n] ? atol(word + n + 1) : 0;
	}
	if (f)
		fclose(f);
	return value;
}

static int look(struct kv_gpu *g)
{
	long lost_at = knob("lost_at");

	if (knob("lost") >= 0 || (++g->calls >= lost_at && lost_at >= 0))
		atomic_store(&g->lost, true);
	return atomic_load(&g->lost) ? -EIO : 0;
}

/* ---- device -------------------------------------------------------------------------- */

static int fake_probe(char *ret_driver, char *why)
{
	if (knob("old") >= 0) {
		snprintf(why, KV_GPU_WHY, "the driver supports Fake 0.0, and the kernels need 1.0");
		return -ENOTSUP;
	}
	if (knob("none") >= 0) {
		snprintf(why, KV_GPU_WHY, "no driver: the test has taken it away");
		return -ENODEV;
	}
	snprintf(ret_driver, KV_GPU_DRIVER, "Fake 1.0");
	return 0;
}

static int fake_open(uint32_t index, struct kv_gpu **ret, char *why)
{
	struct kv_gpu *g;

	if (knob("absent") >= 0 || index > 0) {
		snprintf(why, KV_GPU_WHY, "cuda:%u: the test has taken it away", index);
		return -ENODEV;
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	*ret = g;
	return 0;
}

static struct kv_gpu *fake_close(struct kv_gpu *g)
{
	free(g);
	return NULL;
}

static void fake_info(const struct kv_gpu *g, struct kv_gpu_info *ret)
{
	*ret = (struct kv_gpu_info){ .major = 9, .memory_bytes = 8 * GIB, .l2_bytes = MIB };
	ret->free_bytes = ret->memory_bytes - g->mapped * GRANULE;
	snprintf(ret->name, sizeof(ret->name), "Fake");
	snprintf(ret->bus_id, sizeof(ret->bus_id), "0000:a0:00.0");
	snprintf(ret->driver, sizeof(ret->driver), "0.0");
}

static const char *fake_lost(const struct kv_gpu *g)
{
	return atomic_load(&g->lost) ? "Fake 0000:a0:00.0: it fell off the bus" : NULL;
}

static int fake_serves(const struct kv_gpu *g, const struct kv_space *s, char *why)
{
	if (knob("refuse") < 0 && s->kv_heads <= HEADS)
		return 0;
	snprintf(why, KV_GPU_WHY, "policy %s: no kernels for it", s->policy->name);
	return -EOPNOTSUPP;
}

static bool fake_runs(const struct kv_gpu_item *item)
{
	long queries = knob("queries");

	return item->query->n_q <= (queries < 0 ? 16 : queries);
}

/* ---- memory -------------------------------------------------------------------------- */

static int fake_mirror(struct kv_gpu *g, const void *host, size_t bytes, struct kv_gpu_mirror **ret)
{
	struct kv_gpu_mirror *m = calloc(1, sizeof(*m));

	if (!m || g->n_mirrors == MIRRORS)
		return -ENOMEM;
	*m = (struct kv_gpu_mirror){ .gpu = g, .host = host, .bytes = ALIGN_UP(bytes, GRANULE) };
	m->copy =
		mmap(NULL, m->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->copy == MAP_FAILED)
		return -ENOMEM;
	g->mirror[g->n_mirrors++] = m;
	*ret = m;
	return 0;
}

static struct kv_gpu_mirror *fake_unmirror(struct kv_gpu_mirror *m)
{
	struct kv_gpu *g;
	unsigned at = 0;

	if (!m)
		return NULL;
	g = m->gpu;
	while (g->mirror[at] != m)
		at++;
	g->n_mirrors--;
	memmove(&g->mirror[at], &g->mirror[at + 1], (g->n_mirrors - at) * sizeof(m));
	g->mapped -= m->mapped;
	munmap(m->copy, m->bytes);
	free(m);
	return NULL;
}

static size_t fake_granule(const struct kv_gpu *g)
{
	return GRANULE;
}

static int fake_map(struct kv_gpu_mirror *m, size_t at, size_t bytes)
{
	long full = knob("full");

	if (look(m->gpu) < 0)
		return -EIO;
	if (++m->gpu->maps == knob("oom_at"))
		return -ENOMEM;
	if (full >= 0 && m->gpu->mapped + bytes / GRANULE > (uint64_t)full)
		return -ENOMEM;
	m->gpu->mapped += bytes / GRANULE;
	m->mapped += bytes / GRANULE;
	return mprotect(m->copy + at, bytes, PROT_READ | PROT_WRITE) < 0 ? -ENOMEM : 0;
}

static void fake_unmap(struct kv_gpu_mirror *m, size_t at, size_t bytes)
{
	m->gpu->mapped -= bytes / GRANULE;
	m->mapped -= bytes / GRANULE;
	madvise(m->copy + at, bytes, MADV_DONTNEED);
	mprotect(m->copy + at, bytes, PROT_NONE);
}

static int fake_pin(struct kv_gpu *g, void *host, size_t bytes)
{
	return look(g);
}

static void fake_unpin(struct kv_gpu *g, void *host) {}

static void *copy_of(const struct kv_gpu *g, const void *host)
{
	for (unsigned i = 0; host && i < g->n_mirrors; i++) {
		const struct kv_gpu_mirror *m = g->mirror[i];

		if ((const char *)host >= m->host && (const char *)host < m->host + m->bytes)
			return m->copy + ((const char *)host - m->host);
	}
	return NULL;
}

/* ---- lanes ----------------------------------------------------------------------------- */

static int fake_lane_open(struct kv_gpu *g, size_t bytes, struct kv_gpu_lane **ret)
{
	struct kv_gpu_lane *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->gpu = g;
	l->bytes = bytes;
	l->last = &l->first;
	*ret = l;
	return 0;
}

static void drop_runs(struct kv_gpu_lane *l, bool write)
{
	long forget = knob("forget");

	while (l->first) {
		struct run *r = l->first;

		if (write && (forget < 1 || ++l->gpu->runs % (uint64_t)forget))
			memcpy(r->to, r->bytes, r->n);
		l->first = r->next;
		free(r->bytes);
		free(r);
	}
	l->last = &l->first;
	l->used = 0;
}

static void drop_scratch(struct kv_gpu_lane *l)
{
	for (uint32_t i = 0; i < l->n; i++)
		for (uint32_t h = 0; h < HEADS; h++) {
			free(l->scratch[i][h]);
			l->scratch[i][h] = NULL;
		}
	l->n = 0;
}

static struct kv_gpu_lane *fake_lane_close(struct kv_gpu_lane *l)
{
	if (!l)
		return NULL;
	drop_runs(l, false);
	drop_scratch(l);
	free(l);
	return NULL;
}

static int fake_copy_in(struct kv_gpu_lane *l, const void *from, size_t n)
{
	struct run *r;

	if (look(l->gpu) < 0)
		return -EIO;
	if (l->busy || l->used + n > l->bytes)
		return -ENOSPC;
	r = calloc(1, sizeof(*r));
	if (!r || !(r->bytes = malloc(n)))
		abort();
	memcpy(r->bytes, from, n);
	r->to = copy_of(l->gpu, from);
	r->n = n;
	*l->last = r;
	l->last = &r->next;
	l->used += n;
	return 0;
}

/* The same rows in the copy. */
static struct kv_view view_of(const struct kv_gpu *g, const struct kv_view *v,
			      struct kv_extent *extent, struct kv_parts *parts)
{
	struct kv_view copy = *v;

	for (uint32_t i = 0; i < v->n_extents; i++) {
		extent[i] = v->extent[i];
		extent[i].base = copy_of(g, v->extent[i].base);
		extent[i].correction = copy_of(g, v->extent[i].correction);
	}
	copy.extent = extent;
	copy.sinks = copy_of(g, v->sinks);
	for (unsigned i = 0; i < KV_MAX_CHUNKS; i++)
		copy.chunk[i] = copy_of(g, v->chunk[i]);
	if (v->parts) {
		*parts = *v->parts;
		for (uint32_t i = 0; i < parts->n; i++)
			parts->shift[i] = g->mirror[i]->copy - g->mirror[0]->copy;
		copy.parts = parts;
	}
	return copy;
}

static void run_head(struct kv_gpu_lane *l, uint32_t i, const struct kv_view *view, uint32_t head)
{
	const struct kv_gpu_item *item = &l->item[i];
	uint64_t bytes = kv_exec_scratch_bytes(item->space, item->plan, view, item->query);
	struct kv_exec e;

	l->scratch[i][head] = aligned_alloc(64, ALIGN_UP(bytes, 64));
	if (!l->scratch[i][head])
		abort();
	kv_exec_init(&e, item->space, item->plan, view, item->query, head, l->scratch[i][head]);
	for (uint32_t share = 0; share < e.shares; share++)
		kv_exec_share(&e, share);
	kv_exec_finish(&e);
	l->result[i][head] = e.result;
}

static int fake_submit(struct kv_gpu_lane *l, const struct kv_gpu_item *item, uint32_t n)
{
	long slow_us = knob("slow_us");

	if (look(l->gpu) < 0)
		return -EIO;
	drop_runs(l, true);
	drop_scratch(l);
	for (uint32_t i = 0; i < n; i++) {
		struct kv_extent *extent = calloc(item[i].view->n_extents + 1, sizeof(*extent));
		struct kv_parts parts;
		struct kv_view view = view_of(l->gpu, item[i].view, extent, &parts);

		l->item[i] = item[i];
		l->n = i + 1;
		for (uint32_t h = 0; h < item[i].space->kv_heads; h++)
			run_head(l, i, &view, h);
		free(extent);
	}
	l->busy = true;
	clock_gettime(CLOCK_MONOTONIC, &l->until);
	if (slow_us > 0)
		l->until.tv_nsec += slow_us % 1000000 * 1000;
	if (slow_us > 0)
		l->until.tv_sec += slow_us / 1000000 + l->until.tv_nsec / 1000000000;
	l->until.tv_nsec %= 1000000000;
	return 0;
}

static int fake_poll(struct kv_gpu_lane *l)
{
	struct timespec now;

	if (look(l->gpu) < 0)
		return -EIO;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec < l->until.tv_sec ||
	    (now.tv_sec == l->until.tv_sec && now.tv_nsec < l->until.tv_nsec))
		return 0;
	l->busy = false;
	for (uint32_t i = 0; i < l->n; i++)
		for (uint32_t h = 0; h < l->item[i].space->kv_heads; h++)
			l->item[i].result[h] = l->result[i][h];
	return 1;
}

static float fake_milliseconds(const struct kv_gpu_lane *l)
{
	return 1;
}

static int fake_copy_bandwidth(struct kv_gpu *g, size_t bytes, double *ret_bytes_s)
{
	*ret_bytes_s = 1e9;
	return look(g);
}

static int fake_dram_busy(struct kv_gpu *g, float *ret, char *why)
{
	long busy = knob("busy");

	snprintf(why, KV_GPU_WHY, "the test has none");
	if (busy < 0)
		return -EOPNOTSUPP;
	*ret = (float)busy / 100;
	return 0;
}

extern const struct kv_gpu_backend kv_gpu_backend;
__attribute__((visibility("default"))) const struct kv_gpu_backend kv_gpu_backend = {
	.version = KV_GPU_VERSION,
	.name = "fake",
	.probe = fake_probe,
	.open = fake_open,
	.close = fake_close,
	.info = fake_info,
	.lost = fake_lost,
	.serves = fake_serves,
	.runs = fake_runs,
	.mirror = fake_mirror,
	.unmirror = fake_unmirror,
	.granule = fake_granule,
	.map = fake_map,
	.unmap = fake_unmap,
	.pin = fake_pin,
	.unpin = fake_unpin,
	.lane_open = fake_lane_open,
	.lane_close = fake_lane_close,
	.copy_in = fake_copy_in,
	.submit = fake_submit,
	.poll = fake_poll,
	.milliseconds = fake_milliseconds,
	.dram_busy = fake_dram_busy,
	.copy_bandwidth = fake_copy_bandwidth,
};
