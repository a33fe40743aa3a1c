/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of sequences: every byte of one changed and every length it may be cut to is
 * refused, with a reason and a place; one of a later release, or that lies under a right
 * checksum, too. Writing one leaves the old file or the new one. Who saves what cannot be computed
 * again relies on all of it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/file.h"

#define ROWS_BYTES 4500u

static struct sparq conn; /* for its error text */
static char directory[] = P_tmpdir "/sparq-file.XXXXXX", path[64];

static int setup(void **state)
{
	strcpy(directory + sizeof(directory) - 7, "XXXXXX");
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/file", directory);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	/* Fails if something was left beside it. */
	return rmdir(directory);
}

static unsigned files(void)
{
	DIR *d = opendir(directory);
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

/* ---- an image that nobody would load ---------------------------------------------------- */

static struct sequence_image head_of(uint64_t bytes)
{
	return (struct sequence_image){
		.magic = SEQUENCE_IMAGE_MAGIC,
		.version = SEQUENCE_IMAGE_VERSION,
		.head_bytes = sizeof(struct sequence_image),
		.bytes = bytes,
		.layers = 2,
		.heads = 8,
		.kv_heads = 2,
		.rows_least = 7,
		.rows_most = 8,
		.cache = "cache",
		.name = "name",
		.k_format = "hier4",
	};
}

/* Of `n_pieces` whole pieces and some bytes. */
static uint64_t image_new(unsigned n_pieces, uint8_t **ret)
{
	uint64_t n = n_pieces * (uint64_t)SEQUENCE_PIECE_BYTES + sizeof(struct sequence_image) +
		     ROWS_BYTES;
	struct sequence_image head = head_of(n);
	uint8_t *image = calloc(1, ALIGN_UP(n, (uint64_t)SEQUENCE_BLOCK));

	for (uint64_t i = 0; i < n; i++)
		image[i] = (uint8_t)(i * 7 + i / 251);
	memcpy(image, &head, sizeof(head));
	*ret = image;
	return n;
}

static int write_file(const uint8_t *image, uint64_t n, bool replace)
{
	struct file_writer w = FILE_WRITER_NULL;
	int r = file_create(&conn, path, replace, n, &w);

	for (uint32_t i = 0; r == 0 && i < w.file.n_pieces; i++) {
		const uint8_t *piece = image + (uint64_t)i * SEQUENCE_PIECE_BYTES;

		r = file_write(&w, i, piece,
			       sequence_checksum(piece, sequence_piece_bytes(&w.file, i)));
	}
	if (r == 0)
		r = file_end(&w, replace);
	file_writer_deinit(&w);
	return r;
}

/* Reads all of it: 0 and the image's checksum, or why not. */
static int read_file(uint64_t *ret_sum)
{
	struct file_reader reader = FILE_READER_NULL;
	uint64_t sum = 0;
	int r;

	conn.error[0] = '\0';
	r = file_open(&conn, path, &reader);
	for (uint32_t i = 0; r == 0 && i < reader.file.n_pieces; i++) {
		r = file_read(&reader, i);
		if (r == 0)
			sum = sum * 31 +
			      sequence_checksum(reader.data, sequence_piece_bytes(&reader.file, i));
	}
	file_reader_deinit(&reader);
	*ret_sum = sum;
	assert_true(r == 0 || strlen(conn.error) > 20);
	return r;
}

static void assert_refused(int error, const char *text)
{
	uint64_t sum;

	assert_int_equal(read_file(&sum), error);
	if (!strstr(conn.error, text))
		fail_msg("\"%s\" instead of \"%s\"", conn.error, text);
}

/* ---- whole files ------------------------------------------------------------------------- */

static void whole(void **state)
{
	struct sparq_file_info info = { .size = sizeof(info) };
	struct stat st;
	uint8_t *image;
	uint64_t n = image_new(3, &image), first, again;

	assert_int_equal(write_file(image, n, false), 0);
	assert_int_equal(files(), 1);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_size, 4096 + ALIGN_UP(n, 4096u) + 4096);
	assert_int_equal(read_file(&first), 0);
	assert_int_equal(sparq_file_info_get(&conn, path, &info), 0);
	assert_string_equal(info.cache, "cache");
	assert_int_equal(info.rows_least, 7);
	assert_int_equal(info.bytes, st.st_size);

	/* Not over another without being asked; and then at once. */
	assert_int_equal(write_file(image, n, false), -EEXIST);
	assert_int_equal(read_file(&again), 0);
	assert_int_equal(first, again);
	image[n - 1] ^= 1;
	assert_int_equal(write_file(image, n, true), 0);
	assert_int_equal(read_file(&again), 0);
	assert_int_not_equal(first, again);
	assert_int_equal(files(), 1);
	free(image);
}

