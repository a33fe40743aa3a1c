/* SPDX-License-Identifier: Apache-2.0 */
/* See spill-world.h. */
#include "spill-world.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/census.h"
#include "daemon/log.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"

static char why[SPARQ_ERROR_TEXT];

/* ---- a daemon with a directory ---------------------------------------------------------- */

static struct world *here; /* fixture_restart knows no more than its fixture */

static void open_spill(struct store_fixture *f)
{
	assert_int_equal(spill_open(&f->store, here->loop, &here->config, &here->spill), 0);
}

struct cache *world_cache(struct world *w, const char *name, const char *k_format,
			  const char *v_format, const char *policy, const char *options)
{
	struct sparq_msg_cache_create m = fixture_request(name, options);
	struct cache *c = NULL;

	snprintf(m.k_format, sizeof(m.k_format), "%s", k_format);
	snprintf(m.v_format, sizeof(m.v_format), "%s", v_format);
	snprintf(m.policy, sizeof(m.policy), "%s", policy);
	if (cache_create(&w->f.store, w->f.user, &m, &c, why) < 0)
		fail_msg("%s", why);
	return c;
}

int world_set_up(void **state)
{
	const char *tmp = getenv("TMPDIR");
	struct world *w = calloc(1, sizeof(*w));

	log_open(LOG_ERR);
	here = w;
	fixture_open(&w->f, 256 * MIB, 8 * MIB);
	assert_int_equal(loop_new(LOOP_EPOLL, &w->loop), 0);
	snprintf(w->base, sizeof(w->base), "%s/test-spill-XXXXXX", tmp ? tmp : "/var/tmp");
	assert_non_null(mkdtemp(w->base));
	config_defaults(&w->config);
	w->config.spill_depth = 2;
	snprintf(w->config.spill_dir, sizeof(w->config.spill_dir), "%.60s/spill", w->base);
	w->f.opened = open_spill;
	open_spill(&w->f);
	spill_adopted(w->spill);
	w->cache = world_cache(w, "c", "f32", "f32", "dense",
			       "sinks=16 rollback=16 on_disconnect=park");
	*state = w;
	return 0;
}

int world_tear_down(void **state)
{
	struct world *w = *state;
	char command[96];

	cache_unref(w->cache);
	w->spill = spill_close(w->spill);
	fixture_assert_empty(&w->f);
	fixture_close(&w->f);
	loop_free(w->loop);
	snprintf(command, sizeof(command), "rm -r '%s'", w->base);
	assert_int_equal(system(command), 0);
	free(w);
	return 0;
}

void world_restart(struct world *w)
{
	struct recovered r;

	w->spill = spill_close(w->spill);
	fixture_restart(&w->f, &r);
	spill_adopted(w->spill);
	w->cache = w->f.store.caches;
	assert_non_null(w->cache);
	w->cache->n_sessions = 1; /* as if its program had attached it */
}

struct seq *world_named(struct world *w, const char *name)
{
	struct seq *s = NULL;

	return seq_find_named(w->cache, name, &s, why) == 0 ? s : NULL;
}

/* Until nothing is under way. */
void world_settle(struct world *w)
{
	for (struct spill_stat stat = spill_stat(w->spill); stat.out + stat.in;
	     stat = spill_stat(w->spill))
		assert_int_equal(loop_step(w->loop, 10 * SECOND), 0);
}

static void park(struct seq *s)
{
	census_attach(s, 0);
}

struct seq *world_fill(struct world *w, const char *name, uint32_t rows, uint32_t tag)
{
	struct seq *s = NULL;

	if (seq_create(w->cache, name, FIXTURE_SESSION, &s, why) < 0)
		fail_msg("%s", why);
	model_init(&w->model, &w->f, s, tag);
	for (uint32_t i = 0; i < MODEL_LAYERS; i++)
		for (uint32_t at = 0; at < rows; at += 500)
			assert_int_equal(model_append(&w->model, i, MIN(500, rows - at)), 0);
	park(s);
	return s;
}

void world_spill(struct world *w, struct seq *s)
{
	assert_int_equal(spill_sequence(w->spill, s), 0);
	world_settle(w);
	assert_true(seq_is_spilled(s) && !seq_is_here(s));
}

void world_load(struct world *w, struct seq *s)
{
	if (spill_load(w->spill, s, why) < 0)
		fail_msg("%s", why);
	world_settle(w);
	assert_true(seq_is_here(s));
}

void world_take(struct world *w, struct seq *s)
{
	struct seq *got = NULL;
	const char *name = ((struct sequence_record *)s->record)->name;

	assert_int_equal(seq_attach(w->cache, name, FIXTURE_SESSION, &got, why), 0);
	assert_ptr_equal(got, s);
}

void world_drop(struct seq *s)
{
	assert_int_equal(seq_drop(s, why), 0);
}

void world_check(struct model *m)
{
	uint64_t session = load_relaxed(&m->seq->session);
	const char *wrong;

	/* It looks as a worker does, for somebody who is attached. */
	store_relaxed(&m->seq->session, FIXTURE_SESSION);
	wrong = model_check(m, m->rows[0]);
	if (!wrong)
		wrong = model_check_record(m);
	store_relaxed(&m->seq->session, session);
	if (wrong)
		fail_msg("%s", wrong);
}

/* Files in the directory, by what their names end in. */
unsigned world_files(const struct world *w, const char *end)
{
	char command[256];
	unsigned n = 0;
	FILE *p;

	snprintf(command, sizeof(command), "ls '%s' | grep -c '%s$'", w->config.spill_dir, end);
	p = popen(command, "r");
	assert_int_equal(fscanf(p, "%u", &n), 1);
	pclose(p);
	return n;
}

static void on_done(struct spill_wait *wait, int error, const char *text)
{
	struct client *c = container_of(wait, struct client, wait);

	c->calls++;
	c->error = error;
	snprintf(c->why, sizeof(c->why), "%s", text);
}

void client_await(struct world *w, struct seq *s, struct client *c)
{
	*c = (struct client){ .wait.done = on_done };
	if (spill_await(w->spill, s, &c->wait, why) < 0)
		fail_msg("%s", why);
	assert_int_equal(c->calls, 0);
}

int world_open_file(const struct world *w, uint64_t number)
{
	char path[200];
	int fd;

	snprintf(path, sizeof(path), "%s/%llu.seq", w->config.spill_dir,
		 (unsigned long long)number);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

uint64_t world_number(const struct seq *s)
{
	return ((struct sequence_record *)s->record)->spilled & SPILL_NUMBER_MASK;
}

void world_flip(int fd, uint64_t at)
{
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
}
