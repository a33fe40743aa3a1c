/* SPDX-License-Identifier: Apache-2.0 */
/* Which sequence has the longest beginning of a list of token ids: see prefix.h. */
#include "daemon/prefix.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "daemon/census.h"
#include "daemon/evict.h"
#include "daemon/name.h"
#include "daemon/point.h"
#include "daemon/seq-make.h"
#include "daemon/spill.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define LEAST_BUCKETS 1024u
#define MOST_BUCKETS (1u << 22)
#define BUCKETS_PER_BLOCK 16u /* few blocks of a catalogue are hashes */
#define OWNERS_TRIED 4u       /* of one lookup, when they are busy */
#define HOLD_NS 2000000       /* as long as it may keep the control thread */

int prefixes_init(struct prefixes *p, uint32_t n_blocks)
{
	uint64_t wanted = MIN((uint64_t)n_blocks * BUCKETS_PER_BLOCK, MOST_BUCKETS), n;

	for (n = LEAST_BUCKETS; n < wanted; n *= 2)
		;
	*p = (struct prefixes){ .mask = (uint32_t)n - 1 };
	/* Mapped as it is used. */
	p->bucket = calloc(n, sizeof(struct token_link *));
	return p->bucket ? 0 : -ENOMEM;
}

void prefixes_deinit(struct prefixes *p)
{
	free(p->bucket);
	*p = (struct prefixes){ .bucket = NULL };
}

static struct prefixes *index_of(const struct seq *s)
{
	return &s->cache->store->prefixes;
}

/* ---- the index ----------------------------------------------------------------------- */

/* The part that has the link of hash i of its chain, and which of its links that is. */
static struct token_part **part_at(struct seq *s, uint32_t i, uint32_t *ret_link)
{
	struct token_part **at = &s->tokens.part;
	uint32_t room = HASHES_FIRST;

	for (; *at && i >= room; at = &(*at)->next) {
		i -= room;
		room = HASHES_NEXT;
	}
	*ret_link = i;
	return at;
}

static struct seq *seq_of(struct token_link *l)
{
	uint32_t i = l->number;

	if (i >= HASHES_FIRST)
		i = (i - HASHES_FIRST) % HASHES_NEXT;
	return container_of(l - i, struct token_part, link[0])->seq;
}

static struct token_link **bucket_of(struct prefixes *p, const struct token_hash *h)
{
	return &p->bucket[h->low & p->mask];
}

static void link_in(struct prefixes *p, struct token_link *l, const struct token_hash *h)
{
	struct token_link **at = bucket_of(p, h);

	l->next = *at;
	l->at = at;
	if (*at)
		(*at)->at = &l->next;
	*at = l;
}

static void link_out(struct token_link *l)
{
	*l->at = l->next;
	if (l->next)
		l->next->at = l->at;
	l->at = NULL;
}

static void list_out(struct seq *s, unsigned list)
{
	struct seq *next = s->tokens.in[list].next, **at = s->tokens.in[list].at;

	if (!at)
		return;
	*at = next;
	if (next)
		next->tokens.in[list].at = at;
	s->tokens.in[list].at = NULL;
}

static void list_in(struct seq *s, unsigned list)
{
	struct seq **first = &index_of(s)->first[list];

	if (s->tokens.in[list].at)
		return;
	s->tokens.in[list].next = *first;
	s->tokens.in[list].at = first;
	if (*first)
		(*first)->tokens.in[list].at = &s->tokens.in[list].next;
	*first = s;
}

void prefix_note(struct seq *s)
{
	list_in(s, TOKENS_NEW);
}

void prefix_forget(struct seq *s, uint32_t from)
{
	while (s->tokens.linked > from) {
		uint32_t i;
		struct token_part *part = *part_at(s, --s->tokens.linked, &i);

		link_out(&part->link[i]);
	}
}

void prefix_free(struct seq *s)
{
	for (unsigned i = 0; i < TOKENS_LISTS; i++)
		list_out(s, i);
	prefix_forget(s, 0);
	while (s->tokens.part) {
		struct token_part *part = s->tokens.part;

		s->tokens.part = part->next;
		free(part);
	}
}