/* Somebody was faster: the rename is what decides. */
static void race(void **state)
{
	struct file_writer w = FILE_WRITER_NULL;
	uint8_t *image;
	uint64_t n = image_new(0, &image);
	int fd;

	assert_int_equal(file_create(&conn, path, false, n, &w), 0);
	assert_int_equal(file_write(&w, 0, image, sequence_checksum(image, n)), 0);
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(file_end(&w, false), -EEXIST);
	file_writer_deinit(&w);
	assert_int_equal(files(), 1);
	free(image);
}

/* The disk is full, or as good as that: the old file is as it was, and nothing is left. */
static void no_room(void **state)
{
	struct rlimit was, small = { 100000, 100000 };
	uint8_t *image, *large;
	uint64_t n = image_new(0, &image), more = image_new(2, &large), before, after;

	assert_int_equal(write_file(image, n, false), 0);
	assert_int_equal(read_file(&before), 0);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &was);
	small.rlim_max = was.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(write_file(large, more, true), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_int_equal(read_file(&after), 0);
	assert_int_equal(before, after);
	assert_int_equal(files(), 1);
	free(image);
	free(large);
}

static void bad_paths(void **state)
{
	uint8_t *image;
	uint64_t n = image_new(0, &image);
	char keep[sizeof(path)];
	static const struct {
		const char *path;
		bool replace;
		int error;
	} bad[] = {
		{ "/", false, -EINVAL },        { "", false, -EINVAL },
		{ "/usr/..", true, -EINVAL },   { "/nowhere/at/all", false, -ENOENT },
		{ "/dev/null", true, -EINVAL }, { "/dev/null", false, -EEXIST },
	};

	memcpy(keep, path, sizeof(path));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		strcpy(path, bad[i].path);
		assert_int_equal(write_file(image, n, bad[i].replace), bad[i].error);
	}
	memcpy(path, keep, sizeof(path));
	free(image);
}

/* ---- files that are not whole ---------------------------------------------------------------- */

static void overwrite(uint64_t at, const void *bytes, size_t n)
{
	int fd = open(path, O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, n, (off_t)at), n);
	close(fd);
}

static void every_byte(void **state)
{
	uint8_t *image, *file;
	uint64_t n = image_new(0, &image), sum;
	struct stat st;
	int fd;

	assert_int_equal(write_file(image, n, false), 0);
	stat(path, &st);
	file = malloc((size_t)st.st_size);
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, file, (size_t)st.st_size), st.st_size);
	close(fd);
	for (off_t i = 0; i < st.st_size; i++) {
		uint8_t wrong = file[i] ^ (uint8_t)(1 << i % 8);

		overwrite((uint64_t)i, &wrong, 1);
		if (read_file(&sum) == 0)
			fail_msg("byte %ld changed, and it was read", (long)i);
		if (!strstr(conn.error, "offset "))
			fail_msg("byte %ld: no offset in \"%s\"", (long)i, conn.error);
		overwrite((uint64_t)i, &file[i], 1);
	}
	assert_int_equal(read_file(&sum), 0);
	free(file);
	free(image);
}

static void every_length(void **state)
{
	uint8_t *image;
	uint64_t n = image_new(0, &image), sum;
	struct stat st;

	assert_int_equal(write_file(image, n, false), 0);
	stat(path, &st);
	assert_int_equal(truncate(path, st.st_size + 1), 0);
	assert_refused(-EBADMSG, "the file goes on behind its end");
	for (off_t i = st.st_size - 1; i >= 0; i--) {
		assert_int_equal(truncate(path, i), 0);
		if (read_file(&sum) == 0)
			fail_msg("cut to %ld bytes, and it was read", (long)i);
	}
	free(image);
}

