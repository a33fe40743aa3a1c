/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading: the file is compared piece by piece with its checksums here, and again by the daemon
 * with what it has in its pages. Until the last message there is no sequence; whatever fails
 * before leaves none.
 */
#include <string.h>

#include "client/file.h"
#include "client/object.h"

struct load {
	sparq *c;
	struct sparq_file_params params;
	struct file_reader reader;
	sparq_buf *carrier;
	bool open; /* the daemon builds it for us */
};

static void load_deinit(struct load *l)
{
	char text[SPARQ_ERROR_TEXT];
	union message m;

	if (l->open) {
		/* The daemon may have given it up by itself: then it says so, and that is all. */
		memcpy(text, l->c->error, sizeof(text));
		message_init(&m, SPARQ_MSG_SEQ_IMPORT_END);
		(void)conn_call(l->c, &m);
		memcpy(l->c->error, text, sizeof(text));
	}
	l->carrier = sparq_buf_unref(l->carrier);
	file_reader_deinit(&l->reader);
}

static int begin(struct load *l, sparq_cache *k, const char *name)
{
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_SEQ_IMPORT);
	m.seq_import.total = l->reader.file.image_bytes;
	r = conn_string(l->c, "name", name ? name : file_head(&l->reader)->name, m.seq_import.name,
			sizeof(m.seq_import.name));
	if (r < 0)
		return r;
	r = conn_call_of(&k->h, &m);
	l->open = r == 0;
	return r;
}

/* The daemon's words, with the file's name and place before them. */
static int refused(struct load *l, int error, uint64_t offset)
{
	char text[SPARQ_ERROR_TEXT];

	memcpy(text, l->c->error, sizeof(text));
	return conn_fail(l->c, error, "%.60s: offset %llu: %.150s", l->reader.path,
			 (unsigned long long)offset, text);
}

/* n bytes of the image, from `offset` on; `checksum` is of all of them. */
static int send_bytes(struct load *l, uint64_t offset, const uint8_t *from, size_t n,
		      uint64_t checksum)
{
	size_t room;

	sparq_buf_data(l->carrier, &room);
	for (size_t done = 0; done < n;) {
		size_t now = MIN(room, n - done);
		union message m;
		int r;

		memcpy(sparq_buf_data(l->carrier, NULL), from + done, now);
		message_init(&m, SPARQ_MSG_SEQ_IMPORT_PIECE);
		m.seq_piece.offset = offset + done;
		m.seq_piece.addr = sparq_buf_addr(l->carrier);
		m.seq_piece.checksum = now == n ? checksum : sequence_checksum(from + done, now);
		m.seq_piece.bytes = (uint32_t)now;
		r = conn_call(l->c, &m);
		if (r < 0)
			return refused(l, r, SEQUENCE_BLOCK + offset + done);
		done += now;
	}
	return 0;
}

static int send_all(struct load *l)
{
	struct sequence_image head = *file_head(&l->reader);
	const struct sequence_file *f = &l->reader.file;

	for (uint32_t i = 0; i < f->n_pieces; i++) {
		uint64_t offset = (uint64_t)i * SEQUENCE_PIECE_BYTES;
		size_t n = sequence_piece_bytes(f, i);
		int r = i ? file_read(&l->reader, i) : 0; /* the first one is there */

		if (r == 0)
			r = send_bytes(l, offset, l->reader.data, n, l->reader.trailer->piece[i]);
		if (r == 0)
			r = file_progress(l->c, &l->params, &head, offset + n);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The id in the reply becomes the handle's. */
static int end(struct load *l, sparq_cache *k, const char *name, sparq_seq **ret)
{
	FREE_MEMORY struct sparq_seq *s = calloc(1, sizeof(*s));
	union message m;
	int r;

	if (!s)
		return conn_fail(l->c, -ENOMEM, "out of memory");
	memcpy(s->name, name, sizeof(s->name));
	s->in = &k->h;
	message_init(&m, SPARQ_MSG_SEQ_IMPORT_END);
	m.seq_import_end.commit = 1;
	l->open = false;
	r = conn_call_new(l->c, NULL, &m, &s->h, &l->c->sequences);
	if (r < 0)
		return r;
	*ret = STEAL_PTR(s);
	return 0;
}

int sparq_seq_load(sparq_cache *k, const char *path, const char *name,
		   const struct sparq_file_params *params, sparq_seq **ret)
{
	CLEANUP(load_deinit) struct load l = { .c = k->h.c, .reader = FILE_READER_NULL };
	char given[64];
	int r = file_params(l.c, params, 0, &l.params);

	if (r == 0 && !(conn_features(l.c) & SPARQ_FEATURE_SAVE))
		r = conn_fail(l.c, -EOPNOTSUPP, "this daemon cannot load sequences");
	if (r == 0)
		r = file_open(l.c, path, &l.reader);
	if (r < 0)
		return r;
	r = conn_string(l.c, "name", name ? name : file_head(&l.reader)->name, given,
			sizeof(given));
	if (r == 0)
		r = file_carrier(l.c, &l.carrier);
	if (r == 0)
		r = begin(&l, k, given);
	if (r == 0)
		r = send_all(&l);
	return r < 0 ? r : end(&l, k, given, ret);
}
