/* SPDX-License-Identifier: Apache-2.0 */
/* How the daemon is: one sentence, and the figures behind it. */
#include <string.h>

#include "daemon/calibrate.h"
#include "daemon/control-json.h"
#include "daemon/control.h"
#include "daemon/server.h"
#include "daemon/spill.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

static json_object *pools(const struct server *s)
{
	const struct placement *p = &s->placement;
	json_object *all = json_object_new_array();

	for (unsigned i = 0; i < p->n; i++) {
		const struct arena *a = &p->arena[i];
		json_object *o = json_object_new_object();
		struct calibrated measured;

		json_object_object_add(o, "node", json_object_new_int(a->node));
		json_add_text(o, "pages", arena_pages_name(a->pages));
		json_add_number(o, "page_bytes", a->page_bytes);
		json_add_number(o, "bytes", a->bytes);
		json_add_number(o, "used_bytes", pool_node_used_bytes(&p->pool, i));
		json_add_number(o, "misplaced_pages", a->misplaced_pages);
		json_add_number(o, "strayed_pages", pool_node_strayed(&p->pool, i));
		if (calibrate_get(s->calibration, i, &measured) && measured.bytes_s) {
			json_add_number(o, "read_bytes_per_second", measured.bytes_s);
			json_add_number(o, "measured_at", measured.taken_s);
		}
		json_object_array_add(all, o);
	}
	return all;
}

/* What went since the daemon started, by what room was made for. */
static json_object *evictions(const struct evictor *e)
{
	json_object *all = json_object_new_array();

	for (unsigned i = 0; i < LIMITS; i++) {
		json_object *o = json_object_new_object();

		json_add_text(o, "limit", limit_names[i]);
		json_add_number(o, "sequences", e->sum[i].sequences);
		json_add_number(o, "bytes", e->sum[i].bytes);
		json_object_array_add(all, o);
	}
	return all;
}

static void add_identity(const struct server *s, json_object *out)
{
	json_add_text(out, "version", SPARQ_VERSION);
	json_add_number(out, "pid", (uint64_t)getpid());
	json_add_number(out, "generation", s->generation);
	json_add_number(out, "uptime_s", (clock_now_ns() - s->started_ns) / 1000000000);
	json_add_text(out, "isa", kv_isa_name());
	json_add_text(out, "loop", loop_name(s->loop));
	json_add_number(out, "workers", workers_count(s->workers));
	json_add_number(out, "sessions", s->n_sessions);
}

static void add_work(const struct server *s, json_object *out)
{
	struct workers_stat stat;

	workers_stat(s->workers, &stat);
	json_add_number(out, "steps", stat.steps);
	json_add_number(out, "failed_steps", stat.errors);
	json_add_number(out, "read_bytes", stat.read_bytes);
	json_add_number(out, "dense_equivalent_bytes", stat.dense_bytes);
	json_add_number(out, "sleeps", stat.sleeps);
	json_add_number(out, "timeouts_that_found_work", stat.timeouts_that_found_work);
}

static void add_memory(const struct server *s, json_object *out)
{
	const struct placement *p = &s->placement;

	json_add_number(out, "pool_bytes", p->pool.bytes);
	json_add_number(out, "pool_used_bytes", load_relaxed(&p->pool.used_bytes));
	json_add_number(out, "segment_bytes", s->segment_bytes);
	json_add_number(out, "huge_page_shortfall_bytes", p->shortfall_bytes);
	json_add_number(out, "misplaced_pages", placement_misplaced(p));
	json_add_number(out, "unstriped_pages", load_relaxed(&p->pool.unstriped));
}

static json_object *recovery(const struct recovered *r)
{
	json_object *o = json_object_new_object();

	json_add_number(o, "caches", r->caches);
	json_add_number(o, "sequences", r->sequences);
	json_add_number(o, "rows", r->rows);
	json_add_number(o, "dropped", r->dropped);
	json_add_number(o, "microseconds", r->ns / 1000);
	return o;
}

