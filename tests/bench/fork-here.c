/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forks and cuts of `sparq-bench fork` as the daemon's threads make them: its
 * store over anonymous memory. Nothing writes the rows, so the memory of a long
 * sequence is asked for and never touched, but for what a copy of the tail touches.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "daemon/prefix.h"
#include "daemon/seq.h"
#include "shm/base.h"
#include "tests/bench/bench.h"
#include "tests/bench/fork.h"

#define SESSION 1
#define CATALOGUE_BYTES (256 * MIB)

struct site {
	struct arena arena;
	struct pool pool;
	struct catalogue *catalogue;
	struct users users;
	struct user *user;
	struct store store;
	struct cache *cache;
	struct seq *seq;
	char *cold;
	uint32_t *ids; /* of the rows */
	char why[SPARQ_ERROR_TEXT];
};

/* ---- set-up ------------------------------------------------------------------------ */

static void site_deinit(struct site *x)
{
	if (x->seq)
		seq_drop(x->seq, x->why);
	if (x->cache)
		cache_unref(x->cache);
	if (x->store.pool)
		store_deinit(&x->store);
	x->catalogue = catalogue_free(x->catalogue);
	pool_deinit(&x->pool);
	if (x->user)
		users_put(&x->users, x->user);
	users_deinit(&x->users);
	if (x->arena.base)
		munmap(x->arena.base, x->arena.bytes);
	free(x->cold);
	free(x->ids);
}

