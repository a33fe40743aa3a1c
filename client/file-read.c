/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the file of a sequence: see file.h. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "client/file.h"

#define AHEAD_BYTES ((off_t)(4 * MIB)) /* that the disk is asked for */

static int fail(struct file_reader *r, int error, const char *what)
{
	return conn_fail(r->c, error, "%.100s: %s", r->path, what);
}

/* `n` bytes, all of them: the file was long enough a moment ago. */
static int read_at(struct file_reader *r, void *to, size_t n, uint64_t offset)
{
	for (size_t done = 0; done < n;) {
		ssize_t got = pread(r->fd, (uint8_t *)to + done, n - done, (off_t)(offset + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return conn_fail(r->c, -errno, "%.100s: offset %llu: %s", r->path,
					 (unsigned long long)(offset + done), strerror(errno));
		if (got == 0)
			return conn_fail(r->c, -EBADMSG, "%.100s: it ends at %llu now", r->path,
					 (unsigned long long)(offset + done));
		done += (size_t)got;
	}
	return 0;
}

static int open_regular(struct file_reader *r, uint64_t *ret_bytes)
{
	struct stat st;

	/* Not to wait for a writer if it is a pipe. */
	r->fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (r->fd < 0 || fstat(r->fd, &st) < 0)
		return fail(r, -errno, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return fail(r, -EINVAL, "this is no regular file");
	(void)posix_fadvise(r->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

static int read_frame(struct file_reader *r, uint64_t file_bytes)
{
	char why[SEQUENCE_WHY_BYTES];
	int error = 0;

	if (file_bytes)
		error = read_at(r, &r->file, MIN(sizeof(r->file), file_bytes), 0);
	if (error < 0)
		return error;
	error = sequence_file_check(&r->file, file_bytes, why);
	if (error < 0)
		return fail(r, error, why);
	r->trailer = (struct sequence_trailer *)file_blocks(sequence_trailer_bytes(&r->file));
	if (!r->trailer)
		return fail(r, -ENOMEM, "out of memory");
	error = read_at(r, r->trailer, sequence_trailer_bytes(&r->file), r->file.trailer_at);
	if (error < 0)
		return error;
	error = sequence_trailer_check(&r->file, r->trailer, why);
	return error < 0 ? fail(r, error, why) : 0;
}

int file_read(struct file_reader *r, uint32_t i)
{
	size_t n = ALIGN_UP(sequence_piece_bytes(&r->file, i), (size_t)SEQUENCE_BLOCK);
	uint64_t at = sequence_piece_at(&r->file, i);
	char why[SEQUENCE_WHY_BYTES];
	int error;

	/* While the daemon works on this one. */
	(void)posix_fadvise(r->fd, (off_t)(at + n), AHEAD_BYTES, POSIX_FADV_WILLNEED);
	error = read_at(r, r->data, n, at);
	if (error < 0)
		return error;
	error = sequence_piece_check(&r->file, r->trailer, i, r->data, why);
	return error < 0 ? fail(r, error, why) : 0;
}

static void deinitp(struct file_reader *r)
{
	file_reader_deinit(r);
}

int file_open(sparq *c, const char *path, struct file_reader *ret)
{
	CLEANUP(deinitp) struct file_reader r = FILE_READER_NULL;
	char why[SEQUENCE_WHY_BYTES];
	uint64_t bytes = 0;
	int error;

	r.c = c;
	r.path = path;
	error = open_regular(&r, &bytes);
	if (error == 0)
		error = read_frame(&r, bytes);
	if (error < 0)
		return error;
	r.data = file_blocks(SEQUENCE_PIECE_BYTES);
	if (!r.data)
		return fail(&r, -ENOMEM, "out of memory");
	error = file_read(&r, 0);
	if (error < 0)
		return error;
	error = sequence_image_check(file_head(&r), r.file.image_bytes, why);
	if (error < 0)
		return fail(&r, error, why);
	*ret = STEAL(r, FILE_READER_NULL);
	return 0;
}

void file_reader_deinit(struct file_reader *r)
{
	close_fd(&r->fd);
	free(r->trailer);
	free(r->data);
	*r = FILE_READER_NULL;
}
