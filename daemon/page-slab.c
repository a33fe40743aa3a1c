/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slabs of the pool: runs of free units made into places for pages, and back. page.c
 * has the story of their states.
 *
 * A striped slab is claimed arena by arena, in their order, and released the other way
 * round; who finds one of them taken gives back those before it and looks further on.
 * Its units in the arenas behind the first are MORE: nobody looks for a page there.
 */
#include "daemon/page-private.h"

uint32_t pool_owner_merge(uint32_t a, uint32_t b)
{
	if (a == b || b == OWNER_NONE)
		return a;
	return a == OWNER_NONE ? b : OWNER_MIXED;
}

/* ---- runs of one arena ------------------------------------------------------ */

static void units_release(struct pool *p, struct pool_node *n, uint32_t head, uint32_t units)
{
	uint32_t first = load_relaxed(&n->first_free), end = load_relaxed(&n->end_free);

	/* The head last: until then nobody begins a run here that ends in units still MORE. */
	for (uint32_t i = units; i-- > 0;)
		store_release(&n->state[head + i], state_pack((struct slab_state){ CLASS_FREE }));
	while (head < first && !compare_exchange(&n->first_free, &first, head))
		;
	while (head + units > end && !compare_exchange(&n->end_free, &end, head + units))
		;
	/* Who has looked in vain meanwhile looks again. */
	fetch_add(&p->released, 1);
}

static bool state_is_busy(uint64_t word)
{
	return state_unpack(word).class == CLASS_BUSY;
}

/* How many units of a run it is to the first that is not free, plus one; 0: all are. Without
 * looking, a run that does not fit would be taken in part and given back, over and over. */
static uint32_t units_look(const struct pool_node *n, uint32_t head, uint32_t units, bool *busy)
{
	for (uint32_t i = 0; i < units; i++) {
		uint64_t word = load_relaxed(&n->state[head + i]);

		if (!word)
			continue;
		*busy |= state_is_busy(word);
		return i + 1;
	}
	return 0;
}

/* All of them BUSY: what may be given back in a moment is not yet another's, and who meets it looks
 * again before he says that there is none. */
static uint32_t units_claim(struct pool *p, struct pool_node *n, uint32_t head, uint32_t units,
			    bool *busy)
{
	uint32_t taken = units_look(n, head, units, busy);

	for (uint32_t i = 0; i < units && !taken; i++) {
		uint64_t expected = state_pack((struct slab_state){ CLASS_FREE });

		if (compare_exchange(&n->state[head + i], &expected,
				     state_pack((struct slab_state){ CLASS_BUSY, units, 0 })))
			continue;
		*busy |= state_is_busy(expected);
		if (i > 0)
			units_release(p, n, head, i);
		taken = i + 1;
	}
	return taken;
}

/* ---- runs of one or all ------------------------------------------------------ */

/* Units of a run that is had for good are MORE, but for the head of the first arena. */
static void units_follow(struct pool_node *n, uint32_t head, uint32_t first, uint32_t units)
{
	for (uint32_t i = first; i < units; i++)
		store_release(&n->state[head + i],
			      state_pack((struct slab_state){ CLASS_MORE, 0, 0 }));
}

uint32_t pool_run_claim(struct pool *p, struct pool_node *n, uint32_t class, uint32_t head,
			uint32_t units, bool *busy)
{
	unsigned arenas = class_arenas(p, class), i;
	uint32_t skip = 0;

	for (i = 0; i < arenas && !skip; i++)
		skip = units_claim(p, &n[i], head, units, busy);
	if (!skip) {
		for (i = 0; i < arenas; i++) {
			units_follow(&n[i], head, i == 0, units);
			fetch_add(&n[i].taken, units);
		}
		return 0;
	}
	/* The last one has given back its own. */
	while (--i > 0)
		units_release(p, &n[i - 1], head, units);
	return skip;
}

void pool_run_release(struct pool *p, struct pool_node *n, uint32_t class, uint32_t head,
		      uint32_t units)
{
	/* The first arena last: who claims a run there finds the others free. */
	for (unsigned i = class_arenas(p, class); i-- > 0;) {
		fetch_sub(&n[i].taken, units);
		units_release(p, &n[i], head, units);
	}
}

/* What is looked for. */
struct wanted {
	struct pool *pool;
	struct pool_node *node;
	uint32_t class, units;
	uint32_t n_units; /* of the arena, that it may have */
	bool *busy;
};

/* 0: the run is ours; else as pool_run_claim. With one arena full a search for stripes comes by all
 * free units of the others: it looks before it claims, or it would be in the way of all who take
 * pages there. */