/* Twice what its rows take, and a thousandth of it for what forks do. */
static int site_map(struct site *x, const struct fork_options *o)
{
	uint64_t rows = (uint64_t)o->rows + 4096;
	uint64_t bytes = rows * o->layers * o->kv_heads * o->dim * 4 * 2 + GIB;

	x->arena = ARENA_NULL;
	x->arena.bytes = ALIGN_UP(bytes, 2 * MIB);
	x->arena.base = mmap(NULL, x->arena.bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (x->arena.base != MAP_FAILED)
		return 0;
	x->arena.base = NULL;
	return -errno;
}

static int site_init(struct site *x, const struct fork_options *o)
{
	static const uint64_t limits[USER_WHATS] = {
		[USER_BYTES] = UINT64_MAX,
		[USER_CACHES] = 1,
		[USER_SEQUENCES] = 8,
	};
	static const struct catalogue_params catalogue = {
		.bytes = CATALOGUE_BYTES,
		.max_caches = 1,
		.max_sequences = 8,
		.generation = 1,
	};
	struct sparq_msg_cache_create request = fork_request(o);
	int r = site_map(x, o);

	x->cold = calloc(1, FORK_COLD_BYTES);
	if (r == 0)
		r = x->cold ? 0 : -ENOMEM;
	if (r == 0)
		r = pool_init(&x->pool, &x->arena, 1, NULL, false);
	if (r == 0)
		r = catalogue_create(&catalogue, &x->catalogue);
	users_limit(&x->users, limits);
	if (r == 0)
		r = users_get(&x->users, 1, &x->user);
	if (r == 0)
		r = store_init(&x->store, &x->pool, x->catalogue, &x->users, UINT32_MAX);
	if (r == 0)
		r = cache_create(&x->store, x->user, &request, &x->cache, x->why);
	if (r == 0)
		r = seq_create(x->cache, "", SESSION, &x->seq, x->why);
	return r;
}

static int add_rows(struct seq *s, uint32_t layer, uint32_t n)
{
	struct kv_extent extent;
	unsigned slot;
	int r = seq_reserve(s, layer, n);

	if (r == 0)
		seq_commit(s, layer, seq_rows(s, layer) + n);
	while (r == 0 && seq_flush_due(s, layer)) {
		r = seq_flush_begin(s, layer, &extent, &slot);
		if (r == 0)
			seq_flush_commit(s, layer);
	}
	return r;
}

static int fill(struct site *x, const struct fork_options *o)
{
	int r = 0;

	for (uint32_t layer = 0; layer < o->layers; layer++)
		for (uint32_t row = 0, n; r == 0 && row < o->rows; row += n) {
			n = MIN(o->rows - row, (uint32_t)KV_MAX_ENTRY_ROWS);
			r = add_rows(x->seq, layer, n);
		}
	return r;
}

/* ---- rounds ------------------------------------------------------------------------ */

/* What a round measures: `before` the clock, `call` on it, `after`. */
struct round {
	struct site *site;
	uint32_t rows; /* of the fork */
	struct seq *child;
	int error;
};

static void fork_rows(struct round *x)
{
	x->error = seq_fork(x->site->seq, x->rows, SESSION, &x->child, x->site->why);
}

static void drop_child(struct round *x)
{
	if (x->error == 0)
		x->error = seq_drop(x->child, x->site->why);
	x->child = NULL;
}

static void nothing(struct round *x)
{
	(void)x;
}

static void cut(struct round *x)
{
	if (x->error == 0)
		x->error = seq_truncate(x->child, x->rows, x->site->why);
}

static void append_row(struct round *x)
{
	uint32_t layers = x->site->cache->record->layers;

	for (uint32_t i = 0; i < layers && x->error == 0; i++)
		x->error = seq_reserve(x->child, i, 1);
}

static void begin_with(struct round *x)
{
	uint32_t rows;

	x->error = prefix_create(x->site->cache, "", x->site->ids, x->rows, SESSION, &x->child,
				 &rows, x->site->why);
}

static void fork_all(struct round *x)
{
	uint32_t rows = x->rows;

	x->rows = seq_rows(x->site->seq, 0);
	fork_rows(x);
	x->rows = rows;
}

static void chill(struct site *x)
{
	for (size_t i = 0; i < FORK_COLD_BYTES; i += 64)
		x->cold[i]++;
}

/* Median and least of many rounds, then the median of some with cold caches. */
static int measure(struct site *site, const struct fork_options *o, uint32_t rows,
		   void (*before)(struct round *), void (*call)(struct round *),
		   void (*after)(struct round *), struct fork_figure *ret)
{
	uint32_t n_cold = MIN(o->rounds, 100u), n = o->rounds + n_cold;
	FREE_MEMORY double *sample = calloc(n, sizeof(*sample));
	struct round x = { .site = site, .rows = rows };

	if (!sample)
		return -ENOMEM;
	for (uint32_t i = 0; i < n && x.error == 0; i++) {
		double begin;

		before(&x);
		if (i >= o->rounds)
			chill(site);
		begin = bench_now_ns();
		call(&x);
		sample[i] = (bench_now_ns() - begin) / 1e3;
		after(&x);
	}
	ret->cold = bench_median(sample + o->rounds, n_cold);
	ret->median = bench_median(sample, o->rounds);
	ret->least = sample[0];
	return x.error;
}

static int tell(struct site *x, uint32_t rows)
{
	uint32_t told;

	x->ids = calloc(rows, sizeof(*x->ids));
	if (!x->ids)
		return -ENOMEM;
	for (uint32_t i = 0; i < rows; i++)
		x->ids[i] = i;
	return tokens_put(x->seq, 0, x->ids, rows, &told);
}

static int measure_all(struct site *x, const struct fork_options *o, struct fork_figures *f)
{
	uint32_t tail = x->cache->rollback + KV_TILE_ROWS, rows = o->rows;
	uint32_t sealed = rows > tail ? rows - tail : 0;
	int r = measure(x, o, 0, nothing, fork_rows, drop_child, &f->records);

	if (r == 0)
		r = measure(x, o, sealed, nothing, fork_rows, drop_child, &f->sealed);
	if (r == 0)
		r = measure(x, o, rows, nothing, fork_rows, drop_child, &f->all);
	if (r == 0)
		r = measure(x, o, rows, fork_rows, drop_child, nothing, &f->drop);
	if (r == 0)
		r = measure(x, o, rows - 1, fork_all, cut, drop_child, &f->draft);
	if (r == 0)
		r = measure(x, o, sealed, fork_all, cut, drop_child, &f->below);
	if (r == 0)
		r = measure(x, o, rows, fork_rows, append_row, drop_child, &f->append);
	if (r == 0)
		r = tell(x, rows);
	if (r == 0)
		r = measure(x, o, rows, nothing, begin_with, drop_child, &f->prefix);
	return r;
}

int fork_here(const struct fork_options *o, struct fork_figures *ret)
{
	CLEANUP(site_deinit) struct site x = { 0 };
	struct fork_figures f = { 0 };
	int r = site_init(&x, o);

	if (r == 0)
		r = fill(&x, o);
	if (r == 0)
		r = measure_all(&x, o, &f);
	if (r < 0) {
		if (*x.why)
			fprintf(stderr, "sparq-bench: fork: %s\n", x.why);
		return r;
	}
	*ret = f;
	return 0;
}
