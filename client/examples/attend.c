/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side of a token, with libsparq
 *
 * One STEP entry a layer, with an item for each lane: an item may ask for a
 * report, an entry alone cannot. Layer l + 1 needs the o of layer l, so there
 * is one entry in flight; other sequences are what fills a ring, and those are
 * items of the same entry here.
 *
 * The buffers lie in the session's arena: what is written there is what the
 * daemon reads, and o appears there.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/examples/attend.h"
#include "client/examples/progress.h"
#include "client/examples/why.h"
#include "client/sparq.h"

#define WAIT_S 60ll /* longer than any step: the daemon hangs */

enum { BUF_Q, BUF_KV, BUF_O, BUF_ITEMS, BUF_REPORTS, BUFS };

struct attend {
	sparq *c;
	sparq_cache *cache;
	sparq_queue *queue;
	sparq_buf *buf[BUFS];
	uint8_t *data[BUFS]; /* in the present session */
	uint64_t addr[BUFS];
	uint32_t wait_s;
	uint32_t layers, lanes, max_rows;
	uint32_t q_floats, kv_floats; /* of a row; o as q */
	uint32_t element_bytes;       /* 4: f32, 2: f16 */
	sparq_seq **seq;
	uint32_t *rows; /* of each lane, complete in all layers */
	struct attend_count count;
};

/* ---- opening -------------------------------------------------------------------- */

static uint32_t block_rows(const struct attend *a)
{
	return MAX(SPARQ_MAX_ROWS, a->lanes);
}

static void buf_sizes(const struct attend *a, size_t *ret)
{
	const size_t rows = block_rows(a);

	ret[BUF_Q] = rows * a->q_floats * a->element_bytes;
	ret[BUF_KV] = rows * a->kv_floats * a->element_bytes;
	ret[BUF_O] = ret[BUF_Q];
	ret[BUF_ITEMS] = a->lanes * sizeof(struct sparq_item);
	ret[BUF_REPORTS] = a->lanes * sizeof(struct sparq_report);
}

static int open_session(struct attend *a, const struct attend_daemon *daemon, char *why)
{
	char text[SPARQ_ERROR_TEXT] = "";
	struct sparq_open_params params = {
		.size = sizeof(params),
		.queues = 1,
		.why = text,
		.reconnect_ms = daemon->wait_s ? daemon->wait_s * 1000 : UINT32_MAX,
	};
	struct sparq_info info = { .size = sizeof(info) };
	size_t sizes[BUFS];
	int r;

	buf_sizes(a, sizes);
	params.arena_bytes = 64 * KIB;
	for (unsigned i = 0; i < BUFS; i++)
		params.arena_bytes += ALIGN_UP(sizes[i], 4 * KIB);
	r = sparq_open(daemon->socket, &params, &a->c);
	if (r < 0)
		return why_set(why, r, "no session with sparqd: %.200s",
			       *text ? text : strerror(-r));
	r = sparq_info_get(a->c, &info);
	if (r < 0)
		return why_set(why, r, "sparqd: %s", sparq_error(a->c));
	a->max_rows = MIN(info.max_rows, SPARQ_MAX_ROWS);
	if (a->lanes > info.max_items)
		return why_set(why, -E2BIG, "%u sequences in one entry; the daemon takes %u",
			       a->lanes, info.max_items);
	return 0;
}

static void find_bufs(struct attend *a)
{
	for (unsigned i = 0; i < BUFS; i++)
		a->data[i] = sparq_buf_data(a->buf[i], NULL);
}

static int make_bufs(struct attend *a, char *why)
{
	size_t sizes[BUFS];

	buf_sizes(a, sizes);
	for (unsigned i = 0; i < BUFS; i++) {
		int r = sparq_buf_alloc(a->c, sizes[i], &a->buf[i]);

		if (r < 0)
			return why_set(why, r, "arena: %s", sparq_error(a->c));
		a->addr[i] = sparq_buf_addr(a->buf[i]);
	}
	find_bufs(a);
	return 0;
}

static int make_cache(struct attend *a, const struct attend_params *p, char *why)
{
	const struct sparq_cache_params params = {
		.size = sizeof(params),
		.layers = p->layers,
		.heads = p->heads,
		.kv_heads = p->kv_heads,
		.k_dim = p->head_dim,
		.v_dim = p->head_dim,
		.dtype = a->element_bytes == 4 ? SPARQ_DTYPE_F32 : SPARQ_DTYPE_F16,
		.k_format = p->format,
		.policy = p->policy,
		.options = p->options,
	};
	int r = sparq_cache_create(a->c, &params, &a->cache);

	if (r < 0)
		return why_set(why, r, "cache %s over %s: %s", p->policy, p->format,
			       sparq_error(a->c));
	r = sparq_queue_create(a->c, NULL, &a->queue);
	if (r < 0)
		return why_set(why, r, "queue: %s", sparq_error(a->c));
	return 0;
}

