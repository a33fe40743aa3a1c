/* SPDX-License-Identifier: Apache-2.0 */
/* What a client takes up again: after its own restart, or after the daemon's. */
#include "daemon/peer.h"

#include <errno.h>
#include <string.h>

#include "daemon/seq.h"

static void tell_shape(const struct cache *c, struct sparq_msg_cache_shape *ret)
{
	const struct cache_record *r = c->record;

	ret->cache = c->id;
	ret->layers = r->layers;
	ret->heads = r->heads;
	ret->kv_heads = r->kv_heads;
	ret->k_dim = r->k_dim;
	ret->v_dim = r->v_dim;
	ret->dtype = r->dtype;
	ret->scale = r->scale;
	ret->timeout_us = r->timeout_us;
	ret->budget_bytes = c->budget_bytes;
	memcpy(ret->name, r->name, sizeof(ret->name));
	memcpy(ret->k_format, r->k_format, sizeof(ret->k_format));
	memcpy(ret->v_format, r->v_format, sizeof(ret->v_format));
	memcpy(ret->policy, r->policy, sizeof(ret->policy));
	memcpy(ret->device, r->device, sizeof(ret->device));
	memcpy(ret->model, r->model, sizeof(ret->model));
}

int peer_cache_attach(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_cache_attach request = m->cache_attach;
	struct cache *cache;
	int r = cache_attach(&p->server->store, p->user, request.cache, request.name, &cache, why);

	if (r == DEVICE_LATER)
		return peer_await_device(p);
	if (r == 0)
		r = peer_hold_cache(p, cache, why);
	if (r < 0)
		return r;
	message_reply(m, &request.head);
	tell_shape(cache, &m->cache_shape);
	return 0;
}

/* It goes on where every layer has its rows. */
int peer_seq_adopt(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq request = m->seq;
	struct sparq_msg_seq_stat stat;
	struct seq *s;
	int r = seq_adopt(&p->server->store, p->user, request.sequence, p->session->id, &s, why);

	if (r == SEQ_ELSEWHERE)
		r = peer_await(p, s, why);
	if (r == 0)
		r = seq_stat(s, SPARQ_LAYER_ALL, &stat);
	if (r)
		return r;
	message_reply(m, &request.head);
	m->seq.sequence = s->id;
	m->seq.rows = stat.rows_least;
	return 0;
}
