/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client does between two crashes: appends of all kinds, drafts that come
 * and go, rows that others take the place of, deep cuts, forks, sequences dropped and made anew.
 * See client.h.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "tests/crash/client.h"

#define CONTROL_ENTRY UINT64_MAX /* of an operation that is a request */
#define DRAFT_ROWS 8
#define TILE_ROWS 128
#define LONG_ROWS 300

/* ---- appends ------------------------------------------------------------------------------ */

static void fill_rows(const struct client *k, uint64_t key, const struct op *op, float *kv)
{
	for (uint32_t i = 0; i < op->n; i++)
		client_row(key, op->layer, op->row + i, op->version,
			   kv + (size_t)i * CLIENT_ROW_FLOATS);
}

static uint64_t key_of(const struct client *k, uint32_t seq)
{
	uint64_t key = k->model.seq[seq].key;

	for (uint32_t i = 0; i < k->model.n_pending; i++)
		if (k->model.pending[i].kind == OP_CREATE && k->model.pending[i].seq == seq)
			key = k->model.pending[i].key;
	return key;
}

/* A step needs a query: any. */
static void add_query(struct client *k, struct sparq_sqe *sqe)
{
	for (unsigned i = 0; i < CONTENT_HEADS * CONTENT_DIM; i++)
		k->q[i] = (float)(i % 7) / 8;
	sqe->op = SPARQ_OP_STEP;
	sqe->q = client_addr(k, k->q);
	sqe->o = client_addr(k, k->o);
	sqe->n_q = 1;
}

int load_append(struct client *k, const struct op *op, uint16_t flags)
{
	struct sparq_sqe *sqe;
	uint32_t slot;

	sqe = client_entry(k, &slot);
	if (!sqe)
		return -ENOTCONN;
	fill_rows(k, key_of(k, op->seq), op, client_rows(k, slot));
	sparq_prep_append(sqe, sparq_seq_id(k->seq[op->seq]), (uint16_t)op->layer,
			  client_addr(k, client_rows(k, slot)), op->row, (uint16_t)op->n);
	if (client_random(k, 2))
		add_query(k, sqe);
	sqe->flags = flags;
	sqe->user_data = k->begun;
	return client_submit(k);
}

static int append(struct client *k, uint32_t seq, uint32_t layer, uint32_t n)
{
	struct op op = { .kind = OP_APPEND, .seq = seq, .layer = layer, .n = n };
	int r = k->begun - k->done < SLOTS ? 0 : client_take(k, NULL);

	if (r < 0)
		return r;
	op.row = model_rows_sent(&k->model, seq, layer);
	op.version = k->version[seq];
	op.entry = k->begun;
	client_sent(k, &op);
	return load_append(k, &op, 0);
}

/* A row or more for every sequence of a cache in one entry, as engines send them. */
static int append_batch(struct client *k, enum cache_kind kind, uint32_t layer, uint32_t n)
{
	struct sparq_item *item;
	struct sparq_sqe *sqe;
	uint32_t slot, n_items = 0;

	sqe = client_entry(k, &slot);
	if (!sqe)
		return -ENOTCONN;
	item = k->item + (size_t)slot * MODEL_SEQUENCES;
	for (uint32_t s = 0; s < MODEL_SEQUENCES; s++) {
		float *kv = client_rows(k, slot) + (size_t)n_items * n * CLIENT_ROW_FLOATS;
		struct op op = { OP_APPEND,     s, layer,   model_rows_sent(&k->model, s, layer), n,
				 k->version[s], 0, k->begun };

		if (!k->seq[s] || client_kind(s) != kind || op.row + n > CONTENT_MAX_ROWS)
			continue;
		fill_rows(k, key_of(k, s), &op, kv);
		item[n_items++] = (struct sparq_item){
			.sequence = sparq_seq_id(k->seq[s]),
			.kv = client_addr(k, kv),
			.row = op.row,
			.n_rows = (uint16_t)n,
		};
		client_sent(k, &op);
	}
	if (n_items == 0)
		sparq_prep_nop(sqe, k->begun);
	else
		sparq_prep_items(sqe, SPARQ_OP_APPEND, (uint16_t)layer, client_addr(k, item),
				 (uint16_t)n_items);
	sqe->user_data = k->begun;
	return client_submit(k);
}

/* ---- other rows ---------------------------------------------------------------------------- */

