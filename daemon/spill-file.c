/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a spilled sequence: shm/sequence-file.h around daemon/image.h. The
 * disk hands over the header, then one piece of the image at a time, with what follows
 * the image behind the last one.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/name.h"
#include "daemon/spill-private.h"
#include "shm/base.h"

_Static_assert(SEQUENCE_BLOCK == DISK_ALIGN, "the header is the first piece");
_Static_assert(SEQUENCE_PIECE_BYTES <= DISK_PIECE_MAX, "a piece of the image is one of the disk");
_Static_assert(sizeof(((struct sequence_file *)0)->writer) == 32, "spill_file_writer");

void spill_file_writer(const struct seq *s, char ret[32])
{
	snprintf(ret, 32, "sparqd, spilled %#" PRIx64, s->id);
}

void spill_file_deinit(struct spill_file *f)
{
	f->image = image_close(f->image);
	f->build = image_build_free(f->build);
	free(f->trailer);
	f->trailer = NULL;
}

static int take_trailer(struct spill_file *f)
{
	size_t bytes = sequence_trailer_bytes(&f->head);

	f->trailer = aligned_alloc(SEQUENCE_BLOCK, bytes);
	if (!f->trailer)
		return why_fail(f->why, ENOMEM, "out of memory");
	memset(f->trailer, 0, bytes);
	return 0;
}

static uint32_t piece_of(uint64_t at)
{
	return (uint32_t)((at - SEQUENCE_BLOCK) / SEQUENCE_PIECE_BYTES);
}

/* ---- out -------------------------------------------------------------------------- */

/* Of a piece: the part that is image. */
static size_t write_image(struct spill_file *f, uint64_t at, void *data, size_t n)
{
	uint64_t from = at - SEQUENCE_BLOCK;

	if (from >= f->head.image_bytes)
		return 0;
	n = MIN(n, f->head.image_bytes - from);
	image_read(f->image, from, data, n, &f->trailer->piece[piece_of(at)]);
	if (from + n == f->head.image_bytes)
		sequence_trailer_seal(&f->head, f->trailer);
	return n;
}

int spill_file_write(void *arg, uint64_t at, void *data, size_t n)
{
	struct spill_file *f = arg;
	char *to = data;
	size_t done, zeros;

	if (at == 0) {
		assert(n == sizeof(f->head));
		memcpy(to, &f->head, n);
		return take_trailer(f);
	}
	done = write_image(f, at, to, n);
	zeros = at + done < f->head.trailer_at ? (size_t)(f->head.trailer_at - at - done) : 0;
	zeros = MIN(zeros, n - done);
	memset(to + done, 0, zeros);
	done += zeros;
	if (done < n)
		memcpy(to + done, (char *)f->trailer + (at + done - f->head.trailer_at), n - done);
	return 0;
}

/* ---- in --------------------------------------------------------------------------- */

/* By whole blocks into memory that is aligned to them: the file may be open past the cache. */
static int read_blocks(int fd, uint64_t at, void *data, size_t n, char *why)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = pread(fd, (char *)data + done, n - done, (off_t)(at + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return why_fail(why, EIO, "offset %" PRIu64 ": %s", at + done,
					r < 0 ? strerror(errno) : "the file ends here");
		done += (size_t)r;
	}
	return 0;
}

static int read_head(struct spill_file *f, int fd, uint64_t bytes)
{
	FREE_MEMORY void *block = aligned_alloc(SEQUENCE_BLOCK, SEQUENCE_BLOCK);
	char writer[32];
	int r;

	if (!block)
		return why_fail(f->why, ENOMEM, "out of memory");
	memset(block, 0, SEQUENCE_BLOCK);
	if (pread(fd, block, SEQUENCE_BLOCK, 0) < 0)
		return why_fail(f->why, EIO, "offset 0: %s", strerror(errno));
	memcpy(&f->head, block, sizeof(f->head));
	r = sequence_file_check(&f->head, bytes, f->why);
	if (r < 0)
		return r;
	spill_file_writer(f->seq, writer);
	if (strcmp(writer, f->head.writer) != 0)
		return why_fail(f->why, EBADMSG, "offset %zu: the file is of another sequence (%s)",
				offsetof(struct sequence_file, writer), f->head.writer);
	return 0;
}

int spill_file_opened(void *arg, int fd, uint64_t bytes)
{
	struct spill_file *f = arg;
	int r = read_head(f, fd, bytes);

	if (r == 0)
		r = take_trailer(f);
	if (r == 0)
		r = read_blocks(fd, f->head.trailer_at, f->trailer,
				sequence_trailer_bytes(&f->head), f->why);
	if (r == 0)
		r = sequence_trailer_check(&f->head, f->trailer, f->why);
	if (r == 0)
		r = image_build_open(f->seq, f->head.image_bytes, &f->build, f->why);
	if (r == 0)
		image_build_uncharged(f->build);
	return r;
}

int spill_file_read(void *arg, uint64_t at, void *data, size_t n)
{
	struct spill_file *f = arg;
	uint32_t i;
	int r;

	/* Header and trailer were read before. */
	if (at < SEQUENCE_BLOCK || at - SEQUENCE_BLOCK >= f->head.image_bytes)
		return 0;
	i = piece_of(at);
	r = sequence_piece_check(&f->head, f->trailer, i, data, f->why);
	if (r == 0)
		r = image_build_write(f->build, data, sequence_piece_bytes(&f->head, i), NULL,
				      f->why);
	if (r == 0 && i + 1 == f->head.n_pieces)
		r = image_build_end(f->build, f->why);
	return r;
}
