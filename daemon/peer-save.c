/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence in pieces through the client's arena: out to be saved, in to be loaded.
 * The daemon opens no file for it: files are the client's, and so are their rights.
 *
 * One at a time in a session. While a sequence goes out it is held as by a control call,
 * so that it is one state of it that is saved; whoever wants to go on meanwhile saves a fork.
 * While one comes in nobody sees it, and its record is BUILDING: the last message makes it LIVE,
 * or nothing of it ever was. The end of the session ends both.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/evict.h"
#include "daemon/image.h"
#include "daemon/peer.h"
#include "daemon/point.h"
#include "daemon/record.h"
#include "daemon/seq-make.h"
#include "shm/base.h"

struct peer_save {
	struct seq *seq;
	struct image *image;       /* going out */
	struct image_build *build; /* coming in */
	uint64_t done, bytes;
};

_Static_assert(SPARQ_MAX_PIECE_BYTES == SEQUENCE_PIECE_BYTES, "a piece of a file is one message");

void peer_save_end(struct peer *p)
{
	struct peer_save *save = STEAL_PTR(p->save);

	if (!save)
		return;
	if (save->image) {
		image_close(save->image);
		seq_end_control(save->seq);
	}
	if (save->build) {
		image_build_free(save->build);
		seq_build_drop(save->seq);
	}
	free(save);
	server_changed(p->server);
}

/* One that is neither going out nor coming in yet. */
static int begin(struct peer *p, char *why)
{
	if (p->save)
		return PEER_REFUSE(-EBUSY, "this session %s a sequence; one at a time",
				   p->save->image ? "is saving" : "is loading");
	p->save = calloc(1, sizeof(*p->save));
	if (!p->save)
		return -ENOMEM;
	server_changed(p->server);
	return 0;
}

/* Where [addr, addr + bytes) of the arena lies. */
static int find_piece(struct peer *p, uint64_t addr, uint32_t bytes, void **ret, char *why)
{
	const struct segment_layout *l = &p->session->layout;

	if (bytes > SPARQ_MAX_PIECE_BYTES)
		return PEER_REFUSE(-E2BIG, "a piece of %" PRIu32 " bytes: at most %u", bytes,
				   SPARQ_MAX_PIECE_BYTES);
	if (!bytes || addr % 16 || addr > l->arena_bytes || bytes > l->arena_bytes - addr)
		return PEER_REFUSE(-EFAULT,
				   "%" PRIu32 " bytes at %#" PRIx64
				   ": not inside the arena of %zu bytes, or not on 16",
				   bytes, addr, l->arena_bytes);
	*ret = (uint8_t *)p->session->segment.base + l->arena_offset + addr;
	return 0;
}

/* Every second, for the manager. */
static void progress(struct peer *p, uint64_t done)
{
	p->save->done = done;
	server_changed(p->server);
}

static const char *name_of(const struct seq *s)
{
	return ((const struct sequence_record *)s->record)->name;
}

void peer_save_sentence(const struct server *s, char *ret, size_t n)
{
	const struct peer *p = s->peers;

	while (p && !(p->save && p->save->bytes))
		p = p->next;
	if (!p)
		return;
	snprintf(ret, n, "; %s %s/%s: %.0f %%", p->save->image ? "saving" : "loading",
		 p->save->seq->cache->record->name, name_of(p->save->seq),
		 100.0 * (double)p->save->done / (double)p->save->bytes);
}

/* ---- out -------------------------------------------------------------------------------- */

static int begin_export(struct peer *p, uint64_t id, char *why)
{
	struct seq *s = seq_find(&p->server->store, p->user, p->session->id, id);
	int r;

	if (!s)
		return PEER_REFUSE(-ENOENT,
				   "sequence %#" PRIx64 ": this session has no such sequence", id);
	r = begin(p, why);
	if (r < 0)
		return r;
	p->save->seq = s;
	r = seq_take_control(s, why);
	if (r == 0) {
		r = image_open(s, &p->save->image, why);
		if (r < 0)
			seq_end_control(s);
	}
	if (r < 0)
		peer_save_end(p);
	else
		p->save->bytes = image_bytes(p->save->image);
	return r;
}

/* The save that the message is about, begun by its first one. */
static int find_export(struct peer *p, const struct sparq_msg_seq_export *m, char *why)
{
	struct peer_save *save = p->save;

	if (!save && m->offset == 0)
		return begin_export(p, m->sequence, why);
	if (!save || !save->image || save->seq->id != m->sequence)
		return PEER_REFUSE(-ESTALE,
				   "sequence %#" PRIx64 " is not being saved: begin at offset 0",
				   m->sequence);
	return 0;
}

static int reply_export(struct peer *p, union message *m, const struct sparq_msg_seq_export *asked,
			uint32_t bytes, uint64_t checksum)
{
	message_reply(m, &asked->head);
	m->seq_exported.sequence = asked->sequence;
	m->seq_exported.total = p->save->bytes;
	m->seq_exported.checksum = checksum;
	m->seq_exported.bytes = bytes;
	return 0;
}

