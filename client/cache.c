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

int sparq_cache_create(sparq *c, const struct sparq_cache_params *params, sparq_cache **ret)
{
	FREE_MEMORY struct sparq_cache *k = NULL;
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
	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	r = conn_call(c, &m);
	if (r < 0)
		return r;
	k->c = conn_ref(c);
	k->id = m.cache.cache;
	*ret = STEAL_PTR(k);
	return 0;
}

sparq_cache *sparq_cache_unref(sparq_cache *k)
{
	union message m;

	if (!k)
		return NULL;
	message_init(&m, SPARQ_MSG_CACHE_UNREF);
	m.cache.cache = k->id;
	(void)conn_call(k->c, &m); /* a daemon that is gone has let go of it, too */
	conn_unref(k->c);
	free(k);
	return NULL;
}

int sparq_cache_set(sparq_cache *k, const char *key, const char *value)
{
	struct sparq_msg_cache_set *set;
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_CACHE_SET);
	set = &m.cache_set;
	set->cache = k->id;
	r = conn_string(k->c, "key", key, set->key, sizeof(set->key));
	if (r < 0)
		return r;
	r = conn_string(k->c, "value", value, set->value, sizeof(set->value));
	return r < 0 ? r : conn_call(k->c, &m);
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
		return conn_fail(k->c, r, "the table is of a later release than this library");
	if (!(k->c->told.features & SPARQ_FEATURE_TABLE))
		return conn_fail(k->c, -EOPNOTSUPP, "this daemon has no channel tables");
	message_init(&m, SPARQ_MSG_CACHE_TABLE);
	table = &m.cache_table;
	table->cache = k->id;
	table->layer = p.layer;
	table->kv_head = p.kv_head;
	table->n_k = p.n_k;
	table->n_v = p.n_v;
	table->n_outliers = p.n_outliers;
	r = fill_channels(k->c, "n_k", p.k_channels, p.n_k, table->k_channels);
	if (r == 0)
		r = fill_channels(k->c, "n_v", p.v_channels, p.n_v, table->v_channels);
	return r < 0 ? r : conn_call(k->c, &m);
}

int sparq_cache_stat_get(sparq_cache *k, struct sparq_cache_stat *ret)
{
	struct sparq_cache_stat stat = {};
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_CACHE_STAT);
	m.cache.cache = k->id;
	r = conn_call(k->c, &m);
	if (r < 0)
		return r;
	stat.sequences = m.cache_stat.sequences;
	stat.rows = m.cache_stat.rows;
	stat.bytes = m.cache_stat.bytes;
	stat.budget_bytes = m.cache_stat.budget_bytes;
	stat.row_bytes = m.cache_stat.row_bytes;
	stat.dense_row_bytes = m.cache_stat.dense_row_bytes;
	return struct_give(ret, &stat, sizeof(stat));
}
