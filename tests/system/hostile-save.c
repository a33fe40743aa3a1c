/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences out and in, by a client that keeps to nothing: pieces in any order, of any
 * length, at any address, damaged under a right checksum, written to while they are
 * read, of sequences that are not its own; and that goes away in the middle.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "enemy.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/sequence-file.h"

#define ROWS 300u
#define PIECE 50000u

struct images {
	struct enemy *e;
	uint64_t cache;
	uint8_t *image; /* an honest one */
	uint64_t bytes;
	unsigned answers[2], loaded; /* taken, refused */
};

static uint8_t *arena(const struct enemy *e)
{
	return (uint8_t *)e->segment.base + e->told.arena_offset;
}

/* Whatever is asked, it is answered, and a refusal has a sentence. */
static int say(struct images *x, union message *m)
{
	char text[SPARQ_ERROR_TEXT] = "";
	uint16_t type = m->head.type;
	int r = ask(x->e, m, NULL, 0, text);

	if (r < 0 && !*text)
		die("%s: %s, \"%s\"", message_name(type), strerror(-r), text);
	x->answers[r < 0]++;
	return r;
}

/* ---- an honest one ------------------------------------------------------------------ */

static void own_rows(struct images *x)
{
	struct enemy *e = x->e;
	union message m;

	message_init(&m, SPARQ_MSG_CACHE_CREATE);
	m.cache_create.layers = m.cache_create.kv_heads = 2;
	m.cache_create.heads = 4;
	m.cache_create.k_dim = m.cache_create.v_dim = 64;
	m.cache_create.dtype = SPARQ_DTYPE_F16;
	strcpy(m.cache_create.k_format, "int8");
	if (ask(e, &m, NULL, 0, NULL) < 0)
		die("no cache");
	x->cache = m.cache.cache;
	own_sequence(e, x->cache);

	for (uint16_t layer = 0; layer < 2; layer++) {
		struct sparq_sqe sqe = {
			.op = SPARQ_OP_APPEND,
			.layer = layer,
			.sequence = e->sequence,
			.kv = 4096,
			.n_rows = ROWS,
		};

		publish(e, &sqe);
		doorbell_ring(&e->doorbell);
		for (double limit = now() + 5; e->head < e->tail && now() < limit; usleep(50))
			reap(e);
	}
}

static uint32_t export(struct images *x, uint64_t offset, uint64_t addr, uint32_t bytes, int *ret)
{
	union message m;

	message_init(&m, SPARQ_MSG_SEQ_EXPORT);
	m.seq_export.sequence = x->e->sequence;
	m.seq_export.offset = offset;
	m.seq_export.addr = addr;
	m.seq_export.bytes = bytes;
	*ret = say(x, &m);
	if (*ret < 0)
		return 0;
	x->bytes = m.seq_exported.total;
	return m.seq_exported.bytes;
}

static void take_image(struct images *x)
{
	uint64_t at = 0;
	int r;

	x->bytes = 1;
	x->image = NULL;
	while (at < x->bytes) {
		uint32_t n = export(x, at, 4096, PIECE, &r);

		if (r < 0)
			die("export at %lu: %s", (unsigned long)at, strerror(-r));
		x->image = realloc(x->image, x->bytes);
		memcpy(x->image + at, arena(x->e) + 4096, n);
		at += n;
	}
	export(x, SPARQ_EXPORT_END, 0, 0, &r);
	if (r < 0)
		die("the end of an export: %s", strerror(-r));
}

/* ---- what is wrong with one ------------------------------------------------------------ */

static int begin(struct images *x, uint64_t cache, uint64_t total)
{
	union message m;

	message_init(&m, SPARQ_MSG_SEQ_IMPORT);
	m.seq_import.cache = cache;
	m.seq_import.total = total;
	return say(x, &m);
}

static int end(struct images *x, uint32_t commit)
{
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_SEQ_IMPORT_END);
	m.seq_import_end.commit = commit;
	r = say(x, &m);
	x->loaded += r == 0 && commit == 1;
	return r;
}

static int piece(struct images *x, uint64_t offset, uint64_t addr, uint64_t checksum,
		 uint32_t bytes)
{
	union message m;

	message_init(&m, SPARQ_MSG_SEQ_IMPORT_PIECE);
	m.seq_piece.offset = offset;
	m.seq_piece.addr = addr;
	m.seq_piece.checksum = checksum;
	m.seq_piece.bytes = bytes;
	return say(x, &m);
}

