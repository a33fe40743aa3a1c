/* SPDX-License-Identifier: Apache-2.0 */
/* After a crash: what is there, and is it what was acknowledged? See client.h. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/base.h"
#include "tests/crash/client.h"

#define ATTACH_TRIES 10000
#define ATTACH_AGAIN_US 200

/* ---- reading --------------------------------------------------------------------------- */

/* One entry that attends with n_q rows of queries, in the arena. */
static int attend(struct client *k, sparq_seq *handle, uint32_t layer, uint32_t rows, uint32_t n_q,
		  uint16_t flags)
{
	struct sparq_sqe *sqe;
	uint32_t slot;
	int r = client_drain(k);

	sqe = r == 0 ? client_entry(k, &slot) : NULL;
	if (!sqe)
		return -ENOTCONN;
	k->item[0] = (struct sparq_item){
		.sequence = sparq_seq_id(handle),
		.q = client_addr(k, k->q),
		.o = client_addr(k, k->o),
		.lse = client_addr(k, k->lse),
		.row = rows,
		.n_q = (uint16_t)n_q,
	};
	memset(k->o, 0xff, (size_t)n_q * CONTENT_HEADS * CONTENT_DIM * sizeof(float)); /* NaN */
	sparq_prep_items(sqe, SPARQ_OP_ATTEND, (uint16_t)layer, client_addr(k, k->item), 1);
	sqe->user_data = k->begun;
	sqe->flags = flags;
	r = client_submit(k);
	return r < 0 ? r : client_drain(k);
}

int verify_content(struct client *k, sparq_seq *handle, uint32_t seq, const struct model_seq *s,
		   uint32_t *ret_wrong)
{
	uint32_t wrong = 0;

	for (uint32_t l = 0; l < MODEL_LAYERS; l++) {
		struct content c = { s->key, l, s->rows[l], s->version[l] };
		uint32_t n_q;
		int r;

		if (c.rows == 0)
			continue;
		content_sets(&c, &k->sets);
		n_q = content_queries(&k->sets, client_exact(seq), k->q);
		r = attend(k, handle, l, c.rows, n_q, SPARQ_SQE_FULL | SPARQ_SQE_DENSE);
		if (r < 0)
			return r;
		wrong += content_check(&k->sets, client_exact(seq), k->o, k->lse);
		k->count->checked += c.rows;
	}
	*ret_wrong = wrong;
	return 0;
}

static uint64_t fnv(uint64_t sum, const void *data, size_t n)
{
	const uint8_t *byte = data;

	for (size_t i = 0; i < n; i++)
		sum = (sum ^ byte[i]) * 0x100000001b3;
	return sum;
}

int verify_digest(struct client *k, sparq_seq *handle, uint32_t layer, uint32_t rows, uint64_t *ret)
{
	const size_t n = CONTENT_HEADS * CONTENT_DIM;
	int r;

	/* Any query will do that weighs many rows: each bit of the result depends on all of them.
	 */
	for (size_t i = 0; i < n; i++)
		k->q[i] = (float)((i * 2654435761u >> 7) % 255) / 512.0f - 0.25f;
	r = attend(k, handle, layer, rows, 1, 0);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		if (!isfinite(k->o[i]))
			client_fail(k, "a result that is no number");
	*ret = fnv(fnv(0xcbf29ce484222325, k->o, n * sizeof(float)), k->lse,
		   CONTENT_HEADS * sizeof(float));
	return 0;
}

/* ---- what is there ---------------------------------------------------------------------- */

static int attach(struct client *k, const char *name, enum cache_kind kind, sparq_seq **ret)
{
	int r;

	/* Busy: the daemon has not seen yet that our last session is over. */
	for (unsigned i = 0; i < ATTACH_TRIES; i++) {
		r = sparq_seq_attach(k->cache[kind], name, ret);
		if (r != -EBUSY)
			break;
		usleep(ATTACH_AGAIN_US);
	}
	if (r == -ENOENT)
		return 0;
	return client_check(k, name, r);
}