/* Only of every second sequence: the others are to be compared with replicas. */
static int overwrite(struct client *k, uint32_t seq)
{
	struct op op = { .kind = OP_OVERWRITE, .seq = seq };
	uint32_t rows, slot;
	struct sparq_sqe *sqe;
	float *kv;

	op.layer = client_random(k, MODEL_LAYERS);
	rows = model_rows_sent(&k->model, seq, op.layer);
	if (seq % 2 == 0 || rows == 0)
		return 0;
	sqe = client_entry(k, &slot);
	if (!sqe)
		return -ENOTCONN;
	op.row = client_random(k, rows);
	op.n = 1 + client_random(k, MIN(rows - op.row, SLOT_ROWS));
	op.version = client_version(k);
	op.entry = k->begun;
	client_sent(k, &op);
	kv = client_rows(k, slot);
	fill_rows(k, key_of(k, seq), &op, kv);
	sparq_prep_overwrite(sqe, sparq_seq_id(k->seq[seq]), (uint16_t)op.layer, client_addr(k, kv),
			     op.row, (uint16_t)op.n);
	sqe->user_data = k->begun;
	return client_submit(k);
}

/* ---- fewer rows --------------------------------------------------------------------------- */

static int truncate_entry(struct client *k, const struct op *given)
{
	struct op op = *given;
	struct sparq_sqe *sqe;
	uint32_t slot;

	sqe = client_entry(k, &slot);
	if (!sqe)
		return -ENOTCONN;
	op.entry = k->begun;
	k->version[op.seq] = client_version(k);
	client_sent(k, &op);
	sparq_prep_truncate(sqe, sparq_seq_id(k->seq[op.seq]),
			    op.kind == OP_TRUNCATE_ALL ? SPARQ_LAYER_ALL : (uint16_t)op.layer,
			    op.row);
	sqe->user_data = k->begun;
	return client_submit(k);
}

static uint32_t least_sent(const struct client *k, uint32_t seq)
{
	uint32_t least = UINT32_MAX;

	for (uint32_t l = 0; l < MODEL_LAYERS; l++)
		least = MIN(least, model_rows_sent(&k->model, seq, l));
	return least;
}

/* One sequence is only cut when it is long, and where a tile ends, so that it has many whole ones.
 */
static uint32_t deep_row(const struct client *k, uint32_t seq, uint32_t row)
{
	if (seq > 0)
		return row;
	return row < MODEL_SINKS ? 0 : row - (row - MODEL_SINKS) % TILE_ROWS;
}

/* To any row, or some rows back, which is what a rejected draft is. */
static int cut(struct client *k, uint32_t seq, bool deep)
{
	bool all = client_random(k, 2);
	struct op op = { .kind = all ? OP_TRUNCATE_ALL : OP_TRUNCATE, .seq = seq };
	uint32_t rows, back;

	op.layer = client_random(k, MODEL_LAYERS);
	rows = all ? least_sent(k, seq) : model_rows_sent(&k->model, seq, op.layer);
	deep = deep && (seq > 0 || rows > LONG_ROWS);
	back = deep ? client_random(k, rows + 1) : client_random(k, MIN(rows, DRAFT_ROWS) + 1);
	op.row = deep ? deep_row(k, seq, rows - back) : rows - back;
	return truncate_entry(k, &op);
}

/* ---- requests ----------------------------------------------------------------------------- */

/* Its answer is its acknowledgement; a session that broke leaves it in flight. */
static int answered(struct client *k, const char *what, int result)
{
	int r = client_check(k, what, result);

	if (r == 0)
		model_acknowledge(&k->model, CONTROL_ENTRY);
	return r;
}

static int create(struct client *k, uint32_t seq)
{
	struct op op = { .kind = OP_CREATE, .seq = seq, .entry = CONTROL_ENTRY };
	char name[SPARQ_NAME_MAX + 1];
	int r = client_drain(k);

	if (r < 0)
		return r;
	op.key = (uint64_t)client_random(k, UINT32_MAX) << 32 | client_random(k, UINT32_MAX);
	memset(k->digest[seq], 0, sizeof(k->digest[seq]));
	memset(k->fresh[seq], 0, sizeof(k->fresh[seq]));
	client_sent(k, &op);
	client_name(k, seq, name);
	return answered(k, "create",
			sparq_seq_create(k->cache[client_kind(seq)], name, &k->seq[seq]));
}

