/* SPDX-License-Identifier: Apache-2.0 */
/* Two caches and what is sent to them: see step-world.h. */
#include "tests/gpu/step-world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/base.h"

#define PIECE 256u /* rows of an append */
/* Where in the arena of the session. */
#define KV_AT 0u
#define Q_AT (2u << 20)
#define O_AT (4u << 20) /* of the device's side; the other's is as far behind it */
#define REPORT_AT (6u << 20)
#define ITEMS_AT (7u << 20)
#define ARENA_BYTES (8u << 20)
#define O_BYTES (WORLD_SEQUENCES * WORLD_MOST_Q * WORLD_Q_FLOATS * sizeof(float))
_Static_assert(KV_AT + PIECE * WORLD_KV_FLOATS * sizeof(float) <= Q_AT, "rows of an append");
_Static_assert(O_AT + 2 * O_BYTES <= REPORT_AT, "results of both sides");

void world_set(struct world *w, const char *knobs)
{
	FILE *f = fopen(w->knobs, "we");

	assert_non_null(f);
	fputs(knobs, f);
	fclose(f);
}

/* ---- making ------------------------------------------------------------------------ */

static void set_up_store(struct world *w, const struct world_params *p)
{
	const uint64_t limits[USER_WHATS] = {
		[USER_BYTES] = 1ull << 30,        [USER_SESSIONS] = 4, [USER_QUEUES] = 4,
		[USER_DEVICE_BYTES] = 1ull << 30, [USER_CACHES] = 4,   [USER_SEQUENCES] = 32,
	};
	const struct arena_params memory = { .name = "test",
					     .bytes = p->pool_bytes ? p->pool_bytes : 128 * MIB,
					     .node = -1 };
	const struct catalogue_params catalogue = { .bytes = 4 << 20,
						    .max_caches = 8,
						    .max_sequences = 32 };
	struct devices_params devices = { .pool = &w->pool,
					  .arena = w->arena,
					  .n_arenas = p->parts ? p->parts : 1,
					  .module = p->module,
					  .memory_bytes = p->device_bytes,
					  .event_fd = -1 };

	for (w->parts = 0; w->parts < devices.n_arenas; w->parts++)
		assert_int_equal(arena_create(&memory, &w->arena[w->parts], NULL), 0);
	assert_int_equal(pool_init(&w->pool, w->arena, w->parts, NULL, false), 0);
	assert_int_equal(catalogue_create(&catalogue, &w->catalogue), 0);
	users_limit(&w->users, limits);
	assert_int_equal(users_get(&w->users, 1000, &w->user), 0);
	assert_int_equal(store_init(&w->store, &w->pool, w->catalogue, &w->users, 1 << 20), 0);
	assert_int_equal(devices_new(&devices, &w->store.devices), 0);
	assert_int_equal(stepper_init(&w->stepper, &w->store, 64 << 20), 0);
}

static void set_up_session(struct world *w)
{
	struct session *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->id = 1;
	s->user = w->user;
	s->n_queues = 1;
	assert_int_equal(segment_plan(1, 1, 64, ARENA_BYTES, &s->layout), 0);
	assert_int_equal(segment_create("test", s->layout.bytes, &s->segment), 0);
	s->queue[0] = (struct queue){ .session = s, .number = 1, .wake_fd = -1 };
	w->base = (float *)(void *)((char *)s->segment.base + s->layout.arena_offset);
	w->session = s;
}

static void copy_word(char *to, const char *word, const char *usual)
{
	strcpy(to, word ? word : usual);
}

static void make_cache(struct world *w, const struct world_params *p, unsigned which)
{
	struct sparq_msg_cache_create m = { .layers = WORLD_LAYERS,
					    .heads = WORLD_HEADS,
					    .kv_heads = WORLD_KV_HEADS,
					    .k_dim = WORLD_DIM,
					    .v_dim = WORLD_DIM,
					    .dtype = SPARQ_DTYPE_F32 };
	char why[SPARQ_ERROR_TEXT] = "";
	int r;

	copy_word(m.k_format, p->format, "f16");
	copy_word(m.v_format, p->format, "f16");
	copy_word(m.policy, p->policy, "dense");
	copy_word(m.options, p->options, "");
	copy_word(m.device, which ? "cpu" : p->device, "cuda:0");
	strcpy(m.name, which ? "off" : "on");
	while ((r = cache_create(&w->store, w->user, &m, &w->cache[which], why)) == DEVICE_LATER)
		sched_yield();
	if (r < 0)
		fail_msg("%s", why);
	for (uint32_t s = 0; s < WORLD_SEQUENCES; s++)
		if (seq_create(w->cache[which], "", 1, &w->seq[which][s], why) < 0)
			fail_msg("%s", why);
}

void world_open(struct world *w, const struct world_params *p)
{
	int fd;

	*w = (struct world){ .knobs = "/tmp/sparqd-knobs-XXXXXX" };
	fd = mkstemp(w->knobs);
	assert_true(fd >= 0);
	close(fd);
	setenv("FAKE_GPU", w->knobs, 1);
	set_up_store(w, p);
	set_up_session(w);
	for (unsigned which = 0; which < 2; which++)
		make_cache(w, p, which);
}