/* Links what is new of a sequence; without memory it is not found, until the next lookup. */
static void index_seq(struct seq *s)
{
	uint32_t end = tokens_hashes(s->cache, tokens_rows(s));

	for (uint32_t n = s->tokens.linked; n < end; n++) {
		uint32_t i;
		struct token_part **part = part_at(s, n, &i);

		if (!*part) {
			*part = calloc(1, sizeof(**part));
			if (!*part)
				return;
			(*part)->seq = s;
		}
		(*part)->link[i].number = n;
		link_in(index_of(s), &(*part)->link[i], tokens_hash(s, n));
		s->tokens.linked = n + 1;
	}
	list_out(s, TOKENS_NEW);
}

static void index_new(struct prefixes *p)
{
	struct seq *next;

	for (struct seq *s = p->first[TOKENS_NEW]; s; s = next) {
		next = s->tokens.in[TOKENS_NEW].next;
		index_seq(s);
	}
}

/* ---- looking up ------------------------------------------------------------------------ */

struct lookup {
	struct cache *cache;
	const struct token_hash *hash;
	uint32_t n_hashes;
	const struct seq *leave[OWNERS_TRIED]; /* out */
	uint32_t n_leave;
};

/* Has it these rows, in all layers, where they can be shared? */
static bool offers(const struct lookup *l, const struct seq *s, uint32_t rows)
{
	for (uint32_t i = 0; i < l->n_leave; i++)
		if (l->leave[i] == s)
			return false;
	return s->cache == l->cache && tokens_rows(s) >= rows && seq_is_here(s) &&
	       seq_least_rows(s) >= rows;
}

/* Somebody whose hash number n - 1 is that one, and so all before it. */
static struct seq *owner_of(const struct lookup *l, const struct token_hash *h, uint32_t n)
{
	struct token_link *at = *bucket_of(&l->cache->store->prefixes, h);

	for (; at; at = at->next) {
		struct seq *s = seq_of(at);
		const struct token_hash *has;

		if (at->number != n - 1)
			continue;
		has = tokens_hash(s, at->number);
		if (has->low == h->low && has->high == h->high &&
		    offers(l, s, tokens_end(l->cache, n)))
			return s;
	}
	return NULL;
}

/* The most hashes that somebody has. Who has n of them has each number below, so halving finds
 * it. */
static struct seq *longest(const struct lookup *l, uint32_t *ret_n)
{
	uint32_t least = 0, most = l->n_hashes;
	struct seq *found = NULL;

	while (least < most) {
		uint32_t middle = most - (most - least) / 2;
		struct seq *s = owner_of(l, &l->hash[middle - 1], middle);

		if (s) {
			found = s;
			least = middle;
		} else {
			most = middle - 1;
		}
	}
	*ret_n = least;
	return found;
}

static int hash_all(const struct cache *c, const uint32_t *ids, uint32_t n, struct token_hash **ret)
{
	struct token_hash h = tokens_begin(c), *all = calloc(MAX(n, 1u), sizeof(*all));

	if (!all)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t from = tokens_end(c, i);

		h = tokens_mix(h, ids + from, tokens_end(c, i + 1) - from);
		all[i] = h;
	}
	*ret = all;
	return 0;
}

/* ---- one for several ------------------------------------------------------------------- */

/* A prefix that ends with hash number n - 1 of this one: whoever could begin with it can begin with
 * this one, and with more. */
static struct seq *part_of(struct seq *s, uint32_t n)
{
	const struct token_hash *h = tokens_hash(s, n - 1);
	struct token_link *at = *bucket_of(index_of(s), h);

	for (; at; at = at->next) {
		struct seq *other = seq_of(at);
		const struct token_hash *has = tokens_hash(other, at->number);

		if (at->number == n - 1 && has->low == h->low && has->high == h->high &&
		    other != s && other->cache == s->cache && seq_is_prefix(other) &&
		    tokens_hashes(s->cache, tokens_rows(other)) == n)
			return other;
	}
	return NULL;
}

static void drop_parts(struct seq *s)
{
	for (uint32_t n = tokens_hashes(s->cache, tokens_rows(s)); n > 0; n--) {
		struct seq *other = part_of(s, n);

		if (other && seq_try_control(other))
			seq_remove(other);
	}
}

/* Not when they are kept: whoever gives sequences up may be going through the list of them. */
static void tidy(struct prefixes *p)
{
	struct seq *s;

	index_new(p);
	while ((s = p->first[TOKENS_KEPT]) != NULL) {
		list_out(s, TOKENS_KEPT);
		drop_parts(s);
	}
}

