/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence as a linear run of bytes, sparq-sequence(5): read in pieces of any size to
 * be saved or spilled, written in pieces to be loaded. The rows come back bit by bit,
 * in extents of the same shape, so that attention over them is the same to the last bit,
 * and so is what is appended later.
 *
 * Reading: whoever holds the sequence (seq_try_control) from image_open to image_close, so
 * that nothing in it changes. Building: from front to back into an empty sequence that nobody
 * sees (seq_build), or that its record says is elsewhere; pages are charged and taken as
 * the bytes for them arrive. Control thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/seq.h"
#include "shm/sequence-file.h"

struct image;

/* What it needs on the heap is charged to the sequence's user. -ENOMEM, -EDQUOT with `why`. */
int image_open(struct seq *s, struct image **ret, char *why);
/* For the daemon's own ends, of which there are few at once: a user who has spent his quota must
 * not keep it from making room. */
int image_open_uncharged(struct seq *s, struct image **ret, char *why);
uint64_t image_bytes(const struct image *im);
/* For messages and headers of files. */
const struct sequence_image *image_head(const struct image *im);
/* Bytes [offset, offset + n), all of them inside. `ret_checksum` (may be NULL): of these bytes as
 * they are in the pages, whoever writes to `buf` meanwhile. */
void image_read(struct image *im, uint64_t offset, void *buf, size_t n, uint64_t *ret_checksum);
struct image *image_close(struct image *im);

struct image_build;

/* For an image of `bytes` in all. The sequence is the caller's, and holds no row. */
int image_build_open(struct seq *s, uint64_t bytes, struct image_build **ret, char *why);
/* Before the first byte, as image_open_uncharged: what fitted before it was spilled fits again. */
void image_build_uncharged(struct image_build *b);
/* Asked when there is no room, as the store's shortage says; true: it is worth trying again. */
void image_build_make_room(struct image_build *b, bool (*make_room)(void *arg), void *arg);
/* The next n bytes. Each byte of `buf` is read once, by the copy: it may be memory that a client
 * writes to. `ret_checksum` (may be NULL) is of the copy. -EBADMSG, -EINVAL, -EPROTONOSUPPORT: what
 * is wrong with the image, -ENOSPC: no room, with `why` (SPARQ_ERROR_TEXT bytes). After a failure
 * only image_build_free is left. */
int image_build_write(struct image_build *b, const void *buf, size_t n, uint64_t *ret_checksum,
		      char *why);
uint64_t image_build_at(const struct image_build *b); /* bytes written so far */
const struct sequence_image *
image_build_head(const struct image_build *b); /* NULL: not yet there */
/* All bytes are there: the sequence has its rows. -EBADMSG: they are not. */
int image_build_end(struct image_build *b, char *why);
/* Of one that did not end, the sequence is empty again. */
struct image_build *image_build_free(struct image_build *b);

/* ---- the head and the index: image-head.c ----------------------------------------- */

/* All of the head but bytes and n_extents, which its caller counts. */
void image_head_fill(const struct seq *s, struct sequence_image *ret);
/* May a cache hold this? -EINVAL with `why` naming what differs. */
int image_head_compare(const struct cache *c, const struct sequence_image *m, char *why);
/* Tables of the cache, as an image has them. */
uint32_t image_count_tables(const struct cache *c);
void image_fill_tables(const struct cache *c, struct sequence_table *ret);
int image_compare_tables(const struct cache *c, const struct sequence_table *table, uint32_t n,
			 char *why);
/* Layers and extents as they must be, and the bytes of all their rows. */
int image_check_index(const struct cache *c, const struct sequence_image *m,
		      const struct sequence_layer *layer, const struct sequence_extent *extent,
		      uint64_t *ret_bytes, char *why);
/* Rows of an extent that count. */
static inline uint64_t image_extent_rows(const struct sequence_extent *x)
{
	return (x->used - 1) * (uint64_t)KV_TILE_ROWS + x->last_rows;
}
/* Nothing can be added to it. */
static inline bool image_extent_is_full(const struct sequence_extent *x)
{
	return x->used == x->tiles && x->last_rows == KV_TILE_ROWS;
}
