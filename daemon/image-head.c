/* SPDX-License-Identifier: Apache-2.0 */
/* What an image says of its sequence before the rows: made, compared, checked. See image.h. */
#include <stdio.h>
#include <string.h>

#include "daemon/cache-params.h"
#include "daemon/format-list.h"
#include "daemon/image.h"
#include "daemon/name.h"
#include "daemon/record.h"
#include "daemon/table.h"
#include "shm/base.h"

_Static_assert(SEQUENCE_WHY_BYTES == SPARQ_ERROR_TEXT, "texts of the file go to clients");

#define COPY(to, from) snprintf(to, sizeof(to), "%s", from)

/* ---- the head ------------------------------------------------------------------------- */

static void fill_options(const struct cache_record *r, char *ret, size_t n)
{
	const struct kv_policy *policy = kv_policy_find(r->policy);
	int at = snprintf(ret, n,
			  "sinks=%u rollback=%u outliers=%u on_disconnect=%s evict=%s share=%s",
			  r->sinks, r->rollback, r->outliers,
			  r->on_disconnect == ON_DISCONNECT_PARK ? "park" : "drop",
			  evict_names[r->evict], r->share ? "on" : "off");

	if (r->audit == AUDIT_OFF)
		at += snprintf(ret + at, n - (size_t)at, " audit=off");
	else if (r->audit)
		at += snprintf(ret + at, n - (size_t)at, " audit=%u", r->audit);
	if (r->audit_bound)
		at += snprintf(ret + at, n - (size_t)at, " audit_max_error=%.4f",
			       r->audit_bound / AUDIT_BOUND_STEPS);
	for (unsigned i = 0; i < policy->n_params; i++) {
		char value[64];

		kv_policy_get(policy, r->args, policy->params[i].name, value, sizeof(value));
		at += snprintf(ret + at, n - (size_t)at, " %s=%s", policy->params[i].name, value);
	}
}

static uint32_t needs_of(const struct cache *c)
{
	uint32_t needs = 0;

	for (uint32_t i = 0; i < c->spaces.n; i++)
		needs |= kv_image_needs(&c->spaces.space[i]);
	return needs;
}

void image_head_fill(const struct seq *s, struct sequence_image *ret)
{
	const struct cache *c = s->cache;
	const struct cache_record *r = c->record;

	*ret = (struct sequence_image){
		.magic = SEQUENCE_IMAGE_MAGIC,
		.version = SEQUENCE_IMAGE_VERSION,
		.head_bytes = sizeof(*ret),
		.compat = SEQUENCE_FEATURES_COMPAT,
		.incompat = SEQUENCE_FEATURES_INCOMPAT,
		.layers = r->layers,
		.heads = r->heads,
		.kv_heads = r->kv_heads,
		.k_dim = r->k_dim,
		.v_dim = r->v_dim,
		.dtype = r->dtype,
		.scale = r->scale,
		.sinks = r->sinks,
		.rollback = r->rollback,
		.outliers = r->outliers,
		.tiles_layout = KV_LAYOUT,
		.needs = needs_of(c),
		.budget_bytes = r->budget_bytes,
		.timeout_us = r->timeout_us,
		.n_tables = image_count_tables(c),
	};
	COPY(ret->cache, r->name);
	COPY(ret->name, ((const struct sequence_record *)s->record)->name);
	COPY(ret->k_format, r->k_format);
	COPY(ret->v_format, r->v_format);
	COPY(ret->policy, r->policy);
	COPY(ret->device, r->device);
	COPY(ret->model, r->model);
	fill_options(r, ret->options, sizeof(ret->options));
}

static int differ(const char *what, const char *has, const char *wanted, char *why)
{
	return why_fail(why, EINVAL, "the sequence was saved with %s %.64s, the cache has %.64s",
			what, has, wanted);
}

/* What bytes of rows mean, and what they are the rows of. Policy, scale, budget and the like are
 * the cache's own affair. */