static int look(struct client *k, struct model_seen *ret)
{
	struct sparq_seq_stat stat = { .size = sizeof(stat) };
	char name[SPARQ_NAME_MAX + 1];
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	for (uint32_t s = 0; s < MODEL_SEQUENCES; s++) {
		client_name(k, s, name);
		if (k->seq[s] && sparq_seq_stat_get(k->seq[s], 0, &stat) == -ESTALE)
			k->seq[s] = sparq_seq_unref(k->seq[s]);
		if (!k->seq[s])
			r = attach(k, name, client_kind(s), &k->seq[s]);
		ret->exists[s] = k->seq[s];
		for (uint32_t l = 0; r == 0 && k->seq[s] && l < MODEL_LAYERS; l++) {
			r = client_check(k, "stat", sparq_seq_stat_get(k->seq[s], l, &stat));
			ret->rows[s][l] = (uint32_t)stat.rows_most;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_all(struct client *k, const struct model *m, uint32_t *ret_wrong)
{
	uint32_t total = 0;

	for (uint32_t s = 0; s < MODEL_SEQUENCES; s++) {
		uint32_t wrong = 0;
		int r;

		if (!m->seq[s].exists)
			continue;
		r = verify_content(k, k->seq[s], s, &m->seq[s], &wrong);
		if (r < 0)
			return r;
		if (wrong)
			fprintf(stderr,
				"client %u, round %u, sequence %u (%u, %u rows): %u wrong\n",
				k->index, k->round, s, m->seq[s].rows[0], m->seq[s].rows[1], wrong);
		total += wrong;
	}
	*ret_wrong = total;
	return 0;
}

/* Is the state that of the acknowledged operations and the first n others, for any n? How many rows
 * are not as they should be, and n. */
static int judge(struct client *k, const struct model_seen *seen, struct model *ret_model,
		 uint32_t *ret_n, uint32_t *ret_wrong)
{
	int n = model_explain(&k->model, seen, 0);
	uint32_t wrong = 1;

	if (n < 0) {
		*ret_wrong = MAX(1u, model_missing(&k->model, seen));
		return 0;
	}
	while (n >= 0) {
		int r;

		model_after(&k->model, (uint32_t)n, ret_model);
		r = check_all(k, ret_model, &wrong);
		if (r < 0)
			return r;
		*ret_n = (uint32_t)n;
		if (!wrong)
			break;
		n = model_explain(&k->model, seen, (uint32_t)n + 1);
	}
	*ret_wrong = wrong;
	return 0;
}

/* Rows that were sealed since then are read from another place. */
static bool digest_holds(const struct client *k, const struct model *last, uint32_t seq,
			 uint32_t layer)
{
	const struct digest *d = &k->digest[seq][layer];

	if (!d->rows || d->changes == k->changes[seq])
		return d->rows;
	return !last->seq[seq].cut && last->seq[seq].sealed[layer] == d->sealed;
}

static int check_digest(struct client *k, uint32_t seq, uint32_t layer)
{
	const struct digest *d = &k->digest[seq][layer];
	uint64_t sum;
	int r = verify_digest(k, k->seq[seq], layer, d->rows, &sum);

	if (r < 0)
		return r;
	k->count->digests++;
	if (sum != d->sum) {
		fprintf(stderr, "client %u, round %u, sequence %u: other bits\n", k->index,
			k->round, seq);
		k->count->lost += d->rows;
	}
	return 0;
}

static int check_digests(struct client *k, struct model *last)
{
	int r = 0;

	model_after(&k->model, k->model.n_pending, last);
	for (uint32_t s = 0; s < MODEL_SEQUENCES; s++)
		for (uint32_t l = 0; r == 0 && k->seq[s] && l < MODEL_LAYERS; l++)
			if (digest_holds(k, last, s, l))
				r = check_digest(k, s, l);
	return r;
}

/* ---- going on --------------------------------------------------------------------------- */

static bool all_are_appends(const struct model *m)
{
	for (uint32_t i = 0; i < m->n_pending; i++)
		if (m->pending[i].kind != OP_APPEND)
			return false;
	return m->n_pending > 0;
}

/* What a program does that does not know what arrived: it sends all of it again. Those that did are
 * answered as done. */
static int repeat(struct client *k, const struct model_seen *seen, struct model *after)
{
	uint64_t before = k->count->repeated, present = 0;
	struct model *m = &k->model;
	int r = 0;

	/* Until all are answered they stay what they were: of unknown fate. */
	for (uint32_t i = 0; r == 0 && i < m->n_pending; i++) {
		const struct op *op = &m->pending[i];

		present += op->row < seen->rows[op->seq][op->layer];
		r = load_append(k, op, SPARQ_SQE_REPEAT);
	}
	if (r == 0)
		r = client_drain(k);
	if (r < 0)
		return r;
	if (k->count->repeated - before != present)
		client_fail(k, "%lu appends had arrived, %lu were answered as done", present,
			    k->count->repeated - before);
	for (uint32_t i = 0; i < m->n_pending; i++)
		k->count->acknowledged += m->pending[i].n;
	model_after(m, m->n_pending, after);
	return 0;
}

/* After a loss what is there cannot be told apart from what the next one loses; and at the end
 * nothing shall be left. */
int verify_start_over(struct client *k)
{
	for (uint32_t s = 0; s < MODEL_SEQUENCES; s++) {
		int r = k->seq[s] ? client_check(k, "drop", sparq_seq_drop(k->seq[s])) : 0;

		k->seq[s] = NULL;
		if (r < 0)
			return r;
	}
	memset(&k->model, 0, sizeof(k->model));
	memset(k->digest, 0, sizeof(k->digest));
	return 0;
}

/* A sequence that was under way beside the model. */
static int drop_replica(struct client *k)
{
	char name[SPARQ_NAME_MAX + 1];
	int r = 0;

	client_name(k, MODEL_SEQUENCES, name);
	for (enum cache_kind kind = 0; r == 0 && kind < CACHE_KINDS; kind++) {
		sparq_seq *s = NULL;

		r = attach(k, name, kind, &s);
		if (r == 0 && s)
			r = client_check(k, "drop", sparq_seq_drop(s));
	}
	return r;
}

int verify_run(struct client *k)
{
	static struct model after, last; /* one client a process; large */
	struct model_seen seen;
	uint32_t n = 0, wrong = 0;
	int r;

	r = look(k, &seen);
	if (r == 0)
		r = judge(k, &seen, &after, &n, &wrong);
	if (r == 0 && !wrong)
		r = check_digests(k, &last);
	if (r == 0)
		r = drop_replica(k);
	if (r < 0)
		return r;
	if (wrong) {
		fprintf(stderr, "client %u, round %u: %u rows lost, %u operations in flight\n",
			k->index, k->round, wrong, k->model.n_pending);
		k->count->lost += wrong;
		return verify_start_over(k);
	}
	k->count->arrived += n;
	k->count->absent += k->model.n_pending - n;
	if (all_are_appends(&k->model)) {
		r = repeat(k, &seen, &after);
		if (r < 0)
			return r;
	}
	k->model = after;
	k->model.n_pending = 0;
	return 0;
}
