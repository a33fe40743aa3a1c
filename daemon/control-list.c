/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What there is: sequences, caches, users. There may be millions, and whoever asks keeps all
 * clients waiting, so an answer is a page: it has LIST_AT_ONCE of them at most, and took a bounded
 * look for them. `next` says where the following page begins; without it there is none. A page
 * holds nothing of the one before: what is there all the while is told once, what comes or goes
 * meanwhile may be told or not.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control-json.h"
#include "daemon/control.h"
#include "daemon/record.h"
#include "daemon/server.h"
#include "daemon/spill.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/stats-page.h"

#define LIST_AT_ONCE 256u
#define SLOTS_AT_ONCE 65536u           /* looked at for a page of sequences */
#define SEQUENCE_LAYERS_AT_ONCE 16384u /* looked at for a page of sequences */

struct filter {
	uint64_t uid; /* UINT64_MAX: any */
	const char *cache;
	int parked; /* -1: either */
	uint64_t after, limit;
};
#define FILTER_NULL ((struct filter){ .uid = UINT64_MAX, .parked = -1, .limit = LIST_AT_ONCE })

static int get_filter(json_object *in, const char *const *keys, struct filter *f,
		      struct varlink_error *e)
{
	int r = json_check_keys(in, keys, e);

	*f = FILTER_NULL;
	if (r == 0)
		r = json_get_number(in, "uid", UINT32_MAX, &f->uid, e);
	if (r == 0)
		r = json_get_text(in, "cache", &f->cache, e);
	if (r == 0)
		r = json_get_flag(in, "parked", &f->parked, e);
	if (r == 0)
		r = json_get_number(in, "after", INT64_MAX, &f->after, e);
	if (r == 0)
		r = json_get_number(in, "limit", INT64_MAX, &f->limit, e);
	if (r == 0 && !f->limit)
		r = varlink_invalid(e, "limit");
	f->limit = MIN(f->limit, LIST_AT_ONCE);
	return r;
}

#define END UINT64_MAX

static int finish(json_object *out, const char *key, json_object *page, uint64_t next,
		  struct varlink_error *e)
{
	if (!page)
		return varlink_refuse(e, CONTROL_REFUSED, "out of memory");
	json_object_object_add(out, key, page);
	if (next != END)
		json_add_number(out, "next", next);
	return 0;
}

/* ---- sequences -------------------------------------------------------------------- */

static const char *state_of(const struct seq *s)
{
	if (s->spilling)
		return "moving";
	if (seq_is_spilled(s))
		return "spilled";
	if (seq_is_prefix(s))
		return "prefix";
	return load_relaxed(&s->session) ? "attached" : "parked";
}

/* Of one holder: a little behind, as counters are. */
static uint64_t read_bytes(const struct stats_read *read)
{
	uint64_t sum = 0;

	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		sum += load_relaxed(&read->bytes[p]);
	return sum;
}

/* Left out where nobody counts. */
static void add_work(json_object *o, const struct stats_sequence *stats)
{
	if (!stats)
		return;
	json_add_number(o, "steps", load_relaxed(&stats->steps));
	json_add_number(o, "read_bytes", read_bytes(&stats->read));
	json_add_number(o, "dense_equivalent_bytes", load_relaxed(&stats->read.dense_bytes));
}

static json_object *sequence(const struct server *server, struct seq *s)
{
	const struct arena *home = &server->placement.arena[s->node];
	const struct sequence_record *r = s->record;
	json_object *o = json_object_new_object();
	struct sparq_msg_seq_stat stat;

	seq_stat(s, SPARQ_LAYER_ALL, &stat);
	json_add_id(o, "id", s->id);
	json_add_text(o, "name", r->name);
	json_add_text(o, "cache", s->cache->record->name);
	json_add_number(o, "uid", s->cache->user->uid);
	json_add_text(o, "state", state_of(s));
	json_object_object_add(o, "pinned", json_object_new_boolean(evict_is_pinned(s)));
	json_add_number(o, "rows", stat.rows_least);
	json_add_number(o, "bytes", stat.bytes);
	json_add_number(o, "spilled_bytes", s->spilled_bytes);
	json_object_object_add(o, "node", json_object_new_int(home->node));
	json_add_number(o, "uses", load_relaxed(&r->uses));
	json_add_number(o, "used_s", load_relaxed(&r->used_s));
	add_work(o, s->stats);
	return o;
}