/* ---- beginning with it ------------------------------------------------------------------ */

/* A fork of the longest beginning whose owner lets go of it for a moment. 0 without *ret: none. */
static int fork_longest(struct lookup *l, const char *name, struct seq **ret, uint32_t *ret_rows,
			char *why)
{
	int64_t until = clock_now_ns() + HOLD_NS;

	while (l->n_leave < OWNERS_TRIED) {
		uint32_t n, rows;
		struct seq *owner = longest(l, &n);
		int r;

		if (!owner)
			return 0;
		rows = tokens_end(l->cache, n);
		if (!seq_try_borrow(owner, until)) {
			l->leave[l->n_leave++] = owner;
			continue;
		}
		/* It may have been cut before it was held. */
		if (!offers(l, owner, rows)) {
			seq_end_borrow(owner);
			continue;
		}
		evict_touch(owner);
		r = seq_fork_held(owner, name, rows, ret, why);
		seq_end_borrow(owner);
		*ret_rows = rows;
		return r;
	}
	return 0;
}

static int begin(struct cache *c, const char *name, const uint32_t *ids, uint32_t n,
		 struct seq **ret, uint32_t *ret_rows, char *why)
{
	FREE_MEMORY struct token_hash *hash = NULL;
	struct lookup l = { .cache = c, .n_hashes = tokens_hashes(c, n) };
	struct seq *s = NULL;
	int r = hash_all(c, ids, l.n_hashes, &hash);

	if (r < 0)
		return why_fail(why, -r, "out of memory");
	l.hash = hash;
	tidy(&c->store->prefixes);
	*ret_rows = 0;
	r = fork_longest(&l, name, &s, ret_rows, why);
	if (r == 0 && !s)
		r = seq_make_next(c, name, &s, why);
	if (r == 0)
		*ret = s;
	return r;
}

int prefix_create(struct cache *c, const char *name, const uint32_t *ids, uint32_t n,
		  uint64_t session, struct seq **ret, uint32_t *ret_rows, char *why)
{
	uint32_t rows = 0, told;
	struct seq *s = NULL;
	int r = seq_check_new(c, name, why);

	if (r < 0)
		return r;
	if (!c->record->share)
		n = 0;
	r = begin(c, name, ids, n, &s, &rows, why);
	if (r < 0)
		return r;
	r = tokens_put(s, rows, ids + rows, n - rows, &told);
	if (r < 0)
		return seq_fail_made(s, r, "token ids", why);
	seq_publish(s, session);
	*ret = s;
	*ret_rows = rows;
	return 0;
}

/* ---- keeping -------------------------------------------------------------------------------- */

/* Rows that others could begin with, and that nobody else offers. */
static uint32_t worth_keeping(struct seq *s)
{
	uint32_t rows = MIN(tokens_rows(s), seq_least_rows(s));
	uint32_t n = tokens_hashes(s->cache, rows);
	struct lookup l = { .cache = s->cache, .leave = { s }, .n_leave = 1 };

	if (!n)
		return 0;
	index_new(index_of(s));
	return owner_of(&l, tokens_hash(s, n - 1), n) ? 0 : tokens_end(s->cache, n);
}

/* Can somebody come who asks this cache for it? */
static bool is_reachable(const struct cache *c)
{
	return c->n_sessions || *c->record->name;
}

bool prefix_keep(struct seq *s)
{
	struct cache *c = s->cache;
	uint32_t rows;

	if (seq_is_prefix(s) || !seq_is_here(s) || !c->record->share || !c->record->evict ||
	    !is_reachable(c))
		return false;
	rows = worth_keeping(s);
	if (!rows || seq_cut(s, SPARQ_LAYER_ALL, rows) < 0)
		return false;
	seq_unname(s, SEQUENCE_PREFIX);
	POINT(prefix_kept);
	if (load_relaxed(&s->session))
		census_attach(s, 0);
	evict_offer(s);
	list_in(s, TOKENS_KEPT);
	return true;
}

void prefix_drop_all(struct cache *c)
{
	struct seq *next;

	for (struct seq *s = c->first; s; s = next) {
		next = s->next;
		if (!seq_is_prefix(s))
			continue;
		/* None of it, but a worker may be looking for what its slot held before. */
		while (!seq_try_control(s))
			sched_yield();
		seq_remove(s);
	}
}