static json_object *spill(const struct spill *sp)
{
	struct spill_stat stat = spill_stat(sp);
	json_object *o = json_object_new_object();

	json_add_text(o, "directory", stat.directory);
	json_add_text(o, "engine", stat.engine);
	json_add_number(o, "sequences", stat.sequences);
	json_add_number(o, "bytes", stat.bytes);
	json_add_number(o, "limit_bytes", stat.limit_bytes);
	json_add_number(o, "elsewhere", stat.away);
	json_add_number(o, "spilling", stat.out);
	json_add_number(o, "spilling_bytes", stat.out_bytes);
	json_add_number(o, "spilling_bytes_done", stat.out_done);
	json_add_number(o, "loading", stat.in);
	json_add_number(o, "loading_bytes", stat.in_bytes);
	json_add_number(o, "loading_bytes_done", stat.in_done);
	json_add_number(o, "spilled_total", stat.spilled);
	json_add_number(o, "spilled_bytes_total", stat.spilled_bytes);
	json_add_number(o, "spilled_microseconds_total", stat.spilled_ns / 1000);
	json_add_number(o, "loaded_total", stat.loaded);
	json_add_number(o, "loaded_bytes_total", stat.loaded_bytes);
	json_add_number(o, "loaded_microseconds_total", stat.loaded_ns / 1000);
	json_add_number(o, "failed_total", stat.failed);
	return o;
}

static json_object *audits(const struct server *s)
{
	const struct stats_control *c = stats_page_block(&s->stats, STATS_CONTROL, 0);
	json_object *o = json_object_new_object();
	struct stats_audit sum = { 0 };

	for (unsigned i = 0; i < STATS_POLICIES && c; i++) {
		sum.count += c->audit[i].count;
		sum.error_n += c->audit[i].error_n;
		sum.most_n = MAX(sum.most_n, c->audit[i].most_n);
	}
	json_add_audit(o, &sum);
	json_add_number(o, "audits_beyond", c ? c->audits_beyond : 0);
	return o;
}

static const char *const no_keys[] = { NULL };

static uint64_t count_sequences(const struct store *st)
{
	uint64_t n = 0;

	for (const struct cache *c = st->caches; c; c = c->next)
		n += c->n_sequences;
	return n;
}

/* NULL: there was no memory for it. */
static void add_list(json_object *out, const char *key, json_object *list)
{
	if (list)
		json_object_object_add(out, key, list);
}

int control_status(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	const struct server *s = arg;
	char sentence[256];
	int r = json_check_keys(in, no_keys, e);

	if (r < 0)
		return r;
	server_sentence(s, sentence, sizeof(sentence));
	json_add_text(out, "sentence", sentence);
	json_add_text(out, "refusal", s->refusal);
	add_identity(s, out);
	json_add_number(out, "sequences", count_sequences(&s->store));
	add_work(s, out);
	add_memory(s, out);
	json_add_text(out, "kept_by", keep_kind_name(server_is_kept(s) ? keep_kind() : KEEP_NONE));
	json_object_object_add(out, "audits", audits(s));
	json_object_object_add(out, "recovery", recovery(&s->recovered));
	json_object_object_add(out, "pools", pools(s));
	json_object_object_add(out, "spill", spill(s->spill));
	add_list(out, "devices", control_devices(s));
	add_list(out, "users", control_users(s));
	add_list(out, "caches", control_caches(s));
	json_object_object_add(out, "evictions", evictions(&s->evictor));
	return 0;
}

int control_config(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	const struct server *s = arg;
	char text[8192];
	int r = json_check_keys(in, no_keys, e);

	if (r < 0)
		return r;
	if (config_dump(&s->config, text, sizeof(text)) >= sizeof(text))
		return varlink_refuse(e, CONTROL_REFUSED, "the configuration is too long");
	json_add_text(out, "config", text);
	return 0;
}
