/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences, found again: see recover.h, record.h and the order of stores in layer.c and cut.c. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/charge.h"
#include "daemon/layer.h"
#include "daemon/name.h"
#include "daemon/point.h"
#include "daemon/recover-private.h"
#include "daemon/seq-make.h"
#include "daemon/spill.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define TILE_CHUNKS (KV_TILE_ROWS / KV_CHUNK_ROWS)

/* ---- the record --------------------------------------------------------------------- */

static struct cache *cache_of(const struct recovery *rc, const struct sequence_record *r)
{
	struct cache *c = NULL;

	if (r->cache_slot < catalogue_header(rc->st->catalogue)->n_caches)
		c = rc->cache[r->cache_slot];
	return c && c->record->generation == r->cache_generation ? c : NULL;
}

static bool blocks_exist(const struct recovery *rc, const struct sequence_record *r)
{
	uint32_t n = DIV_UP(r->layers, LAYERS_PER_BLOCK);

	for (uint32_t i = 0; i < ARRAY_SIZE(r->block); i++)
		if (i < n ? !catalogue_has_block(rc->st->catalogue, r->block[i]) : r->block[i])
			return false;
	return true;
}

static int check_record(struct recovery *rc, uint32_t slot, char *why)
{
	struct sequence_record *r = recover_record(rc, slot);
	struct cache *c;

	if (!catalogue_sequence_is_whole(rc->st->catalogue, slot))
		return why_fail(why, EUCLEAN, "its checksum does not agree");
	c = cache_of(rc, r);
	if (!c)
		return why_fail(why, EUCLEAN, "its cache is not there");
	if (r->layers != c->record->layers || r->node >= rc->st->pool->n_nodes ||
	    !blocks_exist(rc, r))
		return why_fail(why, EUCLEAN, "it does not fit its cache or this machine");
	if (!memchr(r->name, 0, sizeof(r->name)) ||
	    (r->name[0] && name_check("sequence", r->name, why) < 0))
		return why_fail(why, EUCLEAN, "its name is none");
	if (r->flags & ~SEQUENCE_FLAGS)
		return why_fail(why, EUCLEAN, "flags %#" PRIx32 " are not known", r->flags);
	return 0;
}

/* ---- a layer -------------------------------------------------------------------------- */

/* Rows that lie before the tail, as commit word and reach say together. */
static int sealed_end(const struct recovery *rc, const struct cache *c,
		      const struct layer_record *l, uint32_t *ret)
{
	struct commit commit = commit_unpack(l->commit);
	struct reach reach = reach_unpack(l->reach);
	uint32_t start, below;

	if (reach.table == BLOCK_NONE) {
		*ret = cache_shape(c)->sinks;
		return commit.tiles || reach.limit ? -EUCLEAN : 0;
	}
	start = recover_table_start(rc, reach.table);
	if (reach.limit) {
		*ret = reach.limit;
		return reach.limit > start &&
				       commit.tiles == recover_tiles(rc, reach.table, reach.limit)
			       ? 0
			       : -EUCLEAN;
	}
	below = recover_tiles(rc, reach.table, start);
	if (commit.tiles < below || commit.tiles - below > SPARQ_ROW_LIMIT / KV_TILE_ROWS)
		return -EUCLEAN;
	*ret = start + (commit.tiles - below) * KV_TILE_ROWS;
	return 0;
}

static int check_commit(const struct recovery *rc, const struct cache *c,
			const struct layer_record *l)
{
	struct commit commit = commit_unpack(l->commit);
	uint32_t end;

	if (commit.rows >= SPARQ_ROW_LIMIT || sealed_end(rc, c, l, &end) < 0)
		return -EUCLEAN;
	if (commit.tiles && commit.rows < end)
		return -EUCLEAN;
	return commit.rows > end && commit.rows - end > KV_MAX_CHUNKS * KV_CHUNK_ROWS ? -EUCLEAN
										      : 0;
}

/* Where cut.c was when it died does not matter: all its steps go to the same state, in which the
 * layer is no owner. */
static void cut_sealed(struct recovery *rc, struct layer_record *l, uint32_t rows)
{
	struct reach to = recover_below(rc, reach_unpack(l->reach), rows);
	uint32_t tiles = to.table ? recover_tiles(rc, to.table, rows) : 0;

	POINT(recover_cut);
	store_release(&l->cut, CUT_PENDING | rows);
	store_release(&l->reach, reach_pack(to));
	POINT(recover_cut_reach);
	store_release(&l->commit, commit_pack((struct commit){ rows, tiles }));
	store_release(&l->cut, 0);
}

