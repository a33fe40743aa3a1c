/* SPDX-License-Identifier: Apache-2.0 */
/* One page after the other: see move.h. */
#include "daemon/move.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "daemon/audit.h"
#include "daemon/layer.h"
#include "daemon/point.h"
#include "daemon/seq-make.h"
#include "daemon/spill.h"
#include "daemon/table-private.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

/* A chain of forks may be as long as its owner likes; those further down stay where they are. */
#define MOST_DEPTH 64u
/* How long the store of a name waits for a step to end; the copy is thrown away then. */
#define RENAME_NS 200000

/* A page that is to go, as it was found under the hold of its sequence. */
struct moving {
	struct seq *seq;
	uint32_t layer;
	page_ref *at; /* where its name is: in a record, or in an entry */
	page_ref old, new;
	struct page_size size;
	unsigned goal;
	uint32_t table, entry; /* BLOCK_NONE: it is of the record */
	bool owned, open;      /* by this sequence; it is still written to */
};

static uint64_t charge_of(const struct mover *m, const struct moving *v)
{
	return pool_charge(m->store->pool, v->size);
}

/* ---- finding ----------------------------------------------------------------------- */

static bool wants(struct mover *m, struct moving *v, unsigned home)
{
	v->old = *v->at;
	v->goal = m->goal(m->arg, v->seq, home, v->old, charge_of(m, v));
	return v->goal != MOVE_STAY;
}

/* Page i of sinks and tail; NULL: there is none. */
static page_ref *recent_page(struct seq_layer *l, uint32_t i)
{
	if (i == 0)
		return l->record->sinks ? &l->record->sinks : NULL;
	return i <= l->n_chunks ? layer_chunk(l, i - 1) : NULL;
}

static bool find_recent(struct mover *m, struct moving *v, struct move_at *at, uint32_t *looks)
{
	struct seq *s = v->seq;
	struct seq_layer *l = &s->layer[v->layer];
	unsigned home = s->cache->parts ? POOL_STRIPED : s->node;

	for (; at->page <= KV_MAX_CHUNKS && *looks; at->page++) {
		v->at = recent_page(l, at->page);
		if (!v->at)
			continue;
		--*looks;
		v->size = at->page ? layer_chunk_size(s) : layer_sinks_size(s);
		v->table = BLOCK_NONE;
		v->owned = v->open = true;
		if (!wants(m, v, home))
			continue;
		at->page++;
		return true;
	}
	return false;
}

/* The entries of one table from at->entry on. */
static bool find_in_table(struct mover *m, struct moving *v, struct move_at *at, uint32_t *looks)
{
	const struct table *t = &m->store->tables[v->table];
	const struct cache *c = v->seq->cache;
	struct walk w;

	if (at->entry >= t->n_entries)
		return false;
	w = walk_from(m->store, v->table, at->entry);
	for (; at->entry < t->n_entries && *looks; at->entry++) {
		struct table_entry *e = walk_next(&w);
		unsigned home = c->parts ? POOL_STRIPED : spread_row_node(v->seq, e->first_row);

		--*looks;
		v->at = &e->page;
		v->size = table_page_size(t, e->tiles);
		v->entry = at->entry;
		v->open = v->owned && at->entry + 1 == t->n_entries && t->last_used < e->tiles;
		if (!wants(m, v, home))
			continue;
		at->entry++;
		return true;
	}
	return false;
}

/* May it be gone through for this sequence? Of those that are others' own nothing is known here. */
static bool enter(struct mover *m, const struct moving *v, const struct move_at *at)
{
	struct table *t = &m->store->tables[v->table];

	if (v->owned)
		return true;
	/* What its owner did before he left it is seen. */
	if (load_acquire(&t->owned) || (t->round == m->round && !at->entry))
		return false;
	t->round = m->round;
	return true;
}