void world_close(struct world *w)
{
	seq_release_session(&w->store, 1);
	for (unsigned which = 0; which < 2; which++)
		cache_unref(w->cache[which]);
	/* The daemon's order: the device's thread goes on when the worker's memory is gone. */
	stepper_deinit(&w->stepper);
	memset(&w->stepper, 0xff, sizeof(w->stepper));
	w->store.devices = devices_free(w->store.devices);
	store_deinit(&w->store);
	assert_int_equal(w->user->charged[USER_BYTES], 0);
	assert_int_equal(w->user->charged[USER_DEVICE_BYTES], 0);
	assert_int_equal(w->pool.used_bytes, 0);
	users_put(&w->users, w->user);
	users_deinit(&w->users);
	catalogue_free(w->catalogue);
	pool_deinit(&w->pool);
	while (w->parts)
		arena_deinit(&w->arena[--w->parts]);
	segment_deinit(&w->session->segment);
	free(w->session);
	unlink(w->knobs);
}

struct device_stat world_stat(const struct world *w)
{
	struct device_stat stat;

	assert_true(devices_stat(w->store.devices, 0, &stat));
	return stat;
}

void world_await(const struct world *w, enum device_state not_this)
{
	while (world_stat(w).state == not_this)
		sched_yield();
}

/* ---- rows and steps ------------------------------------------------------------------- */

static void noise(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = (float)(random() % 2001 - 1000) / 500;
}

static struct sparq_cqe run(struct world *w, const struct sparq_sqe *e)
{
	struct sparq_cqe cqe;

	assert_true(step_run(&w->stepper, &w->session->queue[0], e, &cqe));
	step_settle(&w->stepper);
	return cqe;
}

void world_grow(struct world *w, uint32_t s, uint32_t n)
{
	for (uint32_t end = w->rows[s] + n; w->rows[s] < end; w->rows[s] += n) {
		n = MIN(end - w->rows[s], PIECE);
		noise(w->base + KV_AT / sizeof(float), (size_t)n * WORLD_KV_FLOATS);
		for (unsigned i = 0; i < 2 * WORLD_LAYERS; i++) {
			const struct sparq_sqe e = { .op = SPARQ_OP_APPEND,
						     .layer = (uint16_t)(i / 2),
						     .sequence = w->seq[i % 2][s]->id,
						     .kv = KV_AT,
						     .row = w->rows[s],
						     .n_rows = (uint16_t)n };
			struct sparq_cqe cqe = run(w, &e);

			if (cqe.res < 0)
				fail_msg("append: %s, reason %u", strerror(-cqe.res),
					 cqe.aux >> 16);
		}
	}
}

static void compare(const struct world *w, uint32_t n, uint16_t n_q, double bound)
{
	const float *a = w->base + O_AT / sizeof(float), *b = a + O_BYTES / sizeof(float);
	double most = 0, size = 0;

	for (size_t i = 0; i < (size_t)n * n_q * WORLD_Q_FLOATS; i++) {
		most = fmax(most, fabs((double)a[i] - (double)b[i]));
		size = fmax(size, fabs((double)b[i]));
		assert_false(isnan(a[i]) || isnan(b[i]));
	}
	assert_true(size > 0);
	if (most > bound * size)
		fail_msg("%g apart of %g", most, size);
}

static struct sparq_cqe attend(struct world *w, unsigned which, uint32_t n, uint16_t n_q,
			       uint16_t flags)
{
	struct sparq_item *item = (void *)((char *)w->base + ITEMS_AT);
	const struct sparq_sqe e = {
		.op = SPARQ_OP_ATTEND, .flags = flags, .n_items = (uint16_t)n, .sequence = ITEMS_AT
	};
	uint32_t each = n_q * WORLD_Q_FLOATS * (uint32_t)sizeof(float);

	memset(item, 0, n * sizeof(*item));
	for (uint32_t s = 0; s < n; s++) {
		item[s].sequence = w->seq[which][s]->id;
		item[s].q = Q_AT + s * each;
		item[s].o = O_AT + which * (uint32_t)O_BYTES + s * each;
		item[s].row = w->rows[s];
		item[s].n_q = n_q;
		item[s].report = REPORT_AT + (which * WORLD_SEQUENCES + s) *
						     (uint32_t)sizeof(struct sparq_report);
	}
	return run(w, &e);
}

struct sparq_cqe world_attend(struct world *w, uint32_t n, uint16_t n_q, uint16_t flags,
			      double bound)
{
	struct sparq_cqe off, on;

	noise(w->base + Q_AT / sizeof(float), (size_t)n * n_q * WORLD_Q_FLOATS);
	memset((char *)w->base + O_AT, 0xff, 2 * O_BYTES);
	off = attend(w, 1, n, n_q, flags);
	assert_int_equal(off.res, n);
	on = attend(w, 0, n, n_q, flags);
	if (on.res == (int32_t)n)
		compare(w, n, n_q, bound);
	return on;
}

const struct sparq_report *world_report(const struct world *w, uint32_t s)
{
	return (const struct sparq_report *)(const void *)((const char *)w->base + REPORT_AT) + s;
}