static int open_all(struct attend *a, const struct attend_params *p, char *why)
{
	int r;

	a->seq = calloc(a->lanes, sizeof(sparq_seq *));
	a->rows = calloc(a->lanes, sizeof(*a->rows));
	if (!a->seq || !a->rows)
		return why_set(why, -ENOMEM, "no memory for %u lanes", a->lanes);
	r = open_session(a, &p->daemon, why);
	if (r == 0)
		r = make_bufs(a, why);
	if (r == 0)
		r = make_cache(a, p, why);
	if (r == 0)
		r = attend_restart(a, why);
	return r;
}

int attend_open(const struct attend_params *p, char *why, struct attend **ret)
{
	struct attend *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return why_set(why, -ENOMEM, "no memory for a session");
	a->wait_s = p->daemon.wait_s;
	a->layers = p->layers;
	a->lanes = p->lanes;
	a->q_floats = p->heads * p->head_dim;
	a->kv_floats = 2 * p->kv_heads * p->head_dim;
	a->element_bytes = strcmp(p->format, "f32") == 0 ? 4 : 2;
	r = open_all(a, p, why);
	if (r < 0) {
		attend_close(a);
		return r;
	}
	*ret = a;
	return 0;
}

static void drop_sequences(struct attend *a)
{
	for (uint32_t i = 0; a->seq && i < a->lanes; i++)
		a->seq[i] = sparq_seq_unref(a->seq[i]);
}

struct attend *attend_close(struct attend *a)
{
	if (!a)
		return NULL;
	sparq_queue_close(a->queue);
	drop_sequences(a);
	sparq_cache_unref(a->cache);
	for (unsigned i = 0; i < BUFS; i++)
		sparq_buf_unref(a->buf[i]);
	sparq_close(a->c);
	free(a->seq);
	free(a->rows);
	free(a);
	return NULL;
}

uint32_t attend_max_rows(const struct attend *a)
{
	return a->max_rows;
}

uint32_t attend_rows(const struct attend *a, uint32_t lane)
{
	return a->rows[lane];
}

int attend_restart(struct attend *a, char *why)
{
	drop_sequences(a);
	for (uint32_t i = 0; i < a->lanes; i++) {
		int r = sparq_seq_create(a->cache, NULL, &a->seq[i]);

		if (r < 0)
			return why_set(why, r, "sequence %u: %s", i, sparq_error(a->c));
		a->rows[i] = 0;
	}
	return 0;
}

/* ---- a layer ---------------------------------------------------------------------- */

static void narrow(const struct attend *a, const float *from, size_t n, uint8_t *to)
{
	_Float16 *half = (_Float16 *)to;

	if (a->element_bytes == 4) {
		memcpy(to, from, n * sizeof(*from));
		return;
	}
	for (size_t i = 0; i < n; i++)
		half[i] = (_Float16)from[i];
}

static void widen(const struct attend *a, const uint8_t *from, size_t n, float *to)
{
	const _Float16 *half = (const _Float16 *)from;

	if (a->element_bytes == 4) {
		memcpy(to, from, n * sizeof(*to));
		return;
	}
	for (size_t i = 0; i < n; i++)
		to[i] = (float)half[i];
}

static void fill_items(struct attend *a, struct attend_block b)
{
	struct sparq_item *item = (struct sparq_item *)a->data[BUF_ITEMS];
	const uint64_t q_bytes = (uint64_t)b.rows * a->q_floats * a->element_bytes;
	const uint64_t kv_bytes = (uint64_t)b.rows * a->kv_floats * a->element_bytes;

	for (uint32_t i = 0; i < b.lanes; i++) {
		item[i] = (struct sparq_item){
			.sequence = sparq_seq_id(a->seq[b.first_lane + i]),
			.q = a->addr[BUF_Q] + i * q_bytes,
			.kv = a->addr[BUF_KV] + i * kv_bytes,
			.o = a->addr[BUF_O] + i * q_bytes,
			.row = a->rows[b.first_lane + i],
			.n_rows = (uint16_t)b.rows,
			.n_q = (uint16_t)b.rows,
			.report = a->addr[BUF_REPORTS] + i * sizeof(struct sparq_report),
		};
	}
}

/* One completion. -ENOTCONN: the daemon went away before there was one. */
static int take_completion(struct attend *a, uint32_t layer, struct sparq_cqe *ret, char *why)
{
	struct sparq_cqe *cqe;
	int r;

	do {
		r = sparq_wait(a->queue, &cqe, WAIT_S * 1000000000);
	} while (r == -EINTR);
	if (r == -ETIME)
		return why_set(why, r, "layer %u: the daemon did not answer within %lld s", layer,
			       WAIT_S);
	if (r < 0)
		return r;
	*ret = *cqe;
	sparq_seen(a->queue, 1);
	return ret->res == -ECONNRESET ? -ENOTCONN : 0;
}

