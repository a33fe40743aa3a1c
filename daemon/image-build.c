/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence from bytes: see image.h.
 *
 *   head -> index -> rows: for each layer its extents, sinks, chunks of the tail
 *
 * Head and index are compared and checked as soon as they are whole; from then on every
 * length is known, and all that a client can still choose are bits of rows. Each part
 * of the rows is charged and taken when its first byte arrives. An extent that is not full ends
 * a table, as a fork or a cut had left it: what follows goes into a younger one.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* the state, on the stack */
#include <xxhash.h>

#include "daemon/image.h"
#include "daemon/layer.h"
#include "daemon/name.h"
#include "daemon/point.h"
#include "daemon/table.h"
#include "shm/base.h"

enum part {
	PART_HEAD,
	PART_INDEX,
	PART_LAYER, /* no bytes: between its parts */
	PART_EXTENT,
	PART_SINKS,
	PART_CHUNK,
	PART_END
};

struct image_build {
	struct seq *seq;
	uint64_t bytes, at;
	struct sequence_image head;
	uint8_t *index; /* tables, layers, extents */
	uint64_t charged;
	bool uncharged;
	bool failed, ended;
	bool (*make_room)(void *arg);
	void *arg;

	enum part part;
	uint64_t part_at, part_bytes;
	uint32_t layer;                 /* of the part */
	uint32_t i;                     /* extent or chunk of the layer */
	uint32_t row;                   /* first row of the extent, or behind the last one */
	uint32_t table_tiles;           /* of the table that is being filled */
	uint32_t slots;                 /* taken of the extent */
	bool has_table;                 /* that the extent goes into */
	uint32_t tiles;                 /* of the layer */
	struct sequence_extent *extent; /* of the layer */
	struct kv_extent x;
	struct kv_view view; /* of sinks and tail */
};

static const struct sequence_table *tables_of(const struct image_build *b)
{
	return (const struct sequence_table *)b->index;
}

static const struct sequence_layer *layers_of(const struct image_build *b)
{
	return (const struct sequence_layer *)(tables_of(b) + b->head.n_tables);
}

static struct sequence_extent *extents_of(const struct image_build *b)
{
	return (struct sequence_extent *)(uintptr_t)(layers_of(b) + b->head.layers);
}

static const struct kv_channels *const *channels_of(const struct image_build *b)
{
	return channels_layer(b->seq->cache, b->layer);
}

int image_build_open(struct seq *s, uint64_t bytes, struct image_build **ret, char *why)
{
	struct image_build *b;

	if (bytes < sizeof(b->head))
		return why_fail(why, EBADMSG, "image: %llu bytes are no sequence",
				(unsigned long long)bytes);
	b = calloc(1, sizeof(*b));
	if (!b)
		return why_fail(why, ENOMEM, "out of memory");
	b->seq = s;
	b->bytes = bytes;
	b->part_bytes = sizeof(b->head);
	*ret = b;
	return 0;
}

void image_build_make_room(struct image_build *b, bool (*make_room)(void *arg), void *arg)
{
	b->make_room = make_room;
	b->arg = arg;
}

void image_build_uncharged(struct image_build *b)
{
	b->uncharged = true;
}

uint64_t image_build_at(const struct image_build *b)
{
	return b->at;
}

const struct sequence_image *image_build_head(const struct image_build *b)
{
	return b->part > PART_HEAD ? &b->head : NULL;
}

struct image_build *image_build_free(struct image_build *b)
{
	if (!b)
		return NULL;
	for (uint32_t i = 0; !b->ended && i < b->seq->cache->record->layers; i++) {
		struct seq_layer *l = &b->seq->layer[i];

		layer_clear(b->seq, l);
		layer_publish(l, (struct commit){ 0, 0 });
		layer_init(b->seq, l, l->record);
	}
	user_refund(b->seq->cache->user, USER_BYTES, b->charged);
	free(b->index);
	free(b);
	return NULL;
}

/* ---- head and index ------------------------------------------------------------------- */

/* The head is whole: what it says decides how long the index is. */
static int begin_index(struct image_build *b, char *why)
{
	struct cache *c = b->seq->cache;
	int r = sequence_image_check(&b->head, b->bytes, why);

	if (r == 0)
		r = image_head_compare(c, &b->head, why);
	if (r < 0)
		return r;
	b->part = PART_INDEX;
	b->part_bytes = sequence_index_bytes(&b->head);
	if (!b->uncharged && user_charge(c->user, USER_BYTES, b->part_bytes) < 0)
		return why_fail(why, EDQUOT,
				"%llu bytes for the index of the sequence do not fit into the "
				"quota of the user",
				(unsigned long long)b->part_bytes);
	b->charged = b->uncharged ? 0 : b->part_bytes;
	b->index = malloc(b->part_bytes);
	return b->index ? 0 : why_fail(why, ENOMEM, "out of memory");
}

