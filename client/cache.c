/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Caches. The presets that are words are filled in here, so that what a cache
 * is does not change with the age of the daemon.
 */
#include "client/object.h"
#include "client/private.h"

static int check(sparq *c, const struct sparq_cache_params *p)
{
	if (p->flags)
		return conn_fail(c, -EINVAL, "flags=%#x: none are known", p->flags);
	if (p->dtype > SPARQ_DTYPE_BF16)
		return conn_fail(c, -EINVAL, "dtype=%u: 0 is f32, 1 f16, 2 bf16", p->dtype);
	return 0;
}

/* The strings of the parameters, each into its field. */
static int fill_strings(sparq *c, const struct sparq_cache_params *p,
			struct sparq_msg_cache_create *m)
{
	const char *k = p->k_format ? p->k_format : "hier4";
	const struct {
		const char *what, *value;
		char *field;
		size_t n;
	} strings[] = {
		{ "name", p->name, m->name, sizeof(m->name) },
		{ "k_format", k, m->k_format, sizeof(m->k_format) },
		{ "v_format", p->v_format ? p->v_format : k, m->v_format, sizeof(m->v_format) },
		{ "policy", p->policy ? p->policy : "sparq", m->policy, sizeof(m->policy) },
		{ "device", p->device ? p->device : "cpu", m->device, sizeof(m->device) },
		{ "model", p->model, m->model, sizeof(m->model) },
		{ "options", p->options, m->options, sizeof(m->options) },
	};
	int r = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(strings) && r >= 0; i++)
		r = conn_string(c, strings[i].what, strings[i].value, strings[i].field,
				strings[i].n);
	return r;
}

static void cache_freep(struct sparq_cache **k)
{
	if (*k)
		free((*k)->made);
	free(*k);
}

static int cache_new(const struct sparq_msg_cache_create *made, struct sparq_cache **ret)
{
	CLEANUP(cache_freep) struct sparq_cache *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	if (made) {
		k->made = malloc(sizeof(*made));
		if (!k->made)
			return -ENOMEM;
		*k->made = *made;
	}
	*ret = STEAL_PTR(k);
	return 0;
}

/* Sequences outlive the handle of their cache. */
static void forget_in(struct sparq_cache *k)
{
	sparq *c = k->h.c;

	if (conn_is_child(c))
		return;
	pthread_mutex_lock(&c->speak);
	for (struct handle *h = c->sequences; h; h = h->next) {
		struct sparq_seq *s = container_of(h, struct sparq_seq, h);

		if (s->in == &k->h)
			s->in = NULL;
	}
	pthread_mutex_unlock(&c->speak);
}

int sparq_cache_create(sparq *c, const struct sparq_cache_params *params, sparq_cache **ret)
{
	CLEANUP(cache_freep) struct sparq_cache *k = NULL;
	struct sparq_cache_params p;
	union message m;
	int r = struct_take(&p, sizeof(p), params);

	if (r < 0)
		return conn_fail(c, r, "the parameters are of a later release than this library");
	r = check(c, &p);
	if (r < 0)
		return r;
	message_init(&m, SPARQ_MSG_CACHE_CREATE);
	m.cache_create.layers = p.layers;
	m.cache_create.heads = p.heads;
	m.cache_create.kv_heads = p.kv_heads;
	m.cache_create.k_dim = p.k_dim;
	m.cache_create.v_dim = p.v_dim;
	m.cache_create.dtype = p.dtype;
	m.cache_create.scale = p.scale;
	m.cache_create.budget_bytes = p.budget_bytes;
	m.cache_create.timeout_us = p.timeout_us;
	r = fill_strings(c, &p, &m.cache_create);
	if (r < 0)
		return r;
	r = cache_new(m.cache_create.name[0] ? &m.cache_create : NULL, &k);
	if (r == 0)
		r = conn_call_new(c, NULL, &m, &k->h, &c->caches);
	if (r < 0)
		return r;
	*ret = STEAL_PTR(k);
	return 0;
}

static void fill_shape(const struct sparq_msg_cache_shape *m, struct sparq_cache_shape *ret)
{
	ret->layers = m->layers;
	ret->heads = m->heads;
	ret->kv_heads = m->kv_heads;
	ret->k_dim = m->k_dim;
	ret->v_dim = m->v_dim;
	ret->dtype = m->dtype;
	ret->scale = m->scale;
	ret->timeout_us = m->timeout_us;
	ret->budget_bytes = m->budget_bytes;
	memcpy(ret->k_format, m->k_format, sizeof(ret->k_format));
	memcpy(ret->v_format, m->v_format, sizeof(ret->v_format));
	memcpy(ret->policy, m->policy, sizeof(ret->policy));
	memcpy(ret->device, m->device, sizeof(ret->device));
	memcpy(ret->model, m->model, sizeof(ret->model));
}