static int compare_numbers(const struct cache *c, const struct sequence_image *m, char *why)
{
	const struct cache_record *r = c->record;
	const struct {
		const char *what;
		uint32_t image, cache;
	} number[] = {
		{ "layers", m->layers, r->layers },
		{ "heads", m->heads, r->heads },
		{ "kv_heads", m->kv_heads, r->kv_heads },
		{ "k_dim", m->k_dim, r->k_dim },
		{ "v_dim", m->v_dim, r->v_dim },
		{ "dtype", m->dtype, r->dtype },
		{ "sinks", m->sinks, r->sinks },
		{ "tiles of layout", m->tiles_layout, KV_LAYOUT },
	};
	char has[16], wanted[16];

	for (size_t i = 0; i < ARRAY_SIZE(number); i++) {
		if (number[i].image == number[i].cache)
			continue;
		snprintf(has, sizeof(has), "%u", number[i].image);
		snprintf(wanted, sizeof(wanted), "%u", number[i].cache);
		return differ(number[i].what, has, wanted, why);
	}
	return 0;
}

static int compare_formats(const char *what, const char *image, const char *cache, uint32_t layers,
			   char *why)
{
	struct format_list formats;
	int r = format_list_parse(what, image, layers, &formats, why);

	if (r < 0)
		return r;
	return format_list_equal(image, cache, layers) ? 0 : differ(what, image, cache, why);
}

int image_head_compare(const struct cache *c, const struct sequence_image *m, char *why)
{
	const struct cache_record *r = c->record;
	int error = compare_numbers(c, m, why);

	if (error == 0)
		error = compare_formats("k_format", m->k_format, r->k_format, r->layers, why);
	if (error == 0)
		error = compare_formats("v_format", m->v_format, r->v_format, r->layers, why);
	if (error == 0 && m->needs != needs_of(c))
		error = why_fail(why, EINVAL,
				 "the sequence was saved for policy %.31s, which wants %s planes "
				 "in its tiles than %.31s, the cache's",
				 m->policy, m->needs ? "more" : "fewer", r->policy);
	if (error == 0 && strcmp(m->model, r->model) != 0)
		error = differ("model", *m->model ? m->model : "none",
			       *r->model ? r->model : "none", why);
	return error;
}

/* ---- channel tables --------------------------------------------------------------------- */

/* The next table of the cache from place *at on, of layers * kv_heads; NULL: there is none. */
static const struct kv_channels *next_table(const struct cache *c, uint64_t *at)
{
	uint64_t n = (uint64_t)c->record->layers * c->record->kv_heads;

	for (; c->channels.table && *at < n; ++*at)
		if (c->channels.table[*at])
			return c->channels.table[*at];
	return NULL;
}

static struct sequence_table table_of(const struct cache *c, const struct kv_channels *t,
				      uint64_t at)
{
	struct sequence_table table = {
		.layer = (uint32_t)(at / c->record->kv_heads),
		.kv_head = (uint32_t)(at % c->record->kv_heads),
		.n_outliers = t->n_outliers,
	};

	memcpy(table.k, t->k, c->record->k_dim);
	memcpy(table.v, t->v, c->record->v_dim);
	return table;
}

uint32_t image_count_tables(const struct cache *c)
{
	uint32_t n = 0;

	for (uint64_t at = 0; next_table(c, &at); at++)
		n++;
	return n;
}

void image_fill_tables(const struct cache *c, struct sequence_table *ret)
{
	const struct kv_channels *t;

	for (uint64_t at = 0; (t = next_table(c, &at)); at++)
		*ret++ = table_of(c, t, at);
}

int image_compare_tables(const struct cache *c, const struct sequence_table *table, uint32_t n,
			 char *why)
{
	uint32_t have = image_count_tables(c);
	const struct kv_channels *t;

	if (have != n)
		return why_fail(why, EINVAL,
				"the sequence was saved with %u channel tables, the cache has %u",
				n, have);
	for (uint64_t at = 0; (t = next_table(c, &at)); at++, table++) {
		struct sequence_table mine = table_of(c, t, at);

		if (memcmp(&mine, table, sizeof(mine)) != 0)
			return why_fail(why, EINVAL,
					"the sequence was saved with another channel table than "
					"the cache has for layer %u, KV head %u",
					mine.layer, mine.kv_head);
	}
	return 0;
}

