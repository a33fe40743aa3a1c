/* SPDX-License-Identifier: Apache-2.0 */
/* The session of a client, and what it has in flight: see client.h. */
#include "tests/crash/client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define ARENA_BYTES (1024u << 10)
#define QUERY_ROWS DIV_UP(CONTENT_SETS, CONTENT_HEADS)
#define QUERY_FLOATS ((size_t)QUERY_ROWS * CONTENT_HEADS * CONTENT_DIM)
#define WAIT_NS (20 * NS_PER_S)
#define AGAIN_NS 200000
#define VERSIONS 2000u    /* after which they come again */
#define OPEN_TRIES 100000 /* 20 s */

void client_fail(const struct client *k, const char *format, ...)
{
	const char *text = k->c ? sparq_error(k->c) : "";
	va_list args;

	va_start(args, format);
	fprintf(stderr, "client %u, round %u: ", k->index, k->round);
	vfprintf(stderr, format, args);
	fprintf(stderr, "%s%s\n", *text ? ": " : "", text);
	va_end(args);
	exit(EXIT_FAILURE);
}

uint32_t client_random(struct client *k, uint32_t below)
{
	k->random = k->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((k->random >> 32) * below >> 32);
}

int client_check(const struct client *k, const char *what, int result)
{
	switch (result) {
	case -ENOTCONN:
	case -ECONNRESET:
	case -ECONNREFUSED:
	case -EPIPE:
		return -ENOTCONN;
	default:
		if (result < 0)
			client_fail(k, "%s: %s", what, strerror(-result));
		return 0;
	}
}

/* ---- caches and sequences ------------------------------------------------------------ */

enum cache_kind client_kind(uint32_t seq)
{
	static const enum cache_kind kinds[MODEL_SEQUENCES] = {
		CACHE_F16, CACHE_F16, CACHE_HIER4, CACHE_HIER4, CACHE_INT8, CACHE_F16,
	};

	return kinds[seq];
}

bool client_exact(uint32_t seq)
{
	return client_kind(seq) == CACHE_F16;
}

void client_name(const struct client *k, uint32_t seq, char ret[SPARQ_NAME_MAX + 1])
{
	snprintf(ret, SPARQ_NAME_MAX + 1, "client%u-%u", k->index, seq);
}

void client_row(uint64_t key, uint32_t layer, uint32_t row, uint16_t version, float *ret)
{
	float one[CONTENT_ROW_FLOATS];

	content_row(key, layer, row, version, one);
	for (unsigned h = 0; h < CLIENT_KV_HEADS; h++) {
		memcpy(ret + h * CONTENT_DIM, one, CONTENT_DIM * sizeof(float));
		memcpy(ret + (CLIENT_KV_HEADS + h) * CONTENT_DIM, one + CONTENT_DIM,
		       CONTENT_DIM * sizeof(float));
	}
}

void client_params(struct client *k, enum cache_kind kind, struct sparq_cache_params *ret)
{
	static const char *const format[] = { "f16", "hier4", "int8" };
	static const char *const policy[] = { "dense", "sparq", "dense" };

	snprintf(k->options, sizeof(k->options), "sinks=%d rollback=%d on_disconnect=%s",
		 MODEL_SINKS, MODEL_ROLLBACK, k->drops ? "drop" : "park");
	*ret = (struct sparq_cache_params){
		.size = sizeof(*ret),
		.layers = MODEL_LAYERS,
		.heads = CONTENT_HEADS,
		.kv_heads = CLIENT_KV_HEADS,
		.k_dim = CONTENT_DIM,
		.v_dim = CONTENT_DIM,
		.dtype = SPARQ_DTYPE_F32,
		.scale = CONTENT_SCALE,
		.name = format[kind],
		.k_format = format[kind],
		.policy = policy[kind],
		.options = k->options,
	};
}

static int open_cache(struct client *k, enum cache_kind kind)
{
	struct sparq_cache_params params;

	client_params(k, kind, &params);
	return client_check(k, "cache", sparq_cache_create(k->c, &params, &k->cache[kind]));
}

