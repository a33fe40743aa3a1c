/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences in files: see sequence-file.h. */
#include "shm/sequence-file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#define XXH_INLINE_ALL /* so that the library needs no other */
#include <xxhash.h>

#include "shm/base.h"

#define MAX_IMAGE_BYTES (1ull << 46) /* so that no sum of sizes overflows */
#define MAX_EXTENTS (1u << 20)
#define MAX_TABLES (1u << 20)

PRINTF_LIKE(3, 4) static int refuse(int error, char *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, SEQUENCE_WHY_BYTES, format, args);
	va_end(args);
	return -error;
}

uint64_t sequence_checksum(const void *data, size_t n)
{
	return XXH3_64bits(data, n);
}

static bool is_zero(const void *data, size_t n)
{
	const uint8_t *byte = data;

	for (size_t i = 0; i < n; i++)
		if (byte[i])
			return false;
	return true;
}

/* ---- making ------------------------------------------------------------------------ */

/* Of a header or trailer that has a checksum in it, which counts as 0. */
static uint64_t checksum_around(const void *data, size_t n, size_t at)
{
	static const uint64_t zero;
	const uint8_t *byte = data;
	XXH3_state_t state;

	XXH3_64bits_reset(&state);
	XXH3_64bits_update(&state, byte, at);
	XXH3_64bits_update(&state, &zero, sizeof(zero));
	XXH3_64bits_update(&state, byte + at + sizeof(zero), n - at - sizeof(zero));
	return XXH3_64bits_digest(&state);
}

static uint64_t checksum_file(const struct sequence_file *f)
{
	return checksum_around(f, sizeof(*f), offsetof(struct sequence_file, checksum));
}

static uint64_t checksum_trailer(const struct sequence_file *f, const struct sequence_trailer *t)
{
	return checksum_around(t, sequence_trailer_bytes(f),
			       offsetof(struct sequence_trailer, checksum));
}

size_t sequence_trailer_bytes(const struct sequence_file *f)
{
	return ALIGN_UP(sizeof(struct sequence_trailer) + f->n_pieces * sizeof(uint64_t),
			(size_t)SEQUENCE_BLOCK);
}

/* All that follows from the sizes of the image and of a piece. */
static void lay_out(struct sequence_file *f)
{
	f->n_pieces = (uint32_t)DIV_UP(f->image_bytes, (uint64_t)f->piece_bytes);
	f->trailer_at = SEQUENCE_BLOCK + ALIGN_UP(f->image_bytes, (uint64_t)SEQUENCE_BLOCK);
	f->file_bytes = f->trailer_at + sequence_trailer_bytes(f);
}

void sequence_file_plan(uint64_t image_bytes, uint64_t created_s, const char *writer,
			struct sequence_file *ret)
{
	*ret = (struct sequence_file){
		.magic = SEQUENCE_FILE_MAGIC,
		.version = SEQUENCE_FILE_VERSION,
		.header_bytes = SEQUENCE_BLOCK,
		.compat = SEQUENCE_FEATURES_COMPAT,
		.incompat = SEQUENCE_FEATURES_INCOMPAT,
		.image_bytes = image_bytes,
		.piece_bytes = SEQUENCE_PIECE_BYTES,
		.created_s = created_s,
	};
	snprintf(ret->writer, sizeof(ret->writer), "%s", writer);
	lay_out(ret);
	ret->checksum = checksum_file(ret);
}

void sequence_trailer_seal(const struct sequence_file *f, struct sequence_trailer *t)
{
	t->magic = SEQUENCE_TRAILER_MAGIC;
	t->file_bytes = f->file_bytes;
	t->n_pieces = f->n_pieces;
	t->rsv = 0;
	t->checksum = checksum_trailer(f, t);
}

uint64_t sequence_piece_at(const struct sequence_file *f, uint32_t i)
{
	return SEQUENCE_BLOCK + (uint64_t)i * f->piece_bytes;
}

size_t sequence_piece_bytes(const struct sequence_file *f, uint32_t i)
{
	return (size_t)MIN(f->piece_bytes, f->image_bytes - (uint64_t)i * f->piece_bytes);
}

/* ---- checking ------------------------------------------------------------------------ */

/* What is known of a file by its first bytes, before anything else of it is believed. */
static int check_kind(const struct sequence_file *f, uint64_t file_bytes, char *why)
{
	if (file_bytes < sizeof(f->magic) || f->magic != SEQUENCE_FILE_MAGIC)
		return refuse(EINVAL, why, "offset 0: this is not the file of a sequence");
	if (file_bytes < sizeof(*f))
		return refuse(EBADMSG, why,
			      "the file ends at %" PRIu64 ", inside its header of %u bytes",
			      file_bytes, SEQUENCE_BLOCK);
	/* A later version may have its checksum elsewhere: its number comes first. */
	if (f->version > SEQUENCE_FILE_VERSION || f->header_bytes != SEQUENCE_BLOCK)
		return refuse(EPROTONOSUPPORT, why,
			      "offset 8: version %" PRIu32 " of the format, this release reads "
			      "%u; it was written by %.31s, or is damaged",
			      f->version, SEQUENCE_FILE_VERSION,
			      memchr(f->writer, 0, sizeof(f->writer)) ? f->writer : "?");
	if (f->checksum != checksum_file(f))
		return refuse(EBADMSG, why, "offset 0: the header is damaged");
	return 0;
}

