/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence as bytes, read: see image.h.
 *
 * Head and index are made when the image is opened; the rows are copied out of the pages as
 * they are asked for.
 */
#include "daemon/image.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* the state, on the stack */
#include <xxhash.h>

#include "daemon/layer.h"
#include "daemon/name.h"
#include "daemon/table.h"
#include "shm/base.h"

struct image {
	struct seq *seq;
	uint64_t charged;
	uint64_t index_bytes; /* of head, tables, layers and extents, which `index` holds */
	uint64_t bytes;
	uint8_t *index;
	uint64_t *layer_at;       /* [layers + 1]: where its rows begin in the image */
	struct kv_extent *extent; /* of layer `viewed` */
	uint32_t n_extents;       /* room there */
	uint32_t viewed;
	struct kv_view view;
};

static struct sequence_image *head_of(const struct image *im)
{
	return (struct sequence_image *)im->index;
}

static struct sequence_table *tables_of(const struct image *im)
{
	return (struct sequence_table *)(im->index + sizeof(struct sequence_image));
}

static struct sequence_layer *layers_of(const struct image *im)
{
	return (struct sequence_layer *)(tables_of(im) + head_of(im)->n_tables);
}

static struct sequence_extent *extents_of(const struct image *im)
{
	return (struct sequence_extent *)(layers_of(im) + head_of(im)->layers);
}

/* ---- opening --------------------------------------------------------------------------- */

/* Looks at one layer; its extents stay in im->extent until another is looked at. */
static void view_layer(struct image *im, uint32_t layer)
{
	int r;

	if (im->viewed == layer)
		return;
	r = seq_view(im->seq, layer, seq_rows(im->seq, layer), im->extent, im->n_extents,
		     &im->view);
	assert(r == 0); /* there is room for the most that a layer has */
	(void)r;
	im->viewed = layer;
}

/* Its last tile is its own table's: what it seals next goes behind it. */
static bool is_owned(const struct seq *s, uint32_t layer)
{
	struct reach reach = layer_reach(&s->layer[layer]);

	return reach.table && !reach.limit && s->cache->store->tables[reach.table].tiles;
}

static uint64_t rows_bytes(const struct image *im, uint32_t layer)
{
	const struct cache *c = im->seq->cache;
	const struct kv_space *space = cache_layer(c, layer);
	uint64_t tiles = 0;

	for (uint32_t i = 0; i < im->view.n_extents; i++)
		tiles += im->view.extent[i].used;
	return tiles * kv_image_tile_bytes(space, channels_layer(c, layer)) +
	       (im->view.n_sinks + im->view.tail_rows) * kv_image_row_bytes(space);
}

/* Layers and extents as they are, and where the rows of each layer lie. */
static void fill_index(struct image *im)
{
	struct sequence_extent *extent = extents_of(im);
	uint64_t at = im->index_bytes;

	for (uint32_t i = 0; i < head_of(im)->layers; i++) {
		view_layer(im, i);
		layers_of(im)[i] = (struct sequence_layer){
			.rows = im->view.rows,
			.tail_first = im->seq->layer[i].tail_first,
			.n_extents = im->view.n_extents,
			.flags = is_owned(im->seq, i) ? SEQUENCE_OWNED : 0,
		};
		for (uint32_t j = 0; j < im->view.n_extents; j++) {
			const struct kv_extent *x = &im->view.extent[j];

			*extent++ = (struct sequence_extent){ x->tiles, x->used, x->last_rows };
		}
		im->layer_at[i] = at;
		at += rows_bytes(im, i);
	}
	im->layer_at[head_of(im)->layers] = at;
	im->bytes = at;
}

static void fill_head(struct image *im)
{
	struct sequence_image *head = head_of(im);
	struct sparq_msg_seq_stat stat;

	image_head_fill(im->seq, head);
	for (uint32_t i = 0; i < head->layers; i++)
		head->n_extents += im->seq->layer[i].n_extents;
	seq_stat(im->seq, SPARQ_LAYER_ALL, &stat);
	head->rows_least = (uint32_t)stat.rows_least;
	head->rows_most = (uint32_t)stat.rows_most;
	image_fill_tables(im->seq->cache, tables_of(im));
}

static int charge(struct image *im, uint64_t bytes, char *why)
{
	if (user_charge(im->seq->cache->user, USER_BYTES, bytes) < 0)
		return why_fail(why, EDQUOT,
				"%llu bytes for the index of the sequence do not fit into the "
				"quota of the user",
				(unsigned long long)bytes);
	im->charged = bytes;
	return 0;
}

