/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client does besides that touches files, other sessions or much memory: prefixes
 * that are found by their tokens, sequences saved and loaded, parked ones that make room
 * for others. For the points that nothing else reaches. See client.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/base.h"
#include "tests/crash/client.h"

#define TEXT_ROWS 400
#define COLD_NAMES 8
#define COLD_ROWS 300
#define REATTACH_US 1300000
#define COLD_TRIES 500
#define COLD_AGAIN_US 10000
#define COLD_BUDGET (MIB + MIB / 2)

/* Rows [first, s->rows) of every layer, as `s` says. */
static int append_all(struct client *k, sparq_seq *handle, const struct model_seq *s,
		      uint32_t first)
{
	int r = 0;

	for (uint32_t l = 0; l < MODEL_LAYERS; l++)
		for (uint32_t row = first; r == 0 && row < s->rows[l]; row += SLOT_ROWS)
			r = load_rows(k, handle, s, l, row, MIN(SLOT_ROWS, s->rows[l] - row));
	return r == 0 ? client_drain(k) : r;
}

static int must_hold(struct client *k, sparq_seq *handle, uint32_t seq, const struct model_seq *s,
		     const char *what)
{
	uint32_t wrong;
	int r = verify_content(k, handle, seq, s, &wrong);

	if (r == 0 && wrong)
		client_fail(k, "%s: %u rows are wrong", what, wrong);
	return r;
}

/* A cache of rows that come back exactly, beside those of the model. */
static int open_beside(struct client *k, const char *name, const char *options, uint64_t budget)
{
	struct sparq_cache_params params;

	client_params(k, CACHE_F16, &params);
	params.name = name;
	params.budget_bytes = budget;
	params.options = options;
	return client_check(k, name, sparq_cache_create(k->c, &params, &k->spare_cache));
}

/* A text of which most is always the same: whoever begins with it has those rows already. */
int load_tokens(struct client *k)
{
	static struct model_seq s;
	uint32_t ids[TEXT_ROWS], n = TEXT_ROWS / 2 + client_random(k, TEXT_ROWS / 2);
	uint64_t rows = 0;
	int r = client_drain(k);

	for (uint32_t i = 0; i < n; i++)
		ids[i] = i < TEXT_ROWS / 2 ? i : client_random(k, 1000);
	s = (struct model_seq){ .exists = true, .key = k->index + 1 };
	/* Only where it may be evicted does what nobody has stay for the next. */
	if (r == 0)
		r = open_beside(k, "texts", "sinks=4 rollback=8 evict=lru", 0);
	if (r == 0)
		r = client_check(k, "prefix",
				 sparq_seq_create_prefix(k->spare_cache, NULL, ids, n, &k->spare,
							 &rows));
	if (r < 0)
		return r;
	s.rows[0] = s.rows[1] = (uint32_t)rows;
	r = must_hold(k, k->spare, 0, &s, "prefix");
	s.rows[0] = s.rows[1] = n;
	if (r == 0)
		r = append_all(k, k->spare, &s, (uint32_t)rows);
	if (r == 0)
		r = must_hold(k, k->spare, 0, &s, "text");
	if (r < 0)
		return r;
	k->spare = sparq_seq_unref(k->spare);
	k->spare_cache = sparq_cache_unref(k->spare_cache);
	return 0;
}

/* Out to a file and in again: the same rows. */
int load_file(struct client *k, uint32_t seq)
{
	struct sparq_file_params params = { .size = sizeof(params), .flags = SPARQ_FILE_REPLACE };
	char path[160];
	int r = client_drain(k);

	snprintf(path, sizeof(path), "%s.%u", k->socket, k->index);
	if (r == 0)
		r = client_check(k, "save", sparq_seq_save(k->seq[seq], path, &params));
	if (r == 0)
		r = client_check(k, "load",
				 sparq_seq_load(k->cache[client_kind(seq)], path, "", NULL,
						&k->spare));
	if (r == 0)
		r = must_hold(k, k->spare, seq, &k->model.seq[seq], "loaded");
	if (r == 0)
		k->spare = sparq_seq_unref(k->spare);
	return r;
}

/* ---- sequences that are parked between two visits --------------------------------------- */

static int make_cold(struct client *k, const char *name, const struct model_seq *s)
{
	int r = client_check(k, "create", sparq_seq_create(k->spare_cache, name, &k->spare));

	return r < 0 ? r : append_all(k, k->spare, s, 0);
}

/* It is there with all rows, or gone as a whole to make room for another. */
static int visit_cold(struct client *k, uint32_t number)
{
	static struct model_seq s;
	struct sparq_seq_stat stat = { .size = sizeof(stat) };
	char name[32];
	int r;

	snprintf(name, sizeof(name), "cold%u-%u", k->index, number);
	s = (struct model_seq){ .exists = true,
				.key = number + 1,
				.rows = { COLD_ROWS, COLD_ROWS } };
	/* No room until the session before is seen to be over, and what it had can go. */
	for (unsigned i = 0; i < COLD_TRIES; i++) {
		r = sparq_seq_attach(k->spare_cache, name, &k->spare);
		if (r != -ENOSPC && r != -EBUSY)
			break;
		usleep(COLD_AGAIN_US);
	}
	if (r == -ENOENT)
		return make_cold(k, name, &s);
	r = client_check(k, "attach", r);
	if (r == 0)
		r = client_check(k, "stat", sparq_seq_stat_get(k->spare, SPARQ_LAYER_ALL, &stat));
	/* The daemon died before its last append was answered: these are not acknowledged. */
	if (r == 0 && stat.rows_least < COLD_ROWS) {
		sparq_seq *half = k->spare;

		k->spare = NULL;
		return client_check(k, "drop", sparq_seq_drop(half));
	}
	return r < 0 ? r : must_hold(k, k->spare, 0, &s, name);
}

/* In a session of its own, for a sequence is parked when its session ends. */
int load_cold(struct client *k)
{
	static struct client visitor;
	int r = client_drain(k);

	if (r < 0)
		return r;
	visitor = (struct client){
		.shared = k->shared,
		.count = k->count,
		.socket = k->socket,
		.index = k->index,
	};
	/* What a crash has left in use is nobody's to evict before reattach_s is over. */
	usleep(k->visited == k->pid ? COLD_AGAIN_US : REATTACH_US);
	k->visited = k->pid;
	if (client_open_bare(&visitor) < 0)
		return -ENOTCONN;
	r = open_beside(&visitor, "cold",
			k->spills ? "on_disconnect=park" : "on_disconnect=park evict=lru",
			COLD_BUDGET);
	if (r == 0)
		r = visit_cold(&visitor, client_random(k, COLD_NAMES));
	client_close(&visitor);
	return r;
}
