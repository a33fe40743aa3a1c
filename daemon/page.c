/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool's allocator. A unit is 2 MiB; a slab is a run of units that serves pages of
 * one stride. The state of a slab is that of its head unit:
 *
 *   FREE --(claim)--> BUSY --(cut into pages)--> {class, units, used >= 1}
 *   {.., used} --(take)--> {.., used + 1}        while used < capacity
 *   {.., used} --(put)--> {.., used - 1}         and the last one: --> BUSY --> FREE
 *
 * Each arrow is one compare-and-exchange by whoever makes the step. The other units of
 * a run are MORE. `used` is a reservation: it is counted before a bit of the bitmap is set
 * and uncounted after it was cleared, so whoever counted finds a clear bit.
 *
 * A new arena is zero. From then on each page remembers the last uid that had it, and each
 * unit the uid of all it ever held; that is what a slab of another class inherits.
 */
#include "daemon/page.h"

#include <assert.h>
#include <numa.h>
#include <string.h>

#include "daemon/page-private.h"
#include "shm/atomic.h"
#include "shm/base.h"

/* ---- set-up ---------------------------------------------------------------- */

static void order_nodes(struct pool *p, const struct arena *arenas, unsigned self)
{
	uint8_t *near = p->node[self].near;
	int cost[POOL_MAX_NODES];

	for (unsigned i = 0; i < p->n_nodes; i++) {
		int told = 0;

		if (arenas[i].node >= 0 && arenas[self].node >= 0 && numa_available() >= 0)
			told = numa_distance(arenas[self].node, arenas[i].node);
		cost[i] = i == self ? 0 : told > 0 ? told : 20;
		near[i] = (uint8_t)i;
	}
	for (unsigned i = 1; i < p->n_nodes; i++)
		for (unsigned j = i; j > 0 && cost[near[j]] < cost[near[j - 1]]; j--) {
			uint8_t other = near[j];

			near[j] = near[j - 1];
			near[j - 1] = other;
		}
}

static int node_init(struct pool_node *n, const struct arena *a, uint64_t *note, bool adopted)
{
	size_t units = a->bytes / UNIT_BYTES;

	assert(a->bytes % UNIT_BYTES == 0 && units < UINT32_MAX);
	n->base = a->base;
	n->n_units = n->end_free = (uint32_t)units;
	/* calloc maps the large ones lazily: a slab of large pages touches little of its part. */
	n->state = calloc(units, sizeof(*n->state));
	n->head = calloc(units, sizeof(*n->head));
	n->owner = calloc(units, sizeof(*n->owner));
	n->bits = calloc(units, SLAB_WORDS * sizeof(*n->bits));
	n->last = calloc(units, SLAB_PAGES * sizeof(*n->last));
	n->refs = calloc(units, SLAB_PAGES * sizeof(*n->refs));
	n->note = note;
	if (!n->state || !n->head || !n->owner || !n->bits || !n->last || !n->refs)
		return -ENOMEM;
	for (size_t i = 0; adopted && i < units; i++)
		n->owner[i] = OWNER_MIXED;
	return 0;
}

int pool_init(struct pool *p, struct arena *arenas, unsigned n, uint64_t *notes, bool adopted)
{
	struct pool pool = POOL_NULL;
	int r = 0;

	assert(n > 0 && n <= POOL_MAX_NODES);
	pool.node = calloc(n, sizeof(*pool.node));
	if (!pool.node)
		return -ENOMEM;
	pool.n_nodes = n;
	pool.stripe_units = UINT32_MAX;
	for (unsigned i = 0; i < n && r == 0; i++) {
		r = node_init(&pool.node[i], &arenas[i], notes, adopted);
		if (notes)
			notes += arenas[i].bytes / UNIT_BYTES;
		order_nodes(&pool, arenas, i);
		pool.stripe_units = MIN(pool.stripe_units, pool.node[i].n_units);
		pool.bytes += arenas[i].bytes;
	}
	if (r < 0) {
		pool_deinit(&pool);
		return r;
	}
	*p = pool;
	return 0;
}

void pool_deinit(struct pool *p)
{
	for (unsigned i = 0; i < p->n_nodes; i++) {
		struct pool_node *n = &p->node[i];

		free(n->state);
		free(n->head);
		free(n->owner);
		free(n->bits);
		free(n->last);
		free(n->refs);
	}
	free(p->node);
	*p = POOL_NULL;
}