static bool find_sealed(struct mover *m, struct moving *v, struct move_at *at, uint32_t *looks)
{
	struct reach reach = layer_reach(&v->seq->layer[v->layer]);
	uint32_t depth = 0;

	for (v->table = reach.table; v->table != BLOCK_NONE && depth < MOST_DEPTH; depth++) {
		v->owned = depth == 0 && !reach.limit;
		if (depth == at->depth) {
			if (enter(m, v, at) && find_in_table(m, v, at, looks))
				return true;
			if (!*looks)
				return false;
			at->depth++;
			at->entry = 0;
		}
		v->table = table_base(m->store, v->table);
	}
	return false;
}

/* The next one that is to go; false: none, or no look is left. */
static bool find(struct mover *m, struct moving *v, struct move_at *at, uint32_t *looks)
{
	while (at->layer < v->seq->cache->record->layers) {
		v->layer = at->layer;
		if (find_recent(m, v, at, looks))
			return true;
		if (at->page > KV_MAX_CHUNKS && *looks && find_sealed(m, v, at, looks))
			return true;
		if (!*looks)
			return false;
		*at = (struct move_at){ .layer = at->layer + 1 };
	}
	return false;
}

/* ---- pages that lost their names ----------------------------------------------------- */

/* The name that it had is the new page's, and the charge with it. If another table has it too, it
 * is charged for by itself from here on, whatever the limits say. */
static void put_old(struct mover *m, const struct move_left *l)
{
	struct cache *c = m->store->caches;

	if (pool_put(m->store->pool, l->page))
		return;
	while (c && c->id != l->cache)
		c = c->next;
	if (c)
		cache_restore(c, l->bytes);
}

static struct move_left left_of(const struct mover *m, const struct moving *v)
{
	return (struct move_left){ v->old, v->seq->cache->id, charge_of(m, v) };
}

/* Nobody is in the sequence, and whoever is from here on sees what was stored before: the exchange
 * is ordered with those of its holders. */
static bool has_passed(struct seq *s)
{
	uint64_t idle = 0;

	if (compare_exchange(&s->owner, &idle, 0))
		return true;
	/* One that is always at work lets go of it when it is asked. */
	if (!seq_try_borrow(s, clock_now_ns() + RENAME_NS / 10))
		return false;
	seq_end_borrow(s);
	return true;
}

uint32_t move_put_left(struct mover *m, uint32_t slots)
{
	struct store *st = m->store;

	if (!m->n_passing) {
		m->n_passing = m->n_left;
		m->slot = 0;
	}
	for (; m->n_passing && m->slot < st->max_sequences && slots; m->slot++, slots--) {
		struct seq *s = load_acquire(&st->seq_by_slot[m->slot]);

		if (s && !has_passed(s))
			return m->n_left;
	}
	/* What a step has handed to an audit was handed over before its sequence was seen idle. */
	if (m->slot < st->max_sequences || !audit_is_idle(st->auditor))
		return m->n_left;
	for (uint32_t i = 0; i < m->n_passing; i++)
		put_old(m, &m->left[i]);
	m->n_left -= m->n_passing;
	memmove(m->left, m->left + m->n_passing, m->n_left * sizeof(m->left[0]));
	m->n_passing = 0;
	return m->n_left;
}

void move_end(struct mover *m)
{
	for (uint32_t i = 0; i < m->n_left; i++)
		put_old(m, &m->left[i]);
	m->n_left = m->n_passing = 0;
}

/* ---- moving ------------------------------------------------------------------------ */

/* Under the hold. One that others reach too needs a place to wait in afterwards. */
static bool may_go(const struct mover *m, const struct moving *v)
{
	if (pool_is_shared(m->store->pool, v->old))
		return false;
	if (v->open && v->size.whole > MOVE_HELD_BYTES && load_relaxed(&v->seq->session))
		return false;
	return !v->table || m->n_left < MOVE_WAITING;
}

