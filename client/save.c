/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving: the daemon lends its bytes piece by piece, the file is ours. Each piece is copied out
 * of the arena once and then compared with the checksum that the daemon took of its pages; the
 * same checksum goes into the file.
 */
#include <string.h>

#include "client/file.h"
#include "client/object.h"

struct save {
	sparq_seq *seq;
	sparq *c;
	struct sparq_file_params params;
	sparq_buf *carrier;
	uint8_t *data; /* a piece, in whole blocks */
	uint64_t total;
	bool open; /* the daemon holds the sequence for us */
};

static void save_deinit(struct save *s)
{
	char text[SPARQ_ERROR_TEXT];
	union message m;

	if (s->open) {
		/* What went wrong is to be heard, not what is said last. */
		memcpy(text, s->c->error, sizeof(text));
		message_init(&m, SPARQ_MSG_SEQ_EXPORT);
		m.seq_export.offset = SPARQ_EXPORT_END;
		(void)conn_call_of(&s->seq->h, &m);
		memcpy(s->c->error, text, sizeof(text));
	}
	s->carrier = sparq_buf_unref(s->carrier);
	free(s->data);
}

/* What fits into the carrier, from `offset` on: its bytes, in `to`. */
static int fetch(struct save *s, uint64_t offset, size_t most, uint8_t *to, size_t *ret)
{
	size_t room;
	const void *from;
	union message m;
	int r;

	sparq_buf_data(s->carrier, &room);
	message_init(&m, SPARQ_MSG_SEQ_EXPORT);
	m.seq_export.offset = offset;
	m.seq_export.addr = sparq_buf_addr(s->carrier);
	m.seq_export.bytes = (uint32_t)MIN(room, most);
	r = conn_call_of(&s->seq->h, &m);
	if (r < 0)
		return r;
	s->open = true;
	if (m.seq_exported.bytes > MIN(room, most) || !m.seq_exported.bytes)
		return conn_fail(s->c, -EPROTO, "%u bytes where %zu were asked for",
				 m.seq_exported.bytes, MIN(room, most));
	s->total = m.seq_exported.total;
	/* Asked again: a session that was lost takes its memory along. */
	from = sparq_buf_data(s->carrier, NULL);
	memcpy(to, from, m.seq_exported.bytes);
	if (sequence_checksum(to, m.seq_exported.bytes) != m.seq_exported.checksum)
		return conn_fail(s->c, -EIO,
				 "bytes %llu and on came with another checksum: the session's "
				 "memory was written to meanwhile, or is bad",
				 (unsigned long long)offset);
	*ret = m.seq_exported.bytes;
	return 0;
}

/* [offset, offset + n), in s->data. */
static int fetch_piece(struct save *s, uint64_t offset, size_t have, size_t n)
{
	while (have < n) {
		size_t got = 0;
		int r = fetch(s, offset + have, n - have, s->data + have, &got);

		if (r < 0)
			return r;
		have += got;
	}
	return 0;
}

static void zero_rest(struct save *s, size_t n)
{
	memset(s->data + n, 0, ALIGN_UP(n, (size_t)SEQUENCE_BLOCK) - n);
}

/* `have` bytes of the first piece are there already. */
static int write_pieces(struct save *s, struct file_writer *w, size_t have)
{
	struct sequence_image head;

	for (uint32_t i = 0; i < w->file.n_pieces; i++, have = 0) {
		uint64_t offset = (uint64_t)i * SEQUENCE_PIECE_BYTES;
		size_t n = sequence_piece_bytes(&w->file, i);
		int r = fetch_piece(s, offset, have, n);

		if (r < 0)
			return r;
		zero_rest(s, n);
		if (i == 0)
			memcpy(&head, s->data, sizeof(head));
		r = file_write(w, i, s->data, sequence_checksum(s->data, n));
		if (r == 0)
			r = file_progress(s->c, &s->params, &head, offset + n);
		if (r < 0)
			return r;
	}
	return 0;
}

static void writer_deinitp(struct file_writer *w)
{
	file_writer_deinit(w);
}

static int save_to(struct save *s, const char *path)
{
	CLEANUP(writer_deinitp) struct file_writer w = FILE_WRITER_NULL;
	bool replace = s->params.flags & SPARQ_FILE_REPLACE;
	char why[SEQUENCE_WHY_BYTES];
	size_t have;
	int r;

	r = fetch(s, 0, SEQUENCE_PIECE_BYTES, s->data, &have);
	if (r < 0)
		return r;
	r = sequence_image_check((const struct sequence_image *)s->data, s->total, why);
	if (r < 0)
		return conn_fail(s->c, -EPROTO, "%s", why);
	r = file_create(s->c, path, replace, s->total, &w);
	if (r == 0)
		r = write_pieces(s, &w, have);
	return r < 0 ? r : file_end(&w, replace);
}

int sparq_seq_save(sparq_seq *seq, const char *path, const struct sparq_file_params *params)
{
	CLEANUP(save_deinit) struct save s = { .seq = seq, .c = seq->h.c };
	int r = file_params(s.c, params, SPARQ_FILE_REPLACE, &s.params);

	if (r < 0)
		return r;
	if (!(conn_features(s.c) & SPARQ_FEATURE_SAVE))
		return conn_fail(s.c, -EOPNOTSUPP, "this daemon cannot save sequences");
	r = file_carrier(s.c, &s.carrier);
	if (r < 0)
		return r;
	s.data = file_blocks(SEQUENCE_PIECE_BYTES);
	if (!s.data)
		return conn_fail(s.c, -ENOMEM, "out of memory");
	return save_to(&s, path);
}