/* ---- layers and extents ------------------------------------------------------------------- */

static int bad_layer(uint32_t layer, const char *what, char *why)
{
	return why_fail(why, EBADMSG, "image: layer %u: %s", layer, what);
}

/* The extents of a layer: where its tail begins, and how many tiles there are. */
static int check_extents(const struct cache *c, uint32_t layer, const struct sequence_extent *x,
			 uint32_t n, uint64_t *ret_end, uint64_t *ret_tiles, char *why)
{
	uint64_t row = cache_shape(c)->sinks, tiles = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (x[i].tiles != table_extent_tiles(c, row))
			return bad_layer(layer, "an extent has not the slots of its place", why);
		if (!x[i].used || x[i].used > x[i].tiles)
			return bad_layer(layer, "an extent has more tiles than slots", why);
		if (!x[i].last_rows || x[i].last_rows > KV_TILE_ROWS)
			return bad_layer(layer, "a tile has not 1 to 128 rows", why);
		row += image_extent_rows(&x[i]);
		tiles += x[i].used;
		if (row > c->store->max_rows)
			return bad_layer(layer, "more rows than max_rows of the daemon", why);
	}
	*ret_end = row;
	*ret_tiles = tiles;
	return 0;
}

static int check_layer(const struct cache *c, uint32_t i, const struct sequence_layer *l,
		       const struct sequence_extent *x, uint64_t *ret_tiles, char *why)
{
	uint32_t sinks = cache_shape(c)->sinks;
	uint64_t end = 0;
	int r = check_extents(c, i, x, l->n_extents, &end, ret_tiles, why);

	if (r < 0)
		return r;
	if (l->rows > c->store->max_rows)
		return why_fail(why, E2BIG, "image: layer %u has %u rows: max_rows is %u", i,
				l->rows, c->store->max_rows);
	if (l->tail_first != end || (l->n_extents && l->rows < end))
		return bad_layer(i, "its extents do not end where the tail begins", why);
	if (l->rows > sinks && l->rows - l->tail_first > KV_MAX_CHUNKS * KV_CHUNK_ROWS)
		return bad_layer(i, "its tail is too long", why);
	if (l->flags & ~SEQUENCE_OWNED)
		return bad_layer(i, "it has flags that are not known", why);
	if (l->flags && (!l->n_extents || x[l->n_extents - 1].last_rows != KV_TILE_ROWS))
		return bad_layer(i, "nothing can follow its last tile", why);
	return 0;
}

/* Of sinks and tail, as sent. */
static uint64_t recent_rows(const struct cache *c, const struct sequence_layer *l)
{
	uint32_t sinks = MIN(l->rows, cache_shape(c)->sinks);

	return sinks + (l->rows > l->tail_first ? l->rows - l->tail_first : 0);
}

int image_check_index(const struct cache *c, const struct sequence_image *m,
		      const struct sequence_layer *layer, const struct sequence_extent *extent,
		      uint64_t *ret_bytes, char *why)
{
	uint32_t used = 0;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < m->layers; i++) {
		const struct kv_space *space = cache_layer(c, i);
		uint64_t tiles = 0;
		int r;

		if (layer[i].n_extents > m->n_extents - used)
			return bad_layer(i, "more extents than the image has", why);
		r = check_layer(c, i, &layer[i], extent + used, &tiles, why);
		if (r < 0)
			return r;
		used += layer[i].n_extents;
		bytes += tiles * kv_image_tile_bytes(space, channels_layer(c, i)) +
			 recent_rows(c, &layer[i]) * kv_image_row_bytes(space);
	}
	if (used != m->n_extents)
		return why_fail(why, EBADMSG, "image: %u extents belong to no layer",
				m->n_extents - used);
	*ret_bytes = bytes;
	return 0;
}
