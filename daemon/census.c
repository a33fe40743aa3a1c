/* SPDX-License-Identifier: Apache-2.0 */
/* Counters, and an index of names: see census.h. */
#include "daemon/census.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "daemon/evict.h"
#include "daemon/record.h"
#include "daemon/seq.h"
#include "daemon/spill.h"
#include "shm/atomic.h"
#include "shm/base.h"

/* ---- names -------------------------------------------------------------------------- */

static const char *name_of(const struct seq *s)
{
	return ((const struct sequence_record *)s->record)->name;
}

static uint64_t rotate(uint64_t x, unsigned by)
{
	return x << by | x >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] = rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] = rotate(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	sip_round(v);
	v[0] ^= word;
}

/* SipHash-1-3 (Aumasson, Bernstein 2012) of words: clients choose names, and must not be able to
 * choose such as share a bucket. */
static uint64_t hash(const struct store *st, uint64_t cache, const char *name)
{
	uint64_t v[4] = { st->name_key[0] ^ 0x736f6d6570736575,
			  st->name_key[1] ^ 0x646f72616e646f6d,
			  st->name_key[0] ^ 0x6c7967656e657261,
			  st->name_key[1] ^ 0x7465646279746573 };
	uint64_t word[sizeof(((struct sequence_record *)0)->name) / 8] = { 0 };
	size_t n = strnlen(name, sizeof(word) - 1);

	memcpy(word, name, n);
	sip_word(v, cache);
	for (size_t i = 0; i <= n / 8; i++)
		sip_word(v, word[i]);
	v[2] ^= 0xff;
	for (unsigned i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static struct seq **bucket(const struct cache *c, const char *name)
{
	const struct store *st = c->store;

	return &st->by_name[hash(st, c->id, name) & st->name_mask];
}

int names_init(struct store *st)
{
	uint32_t n = 1;

	while (n < st->max_sequences)
		n *= 2;
	if (getrandom(st->name_key, sizeof(st->name_key), 0) != sizeof(st->name_key))
		return errno ? -errno : -EIO;
	st->by_name = calloc(n, sizeof(*st->by_name));
	st->name_mask = n - 1;
	return st->by_name ? 0 : -ENOMEM;
}

void names_deinit(struct store *st)
{
	free(st->by_name);
	st->by_name = NULL;
}

struct seq *names_find(struct cache *c, const char *name)
{
	if (!*name)
		return NULL;
	for (struct seq *s = *bucket(c, name); s; s = s->next_named)
		if (s->cache == c && !strcmp(name_of(s), name))
			return s;
	return NULL;
}

static void name_in(struct seq *s)
{
	struct seq **first;

	if (!*name_of(s))
		return;
	first = bucket(s->cache, name_of(s));
	s->next_named = *first;
	*first = s;
}

static void name_out(struct seq *s)
{
	struct seq **at;

	if (!*name_of(s))
		return;
	at = bucket(s->cache, name_of(s));
	while (*at != s)
		at = &(*at)->next_named;
	*at = s->next_named;
	s->next_named = NULL;
}

void census_unname(struct seq *s)
{
	name_out(s);
}

/* ---- rows --------------------------------------------------------------------------- */

static void set_least(struct seq *s, uint32_t rows, uint32_t n)
{
	/* Orders nothing: a sum that somebody shows. It may wrap in between, and back. */
	fetch_add(&s->cache->rows, (uint64_t)rows - s->least);
	s->least = rows;
	s->n_least = n;
}

static void look_at_all(struct seq *s)
{
	uint32_t least = UINT32_MAX, n = 0;

	for (uint32_t i = 0; i < s->cache->record->layers; i++) {
		uint32_t rows = seq_told(s, i);

		n = rows < least ? 1 : n + (rows == least);
		least = MIN(least, rows);
	}
	set_least(s, least, n);
}

void census_rows(struct seq *s, uint32_t before, uint32_t after)
{
	if (!s->rows_count || before == after)
		return;
	if (after < s->least) {
		set_least(s, after, 1);
		return;
	}
	s->n_least += after == s->least;
	if (before == s->least && --s->n_least == 0)
		look_at_all(s);
}

void census_moved(struct seq *s)
{
	look_at_all(s);
	s->rows_count = !seq_is_spilled(s);
}

/* ---- sequences ---------------------------------------------------------------------- */

static void link_attached(struct seq *s)
{
	struct cache *c = s->cache;

	s->next_attached = c->attached;
	s->link_attached = &c->attached;
	if (c->attached)
		c->attached->link_attached = &s->next_attached;
	c->attached = s;
}

static void unlink_attached(struct seq *s)
{
	*s->link_attached = s->next_attached;
	if (s->next_attached)
		s->next_attached->link_attached = s->link_attached;
	s->next_attached = NULL;
	s->link_attached = NULL;
}

/* Of one that is in. */
static void count_session(struct seq *s, bool attached)
{
	if (attached) {
		link_attached(s);
		return;
	}
	s->cache->parked++;
}

static void uncount_session(struct seq *s)
{
	if (s->link_attached)
		unlink_attached(s);
	else
		s->cache->parked--;
}

void census_enter(struct seq *s)
{
	struct cache *c = s->cache;

	s->next = c->first;
	s->link = &c->first;
	if (c->first)
		c->first->link = &s->next;
	c->first = s;
	c->n_sequences++;
	s->least = 0;
	census_moved(s);
	name_in(s);
	c->pinned += evict_is_pinned(s);
	count_session(s, load_relaxed(&s->session));
	evict_place(s);
}

void census_leave(struct seq *s)
{
	struct cache *c = s->cache;

	evict_displace(s);
	uncount_session(s);
	c->pinned -= evict_is_pinned(s);
	name_out(s);
	set_least(s, 0, 0);
	s->rows_count = false;
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	s->next = NULL;
	s->link = NULL;
	c->n_sequences--;
}

void census_attach(struct seq *s, uint64_t session)
{
	uncount_session(s);
	store_release(&s->session, session);
	count_session(s, session);
	evict_place(s);
}

void census_pin(struct seq *s, bool pinned)
{
	s->cache->pinned += (uint32_t)pinned - (uint32_t)evict_is_pinned(s);
}