/* Ends the cut that was begun in this layer: its own, or that of all layers. */
static int end_cut(struct recovery *rc, const struct cache *c, const struct sequence_record *r,
		   struct layer_record *l)
{
	struct commit commit = commit_unpack(l->commit);
	uint64_t cut = l->cut ? l->cut : r->intent;
	uint32_t rows = (uint32_t)cut, end;

	if (!cut)
		return 0;
	if (cut != (CUT_PENDING | rows) || rows >= SPARQ_ROW_LIMIT)
		return -EUCLEAN;
	if (l->cut) {
		cut_sealed(rc, l, rows);
		return 0;
	}
	if (rows >= commit.rows) /* this layer is done already */
		return rows == commit.rows ? 0 : -EUCLEAN;
	if (sealed_end(rc, c, l, &end) < 0)
		return -EUCLEAN;
	if (commit.tiles && rows < end)
		cut_sealed(rc, l, rows);
	else
		store_release(&l->commit, commit_pack((struct commit){ rows, commit.tiles }));
	return 0;
}

/* What takes the place of rows is whole, or its block would not be named. */
static int end_overwrite(struct recovery *rc, struct layer_record *l)
{
	const struct layer_record *to;

	if (l->overwrite == BLOCK_NONE)
		return 0;
	if (!catalogue_has_block(rc->st->catalogue, l->overwrite))
		return -EUCLEAN;
	to = catalogue_block(rc->st->catalogue, l->overwrite);
	if (to->commit != l->commit)
		return -EUCLEAN;
	l->sinks = to->sinks;
	memcpy(l->chunk, to->chunk, sizeof(l->chunk));
	POINT(recover_overwrite);
	store_release(&l->reach, to->reach);
	store_release(&l->overwrite, BLOCK_NONE);
	return 0;
}

static int check_layer(struct recovery *rc, struct sequence_record *r, uint32_t layer, char *why)
{
	const struct cache *c = cache_of(rc, r);
	struct layer_record *l = recover_layer(rc, r, layer);
	uint32_t table;
	int error;

	if (end_overwrite(rc, l) < 0)
		return why_fail(why, EUCLEAN, "layer %" PRIu32 ": rows that change are damaged",
				layer);
	table = reach_unpack(l->reach).table;
	error = table ? recover_chain(rc, c, layer, table, why) : 0;
	if (error < 0)
		return error;
	if (end_cut(rc, c, r, l) < 0)
		return why_fail(why, EUCLEAN, "layer %" PRIu32 ": a cut in it is damaged", layer);
	if (check_commit(rc, c, l) < 0)
		return why_fail(why, EUCLEAN, "layer %" PRIu32 ": its row count is damaged", layer);
	return 0;
}

int recover_check(struct recovery *rc, uint32_t slot, char *why)
{
	struct sequence_record *r = recover_record(rc, slot);
	int error;

	error = check_record(rc, slot, why);
	/* One that is spilled has no pages, whatever its layers say. */
	for (uint32_t i = 0; error == 0 && !r->spilled && i < r->layers; i++)
		error = check_layer(rc, r, i, why);
	if (error == 0 && r->intent)
		store_release(&r->intent, 0);
	return error;
}

int recover_reaches(struct recovery *rc, uint32_t slot, char *why)
{
	struct sequence_record *r = recover_record(rc, slot);
	int error = 0;

	for (uint32_t i = 0; error == 0 && !r->spilled && i < r->layers; i++) {
		const struct layer_record *l = recover_layer(rc, r, i);
		struct reach reach = reach_unpack(l->reach);
		uint32_t start, below;

		if (reach.table == BLOCK_NONE)
			continue;
		start = recover_table_start(rc, reach.table);
		below = recover_tiles(rc, reach.table, start);
		error = recover_reach(rc, reach, commit_unpack(l->commit).tiles - below, why);
	}
	return error;
}

/* ---- building ------------------------------------------------------------------------- */

/* Of sinks or tail: those may have several holders, each of whom is charged the whole page. */
static int mark_page(struct recovery *rc, struct seq *s, page_ref page, struct page_size size)
{
	int r = pool_mark(rc->st->pool, page, size, s->cache->user->uid);

	if (r == -EEXIST) {
		pool_ref(rc->st->pool, page);
		r = 0;
	}
	if (r == 0)
		charge_restore(s, pool_charge(rc->st->pool, size));
	return r;
}