static int drop(struct client *k, uint32_t seq)
{
	struct op op = { .kind = OP_DROP, .seq = seq, .entry = CONTROL_ENTRY };
	sparq_seq *s = k->seq[seq];
	int r = client_drain(k);

	if (r < 0)
		return r;
	client_sent(k, &op);
	k->seq[seq] = NULL; /* let go of in any case */
	return answered(k, "drop", sparq_seq_drop(s));
}

static int cut_by_request(struct client *k, uint32_t seq)
{
	struct op op = { .kind = OP_TRUNCATE_ALL, .seq = seq, .entry = CONTROL_ENTRY };
	int r = client_drain(k);

	if (r < 0)
		return r;
	op.row = deep_row(k, seq, client_random(k, least_sent(k, seq) + 1));
	k->version[seq] = client_version(k);
	client_sent(k, &op);
	return answered(k, "truncate", sparq_seq_truncate(k->seq[seq], op.row));
}

/* ---- a mixture ----------------------------------------------------------------------------- */

static int append_some(struct client *k, uint32_t seq)
{
	uint32_t layer = client_random(k, MODEL_LAYERS);
	uint32_t n = client_random(k, 2) ? 1 : 1 + client_random(k, SLOT_ROWS);

	if (!k->seq[seq])
		return create(k, seq);
	if (model_rows_sent(&k->model, seq, layer) + n > CONTENT_MAX_ROWS)
		return client_random(k, 2) ? cut(k, seq, true) : drop(k, seq);
	return append(k, seq, layer, n);
}

static int one_extra(struct client *k, uint32_t seq)
{
	switch (client_random(k, 4)) {
	case 0:
		return load_file(k, seq);
	case 1:
		return load_tokens(k);
	default:
		return load_cold(k);
	}
}

static int one_operation(struct client *k)
{
	uint32_t seq = client_random(k, MODEL_SEQUENCES), dice = client_random(k, 100);

	if (k->extras && k->seq[seq] && client_random(k, 20) == 0)
		return one_extra(k, seq);
	if (dice < 54 || !k->seq[seq])
		return append_some(k, seq);
	if (dice < 60)
		return overwrite(k, seq);
	if (dice < 75)
		return append_batch(k, client_random(k, CACHE_KINDS),
				    client_random(k, MODEL_LAYERS), 1 + client_random(k, 8));
	if (dice < 86)
		return cut(k, seq, false);
	if (dice < 90)
		return cut(k, seq, true);
	if (dice < 91)
		return cut_by_request(k, seq);
	if (dice < 92)
		return drop(k, seq);
	if (dice < 94)
		return load_fork(k, seq);
	if (dice < 96)
		return load_digest(k, seq);
	if (dice < 97)
		return load_replica(k, seq);
	return dice < 98 ? load_cache(k) : client_drain(k);
}

/* Of the round that is on: is it for this client to end it, now? */
static bool shall_kill(struct client *k)
{
	uint32_t round = load_acquire(&k->shared->round);

	if (round != k->round)
		k->submits = 0;
	k->round = round;
	return k->submits >= k->shared->submits && k->shared->killer == k->index;
}

/* At any time, or while the daemon has as much to do as fits into a ring. */
static int kill_daemon(struct client *k)
{
	int64_t end;
	int r = 0;

	while (r == 0 && k->shared->fill && k->begun - k->done < SLOTS)
		r = append_some(k, client_random(k, MODEL_SEQUENCES));
	end = clock_now_ns() + k->shared->spin_ns;
	while (r == 0 && clock_now_ns() < end)
		cpu_pause();
	kill(k->pid, SIGKILL);
	k->submits = 0; /* not twice: it takes a while to die */
	return r;
}

int load_run(struct client *k)
{
	uint64_t n = 0;
	int r = 0;

	while (r == 0 && !load_acquire(&k->shared->stopping)) {
		if (k->operations && n++ == k->operations)
			break;
		if (load_relaxed(&k->shared->leaving) == k->round)
			return -ENOTCONN; /* as if the daemon had gone */
		if (shall_kill(k)) {
			r = kill_daemon(k);
			continue;
		}
		/* Some of the time with few in flight: a crash then finds the daemon idle. */
		if (client_random(k, SLOTS) < k->begun - k->done)
			r = client_take(k, NULL);
		else
			r = one_operation(k);
	}
	return r < 0 ? r : client_drain(k);
}
