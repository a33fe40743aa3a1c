/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over memory that is handed in: the one header the daemon includes.
 *
 * A `kv_space` says how one cache's rows lie in memory (formats, dimensions,
 * dtype) and which kernel rows serve them. A policy turns a step into a plan
 * (plan.h). A `kv_exec` runs the plan for one KV head of one item, cut into
 * shares that any thread may run. Nothing here starts a thread, allocates,
 * logs or keeps state between calls.
 *
 *   sinks (first rows) - sealed tiles (128 rows each, in extents) - tail (chunks of 64 rows)
 *
 * Sinks and tail hold rows in the cache's dtype, bit for bit as sent; tiles
 * hold them in the cache's formats.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/plan.h"
#include "kernels/policy.h"

/* What the wire has under other names; the daemon asserts that they agree. */
#define KV_ERROR_TEXT 240
#define KV_MAX_ENTRY_ROWS 512u /* rows, or queries, of one item */
enum { /* bytes read, by plane */
	KV_PLANE_SCORE, KV_PLANE_K, KV_PLANE_V_UPPER, KV_PLANE_V_LOWER,
	KV_PLANE_PARAMETERS, KV_PLANE_RECENT, KV_PLANE_STATE, KV_PLANE_OTHER,
	KV_PLANES
};

/* One more when the bytes of tiles, chunks, extents or policy arguments mean something else than
 * before: a daemon reads only pages of its own layout. */
#define KV_LAYOUT 1u

#define KV_TILE_ROWS 128u
#define KV_CHUNK_ROWS 64u
#define KV_MAX_SINKS 16u
#define KV_MAX_ROLLBACK 128u
#define KV_EXTENT_TILES 8u /* of a long extent; short ones have 1 */
#define KV_SHORT_ROWS 1024u /* sealed rows up to here lie in one-tile extents */
#define KV_MAX_DIM 256u
#define KV_MAX_OUTLIERS 8u /* channels of K held apart in a tile */
/* Rows of a tail: what a flush leaves, and one entry's rows: in chunks. */
#define KV_MAX_TAIL_ROWS (KV_TILE_ROWS - 1 + KV_MAX_ROLLBACK + KV_MAX_ENTRY_ROWS)
#define KV_MAX_CHUNKS 16u
/* A share of a decode step reads at most so many rows, and none from both sides of a multiple of it
 * behind the sinks. */
#define KV_SHARE_ROWS 16384u

/* ---- back end: which instruction sets -------------------------------------- */

/* "scalar", "avx2", "avx512", "neon"; the CPU's best, or the best at or below `limit`
 * (NULL or "": no limit). -EOPNOTSUPP if this CPU lacks it, -EINVAL unknown. Once, at start:
 * the mask is the only global here. */
int kv_isa_limit(const char *limit);
const char *kv_isa_name(void);         /* the one in use */
const char *kv_isa_at(unsigned i);     /* those built in, NULL ends */
bool kv_isa_usable(const char *isa);   /* this CPU has it */

const char *kv_format_at(unsigned i);  /* NULL ends */

/* ---- a cache's rows in memory ------------------------------------------------ */

enum kv_dtype { KV_F32, KV_F16, KV_BF16 };
size_t kv_dtype_bytes(enum kv_dtype t);

struct kv_space_params {
	uint32_t heads, kv_heads, k_dim, v_dim;
	enum kv_dtype dtype;
	float scale; /* 0: 1 / sqrt(k_dim) */
	const char *k_format, *v_format;
	const struct kv_policy *policy;
	const void *args; /* of the policy, parsed */
	uint32_t sinks;    /* 0..KV_MAX_SINKS */
	uint32_t outliers; /* room for so many, 0..KV_MAX_OUTLIERS */
};

struct kv_kernels;
struct kv_ops;
struct kv_space { /* immutable after init: any thread may use it */
	uint32_t heads, kv_heads, group, k_dim, v_dim, sinks, outliers;
	enum kv_dtype dtype;
	float scale;
	uint32_t needs; /* KV_NEED_*: extra planes */
	const struct kv_policy *policy;
	const void *args; /* borrowed */
	const struct kv_kernels *k, *v, *plain; /* K tiles, V tiles, sinks and tail */
	const struct kv_kernels *wide;          /* f32: rows widened for one another's company */
	const struct kv_ops *ops;
};

/* -EINVAL or -EOPNOTSUPP with `why` (KV_ERROR_TEXT bytes) naming the value and what is allowed. */
int kv_space_init(struct kv_space *s, const struct kv_space_params *p, char *why);

/* Bytes of one KV head, multiples of 64. Heads of one extent or chunk follow each other. */
size_t kv_extent_bytes(const struct kv_space *s, unsigned tiles);
size_t kv_chunk_bytes(const struct kv_space *s, unsigned rows); /* also of the sinks */
/* Bytes one sealed row costs in all KV heads; for accounting and messages. */
size_t kv_row_bytes(const struct kv_space *s);