static bool is_wanted(const struct filter *f, const struct seq *s)
{
	const struct cache *c = s->cache;

	/* Without an id it is a slot that was used, or one that is being filled. */
	if (!s->id || (f->uid != UINT64_MAX && c->user->uid != f->uid))
		return false;
	if (f->parked >= 0 && f->parked != !load_relaxed(&s->session))
		return false;
	return !f->cache || !strcmp(c->record->name, f->cache);
}

/* `after` and `next` are slots of the catalogue: a sequence keeps its own. */
int control_list_sequences(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	static const char *const keys[] = { "uid", "cache", "parked", "after", "limit", NULL };
	const struct server *s = arg;
	const struct store *st = &s->store;
	json_object *all;
	struct filter f;
	uint64_t at, end, n = 0, layers = 0;
	int r = get_filter(in, keys, &f, e);

	if (r < 0)
		return r;
	all = json_object_new_array();
	end = MIN(f.after + SLOTS_AT_ONCE, st->max_sequences);
	for (at = f.after; at < end && n < f.limit && layers < SEQUENCE_LAYERS_AT_ONCE; at++) {
		struct seq *seq = st->seq_by_slot[at];

		if (!seq || !is_wanted(&f, seq))
			continue;
		json_object_array_add(all, sequence(s, seq));
		layers += seq->cache->record->layers;
		n++;
	}
	return finish(out, "sequences", all, at < st->max_sequences ? at : END, e);
}

/* ---- caches ----------------------------------------------------------------------- */

static json_object *cache(const void *item)
{
	const struct cache *c = item;
	json_object *o = json_object_new_object();

	json_add_id(o, "id", c->id);
	json_add_text(o, "name", c->record->name);
	json_add_number(o, "uid", c->user->uid);
	json_add_text(o, "policy", c->record->policy);
	json_add_text(o, "k_format", c->record->k_format);
	json_add_text(o, "v_format", c->record->v_format);
	json_add_text(o, "placement", placement_names[c->spread]);
	json_add_number(o, "sequences", c->n_sequences);
	json_add_number(o, "rows", load_relaxed(&c->rows));
	json_add_number(o, "parked", c->parked);
	json_add_number(o, "pinned", c->pinned);
	json_add_number(o, "bytes", load_relaxed(&c->charged_bytes));
	json_add_number(o, "budget_bytes", c->budget_bytes);
	json_add_text(o, "evict", evict_names[c->evict]);
	json_add_number(o, "evicted_sequences", c->evicted_sequences);
	json_add_number(o, "evicted_bytes", c->evicted_bytes);
	json_add_audit(o, &c->audit);
	return o;
}

/* ---- users ------------------------------------------------------------------------ */

static json_object *user(const void *item)
{
	const struct user *u = item;
	json_object *o = json_object_new_object();

	json_add_number(o, "uid", u->uid);
	json_add_number(o, "sessions", load_relaxed(&u->charged[USER_SESSIONS]));
	json_add_number(o, "queues", load_relaxed(&u->charged[USER_QUEUES]));
	json_add_number(o, "caches", load_relaxed(&u->charged[USER_CACHES]));
	json_add_number(o, "sequences", load_relaxed(&u->charged[USER_SEQUENCES]));
	json_add_number(o, "charged_bytes", load_relaxed(&u->charged[USER_BYTES]));
	json_add_number(o, "quota_bytes", load_relaxed(&u->limit[USER_BYTES]));
	json_add_number(o, "spilled_bytes", load_relaxed(&u->charged[USER_SPILLED]));
	json_add_number(o, "spill_quota_bytes", load_relaxed(&u->limit[USER_SPILLED]));
	if (u->stats)
		json_add_number(o, "read_bytes", read_bytes(&u->stats->read));
	json_add_number(o, "evicted_sequences", u->evicted_sequences);
	json_add_number(o, "evicted_bytes", u->evicted_bytes);
	return o;
}