static uint32_t run_try(const struct wanted *w, uint32_t head)
{
	unsigned arenas = class_arenas(w->pool, w->class);
	uint64_t word = 0;

	for (unsigned i = 0; i < arenas && !word; i++)
		word = load_relaxed(&w->node[i].state[head]);
	*w->busy |= state_is_busy(word);
	return word ? 1 : pool_run_claim(w->pool, w->node, w->class, head, w->units, w->busy);
}

static bool run_find_up(const struct wanted *w, uint32_t from, uint32_t to, uint32_t *ret_head)
{
	for (uint32_t u = from; u < to && w->units <= w->n_units - u;) {
		uint32_t skip = run_try(w, u);

		if (!skip) {
			*ret_head = u;
			return true;
		}
		u += skip;
	}
	return false;
}

/* Runs that end at or below `to`, and above `from`. */
static bool run_find_down(const struct wanted *w, uint32_t from, uint32_t to, uint32_t *ret_head)
{
	for (uint32_t end = to; end > from && end >= w->units;) {
		uint32_t u = end - w->units, skip = run_try(w, u);

		if (!skip) {
			*ret_head = u;
			return true;
		}
		end = u + skip - 1;
	}
	return false;
}

/* Lowest first, which leaves the free units together for larger runs. */
static bool run_find_lowest(const struct wanted *w, uint32_t *ret_head)
{
	uint32_t first = MIN(load_relaxed(&w->node->first_free), w->n_units), hint = first;

	if (run_find_up(w, first, w->n_units, ret_head)) {
		if (w->units == 1)
			compare_exchange(&w->node->first_free, &hint, *ret_head + 1);
		return true;
	}
	return run_find_up(w, 0, first, ret_head);
}

static bool run_find_highest(const struct wanted *w, uint32_t *ret_head)
{
	uint32_t end = MIN(load_relaxed(&w->node->end_free), w->n_units), hint = end;

	if (run_find_down(w, 0, end, ret_head)) {
		if (w->units == 1)
			compare_exchange(&w->node->end_free, &hint, *ret_head);
		return true;
	}
	return run_find_down(w, end, w->n_units, ret_head);
}

static bool run_find(const struct wanted *w, uint32_t *ret_head)
{
	if (w->units > w->n_units)
		return false;
	/* With one arena there are no stripes to leave room for. */
	return class_is_striped(w->class) || w->pool->n_nodes == 1 ? run_find_lowest(w, ret_head)
								   : run_find_highest(w, ret_head);
}

/* ---- slabs ------------------------------------------------------------------- */

/* Units of a run that wastes at most an eighth. */
static uint32_t run_units(uint32_t class)
{
	uint32_t units = (uint32_t)DIV_UP(class_stride(class), UNIT_BYTES);

	while (slab_capacity(class, units) * class_stride(class) < units * UNIT_BYTES / 8 * 7)
		units++;
	return units;
}

/* The run says what it is, and its pages whose they were. */
static void slab_cut(struct pool *p, struct pool_node *n, uint32_t class, uint32_t head,
		     uint32_t units)
{
	uint32_t pages = slab_capacity(class, units), owner = OWNER_NONE;

	for (uint32_t i = 0; i < units; i++) {
		n->head[head + i] = head;
		for (unsigned a = 0; a < class_arenas(p, class); a++)
			owner = pool_owner_merge(owner, load_relaxed(&n[a].owner[head + i]));
		/* Before the catalogue names a page of it, by whoever stores that name. */
		if (n->note)
			n->note[head + i] = note_pack((struct unit_note){ class, units, i });
	}
	for (uint32_t i = 0; i < pages; i++)
		n->last[(size_t)head * SLAB_PAGES + i] = owner;
}

bool pool_slab_make(struct pool *p, struct pool_node *n, uint32_t class, bool *busy,
		    uint32_t *ret_head)
{
	uint32_t least = (uint32_t)DIV_UP(class_stride(class), UNIT_BYTES), head;
	struct wanted w = {
		.pool = p,
		.node = n,
		.class = class,
		.units = run_units(class),
		.n_units = class_is_striped(class) ? p->stripe_units : n->n_units,
		.busy = busy,
	};

	if (least > MAX_UNITS)
		return false;
	if (w.units > MAX_UNITS || !run_find(&w, &head)) {
		if (w.units == least)
			return false;
		w.units = least;
		if (!run_find(&w, &head))
			return false;
	}
	slab_cut(p, n, class, head, w.units);
	/* Whoever takes a page of it sees the above. */
	store_release(&n->state[head], state_pack((struct slab_state){ class, w.units, 1 }));
	*ret_head = head;
	return true;
}