int sparq_cache_attach(sparq *c, const char *name, struct sparq_cache_shape *ret_shape,
		       sparq_cache **ret)
{
	CLEANUP(cache_freep) struct sparq_cache *k = NULL;
	struct sparq_cache_shape shape = {};
	union message m;
	int r;

	if (!(conn_features(c) & SPARQ_FEATURE_ADOPT))
		return conn_fail(c, -EOPNOTSUPP,
				 "this daemon attaches only to a cache whose parameters are given");
	message_init(&m, SPARQ_MSG_CACHE_ATTACH);
	r = conn_string(c, "name", name, m.cache_attach.name, sizeof(m.cache_attach.name));
	if (r == 0)
		r = cache_new(NULL, &k);
	if (r == 0)
		r = conn_call_new(c, NULL, &m, &k->h, &c->caches);
	if (r < 0)
		return r;
	fill_shape(&m.cache_shape, &shape);
	r = ret_shape ? struct_give(ret_shape, &shape, sizeof(shape)) : 0;
	if (r < 0) {
		sparq_cache_unref(STEAL_PTR(k));
		return conn_fail(c, r, "the size of the shape is not set");
	}
	*ret = STEAL_PTR(k);
	return 0;
}

sparq_cache *sparq_cache_unref(sparq_cache *k)
{
	union message m;

	if (!k)
		return NULL;
	message_init(&m, SPARQ_MSG_CACHE_UNREF);
	conn_tell_of(&k->h, &m); /* a session that is over has let go of it, too */
	forget_in(k);
	handle_remove(&k->h);
	cache_freep(&k);
	return NULL;
}

int sparq_cache_set(sparq_cache *k, const char *key, const char *value)
{
	struct sparq_msg_cache_set *set;
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_CACHE_SET);
	set = &m.cache_set;
	r = conn_string(k->h.c, "key", key, set->key, sizeof(set->key));
	if (r < 0)
		return r;
	r = conn_string(k->h.c, "value", value, set->value, sizeof(set->value));
	return r < 0 ? r : conn_call_of(&k->h, &m);
}

/* The order of one tensor's channels; whether it is one, the daemon says. */
static int fill_channels(sparq *c, const char *what, const uint8_t *from, uint32_t n, uint8_t *ret)
{
	if (n > SPARQ_MAX_CHANNELS)
		return conn_fail(c, -EINVAL, "%s=%u: at most %u", what, n, SPARQ_MAX_CHANNELS);
	if (n && !from)
		return conn_fail(c, -EINVAL, "%s=%u, and no channels", what, n);
	if (n)
		memcpy(ret, from, n);
	return 0;
}

int sparq_cache_table(sparq_cache *k, const struct sparq_cache_table_params *params)
{
	struct sparq_msg_cache_table *table;
	struct sparq_cache_table_params p;
	union message m;
	int r = struct_take(&p, sizeof(p), params);

	if (r < 0)
		return conn_fail(k->h.c, r, "the table is of a later release than this library");
	if (!(conn_features(k->h.c) & SPARQ_FEATURE_TABLE))
		return conn_fail(k->h.c, -EOPNOTSUPP, "this daemon has no channel tables");
	message_init(&m, SPARQ_MSG_CACHE_TABLE);
	table = &m.cache_table;
	table->layer = p.layer;
	table->kv_head = p.kv_head;
	table->n_k = p.n_k;
	table->n_v = p.n_v;
	table->n_outliers = p.n_outliers;
	r = fill_channels(k->h.c, "n_k", p.k_channels, p.n_k, table->k_channels);
	if (r == 0)
		r = fill_channels(k->h.c, "n_v", p.v_channels, p.n_v, table->v_channels);
	return r < 0 ? r : conn_call_of(&k->h, &m);
}

int sparq_cache_stat_get(sparq_cache *k, struct sparq_cache_stat *ret)
{
	struct sparq_cache_stat stat = {};
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_CACHE_STAT);
	r = conn_call_of(&k->h, &m);
	if (r < 0)
		return r;
	stat.sequences = m.cache_stat.sequences;
	stat.rows = m.cache_stat.rows;
	stat.bytes = m.cache_stat.bytes;
	stat.budget_bytes = m.cache_stat.budget_bytes;
	stat.row_bytes = m.cache_stat.row_bytes;
	stat.dense_row_bytes = m.cache_stat.dense_row_bytes;
	stat.placement = conn_placement(k->h.c, &m);
	return struct_give(ret, &stat, sizeof(stat));
}
