/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an administrator may change: any user's sequences, how much is logged, and the
 * keys of the configuration that a reload takes. Each leaves a line in the log that says who.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/control-json.h"
#include "daemon/control.h"
#include "daemon/record.h"
#include "daemon/seq-make.h"
#include "daemon/server.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"

/* ---- which sequence --------------------------------------------------------------- */

struct wanted {
	uint64_t id; /* 0: by name */
	uint64_t uid;
	const char *cache, *sequence;
};

static const char *name_of(const struct seq *s)
{
	return ((const struct sequence_record *)s->record)->name;
}

static int get_wanted(json_object *in, struct wanted *w, struct varlink_error *e)
{
	int r;

	*w = (struct wanted){ .uid = UINT64_MAX };
	r = json_get_id(in, "id", &w->id, e);
	if (r == 0)
		r = json_get_number(in, "uid", UINT32_MAX, &w->uid, e);
	if (r == 0)
		r = json_get_text(in, "cache", &w->cache, e);
	if (r == 0)
		r = json_get_text(in, "sequence", &w->sequence, e);
	if (r < 0)
		return r;
	if (!w->id && !w->sequence)
		return varlink_invalid(e, "sequence");
	if (!w->id && !w->cache)
		return varlink_invalid(e, "cache");
	return 0;
}

static int find_by_id(struct store *st, uint64_t id, struct seq **ret, struct varlink_error *e)
{
	struct seq *s = NULL;

	if (id_slot(id) < st->max_sequences)
		s = st->seq_by_slot[id_slot(id)];
	if (!s || s->id != id)
		return varlink_refuse(e, CONTROL_REFUSED, "there is no sequence %#" PRIx64, id);
	*ret = s;
	return 0;
}

static int find_by_name(struct store *st, const struct wanted *w, struct seq **ret,
			struct varlink_error *e)
{
	char why[SPARQ_ERROR_TEXT] = "";
	struct seq *found = NULL, *s;
	bool in_cache = false;

	for (struct cache *c = st->caches; c; c = c->next) {
		if (strcmp(c->record->name, w->cache) ||
		    (w->uid != UINT64_MAX && c->user->uid != w->uid))
			continue;
		in_cache = true;
		if (seq_find_named(c, w->sequence, &s, why) < 0)
			continue;
		if (found)
			return varlink_refuse(e, CONTROL_REFUSED,
					      "uids %u and %u have a sequence \"%s\" in a cache "
					      "\"%s\": say whose",
					      found->cache->user->uid, c->user->uid, w->sequence,
					      w->cache);
		found = s;
	}
	if (!in_cache)
		return varlink_refuse(e, CONTROL_REFUSED, "there is no cache \"%s\"", w->cache);
	if (!found)
		return varlink_refuse(e, CONTROL_REFUSED, "%s", why);
	*ret = found;
	return 0;
}

static int find(struct server *s, json_object *in, struct seq **ret, struct varlink_error *e)
{
	struct wanted w;
	int r = get_wanted(in, &w, e);

	if (r < 0)
		return r;
	return w.id ? find_by_id(&s->store, w.id, ret, e) : find_by_name(&s->store, &w, ret, e);
}

/* ---- sequences ---------------------------------------------------------------------- */

static int check_idle(const struct seq *s, struct varlink_error *e)
{
	if (load_relaxed(&s->session))
		return varlink_refuse(e, CONTROL_REFUSED,
				      "sequence %#" PRIx64 " is attached to a session: end the "
				      "program that uses it, or have it drop the sequence",
				      s->id);
	if (s->spilling)
		return varlink_refuse(e, CONTROL_REFUSED,
				      "sequence %#" PRIx64 " is on its way to or from a file: "
				      "try again when it is there",
				      s->id);
	return 0;
}

/* What an answer tells of it; the log gets the same. */
static void tell(const struct server *server, const char *did, const struct seq *s, uint64_t bytes,
		 json_object *out)
{
	json_add_id(out, "id", s->id);
	json_add_text(out, "name", name_of(s));
	json_add_text(out, "cache", s->cache->record->name);
	json_add_number(out, "uid", s->cache->user->uid);
	log_notice("uid %u %s sequence %#" PRIx64 " \"%s\" of cache \"%s\", uid %u: %" PRIu64
		   " bytes",
		   server->asking_uid, did, s->id, name_of(s), s->cache->record->name,
		   s->cache->user->uid, bytes);
}

int control_drop(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	static const char *const keys[] = { "id", "uid", "cache", "sequence", NULL };
	char why[SPARQ_ERROR_TEXT] = "";
	struct server *server = arg;
	struct seq *s;
	uint64_t bytes;
	int r = json_check_keys(in, keys, e);

	if (r == 0)
		r = find(server, in, &s, e);
	if (r == 0)
		r = check_idle(s, e);
	if (r < 0)
		return r;
	/* Nobody else can take it from here on: what is told is what goes. */
	r = seq_take_control(s, why);
	if (r < 0)
		return varlink_refuse(e, CONTROL_REFUSED, "sequence %#" PRIx64 ": %s", s->id, why);
	bytes = load_relaxed(&s->bytes) + s->spilled_bytes;
	tell(server, "dropped", s, bytes, out);
	json_add_number(out, "bytes", bytes);
	seq_remove(s);
	evict_call(&server->evictor);
	return 0;
}

int control_pin(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	static const char *const keys[] = { "id", "uid", "cache", "sequence", "pinned", NULL };
	struct server *server = arg;
	struct seq *s;
	int pinned = true, r = json_check_keys(in, keys, e);

	if (r == 0)
		r = json_get_flag(in, "pinned", &pinned, e);
	if (r == 0)
		r = find(server, in, &s, e);
	if (r < 0)
		return r;
	evict_pin(s, pinned);
	tell(server, pinned ? "pinned" : "unpinned", s, load_relaxed(&s->bytes), out);
	json_object_object_add(out, "pinned", json_object_new_boolean(pinned));
	return 0;
}

/* ---- the daemon --------------------------------------------------------------------- */

int control_set_log_level(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	static const char *const keys[] = { "level", NULL };
	const char *name = NULL;
	struct server *s = arg;
	int level, r = json_check_keys(in, keys, e);

	if (r == 0)
		r = json_get_text(in, "level", &name, e);
	if (r < 0)
		return r;
	level = name ? log_level_parse(name) : -EINVAL;
	if (level < 0)
		return varlink_invalid(e, "level");
	json_add_text(out, "before", log_level_name(s->config.log_level));
	/* Whichever of the two is quieter, this is heard. */
	log_level_set(MAX(level, LOG_NOTICE));
	log_notice("uid %u set the log level to %s until the next reload", s->asking_uid, name);
	s->config.log_level = level;
	log_level_set(level);
	return 0;
}

static void on_changed(void *arg, const char *key, const char *before, const char *after)
{
	json_object *o = json_object_new_object();

	json_add_text(o, "key", key);
	json_add_text(o, "before", before);
	json_add_text(o, "after", after);
	json_object_array_add(arg, o);
}

int control_reload(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	static const char *const keys[] = { NULL };
	char why[CONFIG_WHY_BYTES] = "";
	struct server *s = arg;
	struct config before = s->config;
	json_object *changed;
	int r = json_check_keys(in, keys, e);

	if (r < 0)
		return r;
	r = server_reload(s, why);
	if (r < 0)
		return varlink_refuse(e, CONTROL_REFUSED, "%s", why[0] ? why : strerror(-r));
	changed = json_object_new_array();
	config_compare(&before, &s->config, on_changed, changed);
	json_object_object_add(out, "changed", changed);
	return 0;
}
