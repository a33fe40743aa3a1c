/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing the file of a sequence. It is written beside its name, brought to the disk
 * and renamed; then the directory is brought to the disk. So under the name there is the
 * old file or the new one, whole, whatever happens and whenever.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "client/file.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif
/* Begins to write after so many bytes: else all of it waits for the end, and the disk with it. */
#define START_BYTES (8 * MIB)

static int fail(struct file_writer *w, int error, const char *what)
{
	return conn_fail(w->c, error, "%.100s: %s: %s", w->path, what, strerror(-error));
}

/* ---- before ------------------------------------------------------------------------- */

static int open_directory(struct file_writer *w)
{
	const char *slash = strrchr(w->path, '/');
	FREE_MEMORY char *directory = NULL;

	w->name = slash ? slash + 1 : w->path;
	if (!*w->name || !strcmp(w->name, ".") || !strcmp(w->name, ".."))
		return conn_fail(w->c, -EINVAL, "%.100s: this names no file", w->path);
	directory = slash ? strndup(w->path, (size_t)(slash + 1 - w->path)) : strdup(".");
	if (!directory)
		return conn_fail(w->c, -ENOMEM, "out of memory");
	w->directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return w->directory < 0 ? fail(w, -errno, "its directory") : 0;
}

/* Before anything is written, for who would wait for nothing; the rename is what decides. */
static int check_free(struct file_writer *w, bool replace)
{
	struct stat st;

	if (fstatat(w->directory, w->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : fail(w, -errno, "looking at it");
	if (!replace)
		return conn_fail(w->c, -EEXIST,
				 "%.100s: there is such a file; it is replaced on demand only",
				 w->path);
	if (!S_ISREG(st.st_mode))
		return conn_fail(w->c, -EINVAL,
				 "%.100s: only a regular file is replaced, and this is none",
				 w->path);
	return 0;
}

static int create_temporary(struct file_writer *w)
{
	uint64_t number;
	char name[64];

	for (unsigned tries = 0; tries < 16; tries++) {
		if (getrandom(&number, sizeof(number), 0) != sizeof(number))
			return fail(w, -EIO, "a random name");
		snprintf(name, sizeof(name), ".sparq-%016llx", (unsigned long long)number);
		/* What was said in the sequence is its owner's alone. */
		w->fd = openat(w->directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (w->fd >= 0) {
			memcpy(w->temporary, name, sizeof(w->temporary));
			return 0;
		}
		if (errno != EEXIST)
			break;
	}
	return fail(w, -errno, "a file beside it");
}

/* A disk that is too small says so now. */
static int take_room(struct file_writer *w)
{
	int r;

	do {
		r = fallocate(w->fd, 0, 0, (off_t)w->file.file_bytes);
	} while (r < 0 && errno == EINTR);
	if (r == 0 || errno == EOPNOTSUPP)
		return 0;
	return conn_fail(w->c, -errno, "%.100s: room for %llu bytes: %s", w->path,
			 (unsigned long long)w->file.file_bytes, strerror(errno));
}

static int write_at(struct file_writer *w, const void *from, size_t n, uint64_t offset)
{
	for (size_t done = 0; done < n;) {
		ssize_t put = pwrite(w->fd, (const uint8_t *)from + done, n - done,
				     (off_t)(offset + done));

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return conn_fail(w->c, put < 0 ? -errno : -EIO, "%.100s: offset %llu: %s",
					 w->path, (unsigned long long)(offset + done),
					 strerror(put < 0 ? errno : EIO));
		done += (size_t)put;
	}
	return 0;
}

static int begin(struct file_writer *w, bool replace, uint64_t image_bytes)
{
	char writer[32];
	int r = open_directory(w);

	if (r == 0)
		r = check_free(w, replace);
	if (r == 0)
		r = create_temporary(w);
	if (r < 0)
		return r;
	snprintf(writer, sizeof(writer), "libsparq %u.%u.%u", SPARQ_VERSION_MAJOR,
		 SPARQ_VERSION_MINOR, SPARQ_VERSION_PATCH);
	sequence_file_plan(image_bytes, (uint64_t)time(NULL), writer, &w->file);
	w->trailer = (struct sequence_trailer *)file_blocks(sequence_trailer_bytes(&w->file));
	if (!w->trailer)
		return conn_fail(w->c, -ENOMEM, "out of memory");
	memset(w->trailer, 0, sequence_trailer_bytes(&w->file));
	r = take_room(w);
	return r < 0 ? r : write_at(w, &w->file, sizeof(w->file), 0);
}

static void deinitp(struct file_writer *w)
{
	file_writer_deinit(w);
}

int file_create(sparq *c, const char *path, bool replace, uint64_t image_bytes,
		struct file_writer *ret)
{
	CLEANUP(deinitp) struct file_writer w = FILE_WRITER_NULL;
	int r;

	w.c = c;
	w.path = path;
	r = begin(&w, replace, image_bytes);
	if (r < 0)
		return r;
	*ret = STEAL(w, FILE_WRITER_NULL);
	return 0;
}

void file_writer_deinit(struct file_writer *w)
{
	if (w->temporary[0])
		unlinkat(w->directory, w->temporary, 0);
	close_fd(&w->fd);
	close_fd(&w->directory);
	free(w->trailer);
	*w = FILE_WRITER_NULL;
}

/* ---- pieces, and the end ----------------------------------------------------------------- */

int file_write(struct file_writer *w, uint32_t i, const uint8_t *data, uint64_t checksum)
{
	size_t n = ALIGN_UP(sequence_piece_bytes(&w->file, i), (size_t)SEQUENCE_BLOCK);
	uint64_t at = sequence_piece_at(&w->file, i), end = at + n;
	int r = write_at(w, data, n, at);

	if (r < 0)
		return r;
	w->trailer->piece[i] = checksum;
	/* A hint: whether it is on the disk is asked at the end. */
	if (at / START_BYTES != end / START_BYTES)
		(void)sync_file_range(w->fd, (off_t)(end / START_BYTES * START_BYTES - START_BYTES),
				      START_BYTES, SYNC_FILE_RANGE_WRITE);
	return 0;
}

/* Under its name, where nothing may have come meanwhile unless it is to be replaced. */
static int give_name(struct file_writer *w, bool replace)
{
	int r;

	r = renameat2(w->directory, w->temporary, w->directory, w->name,
		      replace ? 0 : RENAME_NOREPLACE);
	if (r == 0) {
		w->temporary[0] = '\0';
		return 0;
	}
	/* Some file systems do not know the flag; all know that a link has no place to go. */
	if (!replace && errno == EINVAL)
		r = linkat(w->directory, w->temporary, w->directory, w->name, 0);
	return r < 0 ? fail(w, -errno, "giving it its name") : 0;
}

int file_end(struct file_writer *w, bool replace)
{
	int r;

	sequence_trailer_seal(&w->file, w->trailer);
	r = write_at(w, w->trailer, sequence_trailer_bytes(&w->file), w->file.trailer_at);
	if (r < 0)
		return r;
	if (fsync(w->fd) < 0)
		return fail(w, -errno, "bringing it to the disk");
	r = give_name(w, replace);
	if (r < 0)
		return r;
	if (fsync(w->directory) < 0)
		return fail(w, -errno, "bringing its directory to the disk");
	return 0;
}
