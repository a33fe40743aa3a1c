/* SPDX-License-Identifier: Apache-2.0 */
/* What the pool's files share: a node's tables, and the words in them (page.c has their story). */
#pragma once

#include "daemon/page.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define UNIT_BYTES POOL_UNIT_BYTES
#define GRAIN 64u         /* strides are odd multiples of it */
#define LEAST_BYTES 4096u /* keeps the bitmap of a slab at SLAB_WORDS */
#define SLAB_WORDS 8u
#define SLAB_PAGES (SLAB_WORDS * 64u)
#define MAX_UNITS 4095u /* of a run: 12 bits */
#define HINTS 1024u     /* a power of two */
#define RETRIES 64u /* of who met a state between states */

#define CLASS_FREE 0u
#define CLASS_BUSY UINT32_MAX
#define CLASS_MORE (UINT32_MAX - 1)
#define CLASS_STRIPED (1u << 31) /* of slabs in all arenas; the two above are none of those */

/* Owners: 0 nobody yet, uid + 1, or a mixture. */
#define OWNER_NONE 0u
#define OWNER_MIXED UINT32_MAX

#define REF_NODE_SHIFT 56
#define REF_OFFSET_MASK ((1ull << REF_NODE_SHIFT) - 1)

/* Where a class was last seen with room, how many free pages its slabs have, and that there were no
 * units for another one: which class that was, and one more than `released` was before that look.
 * They save a scan.
 *
 * A hint belongs to no class: classes share it that hash alike, so there is nothing to take, give
 * back or run out of, however many come and go. Where two do share one, `open` counts the free
 * pages of both, and a scan is made that need not have been; nothing is passed over. */
struct pool_hint {
	uint32_t unit;
	int64_t open;
	uint64_t missed;
};

struct pool_node {
	char *base;
	uint32_t n_units;
	uint32_t first_free; /* hint: units below are taken */
	uint32_t end_free;   /* hint: units from here on are taken */
	uint32_t taken;      /* atomic; units of slabs */
	uint64_t used_bytes; /* atomic; of pages and parts that are out */
	uint64_t strayed;    /* atomic; see pool_node_strayed */
	uint64_t *state;     /* [n_units] */
	uint32_t *head;      /* [n_units] of its slab; valid while a page in it is out */
	uint32_t *owner;     /* [n_units] OWNER_* or uid + 1 */
	uint64_t *bits;      /* [n_units][SLAB_WORDS] */
	uint32_t *last;      /* [n_units][SLAB_PAGES] owner of the page */
	uint32_t *refs;      /* [n_units][SLAB_PAGES] of the page, while it is out */
	uint64_t *note;      /* [n_units] struct unit_note; NULL: none are kept */
	struct pool_hint hint[HINTS];
	uint8_t near[POOL_MAX_NODES]; /* nodes, this one first, then by distance */
};

struct slab_state {
	uint32_t class, units, used;
};

static inline uint64_t state_pack(struct slab_state s)
{
	return (uint64_t)s.class << 32 | s.units << 20 | s.used;
}

static inline struct slab_state state_unpack(uint64_t word)
{
	return (struct slab_state){
		.class = (uint32_t)(word >> 32),
		.units = (uint32_t)word >> 20,
		.used = (uint32_t)word & 0xfffff,
	};
}

/* What outlives the daemon of a unit of a slab: the unit's place in its run. */
struct unit_note {
	uint32_t class, units, place;
};

static inline uint64_t note_pack(struct unit_note n)
{
	return (uint64_t)n.class << 32 | n.units << 16 | n.place;
}

static inline struct unit_note note_unpack(uint64_t word)
{
	return (struct unit_note){
		.class = (uint32_t)(word >> 32),
		.units = (uint32_t)word >> 16,
		.place = (uint32_t)word & 0xffff,
	};
}

static inline bool class_is_striped(uint32_t class)
{
	return class & CLASS_STRIPED && class < CLASS_MORE;
}

/* Of a striped one: of a part. */
static inline size_t class_stride(uint32_t class)
{
	return (size_t)(class & ~CLASS_STRIPED) * GRAIN;
}

static inline uint32_t slab_capacity(uint32_t class, uint32_t units)
{
	return (uint32_t)(units * UNIT_BYTES / class_stride(class));
}

/* Slabs of one page would all start at the same place of a cache; what a slab does not fill moves
 * its first page. */
static inline size_t slab_colour(uint32_t class, uint32_t units, uint32_t head)
{
	size_t slack = units * UNIT_BYTES - slab_capacity(class, units) * class_stride(class);

	return head * 5ull % (slack / GRAIN + 1) * GRAIN;
}

static inline uint32_t class_of(size_t bytes)
{
	size_t grains = DIV_UP(MAX(bytes, LEAST_BYTES), GRAIN) | 1;

	return grains < CLASS_STRIPED / 2 ? (uint32_t)grains : CLASS_MORE;
}

/* CLASS_MORE: it cannot be had striped. */
static inline uint32_t class_of_part(const struct pool *p, struct page_size size)
{
	uint32_t class = class_of(size.part);

	return size.part && p->n_nodes > 1 && class != CLASS_MORE ? class | CLASS_STRIPED
								  : CLASS_MORE;
}

/* Of how many arenas a slab takes its units, from its own node on. */
static inline unsigned class_arenas(const struct pool *p, uint32_t class)
{
	return class_is_striped(class) ? p->n_nodes : 1;
}

/* ---- page-slab.c ------------------------------------------------------------ */

/* `n` is the node of the slab; of a striped one the first. */

/* Makes a run of free units BUSY. 0, or how far from `head` on a unit was not free, plus one;
 * *busy if a state between states was met. */
uint32_t pool_run_claim(struct pool *p, struct pool_node *n, uint32_t class, uint32_t head,
			uint32_t units, bool *busy);
void pool_run_release(struct pool *p, struct pool_node *n, uint32_t class, uint32_t head,
		      uint32_t units);
/* A slab with one page counted, for the caller. */
bool pool_slab_make(struct pool *p, struct pool_node *n, uint32_t class, bool *busy,
		    uint32_t *ret_head);
uint32_t pool_owner_merge(uint32_t a, uint32_t b);

/* ---- page.c ---------------------------------------------------------------- */

void pool_count_bytes(struct pool *p, struct pool_node *n, uint32_t class, int pages);
/* A page of that class in a slab of that node (of a striped one the first). */
bool pool_node_take(struct pool *p, struct pool_node *n, uint32_t class, uint32_t uid, bool *busy,
		    size_t *ret_at);

static inline struct pool_hint *pool_hint_of(struct pool_node *n, uint32_t class)
{
	return &n->hint[(uint64_t) class * 2654435761u >> 16 & (HINTS - 1)];
}

static inline void hint_add(struct pool_hint *h, int64_t open)
{
	fetch_add(&h->open, open);
}

/* Both in one word, so that they are of the same look. That one would be taken for another after
 * 2^32 runs were given back between two takes of the class. */
static inline uint64_t hint_missed(uint32_t class, uint64_t released)
{
	return (uint64_t) class << 32 | (uint32_t)(released + 1);
}

/* Did a look find no page, and was nothing given back since? */
static inline bool hint_is_in_vain(const struct pool_hint *h, uint32_t class, uint64_t released)
{
	return load_relaxed(&h->open) <= 0 &&
	       load_relaxed(&h->missed) == hint_missed(class, released);
}