/* Where it lies changes with the session. */
static void place_buffer(struct client *k)
{
	size_t kv = (size_t)SLOTS * SLOT_ROWS * CLIENT_ROW_FLOATS;

	k->item = sparq_buf_data(k->buf, NULL);
	k->kv = (float *)(k->item + SLOTS * MODEL_SEQUENCES);
	k->q = k->kv + kv;
	k->o = k->q + QUERY_FLOATS;
	k->lse = k->o + QUERY_FLOATS;
}

static int open_buffer(struct client *k)
{
	size_t kv = (size_t)SLOTS * SLOT_ROWS * CLIENT_ROW_FLOATS;
	size_t floats = kv + 2 * QUERY_FLOATS + ALIGN_UP(CONTENT_SETS, 16);
	size_t items = SLOTS * MODEL_SEQUENCES * sizeof(*k->item);
	int r;

	r = client_check(k, "buffer",
			 sparq_buf_alloc(k->c, items + floats * sizeof(float), &k->buf));
	if (r == 0)
		place_buffer(k);
	return r;
}

static int open_session(struct client *k)
{
	char why[SPARQ_ERROR_TEXT] = "";
	struct sparq_open_params params = {
		.size = sizeof(params),
		.arena_bytes = ARENA_BYTES,
		.why = why,
	};
	struct sparq_info info = { .size = sizeof(info) };
	int r = sparq_open(k->socket, &params, &k->c);

	if (r == -ENOENT || r == -EAGAIN)
		r = -ENOTCONN;
	if (r < 0 && why[0] && client_check(k, why, r))
		return -ENOTCONN;
	r = client_check(k, "open", r);
	if (r == 0)
		r = client_check(k, "info", sparq_info_get(k->c, &info));
	if (r == 0)
		r = client_check(k, "queue", sparq_queue_create(k->c, NULL, &k->queue));
	if (r == 0)
		k->pid = info.pid;
	return r;
}

int client_open_bare(struct client *k)
{
	int r = open_session(k);

	if (r == 0)
		r = open_buffer(k);
	if (r < 0)
		client_close(k);
	return r;
}

/* As sparq_queue_resume(3) has it. */
static int resume(struct client *k)
{
	struct sparq_info info = { .size = sizeof(info) };
	struct sparq_cqe *cqe;
	int r;

	while (sparq_wait(k->queue, &cqe, 0) >= 0)
		sparq_seen(k->queue, 1);
	r = sparq_queue_resume(k->queue, WAIT_NS);
	if (r < 0)
		client_fail(k, "resume: %s: %s", strerror(-r), sparq_queue_error(k->queue));
	place_buffer(k);
	k->spare = sparq_seq_unref(k->spare);
	k->spare_cache = sparq_cache_unref(k->spare_cache);
	r = client_check(k, "info", sparq_info_get(k->c, &info));
	k->pid = info.pid;
	return r;
}

void client_open(struct client *k)
{
	struct timespec again = { .tv_nsec = AGAIN_NS };

	if (k->c && resume(k) == 0)
		return;
	client_close(k);
	for (unsigned i = 0; i < OPEN_TRIES; i++) {
		int r = open_session(k);

		for (enum cache_kind kind = 0; r == 0 && kind < CACHE_KINDS; kind++)
			r = open_cache(k, kind);
		if (r == 0)
			r = open_buffer(k);
		if (r == 0)
			return;
		client_close(k);
		nanosleep(&again, NULL);
	}
	client_fail(k, "nobody answers at %s", k->socket);
}

void client_break(struct client *k)
{
	k->done = k->begun; /* numbers are not used again: operations of unknown fate bear them */
	memset(k->fresh, 0, sizeof(k->fresh));
	/* What has no name is only found again by who has a handle of it. */
	if (!k->resumes && !k->spare && !k->spare_cache)
		client_close(k);
}

