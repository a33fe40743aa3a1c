/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What audits find: counted by policy and by cache, and compared with what the cache allows. One
 * that is beyond that has the cache attend to all of its rows for a while: a minute, and twice as
 * long each time that it is no better afterwards. The time is not kept over a restart.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "daemon/audit.h"
#include "daemon/server-private.h"
#include "daemon/server.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define SPELL_FIRST_S 60u
#define SPELL_MOST_S 3600u

/* ---- counting ---------------------------------------------------------------------- */

static unsigned bucket_of(uint64_t error_n)
{
	unsigned i = 0;

	while (i < ARRAY_SIZE(stats_error_bounds) && error_n > stats_error_bounds[i])
		i++;
	return i;
}

static void count(struct stats_audit *to, uint64_t error_n)
{
	stats_add(&to->error_n, error_n);
	stats_add(&to->error_count[bucket_of(error_n)], 1);
	if (error_n > to->most_n)
		stats_set(&to->most_n, error_n);
	stats_add(&to->count, 1);
}

static void count_result(struct server *s, const struct audit_result *r)
{
	struct stats_control *to = stats_page_block(&s->stats, STATS_CONTROL, 0);
	/* At most 10^9 (audit.c). */
	uint64_t error_n = (uint64_t)(r->error * 1e9 + 0.5);

	count(&r->cache->audit, error_n);
	if (r->cache->policy_slot < STATS_POLICIES)
		count(&to->audit[r->cache->policy_slot], error_n);
}

/* ---- bounds ------------------------------------------------------------------------- */

static void begin_spell(struct cache *c, uint64_t now)
{
	c->dense_s = c->dense_s ? MIN(2 * c->dense_s, SPELL_MOST_S) : SPELL_FIRST_S;
	/* A worker that sees it late makes a few steps more as before. */
	store_relaxed(&c->dense_until_ns, now + c->dense_s * UINT64_C(1000000000));
}

static void check_bound(struct server *s, const struct audit_result *r)
{
	struct stats_control *to = stats_page_block(&s->stats, STATS_CONTROL, 0);
	const struct cache_record *record = r->cache->record;
	double bound = record->audit_bound / AUDIT_BOUND_STEPS;
	struct cache *c = r->cache;

	if (!record->audit_bound)
		return;
	if (r->error <= bound) {
		c->dense_s = 0;
		return;
	}
	c->audits_beyond++;
	stats_add(&to->audits_beyond, 1);
	begin_spell(c, (uint64_t)clock_now_ns());
	/* A client may make a cache, and with it a line, as often as it likes. */
	if (log_limited(&s->audit_lines))
		return;
	log_event(EVENT_AUDIT,
		  ABOUT(.uid = &c->user->uid, .sequence = r->sequence, .cache = record->name),
		  "cache \"%s\" of uid %u: layer %" PRIu32 " of a sequence of %" PRIu32
		  " rows was off by %.3g of the result of all rows, audit_max_error is %.4g: all "
		  "rows are attended for %" PRIu32 " s",
		  record->name, c->user->uid, r->layer, r->rows, r->error, bound, c->dense_s);
}

static void on_audit(void *arg, uint32_t events)
{
	struct server *s = arg;
	struct audit_result r;

	while (audit_next(s->store.auditor, &r)) {
		if (r.r == 0) {
			count_result(s, &r);
			check_bound(s, &r);
		}
		audit_collect(s->store.auditor);
	}
}

/* ---- the server --------------------------------------------------------------------- */

int server_open_audit(struct server *s)
{
	const struct audit_params params = {
		.every = s->config.audit,
		.rest = AUDIT_REST,
		.bytes = AUDIT_JOB_BYTES,
	};
	int r = audit_open(&params, &s->store.auditor);

	if (r == 0)
		r = loop_add(s->loop, &s->audits, audit_fd(s->store.auditor), POLLIN, on_audit, s);
	if (r < 0)
		log_error("the auditor: %s", strerror(-r));
	else if (!s->store.auditor->is_low)
		log_notice("audits run with the priority of all else: setpriority is not allowed");
	return r;
}

void server_refresh_audit(const struct server *s, struct stats_control *to)
{
	for (unsigned i = 0; i < STATS_AUDITS && s->store.auditor; i++)
		stats_set(&to->audits_left_out[i], load_relaxed(&s->store.auditor->left_out[i]));
}

/* Of the page: figures that were counted for the cache. */
void server_show_audit(const struct cache *c, struct stats_cache *to)
{
	const uint64_t *from = (const uint64_t *)&c->audit;
	uint64_t *word = (uint64_t *)&to->audit;

	for (size_t i = 0; i < sizeof(c->audit) / sizeof(*from); i++)
		stats_set(&word[i], from[i]);
	stats_set(&to->audits_beyond, c->audits_beyond);
}