static void begin_layer(struct image_build *b)
{
	b->part = PART_LAYER;
	b->i = 0;
	b->row = cache_shape(b->seq->cache)->sinks;
	b->tiles = b->table_tiles = b->slots = 0;
	b->has_table = false;
}

/* The index is whole, and so is every length. */
static int begin_rows(struct image_build *b, char *why)
{
	struct cache *c = b->seq->cache;
	uint64_t bytes;
	int r = image_compare_tables(c, tables_of(b), b->head.n_tables, why);

	if (r == 0)
		r = image_check_index(c, &b->head, layers_of(b), extents_of(b), &bytes, why);
	if (r < 0)
		return r;
	if (bytes != b->bytes - b->at)
		return why_fail(why, EBADMSG, "image: %llu bytes of rows, and its index says %llu",
				(unsigned long long)(b->bytes - b->at), (unsigned long long)bytes);
	b->extent = extents_of(b);
	begin_layer(b);
	return 0;
}

/* ---- sealed tiles ------------------------------------------------------------------------ */

static struct seq_layer *layer_of(struct image_build *b)
{
	return &b->seq->layer[b->layer];
}

/* The table, if one is being filled, ends at b->row and is nobody's from now on. */
static void leave_table(struct image_build *b)
{
	struct reach reach = layer_reach(layer_of(b));

	if (!reach.table || reach.limit)
		return;
	table_leave(b->seq, reach.table, b->table_tiles);
	layer_set_reach(layer_of(b), (struct reach){ reach.table, b->row });
}

/* Whoever runs out of room here comes again when there is some: what was done is not done twice. */
static int begin_table(struct image_build *b)
{
	uint32_t table;
	int r;

	leave_table(b);
	r = table_create(b->seq, b->layer, layer_reach(layer_of(b)), b->tiles, b->i, b->row,
			 &table);
	if (r < 0)
		return r;
	/* It has taken over the reference on its base. */
	layer_set_reach(layer_of(b), (struct reach){ table, 0 });
	b->table_tiles = 0;
	b->has_table = true;
	return 0;
}

/* Takes the extent that the next bytes are of. */
static int begin_extent(struct image_build *b)
{
	const struct kv_space *space = cache_layer(b->seq->cache, b->layer);
	const struct sequence_extent *x = &b->extent[b->i];
	unsigned slot;
	int r = 0;

	if (!b->has_table)
		r = begin_table(b);
	while (r == 0 && b->slots < x->used) {
		uint32_t table = layer_reach(layer_of(b)).table;

		r = table_next(b->seq, table, b->row + b->slots * KV_TILE_ROWS, &b->x, &slot);
		if (r < 0)
			break;
		assert(b->x.tiles == x->tiles && slot == b->slots);
		table_seal(b->seq->cache->store, table);
		b->slots++;
		b->table_tiles++;
		b->tiles++;
	}
	if (r < 0)
		return r;
	b->x.used = x->used;
	b->part = PART_EXTENT;
	b->part_bytes = x->used * kv_image_tile_bytes(space, channels_of(b));
	return 0;
}

static void end_extent(struct image_build *b)
{
	const struct sequence_extent *x = &b->extent[b->i++];

	b->row += (uint32_t)image_extent_rows(x);
	b->has_table = image_extent_is_full(x);
	b->slots = 0;
	b->part = PART_LAYER;
}

/* ---- sinks and tail -------------------------------------------------------------------------- */

static uint64_t rows_bytes(const struct image_build *b, uint32_t rows)
{
	return rows * kv_image_row_bytes(cache_shape(b->seq->cache));
}

/* Behind the last extent: what is sealed counts, and there is room for all the rest. */
static int begin_sinks(struct image_build *b)
{
	const struct sequence_layer *from = &layers_of(b)[b->layer];
	struct seq_layer *l = layer_of(b);
	int r;

	if (!(from->flags & SEQUENCE_OWNED))
		leave_table(b);
	l->tail_first = from->tail_first;
	l->n_extents = from->n_extents;
	layer_publish(l, (struct commit){ b->tiles ? from->tail_first : 0, b->tiles });
	r = seq_reserve(b->seq, b->layer, from->rows - layer_commit(l).rows);
	if (r < 0)
		return r;
	layer_view(b->seq, l, from->rows, &b->view);
	b->part = PART_SINKS;
	b->part_bytes = rows_bytes(b, b->view.n_sinks);
	return 0;
}

static uint32_t chunk_rows(const struct image_build *b)
{
	return MIN(b->view.tail_rows - b->i * KV_CHUNK_ROWS, KV_CHUNK_ROWS);
}

/* Chunk b->i, or what comes behind the last one. */
static void begin_chunk(struct image_build *b)
{
	const struct sequence_layer *l = &layers_of(b)[b->layer];

	if (b->i * KV_CHUNK_ROWS < b->view.tail_rows) {
		b->part = PART_CHUNK;
		b->part_bytes = rows_bytes(b, chunk_rows(b));
		return;
	}
	seq_commit(b->seq, b->layer, l->rows);
	POINT(save_loaded_layer);
	b->extent += l->n_extents;
	if (++b->layer == b->head.layers)
		b->part = PART_END;
	else
		begin_layer(b);
}