/* ---- slabs ----------------------------------------------------------------- */

static bool slab_count(struct pool_node *n, uint32_t head, uint32_t class, uint32_t *ret_units)
{
	uint64_t word = load_relaxed(&n->state[head]);
	struct slab_state s;

	do {
		s = state_unpack(word);
		if (s.class != class || s.used >= slab_capacity(class, s.units))
			return false;
		*ret_units = s.units;
		s.used++;
	} while (!compare_exchange(&n->state[head], &word, state_pack(s)));
	return true;
}

static uint32_t slab_pick(struct pool_node *n, uint32_t head, uint32_t pages)
{
	uint64_t *bits = &n->bits[(size_t)head * SLAB_WORDS];

	/* Ends: this caller is counted, and what is counted has a clear bit. */
	for (;;)
		for (uint32_t w = 0; w * 64 < pages; w++) {
			uint64_t clear = ~load_relaxed(&bits[w]);
			uint32_t i;

			if (pages - w * 64 < 64)
				clear &= (1ull << (pages - w * 64)) - 1;
			if (!clear)
				continue;
			i = (uint32_t)__builtin_ctzll(clear);
			if (!(fetch_or(&bits[w], 1ull << i) & 1ull << i))
				return w * 64 + i;
		}
}

/* ---- pages ----------------------------------------------------------------- */

static bool slab_find(struct pool_node *n, struct pool_hint *h, uint32_t class, uint32_t *ret_head,
		      uint32_t *ret_units)
{
	uint32_t from = load_relaxed(&h->unit);

	for (uint32_t i = 0; i < n->n_units; i++) {
		uint32_t u = from + i < n->n_units ? from + i : from + i - n->n_units;

		if (!slab_count(n, u, class, ret_units))
			continue;
		store_relaxed(&h->unit, u);
		hint_add(h, -1);
		*ret_head = u;
		return true;
	}
	return false;
}

/* A counted page of some slab. */
static bool node_count(struct pool *p, struct pool_node *n, uint32_t class, bool *busy,
		       uint32_t *ret_head, uint32_t *ret_units)
{
	struct pool_hint *h = pool_hint_of(n, class);
	/* Acquires the units of whoever counted: a look that begins here sees them free. */
	uint64_t released = load_acquire(&p->released);

	if (hint_is_in_vain(h, class, released))
		return false;
	if (load_relaxed(&h->open) > 0 && slab_find(n, h, class, ret_head, ret_units))
		return true;
	if (pool_slab_make(p, n, class, busy, ret_head)) {
		*ret_units = state_unpack(load_relaxed(&n->state[*ret_head])).units;
		store_relaxed(&h->unit, *ret_head);
		hint_add(h, (int64_t)slab_capacity(class, *ret_units) - 1);
		return true;
	}
	if (slab_find(n, h, class, ret_head, ret_units))
		return true;
	if (!*busy)
		store_relaxed(&h->missed, hint_missed(class, released));
	return false;
}

static void units_own(struct pool_node *n, size_t at, size_t bytes, uint32_t owner)
{
	for (size_t u = at / UNIT_BYTES; u <= (at + bytes - 1) / UNIT_BYTES; u++) {
		uint32_t was = load_relaxed(&n->owner[u]);

		while (pool_owner_merge(was, owner) != was &&
		       !compare_exchange(&n->owner[u], &was, pool_owner_merge(was, owner)))
			;
	}
}

/* Another uid's bytes, or nobody knows whose, go from all parts. */
static void page_own(struct pool *p, struct pool_node *n, uint32_t class, size_t at, uint32_t *last,
		     uint32_t uid)
{
	uint32_t owner = uid + 1;
	bool zero = *last != OWNER_NONE && (*last != owner || owner == OWNER_MIXED);

	*last = owner;
	for (unsigned i = 0; i < class_arenas(p, class); i++) {
		if (zero)
			memset(n[i].base + at, 0, class_stride(class));
		units_own(&n[i], at, class_stride(class), owner);
	}
}

void pool_count_bytes(struct pool *p, struct pool_node *n, uint32_t class, int pages)
{
	/* Modulo 2^64, as the counters are: fewer is a number too. */
	uint64_t bytes = class_stride(class) * (uint64_t)(int64_t)pages;
	unsigned arenas = class_arenas(p, class);

	for (unsigned i = 0; i < arenas; i++)
		fetch_add(&n[i].used_bytes, bytes);
	fetch_add(&p->used_bytes, bytes * arenas);
}