/* -ENOTCONN: it was done, or not: the daemon went away. */
static int step(struct attend *a, uint32_t layer, uint32_t lanes, uint16_t flags,
		uint64_t *ret_bytes, char *why)
{
	struct sparq_sqe *sqe = sparq_get_sqe(a->queue);
	struct sparq_cqe cqe = { 0 };
	int r;

	if (!sqe)
		return -ENOTCONN;
	sparq_prep_items(sqe, SPARQ_OP_STEP, (uint16_t)layer, a->addr[BUF_ITEMS], (uint16_t)lanes);
	sqe->user_data = layer;
	sqe->flags = flags;
	r = sparq_submit(a->queue, 0);
	if (r == 1)
		r = take_completion(a, layer, &cqe, why);
	if (r < 0)
		return r;
	if (cqe.res < 0)
		return why_set(why, cqe.res, "layer %u, sequence %u of the entry: %s (%s)", layer,
			       cqe.aux & 0xffff, sparq_reason(cqe.aux >> 16), strerror(-cqe.res));
	if ((uint32_t)cqe.res != lanes)
		return why_set(why, -EIO, "layer %u: %d of %u sequences done", layer, cqe.res,
			       lanes);
	*ret_bytes = cqe.bytes_read;
	return 0;
}

/* Waits for a daemon, and sees that it has all of what this text has come to. */
static int come_back(struct attend *a, uint32_t layer, char *why)
{
	struct sparq_seq_stat stat = { .size = sizeof(stat) };
	struct sparq_info info = { .size = sizeof(info) };
	int r;

	r = a->wait_s ? sparq_queue_resume(a->queue, a->wait_s * 1000000000ll) : -ENOTCONN;
	if (r < 0)
		return why_set(why, r, "layer %u: the daemon is gone%s%s", layer,
			       a->wait_s ? ": " : "", a->wait_s ? sparq_queue_error(a->queue) : "");
	find_bufs(a);
	for (uint32_t i = 0; i < a->lanes; i++) {
		r = sparq_seq_stat_get(a->seq[i], SPARQ_LAYER_ALL, &stat);
		if (r < 0)
			return why_set(why, r, "the daemon came back without this text: %s",
				       sparq_error(a->c));
	}
	r = sparq_info_get(a->c, &info);
	if (r < 0)
		return why_set(why, r, "sparqd: %s", sparq_error(a->c));
	progress_say(
		"the daemon went away; reconnected to process %d, generation %u, with %llu rows",
		info.pid, info.generation, (unsigned long long)stat.rows_least);
	return 0;
}

static void add_reports(struct attend *a, uint32_t lanes, uint64_t read_bytes)
{
	const struct sparq_report *report = (const struct sparq_report *)a->data[BUF_REPORTS];
	struct attend_count *n = &a->count;

	n->read_bytes += read_bytes;
	for (uint32_t i = 0; i < lanes; i++) {
		n->steps++;
		n->dense += (report[i].flags & SPARQ_CQE_DENSE) != 0;
		n->f16_bytes += report[i].dense_bytes;
		for (unsigned plane = 0; plane < SPARQ_PLANES; plane++)
			n->plane_bytes[plane] += report[i].bytes[plane];
	}
}

int attend_layer(struct attend *a, uint32_t layer, struct attend_block b, const float *q,
		 const float *kv, float *ret_o, char *why)
{
	const size_t n = (size_t)b.lanes * b.rows;
	uint64_t read_bytes = 0;
	uint16_t flags = 0;
	int r;

	assert(n <= block_rows(a) && b.rows <= a->max_rows && b.first_lane + b.lanes <= a->lanes);
	for (;;) {
		narrow(a, q, n * a->q_floats, a->data[BUF_Q]);
		narrow(a, kv, n * a->kv_floats, a->data[BUF_KV]);
		fill_items(a, b);
		r = step(a, layer, b.lanes, flags, &read_bytes, why);
		if (r != -ENOTCONN)
			break;
		r = come_back(a, layer, why);
		if (r < 0)
			return r;
		flags = SPARQ_SQE_REPEAT; /* the rows may be there */
	}
	if (r < 0)
		return r;
	widen(a, a->data[BUF_O], n * a->q_floats, ret_o);
	add_reports(a, b.lanes, read_bytes);
	if (layer + 1 == a->layers) {
		for (uint32_t i = 0; i < b.lanes; i++)
			a->rows[b.first_lane + i] += b.rows;
		a->count.tokens += n;
	}
	return 0;
}

struct attend_count attend_take_count(struct attend *a)
{
	return STEAL(a->count, (struct attend_count){ 0 });
}