/* ---- from part to part
 * --------------------------------------------------------------------------- */

/* This part is whole: the next one, which may have no bytes. */
static int advance(struct image_build *b, char *why)
{
	b->part_at = b->part_bytes = 0;
	switch (b->part) {
	case PART_HEAD:
		return begin_index(b, why);
	case PART_INDEX:
		return begin_rows(b, why);
	case PART_LAYER:
		return b->i < layers_of(b)[b->layer].n_extents ? begin_extent(b) : begin_sinks(b);
	case PART_EXTENT:
		end_extent(b);
		return 0;
	case PART_SINKS:
		b->i = 0;
		begin_chunk(b);
		return 0;
	case PART_CHUNK:
		b->i++;
		begin_chunk(b);
		return 0;
	default:
		return 0;
	}
}

struct cursor {
	const uint8_t *from;
	XXH3_state_t *sum; /* NULL: nobody asked */
};

/* The sum is of what lies in the page: the source may have changed since. */
static void copy(void *arg, void *memory, size_t n)
{
	struct cursor *c = arg;

	memcpy(memory, c->from, n);
	if (c->sum)
		XXH3_64bits_update(c->sum, memory, n);
	c->from += n;
}

/* Of the sinks or of a chunk. */
static const struct kv_parts *parts_of(const struct kv_view *v, uint32_t bit)
{
	return v->parted & bit ? v->parts : NULL;
}

static void write_part(struct image_build *b, struct cursor *c, size_t n)
{
	const struct kv_space *space = cache_layer(b->seq->cache, b->layer);

	switch (b->part) {
	case PART_HEAD:
		copy(c, (uint8_t *)&b->head + b->part_at, n);
		break;
	case PART_INDEX:
		copy(c, b->index + b->part_at, n);
		break;
	case PART_EXTENT:
		kv_image_tiles(space, channels_of(b), b->seq->cache->parts, &b->x, b->part_at, n,
			       copy, c);
		break;
	case PART_SINKS:
		kv_image_rows(space, parts_of(&b->view, KV_PARTED_SINKS), b->view.sinks,
			      KV_MAX_SINKS, b->view.n_sinks, b->part_at, n, copy, c);
		break;
	default:
		kv_image_rows(space, parts_of(&b->view, 1u << b->i), b->view.chunk[b->i],
			      KV_CHUNK_ROWS, chunk_rows(b), b->part_at, n, copy, c);
	}
	b->part_at += n;
	b->at += n;
}

/* A sentence for those who only say -errno. */
static int fail(struct image_build *b, int error, char *why)
{
	struct cache *c = b->seq->cache;

	b->failed = true;
	if (*why)
		return error;
	if (error != -ENOSPC)
		return why_fail(why, -error, "loading a sequence: %s", strerror(-error));
	return shortage_fail(&b->seq->shortage, c, "loading a sequence", why);
}

static int advance_with_room(struct image_build *b, char *why)
{
	struct store *st = b->seq->cache->store;
	int r;

	for (;;) {
		r = advance(b, why);
		if (r != -ENOSPC || !b->make_room)
			return r;
		st->shortage = b->seq->shortage;
		if (!b->make_room(b->arg))
			return r;
	}
}

static int write_all(struct image_build *b, struct cursor *c, size_t n, char *why)
{
	while (n > 0) {
		size_t now = (size_t)MIN(b->part_bytes - b->part_at, n);
		int r = 0;

		write_part(b, c, now);
		n -= now;
		while (r == 0 && b->part != PART_END && b->part_at == b->part_bytes)
			r = advance_with_room(b, why);
		if (r < 0)
			return fail(b, r, why);
	}
	return 0;
}

int image_build_write(struct image_build *b, const void *buf, size_t n, uint64_t *ret_checksum,
		      char *why)
{
	struct cursor c = { .from = buf };
	XXH3_state_t sum;
	int r;

	*why = '\0';
	if (b->failed || b->ended || n > b->bytes - b->at)
		return why_fail(why, EINVAL, "image: %zu bytes where %llu are missing", n,
				(unsigned long long)(b->failed ? 0 : b->bytes - b->at));
	if (ret_checksum) {
		XXH3_64bits_reset(&sum);
		c.sum = &sum;
	}
	r = write_all(b, &c, n, why);
	if (r == 0 && ret_checksum)
		*ret_checksum = XXH3_64bits_digest(&sum);
	return r;
}

int image_build_end(struct image_build *b, char *why)
{
	if (b->failed || b->ended || b->part != PART_END)
		return why_fail(why, EBADMSG, "image: %llu of %llu bytes are there",
				(unsigned long long)b->at, (unsigned long long)b->bytes);
	b->ended = true;
	return 0;
}
