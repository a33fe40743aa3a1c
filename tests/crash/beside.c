/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences that a client makes beside those it must find again: forks, whose rows are
 * their parent's, and replicas, which get the rows of another one without a crash
 * between them, and must give its bits.
 */
#include <errno.h>
#include <string.h>

#include "shm/base.h"
#include "tests/crash/client.h"

/* Rows [row, row + n) of one layer, as `s` says, for a sequence that is not in the model. */
int load_rows(struct client *k, sparq_seq *handle, const struct model_seq *s, uint32_t layer,
	      uint32_t row, uint32_t n)
{
	struct sparq_sqe *sqe;
	uint32_t slot;
	float *kv;

	sqe = client_entry(k, &slot);
	if (!sqe)
		return -ENOTCONN;
	kv = client_rows(k, slot);
	for (uint32_t i = 0; i < n; i++)
		client_row(s->key, layer, row + i, s->version[layer][row + i],
			   kv + (size_t)i * CLIENT_ROW_FLOATS);
	sparq_prep_append(sqe, sparq_seq_id(handle), (uint16_t)layer, client_addr(k, kv), row,
			  (uint16_t)n);
	sqe->user_data = k->begun;
	return client_submit(k);
}

static int must_hold(struct client *k, sparq_seq *handle, uint32_t seq, const struct model_seq *s,
		     const char *what)
{
	uint32_t wrong;
	int r = verify_content(k, handle, seq, s, &wrong);

	if (r == 0 && wrong)
		client_fail(k, "%s of sequence %u: %u rows are wrong", what, seq, wrong);
	return r;
}

/* The child goes its own way from some row on; the parent does not notice. */
static int use_fork(struct client *k, sparq_seq *child, uint32_t seq, uint32_t rows)
{
	static struct model_seq s;
	uint16_t version = client_version(k);
	int r = 0;

	s = k->model.seq[seq];
	for (uint32_t l = 0; r == 0 && l < MODEL_LAYERS; l++) {
		uint32_t n = 1 + client_random(k, SLOT_ROWS);

		n = MIN(n, CONTENT_MAX_ROWS - rows);
		for (uint32_t i = 0; i < n; i++)
			s.version[l][rows + i] = version;
		s.rows[l] = rows + n;
		r = n ? load_rows(k, child, &s, l, rows, n) : 0;
	}
	r = r < 0 ? r : must_hold(k, child, seq, &s, "fork");
	return r < 0 ? r : must_hold(k, k->seq[seq], seq, &k->model.seq[seq], "parent");
}

int load_fork(struct client *k, uint32_t seq)
{
	uint32_t least;
	int r = client_drain(k);

	if (r < 0)
		return r;
	least = MIN(k->model.seq[seq].rows[0], k->model.seq[seq].rows[1]);
	least = client_random(k, least + 1);
	r = client_check(k, "fork", sparq_seq_fork(k->seq[seq], least, &k->spare));
	if (r == 0)
		r = use_fork(k, k->spare, seq, least);
	if (r == 0)
		k->spare = sparq_seq_unref(k->spare);
	return r;
}

/* Of a result that must have the same bits after any crash. Not before an append of this session
 * was answered: a crash may have come before the flush that the last one was due. */
int load_digest(struct client *k, uint32_t seq)
{
	uint32_t layer = client_random(k, MODEL_LAYERS);
	struct digest *d = &k->digest[seq][layer];
	uint64_t sum;
	int r = client_drain(k);

	if (r < 0 || !k->fresh[seq][layer] || !k->model.seq[seq].rows[layer])
		return r;
	r = verify_digest(k, k->seq[seq], layer, k->model.seq[seq].rows[layer], &sum);
	if (r == 0)
		*d = (struct digest){ k->model.seq[seq].rows[layer],
				      k->model.seq[seq].sealed[layer], k->changes[seq], sum };
	return r;
}

static int use_replica(struct client *k, sparq_seq *replica, uint32_t seq)
{
	const struct model_seq *s = &k->model.seq[seq];
	int r = 0;

	for (uint32_t l = 0; r == 0 && l < MODEL_LAYERS; l++) {
		uint64_t ours, theirs;

		for (uint32_t row = 0; r == 0 && row < s->rows[l]; row += SLOT_ROWS)
			r = load_rows(k, replica, s, l, row, MIN(SLOT_ROWS, s->rows[l] - row));
		if (r == 0)
			r = verify_digest(k, replica, l, s->rows[l], &ours);
		if (r == 0)
			r = verify_digest(k, k->seq[seq], l, s->rows[l], &theirs);
		if (r == 0 && ours != theirs)
			client_fail(k, "sequence %u has other bits than one without a crash", seq);
	}
	return r;
}

/* Nothing was cut or quantised twice, and nothing is due: whoever gets the same rows seals the same
 * ones. */
static bool seals_alike(const struct client *k, uint32_t seq)
{
	const struct model_seq *s = &k->model.seq[seq];

	for (uint32_t l = 0; l < MODEL_LAYERS; l++)
		if (!s->rows[l] || !k->fresh[seq][l] || s->sealed[l] != model_tiles(s->rows[l]))
			return false;
	return !s->cut && !s->overwritten;
}

int load_replica(struct client *k, uint32_t seq)
{
	char name[SPARQ_NAME_MAX + 1];
	sparq_seq *replica;
	int r = client_drain(k), end;

	if (r < 0 || !seals_alike(k, seq))
		return r;
	client_name(k, MODEL_SEQUENCES, name);
	r = client_check(k, "replica",
			 sparq_seq_create(k->cache[client_kind(seq)], name, &replica));
	if (r < 0)
		return r;
	r = use_replica(k, replica, seq);
	k->count->replicas += r == 0;
	end = client_check(k, "drop", sparq_seq_drop(replica));
	return r < 0 ? r : end;
}

/* A cache that holds nothing may be lost while a parameter of it changes; its handle says so. */
static int check_empty(const struct client *k, const char *what, int result)
{
	return client_check(k, what, result == -ESTALE ? -ENOTCONN : result);
}

/* Channels in another order: any will do. */
static int load_table(struct client *k, sparq_cache *cache)
{
	struct sparq_cache_table_params table = { .size = sizeof(table), .n_k = CONTENT_DIM };
	uint8_t order[CONTENT_DIM];

	for (unsigned i = 0; i < CONTENT_DIM; i++)
		order[i] = (uint8_t)(CONTENT_DIM - 1 - i);
	table.k_channels = order;
	return check_empty(k, "table", sparq_cache_table(cache, &table));
}

/* A cache that nobody needs: made, changed, used, and gone with its only sequence. */
int load_cache(struct client *k)
{
	struct sparq_cache_params params = {
		.size = sizeof(params),
		.layers = 1,
		.heads = CONTENT_HEADS,
		.kv_heads = CLIENT_KV_HEADS,
		.k_dim = CONTENT_DIM,
		.v_dim = CONTENT_DIM,
		.k_format = "hier4",
	};
	int r = client_drain(k);

	if (r == 0)
		r = client_check(k, "cache", sparq_cache_create(k->c, &params, &k->spare_cache));
	if (r == 0)
		r = check_empty(k, "set", sparq_cache_set(k->spare_cache, "k", "64"));
	if (r == 0)
		r = load_table(k, k->spare_cache);
	if (r == 0)
		r = check_empty(k, "sequence", sparq_seq_create(k->spare_cache, NULL, &k->spare));
	if (r < 0)
		return r; /* what there is of it goes when the session is there again */
	k->spare = sparq_seq_unref(k->spare);
	k->spare_cache = sparq_cache_unref(k->spare_cache);
	return 0;
}