/* Sinks and tail: what the commit word counts is marked, what it does not is forgotten. */
static int mark_rows(struct recovery *rc, struct seq *s, struct seq_layer *l)
{
	const struct kv_space *shape = cache_shape(s->cache);
	struct layer_record *record = l->record;
	struct commit c = layer_commit(l);
	uint32_t n = c.rows > l->tail_first ? DIV_UP(c.rows - l->tail_first, KV_CHUNK_ROWS) : 0;
	page_ref sinks = record->sinks;
	int r = 0;

	record->sinks = 0;
	if (c.rows && shape->sinks) {
		r = mark_page(rc, s, sinks, layer_sinks_size(s));
		if (r == 0)
			record->sinks = sinks;
	}
	for (uint32_t i = 0; i < KV_MAX_CHUNKS; i++) {
		page_ref *at = &record->chunk[(c.tiles * TILE_CHUNKS + i) % KV_MAX_CHUNKS];
		page_ref chunk = *at;

		*at = 0;
		if (r < 0 || i >= n)
			continue;
		r = mark_page(rc, s, chunk, layer_chunk_size(s));
		if (r == 0) {
			*at = chunk;
			l->n_chunks++;
		}
	}
	return r;
}

static int build_layer(struct recovery *rc, struct seq *s, uint32_t layer, char *why)
{
	struct seq_layer *l = &s->layer[layer];
	struct reach reach = reach_unpack(l->record->reach);
	uint32_t end;
	int r;

	r = sealed_end(rc, s->cache, l->record, &end);
	assert(r == 0);
	(void)r;
	l->tail_first = end;
	if (recover_chain_is_bad(rc, reach.table)) {
		/* Not to be given back with the sequence: nothing of it was marked. */
		l->record->reach = 0;
		l->record->sinks = 0;
		return why_fail(why, EUCLEAN, "layer %" PRIu32 ": table %u is damaged", layer,
				reach.table);
	}
	if (reach.table) {
		recover_ref(rc, reach.table);
		l->n_extents = recover_extents(rc, reach.table, end);
		if (!reach.limit)
			fetch_add(&s->bytes, rc->st->tables[reach.table].bytes);
	}
	if (mark_rows(rc, s, l) < 0)
		return why_fail(why, EUCLEAN, "layer %" PRIu32 ": pages of its tail are damaged",
				layer);
	rc->count->rows += layer_commit(l).rows;
	return 0;
}

static int build_layers(struct recovery *rc, struct seq *s, char *why)
{
	struct sequence_record *r = s->record;
	int error = 0;

	for (uint32_t i = 0; i < DIV_UP(r->layers, LAYERS_PER_BLOCK); i++) {
		if (catalogue_mark_block(rc->st->catalogue, r->block[i]) < 0) {
			/* seq_unmake gives back those that are still named. */
			memset(&r->block[i], 0, sizeof(r->block) - i * sizeof(r->block[0]));
			return why_fail(why, EUCLEAN, "a block of it is another's");
		}
		charge_restore(s, CATALOGUE_BLOCK);
	}
	for (uint32_t i = 0; error == 0 && i < r->layers; i++) {
		layer_init(s, &s->layer[i], recover_layer(rc, r, i));
		error = r->spilled ? 0 : build_layer(rc, s, i, why);
	}
	if (error == 0 && r->spilled)
		error = spill_adopt(rc->st->spill, s, why);
	return error;
}

int recover_sequence(struct recovery *rc, uint32_t slot, char *why)
{
	struct sequence_record *r = recover_record(rc, slot);
	struct seq *s;
	int error;

	error = seq_revive(cache_of(rc, r), slot, &s);
	if (error < 0)
		return why_fail(why, -error, "%s", strerror(-error));
	error = build_layers(rc, s, why);
	if (error == 0) {
		tokens_revive(s);
	} else {
		r->tokens = BLOCK_NONE; /* not marked, not adopted: not to be given back */
		r->spilled = 0;
	}
	if (error == 0 && (r->flags & SEQUENCE_PREFIX) && !tokens_hashes(s->cache, tokens_rows(s)))
		error = why_fail(why, EUCLEAN, "nobody can ask for it: its token ids are gone");
	if (error < 0) {
		seq_unmake(s);
		return error;
	}
	seq_park(s);
	return 0;
}