/* ---- of either ----------------------------------------------------------------------- */

/* What stands in a list of the daemon's: told in the order of a number that it keeps. */
struct kind {
	const char *name;                                        /* of the list in a reply */
	void *(*next)(const struct server *s, const void *item); /* of NULL: the first */
	uint64_t (*number)(const void *item);
	uid_t (*uid)(const void *item);
	json_object *(*show)(const void *item);
};

static void *next_cache(const struct server *s, const void *item)
{
	return item ? ((const struct cache *)item)->next : s->store.caches;
}

static uint64_t number_of_cache(const void *item)
{
	return id_slot(((const struct cache *)item)->id);
}

static uid_t uid_of_cache(const void *item)
{
	return ((const struct cache *)item)->user->uid;
}

static void *next_user(const struct server *s, const void *item)
{
	return item ? ((const struct user *)item)->next : s->users.first;
}

static uint64_t number_of_user(const void *item)
{
	return ((const struct user *)item)->uid;
}

static uid_t uid_of_user(const void *item)
{
	return ((const struct user *)item)->uid;
}

static const struct kind caches = { "caches", next_cache, number_of_cache, uid_of_cache, cache };
static const struct kind users = { "users", next_user, number_of_user, uid_of_user, user };

struct found {
	uint64_t number;
	const void *item;
};

static int by_number(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

/* Those that are wanted, from the number f->after on, in order. */
static struct found *find(const struct server *s, const struct kind *k, const struct filter *f,
			  size_t *ret_n)
{
	size_t n = 0, room = 1;
	struct found *found;

	for (const void *i = k->next(s, NULL); i; i = k->next(s, i))
		room++;
	found = calloc(room, sizeof(*found));
	for (const void *i = k->next(s, NULL); found && i; i = k->next(s, i))
		if (k->number(i) >= f->after && (f->uid == UINT64_MAX || k->uid(i) == f->uid))
			found[n++] = (struct found){ k->number(i), i };
	if (found)
		qsort(found, n, sizeof(*found), by_number);
	*ret_n = n;
	return found;
}

/* *ret_next: the number of the first that the page has not; END: it has all. */
static json_object *list(const struct server *s, const struct kind *k, const struct filter *f,
			 uint64_t *ret_next)
{
	size_t n, i;
	FREE_MEMORY struct found *found = find(s, k, f, &n);
	json_object *all;

	if (!found)
		return NULL;
	all = json_object_new_array();
	for (i = 0; i < n && i < f->limit; i++)
		json_object_array_add(all, k->show(found[i].item));
	*ret_next = i < n ? found[i].number : END;
	return all;
}

static int answer(const struct server *s, const struct kind *k, json_object *in, json_object *out,
		  struct varlink_error *e)
{
	static const char *const keys[] = { "uid", "after", "limit", NULL };
	uint64_t next = END;
	json_object *page;
	struct filter f;
	int r = get_filter(in, keys, &f, e);

	if (r < 0)
		return r;
	page = list(s, k, &f, &next);
	return finish(out, k->name, page, next, e);
}

int control_list_caches(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	return answer(arg, &caches, in, out, e);
}

int control_list_users(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	return answer(arg, &users, in, out, e);
}

json_object *control_caches(const struct server *s)
{
	uint64_t next;

	return list(s, &caches, &FILTER_NULL, &next);
}

json_object *control_users(const struct server *s)
{
	uint64_t next;

	return list(s, &users, &FILTER_NULL, &next);
}