/* The piece at `at`, right but for one thing now and then. */
static int some_piece(struct images *x, uint64_t at)
{
	uint32_t n = (uint32_t)MIN(PIECE, x->bytes - at);
	uint64_t r = draw(x->e), addr = 4096, sum;
	uint8_t *to = arena(x->e) + addr;

	memcpy(to, x->image + at, n);
	if ((r & 15) == 0) /* under a right checksum */
		for (unsigned i = 0; i < 3; i++)
			to[draw(x->e) % n] ^= (uint8_t)(1 + draw(x->e) % 255);
	sum = sequence_checksum(to, n);
	switch (r >> 4 & 63) {
	case 0:
		return piece(x, draw(x->e), addr, sum, n);
	case 1:
		return piece(x, at, draw(x->e), sum, n);
	case 2:
		return piece(x, at, addr, sum + 1, n);
	case 3:
		return piece(x, at, addr, sum, (uint32_t)draw(x->e));
	case 4:
		return piece(x, at, addr + 1 + r % 15, sum, n);
	case 5:
		return piece(x, at, x->e->told.arena_bytes - n + 16, sum, n);
	default:
		return piece(x, at, addr, sum, n);
	}
}

/* Calls that have no business in the middle. */
static void something_else(struct images *x)
{
	uint64_t r = draw(x->e);
	union message m;
	int ignored;

	switch (r & 7) {
	case 0:
		begin(x, x->cache, x->bytes);
		break;
	case 1:
		begin(x, draw(x->e), x->bytes);
		break;
	case 2:
		end(x, (uint32_t)(r >> 8));
		break;
	case 3:
		export(x, r >> 8 & 1 ? draw(x->e) : 0, 4096, PIECE, &ignored);
		break;
	case 4:
		export(x, SPARQ_EXPORT_END, 0, 0, &ignored);
		break;
	case 5:
		message_init(&m, SPARQ_MSG_SEQ_EXPORT);
		m.seq_export.sequence = draw(x->e) % 64 | (draw(x->e) % 8) << 32;
		say(x, &m);
		break;
	case 6: /* busy while it goes out, else fewer rows */
		message_init(&m, SPARQ_MSG_SEQ_TRUNCATE);
		m.seq.sequence = x->e->sequence;
		m.seq.rows = ROWS;
		say(x, &m);
		break;
	default:
		export(x, 0, r >> 8, (uint32_t)draw(x->e), &ignored);
	}
}

static void some_load(struct images *x)
{
	uint64_t at = 0;
	int r = begin(x, x->cache, draw(x->e) % 16 ? x->bytes : draw(x->e) % 4096);

	while (r == 0 && at < x->bytes) {
		if (draw(x->e) % 32 == 0)
			something_else(x);
		r = some_piece(x, at);
		at += MIN(PIECE, x->bytes - at);
	}
	if (draw(x->e) % 4)
		end(x, draw(x->e) % 2);
}

/* ---- the attack --------------------------------------------------------------------------- */

struct writer {
	uint8_t *at;
	uint32_t stop; /* atomic */
};

/* The daemon must see one thing, whatever it looks at meanwhile. */
static void *write_on(void *arg)
{
	struct writer *w = arg;

	for (uint32_t i = 0; !load_relaxed(&w->stop); i += 4099) {
		uint8_t *byte = &w->at[i % PIECE];

		__atomic_fetch_xor(byte, 0x40, __ATOMIC_RELAXED);
		for (unsigned j = 0; j < 2000; j++)
			cpu_pause();
	}
	return NULL;
}

static void visit(struct images *x, bool disturbed)
{
	struct writer w = { .at = NULL };
	pthread_t thread;

	enter(x->e);
	own_rows(x);
	take_image(x);
	w.at = arena(x->e) + 4096;
	if (disturbed && pthread_create(&thread, NULL, write_on, &w) != 0)
		die("no thread");
	for (unsigned i = 0; i < 20; i++)
		some_load(x);
	something_else(x);
	if (disturbed) {
		store_relaxed(&w.stop, 1u);
		pthread_join(thread, NULL);
	}
	/* In the middle of whatever it is. */
	leave(x->e);
	free(x->image);
}

void attack_images(struct enemy *e)
{
	struct images x = { .e = e };
	double limit = now() + e->seconds;

	for (unsigned i = 0; now() < limit || i < 4; i++)
		visit(&x, i % 2);
	if (!x.loaded || !x.answers[1])
		die("%u loaded, %u refused", x.loaded, x.answers[1]);
	printf("%u loaded, %u answers, %u refusals\n", x.loaded, x.answers[0], x.answers[1]);
}