static void seal(struct sequence_file *f)
{
	f->checksum = 0;
	f->checksum = sequence_checksum(f, sizeof(*f));
	overwrite(0, f, sizeof(*f));
}

/* All under a right checksum: another program, a later one, or an attacker. */
static void lies(void **state)
{
	struct sequence_file f, good;
	uint8_t *image;
	uint64_t n = image_new(0, &image), sum;

	assert_int_equal(write_file(image, n, false), 0);
	sequence_file_plan(n, 5, "somebody", &good);
	f = good;
	f.compat = 1ull << 40;
	seal(&f);
	assert_int_equal(read_file(&sum), 0);
#define LIE(change, error, text)                                                                   \
	do {                                                                                       \
		f = good;                                                                          \
		change;                                                                            \
		seal(&f);                                                                          \
		assert_refused(error, text);                                                       \
	} while (0)
	LIE(f.magic++, -EINVAL, "offset 0: this is not the file of a sequence");
	LIE(f.version = 2, -EPROTONOSUPPORT, "offset 8: version 2 of the format");
	LIE(f.version = 0, -EBADMSG, "offset 8: the header says what cannot be");
	LIE(f.incompat = 1, -EPROTONOSUPPORT, "offset 24: the file has features 0x1");
	LIE(f.image_bytes = 100, -EBADMSG, "offset 8: the header says what cannot be");
	LIE(f.image_bytes = UINT64_MAX, -EBADMSG, "offset 8: the header says what cannot be");
	LIE(f.image_bytes++, -EBADMSG, "bytes do not have their checksum");
	LIE(f.piece_bytes = 1, -EBADMSG, "offset 8: the header says what cannot be");
	LIE(f.n_pieces = UINT32_MAX, -EBADMSG, "offset 40: the sizes in the header do not agree");
	LIE(f.trailer_at = 0, -EBADMSG, "offset 40: the sizes in the header do not agree");
	LIE(memset(f.writer, 'x', sizeof(f.writer)), -EBADMSG, "offset 8");
	/* Large, and right in itself: the file is not that long. */
	LIE(sequence_file_plan(1ull << 45, 5, "", &f), -EBADMSG, "it is cut short");
#undef LIE
	free(image);
}

static void image_lies(void **state)
{
	struct sequence_image *m;
	uint8_t *image;
	uint64_t n = image_new(0, &image);

	m = (struct sequence_image *)image;
#define LIE(change, error, text)                                                                   \
	do {                                                                                       \
		*m = head_of(n);                                                                   \
		change;                                                                            \
		assert_int_equal(write_file(image, n, true), 0);                                   \
		assert_refused(error, text);                                                       \
	} while (0)
	LIE(m->magic = 0, -EINVAL, "image: this is not a sequence");
	LIE(m->version = 9, -EPROTONOSUPPORT, "image: version 9");
	LIE(m->incompat = 4, -EPROTONOSUPPORT, "features 0x4");
	LIE(m->head_bytes = 4096, -EBADMSG, "a head of 4096 bytes");
	LIE(m->bytes = 1ull << 60, -EBADMSG, "its head says 1152921504606846976");
	LIE(m->layers = 0, -EBADMSG, "that cannot be");
	LIE(m->layers = UINT32_MAX, -EBADMSG, "that cannot be");
	LIE(m->n_tables = 1u << 19, -EBADMSG, "do not hold its index");
	LIE(m->n_extents = 1u << 19, -EBADMSG, "do not hold its index");
	LIE(memset(m->model, 'x', sizeof(m->model)), -EBADMSG, "model does not end");
	LIE(memset(m->options, 'x', sizeof(m->options)), -EBADMSG, "options does not end");
	LIE(m->rsv = 1, -EBADMSG, "a reserved field");
	LIE(m->rsv2[327] = 1, -EBADMSG, "a reserved field");
#undef LIE
	free(image);
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(whole),      ONE(race),         ONE(no_room), ONE(bad_paths),
		ONE(every_byte), ONE(every_length), ONE(lies),    ONE(image_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