void client_close(struct client *k)
{
	k->spare = sparq_seq_unref(k->spare);
	k->spare_cache = sparq_cache_unref(k->spare_cache);
	for (uint32_t s = 0; s < MODEL_SEQUENCES; s++)
		k->seq[s] = sparq_seq_unref(k->seq[s]);
	for (enum cache_kind kind = 0; kind < CACHE_KINDS; kind++)
		k->cache[kind] = sparq_cache_unref(k->cache[kind]);
	k->buf = sparq_buf_unref(k->buf);
	k->queue = sparq_queue_close(k->queue);
	k->c = sparq_close(k->c);
}

/* ---- entries ----------------------------------------------------------------------------- */

uint64_t client_addr(const struct client *k, const void *p)
{
	return sparq_buf_addr(k->buf) +
	       (uint64_t)((const char *)p - (const char *)sparq_buf_data(k->buf, NULL));
}

uint16_t client_version(struct client *k)
{
	return k->next_version = (uint16_t)((k->next_version + 1) % VERSIONS);
}

float *client_rows(const struct client *k, uint32_t slot)
{
	return k->kv + (size_t)slot * SLOT_ROWS * CLIENT_ROW_FLOATS;
}

struct sparq_sqe *client_entry(struct client *k, uint32_t *ret_slot)
{
	struct sparq_sqe *sqe;

	while (k->begun - k->done >= SLOTS)
		if (client_take(k, NULL) < 0)
			return NULL;
	sqe = sparq_get_sqe(k->queue);
	if (sqe)
		*ret_slot = k->begun % SLOTS;
	return sqe;
}

int client_submit(struct client *k)
{
	int r = client_check(k, "submit", sparq_submit(k->queue, 0));

	k->begun++;
	k->submits++;
	return r;
}

static void acknowledge(struct client *k, uint64_t entry)
{
	for (uint32_t i = 0; i < k->model.n_pending && k->model.pending[i].entry == entry; i++) {
		const struct op *op = &k->model.pending[i];

		if (op->kind == OP_APPEND)
			k->fresh[op->seq][op->layer] = true;
	}
	k->count->acknowledged += model_acknowledge(&k->model, entry);
}

int client_take(struct client *k, struct sparq_cqe *ret)
{
	struct sparq_cqe *shared, cqe;
	int r = client_check(k, "wait", sparq_wait(k->queue, &shared, WAIT_NS));

	if (r < 0)
		return r;
	cqe = *shared;
	sparq_seen(k->queue, 1);
	if (cqe.res == -ECONNRESET)
		return -ENOTCONN; /* so are all that follow */
	if (cqe.user_data != k->done)
		client_fail(k, "completion of entry %lu, expected %lu", cqe.user_data, k->done);
	if (cqe.res < 0)
		client_fail(k, "entry %lu: %s: %s", cqe.user_data, strerror(-cqe.res),
			    sparq_reason(cqe.aux >> 16));
	acknowledge(k, cqe.user_data);
	k->done++;
	k->count->repeated += !!(cqe.flags & SPARQ_CQE_REPEATED);
	if (ret)
		*ret = cqe;
	return 0;
}

int client_drain(struct client *k)
{
	int r = 0;

	while (r == 0 && k->done < k->begun)
		r = client_take(k, NULL);
	return r;
}

void client_sent(struct client *k, const struct op *op)
{
	model_send(&k->model, op);
	k->changes[op->seq]++;
	/* Its tile is quantised again, with the rows around it. */
	if (op->kind == OP_OVERWRITE)
		k->digest[op->seq][op->layer].rows = 0;
	if (op->kind != OP_TRUNCATE && op->kind != OP_TRUNCATE_ALL)
		return;
	for (uint32_t l = 0; l < MODEL_LAYERS; l++) {
		struct digest *d = &k->digest[op->seq][l];

		if (op->row < d->rows && (op->kind == OP_TRUNCATE_ALL || op->layer == l))
			d->rows = 0;
	}
}