bool pool_node_take(struct pool *p, struct pool_node *n, uint32_t class, uint32_t uid, bool *busy,
		    size_t *ret_at)
{
	uint32_t head, units, page;
	size_t at;

	if (!node_count(p, n, class, busy, &head, &units))
		return false;
	page = slab_pick(n, head, slab_capacity(class, units));
	at = head * UNIT_BYTES + slab_colour(class, units, head) + page * class_stride(class);
	page_own(p, n, class, at, &n->last[(size_t)head * SLAB_PAGES + page], uid);
	store_relaxed(&n->refs[(size_t)head * SLAB_PAGES + page], 1u);
	pool_count_bytes(p, n, class, 1);
	*ret_at = at;
	return true;
}

uint64_t pool_charge(const struct pool *p, struct page_size size)
{
	uint32_t whole = class_of(size.whole), part = class_of_part(p, size);
	uint64_t parts = part == CLASS_MORE ? 0 : p->n_nodes * (uint64_t)class_stride(part);

	/* There is no such page: no pool has room for it either. */
	if (whole == CLASS_MORE)
		return size.whole;
	return MAX(class_stride(whole), parts);
}

/* On the nearest node that has room, this one first. */
static bool take_whole(struct pool *p, unsigned node, struct page_size size, uint32_t uid,
		       bool *busy, page_ref *ret)
{
	uint32_t class = class_of(size.whole);
	size_t at;

	for (unsigned i = 0; class != CLASS_MORE && i < p->n_nodes; i++) {
		unsigned from = p->node[node].near[i];

		if (!pool_node_take(p, &p->node[from], class, uid, busy, &at))
			continue;
		if (i > 0)
			fetch_add(&p->node[node].strayed, 1);
		*ret = (page_ref)from << REF_NODE_SHIFT | (at + 1);
		return true;
	}
	return false;
}

static bool take_striped(struct pool *p, struct page_size size, uint32_t uid, bool *busy,
			 page_ref *ret)
{
	uint32_t class = class_of_part(p, size);
	size_t at;

	if (class == CLASS_MORE || !pool_node_take(p, &p->node[0], class, uid, busy, &at))
		return false;
	*ret = (page_ref)POOL_STRIPED << REF_NODE_SHIFT | (at + 1);
	return true;
}

int pool_take(struct pool *p, unsigned node, struct page_size size, uint32_t uid, page_ref *ret)
{
	bool stripes = class_of_part(p, size) != CLASS_MORE, busy = stripes;

	assert(node < p->n_nodes);
	/* Two that claim runs at once can be in each other's way, and a slab is between states
	 * for an instant: neither is a full pool, so look again, but not for ever. */
	for (unsigned try = 0; busy && try < RETRIES; try++) {
		busy = false;
		if (take_striped(p, size, uid, &busy, ret))
			return 0;
		cpu_pause();
	}
	busy = true;
	for (unsigned try = 0; busy && try < RETRIES; try++) {
		busy = false;
		if (take_whole(p, node, size, uid, &busy, ret)) {
			fetch_add(&p->unstriped, (uint64_t)stripes);
			return 0;
		}
		cpu_pause();
	}
	return -ENOSPC;
}

bool pool_could_take(const struct pool *p, struct page_size size)
{
	uint32_t part = class_of_part(p, size), whole = class_of(size.whole);
	uint64_t stripe = p->stripe_units * (uint64_t)UNIT_BYTES, node = 0;

	for (unsigned i = 0; i < p->n_nodes; i++)
		node = MAX(node, pool_node_bytes(p, i));
	return (part != CLASS_MORE && class_stride(part) <= stripe) ||
	       (whole != CLASS_MORE && class_stride(whole) <= node);
}

static void slab_uncount(struct pool *p, struct pool_node *n, uint32_t head)
{
	uint64_t word = load_relaxed(&n->state[head]);
	struct pool_hint *h = pool_hint_of(n, state_unpack(word).class);
	struct slab_state s, to;

	do {
		s = state_unpack(word);
		assert(s.used > 0 && s.used <= slab_capacity(s.class, s.units));
		to = s;
		to.used--;
		if (!to.used)
			to.class = CLASS_BUSY;
	} while (!compare_exchange(&n->state[head], &word, state_pack(to)));
	if (to.used) {
		hint_add(h, 1);
		store_relaxed(&h->unit, head);
		return;
	}
	hint_add(h, 1 - (int64_t)slab_capacity(s.class, s.units));
	pool_run_release(p, n, s.class, head, s.units);
}

