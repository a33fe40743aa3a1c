/* SPDX-License-Identifier: Apache-2.0 */
/* What a file says of its sequence, and the cache that it needs. */
#include <stdio.h>
#include <string.h>

#include "client/file.h"
#include "client/object.h"

static void reader_deinitp(struct file_reader *r)
{
	file_reader_deinit(r);
}

int sparq_file_info_get(sparq *c, const char *path, struct sparq_file_info *ret)
{
	CLEANUP(reader_deinitp) struct file_reader r = FILE_READER_NULL;
	struct sparq_file_info info = {};
	const struct sequence_image *m;
	int error = file_open(c, path, &r);

	if (error < 0)
		return error;
	m = file_head(&r);
	info.layers = m->layers;
	info.heads = m->heads;
	info.kv_heads = m->kv_heads;
	info.k_dim = m->k_dim;
	info.v_dim = m->v_dim;
	info.dtype = m->dtype;
	info.tables = m->n_tables;
	info.rows_least = m->rows_least;
	info.rows_most = m->rows_most;
	info.bytes = r.file.file_bytes;
	memcpy(info.cache, m->cache, sizeof(info.cache));
	memcpy(info.name, m->name, sizeof(info.name));
	memcpy(info.k_format, m->k_format, sizeof(info.k_format));
	memcpy(info.v_format, m->v_format, sizeof(info.v_format));
	memcpy(info.policy, m->policy, sizeof(info.policy));
	memcpy(info.model, m->model, sizeof(info.model));
	memcpy(info.options, m->options, sizeof(info.options));
	return struct_give(ret, &info, sizeof(info));
}

/* ---- the cache -------------------------------------------------------------------- */
/* Head and tables, which may be longer than a piece. */
static int read_tables(struct file_reader *r, struct sequence_table **ret)
{
	struct sequence_image head = *file_head(r);
	size_t n = head.n_tables * sizeof(struct sequence_table);
	FREE_MEMORY uint8_t *all = calloc(1, MAX(n, (size_t)1));
	size_t done = 0, skip = sizeof(head);

	if (!all)
		return conn_fail(r->c, -ENOMEM, "out of memory");
	for (uint32_t i = 0; done < n; i++) {
		size_t bytes = sequence_piece_bytes(&r->file, i);
		int error = i ? file_read(r, i) : 0;

		if (error < 0)
			return error;
		bytes = MIN(bytes - skip, n - done);
		memcpy(all + done, r->data + skip, bytes);
		done += bytes;
		skip = 0;
	}
	*ret = (struct sequence_table *)STEAL_PTR(all);
	return 0;
}

static int load_tables(sparq_cache *k, const struct sequence_image *m,
		       const struct sequence_table *table)
{
	for (uint32_t i = 0; i < m->n_tables; i++, table++) {
		struct sparq_cache_table_params p = {
			.size = sizeof(p),
			.layer = table->layer,
			.kv_head = table->kv_head,
			.n_outliers = table->n_outliers,
			.n_k = m->k_dim,
			.n_v = m->v_dim,
			.k_channels = table->k,
			.v_channels = table->v,
		};
		int r = sparq_cache_table(k, &p);

		if (r < 0)
			return r;
	}
	return 0;
}

static struct sparq_cache_params cache_params(const struct sequence_image *m, const char *name,
					      const char *options)
{
	return (struct sparq_cache_params){
		.size = sizeof(struct sparq_cache_params),
		.layers = m->layers,
		.heads = m->heads,
		.kv_heads = m->kv_heads,
		.k_dim = m->k_dim,
		.v_dim = m->v_dim,
		.dtype = m->dtype,
		.scale = m->scale,
		.name = name ? name : m->cache,
		.k_format = m->k_format,
		.v_format = m->v_format,
		.policy = m->policy,
		.options = options,
		.device = m->device,
		.model = m->model,
		.budget_bytes = m->budget_bytes,
		.timeout_us = m->timeout_us,
	};
}

static void cache_unrefp(sparq_cache **k)
{
	char text[SPARQ_ERROR_TEXT];
	sparq *c;

	if (!*k)
		return;
	c = (*k)->h.c;
	memcpy(text, c->error, sizeof(text));
	sparq_cache_unref(*k);
	memcpy(c->error, text, sizeof(text));
}

int sparq_cache_from_file(sparq *c, const char *path, const char *name, const char *options,
			  sparq_cache **ret)
{
	CLEANUP(reader_deinitp) struct file_reader r = FILE_READER_NULL;
	FREE_MEMORY struct sequence_table *tables = NULL;
	CLEANUP(cache_unrefp) sparq_cache *k = NULL;
	struct sparq_cache_params p;
	struct sequence_image head;
	char words[1400];
	int error = file_open(c, path, &r);

	if (error < 0)
		return error;
	head = *file_head(&r);
	error = read_tables(&r, &tables);
	if (error < 0)
		return error;
	/* The last word on something counts. */
	snprintf(words, sizeof(words), "%s %s", head.options, options ? options : "");
	p = cache_params(&head, name, words);
	error = sparq_cache_create(c, &p, &k);
	if (error == 0)
		error = load_tables(k, &head, tables);
	if (error < 0)
		return error;
	*ret = STEAL_PTR(k);
	return 0;
}