/* ---- order of channels ------------------------------------------------------------ */

/* The table of one (layer, KV head): which channel lies at each place. Neighbours share the
 * groups of formats that have groups along a row. The first n_outliers places of K are held in
 * f16 in tiles of quantised formats, beside the planes. */
struct kv_channels {
	uint32_t n_outliers; /* at most the space's */
	uint8_t k[KV_MAX_DIM], v[KV_MAX_DIM];
};
/* -EINVAL with `why` (KV_ERROR_TEXT bytes): not a permutation, too many outliers. */
int kv_channels_check(const struct kv_space *s, const struct kv_channels *t, char *why);

/* ---- rows of one (sequence, layer) ------------------------------------------- */

/* Pages may be in parts, each with an equal number of KV heads but for one more or less. Within a
 * part, and in a page that is whole, the heads' blocks follow one another. */
#define KV_MAX_PARTS 64u
struct kv_parts {
	uint32_t n;
	ptrdiff_t shift[KV_MAX_PARTS]; /* from the page's pointer to each part, bytes */
};
static inline uint32_t kv_part_of(uint32_t kv_heads, uint32_t parts, uint32_t head)
{
	return (uint32_t)((uint64_t)head * parts / kv_heads);
}

struct kv_extent {
	void *base;         /* block of KV head 0 */
	uint32_t first_row; /* number of its first row */
	uint16_t tiles;     /* slots it has: decides its layout */
	uint16_t used;      /* sealed tiles that count, from slot 0 */
	uint32_t last_rows; /* rows that count of the last of them, 1..KV_TILE_ROWS */
	uint32_t parted;    /* 1: in the view's parts; 0: whole */
	/* [kv_heads][v_dim], all heads of the cache: what its tiles' sums of V lack since rows
	 * before them were overwritten. NULL: nothing. */
	const double *correction;
};

#define KV_PARTED_SINKS (1u << 31)
struct kv_view {
	uint32_t rows; /* all that is visible: n_sinks + sealed + tail_rows */
	uint32_t n_sinks, tail_first, tail_rows; /* tail_first: number of the tail's first row */
	uint32_t n_extents;
	const struct kv_extent *extent; /* by first_row */
	void *sinks;                    /* one chunk of KV_MAX_SINKS rows, NULL if none */
	void *chunk[KV_MAX_CHUNKS];     /* rows tail_first + 64 i ... */
	uint32_t parted;                /* bit i: chunk i is; KV_PARTED_SINKS */
	const struct kv_parts *parts;   /* NULL: every page is whole */
	/* Tables by KV head; NULL, or an entry that is: channels as they come. The same for every
	 * view of a layer. */
	const struct kv_channels *const *channels;
};

/* Copies n rows of all heads into sinks and tail from `row` = view->rows on; every chunk
 * needed must be in the view. `kv`: k[kv_heads][k_dim] then v[kv_heads][v_dim], `stride` bytes from
 * row to row. Does not change the view. */
void kv_write(const struct kv_space *s, const struct kv_view *view, uint32_t row, uint32_t n,
	      const void *kv, size_t stride);
/* Copies rows [first, first + n) of `from`, which must lie in its sinks and tail, to `to`. */
void kv_copy(const struct kv_space *s, const struct kv_view *from, const struct kv_view *to,
	     uint32_t first, uint32_t n);
/* Quantises the oldest KV_TILE_ROWS rows of the view's tail, KV head `head`, into slot `slot` of
 * `extent` (whose used counts the slots before it; it need not be in the view yet). */
void kv_flush(const struct kv_space *s, const struct kv_view *view, const struct kv_extent *extent,
	      unsigned slot, uint32_t head);
/* An address that it writes. */
const void *kv_flush_at(const struct kv_space *s, const struct kv_view *view,
			const struct kv_extent *extent, uint32_t head);

/* Other rows in the place of [row, row + n), which `view` has. */
struct kv_overwrite {
	const struct kv_view *view;
	/* [view->n_extents], each like the view's but for its base, which is that of a copy to be
	 * made, without a correction; NULL: none. All that hold such rows have one. */
	const struct kv_extent *to;
	const struct kv_view *recent; /* the view's sinks and tail as they will be */
	uint32_t row, n;
	const void *kv; /* as kv_write has them: row, row + 1 ... */
	size_t stride;
};
/* KV head `head` of those that lie in sealed tiles: copies of the extents, with the tiles that
 * change quantised again. `ret_delta`, [v_dim]: by how much the sum of V over all rows below the
 * tail is more than before. Sinks and tail are the caller's, who writes them before (kv_copy,
 * kv_write). */