int sequence_file_check(const struct sequence_file *f, uint64_t file_bytes, char *why)
{
	uint64_t lacking = f->incompat & ~SEQUENCE_FEATURES_INCOMPAT;
	int r = check_kind(f, file_bytes, why);
	struct sequence_file plan = *f;

	if (r < 0)
		return r;
	if (lacking)
		return refuse(EPROTONOSUPPORT, why,
			      "offset 24: the file has features %#" PRIx64
			      " that this release does not know",
			      lacking);
	if (f->version == 0 || f->image_bytes < sizeof(struct sequence_image) ||
	    f->image_bytes > MAX_IMAGE_BYTES || f->piece_bytes != SEQUENCE_PIECE_BYTES ||
	    !memchr(f->writer, 0, sizeof(f->writer)))
		return refuse(EBADMSG, why, "offset 8: the header says what cannot be");
	lay_out(&plan);
	if (f->n_pieces != plan.n_pieces || f->trailer_at != plan.trailer_at ||
	    f->file_bytes != plan.file_bytes)
		return refuse(EBADMSG, why, "offset 40: the sizes in the header do not agree");
	if (file_bytes < f->file_bytes)
		return refuse(EBADMSG, why,
			      "the file ends at %" PRIu64 " of %" PRIu64 " bytes: it is cut short",
			      file_bytes, f->file_bytes);
	if (file_bytes > f->file_bytes)
		return refuse(EBADMSG, why,
			      "offset %" PRIu64 ": the file goes on behind its end, to %" PRIu64,
			      f->file_bytes, file_bytes);
	return 0;
}

int sequence_trailer_check(const struct sequence_file *f, const struct sequence_trailer *t,
			   char *why)
{
	if (t->checksum == checksum_trailer(f, t) && t->magic == SEQUENCE_TRAILER_MAGIC &&
	    t->file_bytes == f->file_bytes && t->n_pieces == f->n_pieces)
		return 0;
	return refuse(EBADMSG, why,
		      "offset %" PRIu64 ": the trailer is damaged, or was never written",
		      f->trailer_at);
}

int sequence_piece_check(const struct sequence_file *f, const struct sequence_trailer *t,
			 uint32_t i, const void *data, char *why)
{
	size_t n = sequence_piece_bytes(f, i), padded = ALIGN_UP(n, (size_t)SEQUENCE_BLOCK);

	if (sequence_checksum(data, n) != t->piece[i])
		return refuse(EBADMSG, why,
			      "offset %" PRIu64 ": %zu bytes do not have their checksum",
			      sequence_piece_at(f, i), n);
	if (!is_zero((const uint8_t *)data + n, padded - n))
		return refuse(EBADMSG, why,
			      "offset %" PRIu64 ": the %zu bytes behind the image are not 0",
			      sequence_piece_at(f, i) + n, padded - n);
	return 0;
}

/* ---- the head of an image --------------------------------------------------------------- */

uint64_t sequence_index_bytes(const struct sequence_image *m)
{
	return m->n_tables * sizeof(struct sequence_table) +
	       m->layers * sizeof(struct sequence_layer) +
	       m->n_extents * sizeof(struct sequence_extent);
}

static int check_texts(const struct sequence_image *m, char *why)
{
	const struct {
		const char *what, *text;
		size_t n;
	} texts[] = {
		{ "cache", m->cache, sizeof(m->cache) },
		{ "name", m->name, sizeof(m->name) },
		{ "k_format", m->k_format, sizeof(m->k_format) },
		{ "v_format", m->v_format, sizeof(m->v_format) },
		{ "policy", m->policy, sizeof(m->policy) },
		{ "device", m->device, sizeof(m->device) },
		{ "model", m->model, sizeof(m->model) },
		{ "options", m->options, sizeof(m->options) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (!memchr(texts[i].text, 0, texts[i].n))
			return refuse(EBADMSG, why, "image: %s does not end inside its field",
				      texts[i].what);
	return 0;
}

static int check_sizes(const struct sequence_image *m, uint64_t bytes, char *why)
{
	if (m->bytes != bytes || bytes > MAX_IMAGE_BYTES)
		return refuse(EBADMSG, why, "image: %" PRIu64 " bytes, and its head says %" PRIu64,
			      bytes, m->bytes);
	if (!m->layers || m->layers > UINT16_MAX || m->n_tables > MAX_TABLES ||
	    m->n_extents > MAX_EXTENTS)
		return refuse(EBADMSG, why,
			      "image: %" PRIu32 " layers, %" PRIu32 " tables, %" PRIu32
			      " extents: that cannot be",
			      m->layers, m->n_tables, m->n_extents);
	if (sizeof(*m) + sequence_index_bytes(m) > bytes)
		return refuse(EBADMSG, why, "image: %" PRIu64 " bytes do not hold its index",
			      bytes);
	if (m->rsv || !is_zero(m->rsv2, sizeof(m->rsv2)))
		return refuse(EBADMSG, why, "image: a reserved field is not 0");
	return 0;
}

int sequence_image_check(const struct sequence_image *m, uint64_t bytes, char *why)
{
	uint64_t lacking = m->incompat & ~SEQUENCE_FEATURES_INCOMPAT;
	int r;

	if (bytes < sizeof(*m) || m->magic != SEQUENCE_IMAGE_MAGIC)
		return refuse(EINVAL, why, "image: this is not a sequence");
	if (m->version > SEQUENCE_IMAGE_VERSION || lacking)
		return refuse(EPROTONOSUPPORT, why,
			      "image: version %" PRIu32 ", features %#" PRIx64
			      "; this release knows version %u, none of these features",
			      m->version, lacking, SEQUENCE_IMAGE_VERSION);
	if (!m->version || m->head_bytes != sizeof(*m))
		return refuse(EBADMSG, why,
			      "image: version %" PRIu32 ", a head of %" PRIu32 " bytes", m->version,
			      m->head_bytes);
	r = check_sizes(m, bytes, why);
	return r < 0 ? r : check_texts(m, why);
}