int peer_seq_export(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq_export asked = m->seq_export;
	uint64_t checksum;
	uint32_t bytes;
	void *to;
	int r = find_export(p, &asked, why);

	if (r < 0)
		return r;
	if (asked.offset == SPARQ_EXPORT_END) {
		reply_export(p, m, &asked, 0, 0);
		peer_save_end(p);
		return 0;
	}
	r = find_piece(p, asked.addr, asked.bytes, &to, why);
	if (r < 0)
		return r;
	if (asked.offset > p->save->bytes)
		return PEER_REFUSE(-EINVAL, "offset %" PRIu64 ": the sequence is %" PRIu64 " bytes",
				   asked.offset, p->save->bytes);
	bytes = (uint32_t)MIN(asked.bytes, p->save->bytes - asked.offset);
	image_read(p->save->image, asked.offset, to, bytes, &checksum);
	POINT(save_piece);
	progress(p, asked.offset + bytes);
	return reply_export(p, m, &asked, bytes, checksum);
}

/* ---- in ---------------------------------------------------------------------------------- */

static struct cache *find_cache(const struct peer *p, uint64_t id)
{
	for (uint32_t i = 0; i < p->n_caches; i++)
		if (p->cache[i].cache->id == id)
			return p->cache[i].cache;
	return NULL;
}

static bool make_room(void *arg)
{
	struct peer *p = arg;

	return evict_again(&p->server->evictor, p->user);
}

static int begin_import(struct peer *p, struct cache *c, const struct sparq_msg_seq_import *m,
			char *why)
{
	struct seq *s;
	int r;

	do
		r = seq_build(c, m->name, &s, why);
	while (r < 0 && make_room(p));
	if (r < 0)
		return r;
	r = image_build_open(s, m->total, &p->save->build, why);
	if (r < 0) {
		seq_build_drop(s);
		return r;
	}
	image_build_make_room(p->save->build, make_room, p);
	p->save->seq = s;
	p->save->bytes = m->total;
	return 0;
}

int peer_seq_import(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq_import asked = m->seq_import;
	struct cache *c = find_cache(p, asked.cache);
	int r;

	if (!c)
		return PEER_REFUSE(-ENOENT, "cache %#" PRIx64 ": this session has no such cache",
				   asked.cache);
	r = begin(p, why);
	if (r < 0)
		return r;
	r = begin_import(p, c, &asked, why);
	if (r < 0) {
		peer_save_end(p);
		return r;
	}
	message_reply(m, &asked.head);
	return 0;
}

static int check_import(const struct peer *p, char *why)
{
	if (p->save && p->save->build)
		return 0;
	return PEER_REFUSE(-ESTALE, "no sequence is being loaded: SEQ_IMPORT comes first");
}

/* The checksum is of what lies in the pages: a client that writes to its arena meanwhile, or whose
 * memory is bad, hears of it. */
static int write_piece(struct peer *p, const struct sparq_msg_seq_piece *m, const void *from,
		       char *why)
{
	uint64_t checksum = 0;
	int r = image_build_write(p->save->build, from, m->bytes, &checksum, why);

	if (r < 0 || checksum == m->checksum)
		return r;
	return PEER_REFUSE(-EBADMSG, "%" PRIu32 " bytes at %" PRIu64 " do not have their checksum",
			   m->bytes, m->offset);
}

int peer_seq_import_piece(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq_piece asked = m->seq_piece;
	void *from;
	int r = check_import(p, why);

	if (r == 0)
		r = find_piece(p, asked.addr, asked.bytes, &from, why);
	if (r == 0 && asked.offset != image_build_at(p->save->build))
		r = PEER_REFUSE(-EINVAL, "offset %" PRIu64 ": the next piece begins at %" PRIu64,
				asked.offset, image_build_at(p->save->build));
	if (r < 0)
		return r;
	r = write_piece(p, &asked, from, why);
	POINT(save_loaded_piece);
	/* There is nothing to go on with: what it held is free at once. */
	if (r < 0) {
		peer_save_end(p);
		return r;
	}
	progress(p, image_build_at(p->save->build));
	message_reply(m, &asked.head);
	return 0;
}

/* Nothing of it can fail once its name is known to be free. */
static int publish(struct peer *p, struct seq **ret, char *why)
{
	struct peer_save *save = p->save;
	int r = image_build_end(save->build, why);

	if (r == 0)
		r = seq_build_end(save->seq, p->session->id, why);
	if (r < 0)
		return r;
	*ret = save->seq;
	save->build = image_build_free(save->build);
	return 0;
}

int peer_seq_import_end(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq_import_end asked = m->seq_import_end;
	struct sparq_msg_seq_stat stat;
	struct seq *s = NULL;
	int r = check_import(p, why);

	if (r == 0 && asked.commit > 1)
		r = PEER_REFUSE(-EINVAL, "commit %" PRIu32 ": 1 keeps it, 0 does not",
				asked.commit);
	if (r < 0)
		return r;
	POINT(save_loaded);
	if (asked.commit)
		r = publish(p, &s, why);
	peer_save_end(p);
	if (r < 0)
		return r;
	message_reply(m, &asked.head);
	if (s) {
		seq_stat(s, SPARQ_LAYER_ALL, &stat);
		m->seq.sequence = s->id;
		m->seq.rows = stat.rows_least;
	}
	return 0;
}