void kv_overwrite(const struct kv_space *s, const struct kv_overwrite *w, uint32_t head,
		  double *ret_delta);

/* ---- rows as bytes -------------------------------------------------------------- */

/*
 * Sealed tiles and rows as sent, as one run of bytes that a file can hold: what counts and nothing
 * else, in an order that does not depend on how many slots an extent has. Of tiles: head by head,
 * plane by plane as the format says (sparq-formats(7)), then the sums of V and the outliers that
 * the head's table holds apart; the sums with the extent's correction, so one that has a correction
 * is only read. Of rows: head by head, all of K, then all of V.
 */
typedef void kv_visit_fn(void *arg, void *memory, size_t n);
size_t kv_image_tile_bytes(const struct kv_space *s, const struct kv_channels *const *channels);
size_t kv_image_row_bytes(const struct kv_space *s);
/* Which of the planes that the policy asks for (KV_NEED_*) are in tiles: formats that have them
 * anyway do without. */
uint32_t kv_image_needs(const struct kv_space *s);
/* Calls `visit` for where the bytes [at, at + n) of the extent's first x->used tiles, or of the
 * first `rows` of a chunk of `room` rows, lie in memory, in their order. `parts`: the
 * view's; for a chunk NULL if it is whole. */
void kv_image_tiles(const struct kv_space *s, const struct kv_channels *const *channels,
		    const struct kv_parts *parts, const struct kv_extent *x, size_t at, size_t n,
		    kv_visit_fn *visit, void *arg);
void kv_image_rows(const struct kv_space *s, const struct kv_parts *parts, void *chunk,
		   unsigned room, unsigned rows, size_t at, size_t n, kv_visit_fn *visit,
		   void *arg);

/* ---- one step ------------------------------------------------------------------ */

struct kv_query {
	const float *q;       /* f32 [n_q][heads][k_dim], packed, private to the daemon */
	uint32_t n_q;
	uint32_t first_limit; /* query i sees rows below first_limit + i, at most view->rows */
	bool full;            /* every query sees all of the view */
	unsigned level;       /* 0 exact; 1 upper planes only */
};

struct kv_result { /* of one KV head */
	float *y;   /* f32 [n_q][group][v_dim], in the scratch */
	float *lse; /* f32 [n_q][group], natural; -inf for nothing seen */
	uint32_t n_selected, n_scored;
	float alpha_min;
	double alpha_sum; /* over n_q * group */
	uint64_t bytes[KV_PLANES];
};

struct kv_exec {
	const struct kv_space *space;
	const struct kv_plan *plan;
	const struct kv_view *view;
	const struct kv_query *query;
	uint32_t head; /* KV head */
	uint32_t shares;
	void *scratch;
	struct kv_result result; /* after finish */
};

/* What kv_policy_plan is asked about; fills the plan. `dense` ignores the policy. */
int kv_plan_step(const struct kv_space *s, const struct kv_view *view, const struct kv_query *query,
		 uint32_t layer, uint32_t layers, bool dense, struct kv_plan *ret);

/* Bytes of scratch for one KV head, a multiple of 64; UINT64_MAX: too large to say. */
uint64_t kv_exec_scratch_bytes(const struct kv_space *s, const struct kv_plan *plan,
			       const struct kv_view *view, const struct kv_query *query);
/* All pointers are borrowed until the result was read. The number of shares depends on the
 * sizes only, never on who runs them; at least 1. */
void kv_exec_init(struct kv_exec *e, const struct kv_space *s, const struct kv_plan *plan,
		  const struct kv_view *view, const struct kv_query *query, uint32_t head,
		  void *scratch);
/* Runs one share; different shares may run at once, each once. */
void kv_exec_share(struct kv_exec *e, uint32_t share);
/* An address that the share reads, for who would run it where that lies; NULL: it reads no rows. */
const void *kv_exec_share_at(const struct kv_exec *e, uint32_t share);
/* After the last share, by one thread: selection, attention over it, correction, merge. */
void kv_exec_finish(struct kv_exec *e);
/* After it, while the scratch is there: the bytes of the result by the place of what was read,
 * which `place_of` says of its address: below n, and what is not there is in none. */
void kv_exec_bytes_at(const struct kv_exec *e,
		      uint32_t (*place_of)(const void *arg, const void *at), const void *arg,
		      uint32_t n, uint64_t (*ret)[KV_PLANES]);
/* Bytes that dense attention over f16 would have read, all KV heads. */
uint64_t kv_dense_bytes(const struct kv_space *s, uint64_t rows);

/* Widening and narrowing of client tensors; f16 and bf16 round to nearest even. */
void kv_to_f32(enum kv_dtype t, const void *from, float *to, size_t n);
void kv_from_f32(enum kv_dtype t, const float *from, void *to, size_t n);
/* Denormals are zero on the calling thread: once per worker. */
void kv_thread_init(void);