/* It was copied; `held` by the caller, or by nobody who could change it. */
static void rename_page(struct mover *m, const struct moving *v)
{
	struct table *t = &m->store->tables[v->table];
	/* The owner's reference and ours: only who has its sequence could read it. */
	bool alone = v->owned && (!v->table || load_acquire(&t->refs) == 2);
	struct move_left l = left_of(m, v);

	POINT(move_copied);
	/* Either page says the same; a crash leaves one of them. */
	store_release(v->at, v->new);
	POINT(move_renamed);
	if (alone)
		put_old(m, &l);
	else
		m->left[m->n_left++] = l;
	m->moved_pages++;
	m->moved_bytes += l.bytes;
}

static void copy_page(const struct moving *v)
{
	spread_copy(v->seq->cache, v->size, v->old, v->new);
}

static int64_t move_held(struct mover *m, struct moving *v)
{
	if (v->table)
		table_ref(m->store, v->table);
	copy_page(v);
	rename_page(m, v);
	if (v->table)
		table_unref(m->store, v->table);
	seq_end_borrow(v->seq);
	return (int64_t)charge_of(m, v);
}

/* Is it where it was? Our own hold of the page keeps it from being another's by the same name. */
static bool is_there(const struct mover *m, struct moving *v)
{
	struct reach reach = layer_reach(&v->seq->layer[v->layer]);
	struct walk w;

	if (!v->owned)
		return true;
	if (reach.table != v->table || reach.limit ||
	    v->entry >= m->store->tables[v->table].n_entries)
		return false;
	w = walk_from(m->store, v->table, v->entry);
	v->at = &walk_next(&w)->page;
	return *v->at == v->old;
}

/* Under the hold, if the table has an owner. */
static bool try_rename(struct mover *m, struct moving *v)
{
	if (!is_there(m, v))
		return false;
	pool_put(m->store->pool, v->old); /* ours; the table has its own */
	rename_page(m, v);
	return true;
}

/* What was copied in vain. The old page's table may have let it go meanwhile. */
static void undo(struct mover *m, const struct moving *v)
{
	pool_put(m->store->pool, v->new);
	if (pool_put(m->store->pool, v->old))
		cache_refund(v->seq->cache, charge_of(m, v));
	m->refused++;
}

/* The hold was for the looking; nobody waits while it is copied. */
static int64_t move_sealed(struct mover *m, struct moving *v)
{
	bool held, done;

	pool_ref(m->store->pool, v->old);
	table_ref(m->store, v->table);
	seq_end_borrow(v->seq);
	copy_page(v);
	held = v->owned && seq_try_borrow(v->seq, clock_now_ns() + RENAME_NS);
	done = (held || !v->owned) && try_rename(m, v);
	if (held)
		seq_end_borrow(v->seq);
	if (!done)
		undo(m, v);
	table_unref(m->store, v->table);
	POINT(move_end);
	return done ? (int64_t)charge_of(m, v) : -EAGAIN;
}

/* Held by us; not any more then. */
static int64_t move_one(struct mover *m, struct moving *v)
{
	uint32_t uid = v->seq->cache->user->uid;

	if (!may_go(m, v) || pool_take_there(m->store->pool, v->goal, v->size, uid, &v->new) < 0) {
		m->refused++;
		seq_end_borrow(v->seq);
		return -EAGAIN;
	}
	if (v->seq->cache->device)
		device_wrote_page(v->seq->cache->device, v->new, v->size);
	POINT(move_taken);
	return v->open ? move_held(m, v) : move_sealed(m, v);
}

int64_t move_next(struct mover *m, struct seq *s, struct move_at *at, uint32_t *looks)
{
	struct moving v = { .seq = s };

	if (!seq_try_borrow(s, 0))
		return -EBUSY;
	if (!seq_is_here(s)) {
		seq_end_borrow(s);
		return 0;
	}
	if (find(m, &v, at, looks))
		return move_one(m, &v);
	seq_end_borrow(s);
	return at->layer < s->cache->record->layers ? -EAGAIN : 0;
}