/* Where a page that is out is counted. */
struct page_place {
	struct pool_node *node;
	uint32_t class, head, index; /* its slab, its number in it */
};

static struct pool_node *node_of(const struct pool *p, page_ref page)
{
	return &p->node[pool_is_striped(page) ? 0 : pool_node_of(page)];
}

static struct page_place page_find(const struct pool *p, page_ref page)
{
	struct page_place f = { .node = node_of(p, page) };
	size_t at = (page & REF_OFFSET_MASK) - 1;
	struct slab_state s;

	f.head = f.node->head[at / UNIT_BYTES];
	s = state_unpack(load_relaxed(&f.node->state[f.head]));
	f.class = s.class;
	at -= f.head * UNIT_BYTES + slab_colour(s.class, s.units, f.head);
	assert(at % class_stride(s.class) == 0);
	f.index = (uint32_t)(at / class_stride(s.class));
	return f;
}

static uint32_t *page_refs(const struct page_place *f)
{
	return &f->node->refs[(size_t)f->head * SLAB_PAGES + f->index];
}

void pool_ref(struct pool *p, page_ref page)
{
	struct page_place f = page_find(p, page);
	uint32_t before = fetch_add(page_refs(&f), 1u);

	assert(before > 0);
	(void)before;
}

bool pool_is_shared(const struct pool *p, page_ref page)
{
	struct page_place f = page_find(p, page);

	/* Acquires what those who put it have read: who is alone may write. */
	return load_acquire(page_refs(&f)) > 1;
}

bool pool_put(struct pool *p, page_ref page)
{
	struct page_place f = page_find(p, page);
	uint64_t bit = 1ull << f.index % 64, before;

	/* Releases this holder's reads of it to who is left. */
	if (fetch_sub(page_refs(&f), 1u) > 1)
		return false;
	pool_count_bytes(p, f.node, f.class, -1);
	before = fetch_and(&f.node->bits[(size_t)f.head * SLAB_WORDS + f.index / 64], ~bit);
	assert(before & bit);
	(void)before;
	slab_uncount(p, f.node, f.head);
	return true;
}

/* ---- asking ---------------------------------------------------------------- */

void *pool_data(const struct pool *p, page_ref page)
{
	assert(page && (pool_is_striped(page) || pool_node_of(page) < p->n_nodes));
	return node_of(p, page)->base + ((page & REF_OFFSET_MASK) - 1);
}

unsigned pool_node_of(page_ref page)
{
	return (unsigned)(page >> REF_NODE_SHIFT);
}

uint64_t pool_free_bytes(const struct pool *p)
{
	uint64_t used = load_relaxed(&p->used_bytes);

	return used < p->bytes ? p->bytes - used : 0;
}

bool pool_is_striped(page_ref page)
{
	return pool_node_of(page) == POOL_STRIPED;
}

ptrdiff_t pool_shift(const struct pool *p, unsigned node)
{
	return (ptrdiff_t)((uintptr_t)p->node[node].base - (uintptr_t)p->node[0].base);
}

uint64_t pool_node_bytes(const struct pool *p, unsigned node)
{
	return p->node[node].n_units * (uint64_t)UNIT_BYTES;
}

uint64_t pool_node_used_bytes(const struct pool *p, unsigned node)
{
	return load_relaxed(&p->node[node].used_bytes);
}

uint64_t pool_node_strayed(const struct pool *p, unsigned node)
{
	return load_relaxed(&p->node[node].strayed);
}

static uint64_t node_free(const struct pool *p, unsigned node)
{
	uint64_t used = pool_node_used_bytes(p, node), bytes = pool_node_bytes(p, node);

	return used < bytes ? bytes - used : 0;
}

unsigned pool_node_choose(const struct pool *p, unsigned turn)
{
	uint64_t most = 0;

	for (unsigned i = 0; i < p->n_nodes; i++)
		most = MAX(most, node_free(p, i));
	/* What was chosen of late has no rows yet: the emptiest alone would get them all. */
	for (unsigned i = 0; i < p->n_nodes; i++) {
		unsigned node = (turn + i) % p->n_nodes;

		if (node_free(p, node) >= most - most / 8)
			return node;
	}
	return turn % p->n_nodes;
}
