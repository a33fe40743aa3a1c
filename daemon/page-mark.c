/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that a daemon before this one handed out, found again by their names and the notes
 * of their slabs. Nothing of either is believed: a page is only marked where a slab of its
 * size has a place for it, and a slab only where all its notes agree and its units are free.
 */
#include "daemon/page-private.h"

/* The slab that a kept unit belongs to, if the notes of all its units agree. */
static bool slab_noted(const struct pool_node *n, uint32_t unit, struct unit_note *ret,
		       uint32_t *ret_head)
{
	struct unit_note note = note_unpack(n->note[unit]);
	uint32_t head = unit - note.place;

	if (!note.class || note.units > MAX_UNITS || note.place >= note.units ||
	    note.place > unit || note.units > n->n_units - head)
		return false;
	for (uint32_t i = 0; i < note.units; i++)
		if (n->note[head + i] != note_pack((struct unit_note){ note.class, note.units, i }))
			return false;
	*ret = note;
	*ret_head = head;
	return true;
}

/* In all arenas that it takes them from: those of a note are in its own. */
static bool has_units(const struct pool *p, const struct pool_node *n, uint32_t head,
		      struct unit_note note)
{
	uint32_t n_units = class_is_striped(note.class) ? p->stripe_units : n->n_units;

	return head < n_units && note.units <= n_units - head;
}

/* A slab of which no page is out yet; false if its units are another's. */
static bool slab_restore(struct pool *p, struct pool_node *n, uint32_t head, struct unit_note note)
{
	uint32_t pages = slab_capacity(note.class, note.units);
	struct pool_hint *h = pool_hint_of(n, note.class);
	bool busy = false;

	if (pages == 0 || pages > SLAB_PAGES || !has_units(p, n, head, note) ||
	    pool_run_claim(p, n, note.class, head, note.units, &busy) != 0)
		return false;
	for (uint32_t i = 0; i < note.units; i++)
		n->head[head + i] = head;
	for (uint32_t i = 0; i < pages; i++)
		n->last[(size_t)head * SLAB_PAGES + i] = OWNER_MIXED;
	n->state[head] = state_pack((struct slab_state){ note.class, note.units, 0 });
	hint_add(h, (int64_t)pages);
	return true;
}

/* Its number in the slab, if a page can begin there. */
static bool page_in_slab(size_t at, struct unit_note note, uint32_t head, uint32_t *ret)
{
	size_t first = head * UNIT_BYTES + slab_colour(note.class, note.units, head);
	size_t stride = class_stride(note.class);

	if (at < first || (at - first) % stride ||
	    (at - first) / stride >= slab_capacity(note.class, note.units))
		return false;
	*ret = (uint32_t)((at - first) / stride);
	return true;
}

static int node_mark(struct pool *p, struct pool_node *n, size_t at, uint32_t class, uint32_t uid)
{
	struct slab_state s;
	struct unit_note note;
	uint32_t head, page;
	uint64_t *bits, bit;

	if (at / UNIT_BYTES >= n->n_units || !n->note ||
	    !slab_noted(n, (uint32_t)(at / UNIT_BYTES), &note, &head) || note.class != class ||
	    !page_in_slab(at, note, head, &page))
		return -EUCLEAN;
	if (n->state[head] == 0 && !slab_restore(p, n, head, note))
		return -EUCLEAN;
	s = state_unpack(n->state[head]);
	if (s.class != class || s.units != note.units)
		return -EUCLEAN;
	bits = &n->bits[(size_t)head * SLAB_WORDS + page / 64];
	bit = 1ull << page % 64;
	if (*bits & bit)
		return n->last[(size_t)head * SLAB_PAGES + page] == uid + 1 ? -EEXIST : -EUCLEAN;
	*bits |= bit;
	s.used++;
	n->state[head] = state_pack(s);
	n->last[(size_t)head * SLAB_PAGES + page] = uid + 1;
	n->refs[(size_t)head * SLAB_PAGES + page] = 1;
	hint_add(pool_hint_of(n, class), -1);
	pool_count_bytes(p, n, class, 1);
	return 0;
}

int pool_mark(struct pool *p, page_ref page, struct page_size size, uint32_t uid)
{
	bool striped = pool_is_striped(page);
	uint32_t class = striped ? class_of_part(p, size) : class_of(size.whole);
	unsigned node = striped ? 0 : pool_node_of(page);

	if (!(page & REF_OFFSET_MASK) || node >= p->n_nodes || class == CLASS_MORE)
		return -EUCLEAN;
	return node_mark(p, &p->node[node], (page & REF_OFFSET_MASK) - 1, class, uid);
}