/* Charges, then takes: NULL and -EDQUOT or -ENOMEM. */
static int take_room(struct image *im, bool charged, char *why)
{
	const struct cache *c = im->seq->cache;
	uint32_t layers = c->record->layers, all = 0;
	uint64_t layer_bytes = (layers + 1ull) * sizeof(*im->layer_at);
	uint64_t extent_bytes, bytes;

	for (uint32_t i = 0; i < layers; i++)
		all += im->seq->layer[i].n_extents;
	im->n_extents = seq_extents(im->seq, SPARQ_LAYER_ALL);
	extent_bytes = im->n_extents * sizeof(*im->extent);
	im->index_bytes = sizeof(struct sequence_image) +
			  image_count_tables(c) * sizeof(struct sequence_table) +
			  layers * sizeof(struct sequence_layer) +
			  all * sizeof(struct sequence_extent);
	bytes = im->index_bytes + layer_bytes + extent_bytes;
	if (charged && charge(im, bytes, why) < 0)
		return -EDQUOT;
	im->index = calloc(1, im->index_bytes);
	im->layer_at = malloc(layer_bytes);
	im->extent = malloc(MAX(extent_bytes, sizeof(*im->extent)));
	if (!im->index || !im->layer_at || !im->extent)
		return why_fail(why, ENOMEM, "out of memory");
	return 0;
}

static int open_image(struct seq *s, bool charged, struct image **ret, char *why)
{
	struct image *im = calloc(1, sizeof(*im));
	int r;

	if (!im)
		return why_fail(why, ENOMEM, "out of memory");
	im->seq = s;
	im->viewed = UINT32_MAX;
	r = take_room(im, charged, why);
	if (r < 0) {
		image_close(im);
		return r;
	}
	fill_head(im);
	fill_index(im);
	head_of(im)->bytes = im->bytes;
	*ret = im;
	return 0;
}

int image_open(struct seq *s, struct image **ret, char *why)
{
	return open_image(s, true, ret, why);
}

int image_open_uncharged(struct seq *s, struct image **ret, char *why)
{
	return open_image(s, false, ret, why);
}

uint64_t image_bytes(const struct image *im)
{
	return im->bytes;
}

const struct sequence_image *image_head(const struct image *im)
{
	return head_of(im);
}

struct image *image_close(struct image *im)
{
	if (!im)
		return NULL;
	user_refund(im->seq->cache->user, USER_BYTES, im->charged);
	free(im->index);
	free(im->layer_at);
	free(im->extent);
	free(im);
	return NULL;
}

/* ---- reading ------------------------------------------------------------------------------ */

/* What is still to be copied: [at, at + n) of what follows. */
struct cursor {
	uint64_t at;
	size_t n;
	uint8_t *to;
	XXH3_state_t *sum; /* NULL: nobody asked */
};

static void copy(void *arg, void *memory, size_t n)
{
	struct cursor *c = arg;

	memcpy(c->to, memory, n);
	if (c->sum)
		XXH3_64bits_update(c->sum, memory, n);
	c->to += n;
	c->n -= n;
}

/* Of a part of `bytes`: how many to copy from c->at on; 0: it was passed over. */
static size_t share(struct cursor *c, uint64_t bytes)
{
	if (c->at < bytes)
		return (size_t)MIN(bytes - c->at, c->n);
	c->at -= bytes;
	return 0;
}

static void read_rows(const struct image *im, struct cursor *c, void *chunk, bool parted,
		      unsigned room, uint32_t rows)
{
	const struct kv_space *shape = cache_shape(im->seq->cache);
	size_t n = share(c, rows * kv_image_row_bytes(shape));

	if (!n)
		return;
	kv_image_rows(shape, parted ? im->view.parts : NULL, chunk, room, rows, c->at, n, copy, c);
	c->at = 0;
}

static void read_layer(struct image *im, uint32_t layer, struct cursor *c)
{
	const struct kv_space *space = cache_layer(im->seq->cache, layer);
	const struct kv_view *v = &im->view;
	size_t tile;

	view_layer(im, layer);
	tile = kv_image_tile_bytes(space, v->channels);
	for (uint32_t i = 0; i < v->n_extents && c->n; i++) {
		size_t n = share(c, v->extent[i].used * tile);

		if (!n)
			continue;
		kv_image_tiles(space, v->channels, v->parts, &v->extent[i], c->at, n, copy, c);
		c->at = 0;
	}
	if (c->n)
		read_rows(im, c, v->sinks, v->parted & KV_PARTED_SINKS, KV_MAX_SINKS, v->n_sinks);
	for (uint32_t i = 0; i * KV_CHUNK_ROWS < v->tail_rows && c->n; i++)
		read_rows(im, c, v->chunk[i], v->parted >> i & 1, KV_CHUNK_ROWS,
			  MIN(v->tail_rows - i * KV_CHUNK_ROWS, KV_CHUNK_ROWS));
}

void image_read(struct image *im, uint64_t offset, void *buf, size_t n, uint64_t *ret_checksum)
{
	struct cursor c = { .n = n, .to = buf };
	XXH3_state_t sum;

	assert(offset <= im->bytes && n <= im->bytes - offset);
	if (ret_checksum) {
		XXH3_64bits_reset(&sum);
		c.sum = &sum;
	}
	if (offset < im->index_bytes)
		copy(&c, im->index + offset, (size_t)MIN(im->index_bytes - offset, n));
	offset = MAX(offset, im->index_bytes);
	for (uint32_t i = 0; i < head_of(im)->layers && c.n; i++) {
		if (offset >= im->layer_at[i + 1])
			continue;
		c.at = offset - im->layer_at[i];
		read_layer(im, i, &c);
		offset = im->layer_at[i + 1];
	}
	assert(!c.n);
	if (ret_checksum)
		*ret_checksum = XXH3_64bits_digest(&sum);
}
