/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files by the disk's thread, over both back ends and over one that fails on demand. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "daemon/disk-backend.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define PIECE DISK_PIECE_MIN
#define DEPTH 3

/* ---- a back end that fails on demand -------------------------------------------- */

static struct fault {
	enum disk_request_op op;
	unsigned nth; /* request of this kind, from 1 on; 0: none */
	int error;    /* -errno; 0: half of the bytes */
	unsigned seen;
	bool every;
	int wait_error; /* of the wait after that request */
	bool now;
	bool late; /* performs requests as late as it may, the newest first */
} fault;

struct faulty {
	void *below;
	struct disk_event put_off[4 * DISK_DEPTH_MAX];
	struct disk_request late[4 * DISK_DEPTH_MAX];
	unsigned n, n_late;
};

static int faulty_open(unsigned entries, void *memory, size_t bytes, void **ret, int *ret_error)
{
	struct faulty *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	*ret = f;
	return disk_sync.open(entries, memory, bytes, &f->below, ret_error);
}

static void faulty_close(void *state)
{
	struct faulty *f = state;

	disk_sync.close(f->below);
	free(f);
}

static int faulty_submit(void *state, const struct disk_request *q)
{
	struct disk_request part = *q;
	struct faulty *f = state;

	if (fault.late) {
		f->late[f->n_late++] = *q;
		return 0;
	}
	if (!fault.nth || q->op != fault.op ||
	    (++fault.seen != fault.nth && !(fault.every && fault.seen > fault.nth)))
		return disk_sync.submit(f->below, q);
	fault.now = true;
	if (fault.error) {
		f->put_off[f->n++] = (struct disk_event){ q->token, fault.error };
		return 0;
	}
	/* Not a whole number of blocks, as interrupted ones are. */
	part.bytes = q->bytes / 2 + 100;
	return disk_sync.submit(f->below, &part);
}

static int faulty_wait(void *state, struct disk_event *ret, unsigned n)
{
	struct faulty *f = state;

	if (fault.now && fault.wait_error)
		return fault.wait_error;
	if (f->n) {
		*ret = f->put_off[--f->n];
		return 1;
	}
	if (f->n_late)
		disk_sync.submit(f->below, &f->late[--f->n_late]);
	return disk_sync.wait(f->below, ret, n);
}

static const struct disk_backend disk_faulty = {
	.name = "faulty",
	.open = faulty_open,
	.close = faulty_close,
	.submit = faulty_submit,
	.wait = faulty_wait,
};

/* ---- files ------------------------------------------------------------------------ */

struct fixture {
	char path[64];
	int directory;
	struct disk *disk;
};

static enum disk_kind kind;
static bool faulty;

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct disk_params p = { .depth = DEPTH, .piece_bytes = PIECE, .kind = kind };

	assert_non_null(f);
	fault = (struct fault){ 0 };
	snprintf(f->path, sizeof(f->path), "%s/test-disk-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/var/tmp");
	assert_non_null(mkdtemp(f->path));
	f->directory = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->directory >= 0);
	p.directory = f->directory;
	p.direct = !faulty; /* parts of blocks are what the faulty one is for */
	assert_int_equal(disk_new_over(&p, faulty ? &disk_faulty : NULL, &f->disk), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	disk_free(f->disk);
	close(f->directory);
	snprintf(command, sizeof(command), "rm -r '%s'", f->path);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static bool exists(const struct fixture *f, const char *name)
{
	struct stat st;

	return fstatat(f->directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static struct disk_job *fetch(struct fixture *f)
{
	struct pollfd fd = { .fd = disk_event_fd(f->disk), .events = POLLIN };
	struct disk_job *job;

	while (!(job = disk_fetch(f->disk)))
		assert_true(poll(&fd, 1, 10000) > 0);
	return job;
}

/* A stream whose bytes tell where they lie. */
struct stream {
	uint64_t next, seed;
	uint64_t fail_at; /* the first move at or behind it fails; 0: none */
	uint64_t stop_at; /* waits there until told to go on; 0: nowhere */
	uint32_t arrived, go_on;
	uint64_t wrong;
};

static uint8_t byte_at(const struct stream *s, uint64_t at)
{
	return (uint8_t)((at + s->seed) * 2654435761u >> 13);
}

static int check_order(struct stream *s, uint64_t at, size_t n)
{
	if (at != s->next)
		s->wrong++;
	s->next = at + n;
	store_release(&s->arrived, s->stop_at && at >= s->stop_at ? 1u : 0u);
	while (s->stop_at && at >= s->stop_at && !load_acquire(&s->go_on))
		cpu_pause();
	return s->fail_at && at >= s->fail_at ? -EBADMSG : 0;
}

static int make(void *arg, uint64_t at, void *data, size_t n)
{
	struct stream *s = arg;
	int r = check_order(s, at, n);

	for (size_t i = 0; i < n; i++)
		((uint8_t *)data)[i] = byte_at(s, at + i);
	return r;
}

static int take(void *arg, uint64_t at, void *data, size_t n)
{
	struct stream *s = arg;
	int r = check_order(s, at, n);

	for (size_t i = 0; i < n; i++)
		s->wrong += ((uint8_t *)data)[i] != byte_at(s, at + i);
	return r;
}

static struct disk_job job_of(enum disk_op op, const char *name, uint64_t bytes, struct stream *s)
{
	struct disk_job j = { .op = op, .bytes = bytes, .arg = s };

	j.move = op == DISK_WRITE ? make : take;
	snprintf(j.name, sizeof(j.name), "%s", name);
	return j;
}

static int run(struct fixture *f, struct disk_job *j)
{
	disk_submit(f->disk, j);
	assert_ptr_equal(fetch(f), j);
	return j->error;
}

static void write_ok(struct fixture *f, const char *name, uint64_t bytes)
{
	struct stream s = { .seed = bytes };
	struct disk_job j = job_of(DISK_WRITE, name, bytes, &s);

	assert_int_equal(run(f, &j), 0);
	assert_int_equal(s.wrong, 0);
	assert_int_equal(j.moved, bytes);
}

static void read_ok(struct fixture *f, const char *name, uint64_t bytes)
{
	struct stream s = { .seed = bytes };
	struct disk_job j = job_of(DISK_READ, name, 0, &s);

	assert_int_equal(run(f, &j), 0);
	assert_int_equal(j.bytes, bytes);
	assert_int_equal(s.next, bytes);
	assert_int_equal(s.wrong, 0);
}

/* ---- what a spill relies on --------------------------------------------------------- */

static const uint64_t sizes[] = {
	0,     1,         DISK_ALIGN - 1, DISK_ALIGN,        PIECE - 1,
	PIECE, PIECE + 1, DEPTH *PIECE,   7 * PIECE + 12345,
};

/* A sequence comes back as it was, whatever its size. */
static void test_there_and_back(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct stat st;
		char name[16];

		snprintf(name, sizeof(name), "%zu.seq", i);
		write_ok(f, name, sizes[i]);
		assert_int_equal(fstatat(f->directory, name, &st, 0), 0);
		assert_int_equal((uint64_t)st.st_size, sizes[i]);
		assert_int_equal(st.st_mode & 0777, 0600);
		read_ok(f, name, sizes[i]);
	}
	assert_false(exists(f, "0.seq.tmp"));
}

static void test_remove(void **state)
{
	struct fixture *f = *state;
	struct disk_job j = job_of(DISK_REMOVE, "a", 0, NULL);

	write_ok(f, "a", 5000);
	assert_int_equal(run(f, &j), 0);
	assert_false(exists(f, "a"));
	assert_int_equal(run(f, &j), -ENOENT);
	assert_string_equal(j.what, "remove");
}

static void test_no_file(void **state)
{
	struct stream s = { 0 };
	struct disk_job j = job_of(DISK_READ, "none", 0, &s);

	assert_int_equal(run(*state, &j), -ENOENT);
	assert_string_equal(j.what, "open");
	assert_int_equal(s.next, 0);
}

/* A link in the directory must not lead a daemon elsewhere. */
static void test_no_link(void **state)
{
	struct fixture *f = *state;
	struct stream s = { 0 };
	struct disk_job j = job_of(DISK_READ, "link", 0, &s);

	write_ok(f, "a", 10);
	assert_int_equal(symlinkat("a", f->directory, "link"), 0);
	assert_int_equal(run(f, &j), -ELOOP);
}

struct opened {
	struct stream stream;
	uint64_t bytes;
	int result;
};

static int look(void *arg, int fd, uint64_t bytes)
{
	struct opened *o = arg;
	struct stat st;

	assert_int_equal(o->stream.next, 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal((uint64_t)st.st_size, bytes);
	o->bytes = bytes;
	return o->result;
}

/* A header before pieces that begin where checksums do. */
static void test_head(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct opened o = { .stream.seed = 3 };
		struct disk_job j = job_of(DISK_WRITE, "a", sizes[i], &o.stream);

		j.head_bytes = DISK_ALIGN;
		assert_int_equal(run(f, &j), 0);
		o.stream.next = 0;
		j = job_of(DISK_READ, "a", 0, &o.stream);
		j.head_bytes = DISK_ALIGN;
		j.opened = look;
		assert_int_equal(run(f, &j), 0);
		assert_int_equal(o.bytes, sizes[i]);
		assert_int_equal(o.stream.next, sizes[i]);
		assert_int_equal(o.stream.wrong, 0);

		o = (struct opened){ .result = -EBADMSG };
		assert_int_equal(run(f, &j), -EBADMSG);
		assert_int_equal(o.stream.next, 0);
	}
}

/* What cannot be made, or is refused, says where; what was under that name stays. */
static void test_contents_fail(void **state)
{
	struct fixture *f = *state;
	struct stream s = { .fail_at = 2 * PIECE };
	struct disk_job j = job_of(DISK_WRITE, "a", 6 * PIECE, &s);

	write_ok(f, "a", 777);
	assert_int_equal(run(f, &j), -EBADMSG);
	assert_string_equal(j.what, "contents");
	assert_int_equal(j.error_at, 2 * PIECE);
	assert_false(exists(f, "a.tmp"));
	read_ok(f, "a", 777);

	write_ok(f, "b", 6 * PIECE);
	s = (struct stream){ .fail_at = 4 * PIECE, .seed = 6 * PIECE };
	j = job_of(DISK_READ, "b", 0, &s);
	assert_int_equal(run(f, &j), -EBADMSG);
	assert_int_equal(j.error_at, 4 * PIECE);
	assert_int_equal(s.next, 5 * PIECE);
	read_ok(f, "b", 6 * PIECE);
}

static void wait_for(const struct stream *s)
{
	while (!load_acquire(&s->arrived))
		cpu_pause();
}

/* Somebody wants the sequence that is being spilled: it must not take as long as the spill. */
static void test_cancel(void **state)
{
	struct fixture *f = *state;
	struct stream s = { .stop_at = PIECE }, other = { 0 };
	struct disk_job j = job_of(DISK_WRITE, "a", 100 * PIECE, &s);
	struct disk_job waiting = job_of(DISK_WRITE, "b", 100 * PIECE, &other);

	disk_submit(f->disk, &j);
	wait_for(&s);
	disk_submit(f->disk, &waiting);
	disk_cancel(f->disk, &waiting);
	disk_cancel(f->disk, &j);
	store_release(&s.go_on, 1u);
	assert_ptr_equal(fetch(f), &j);
	assert_ptr_equal(fetch(f), &waiting);
	assert_int_equal(j.error, -ECANCELED);
	assert_int_equal(waiting.error, -ECANCELED);
	assert_true(s.next <= (1 + DEPTH) * PIECE);
	assert_int_equal(other.next, 0);
	assert_false(exists(f, "a.tmp") || exists(f, "a") || exists(f, "b"));
}

/* A client that waits for its sequence does not wait for a spill. */
static void test_read_overtakes(void **state)
{
	struct fixture *f = *state;
	struct stream s = { .stop_at = PIECE }, in = { .seed = 10 };
	struct disk_job first = job_of(DISK_WRITE, "x", 4 * PIECE, &s);
	struct disk_job second = job_of(DISK_WRITE, "y", 4 * PIECE, &(struct stream){ 0 });
	struct disk_job j = job_of(DISK_READ, "a", 0, &in);

	write_ok(f, "a", 10);
	disk_submit(f->disk, &first);
	wait_for(&s);
	disk_submit(f->disk, &second);
	disk_submit(f->disk, &j);
	store_release(&s.go_on, 1u);
	assert_ptr_equal(fetch(f), &j);
	assert_ptr_equal(fetch(f), &first);
	assert_ptr_equal(fetch(f), &second);
	assert_int_equal(in.wrong, 0);
}

/* One user's many files do not put off another's single one. */
static void test_turns(void **state)
{
	struct fixture *f = *state;
	struct stream s[6] = { { .stop_at = PIECE } };
	struct disk_job j[6];

	for (unsigned i = 0; i < ARRAY_SIZE(j); i++) {
		char name[8] = { (char)('a' + i) };

		j[i] = job_of(DISK_WRITE, name, 2 * PIECE, &s[i]);
		j[i].group = i == 5 ? 2 : 1;
		disk_submit(f->disk, &j[i]);
		if (i == 0)
			wait_for(&s[0]);
	}
	store_release(&s[0].go_on, 1u);
	assert_ptr_equal(fetch(f), &j[0]);
	assert_ptr_equal(fetch(f), &j[5]);
	for (unsigned i = 1; i < 5; i++)
		assert_ptr_equal(fetch(f), &j[i]);
}

/* The daemon ends: it waits for pieces, not for files, and leaves no half ones. */
static void test_free_under_way(void **state)
{
	struct fixture *f = *state;
	struct stream s = { .stop_at = PIECE, .go_on = 0 };
	struct disk_job j = job_of(DISK_WRITE, "a", 1000 * PIECE, &s);
	struct disk_job never = job_of(DISK_WRITE, "b", PIECE, &(struct stream){ 0 });

	disk_submit(f->disk, &j);
	disk_submit(f->disk, &never);
	wait_for(&s);
	store_release(&s.go_on, 1u);
	f->disk = disk_free(f->disk);
	assert_true(s.next < 1000 * PIECE);
	assert_false(exists(f, "a") || exists(f, "a.tmp") || exists(f, "b"));
}

/* ---- errors of the disk -------------------------------------------------------------- */

static void check_failed(struct fixture *f, int error, const char *what)
{
	struct stream s = { .seed = 5 };
	struct disk_job j = job_of(DISK_WRITE, "a", 5 * PIECE + 5, &s);

	assert_int_equal(run(f, &j), error);
	assert_string_equal(j.what, what);
	assert_false(exists(f, "a") || exists(f, "a.tmp"));
	fault = (struct fault){ 0 };
	write_ok(f, "a", 5 * PIECE + 5); /* the next one is none the worse */
	read_ok(f, "a", 5 * PIECE + 5);
}

static void test_write_fails(void **state)
{
	for (unsigned n = 1; n <= 6; n++) {
		struct fixture *f = *state;
		struct disk_job j = job_of(DISK_REMOVE, "a", 0, NULL);

		fault = (struct fault){ .op = DISK_REQUEST_WRITE, .nth = n, .error = -ENOSPC };
		check_failed(f, -ENOSPC, "write");
		assert_int_equal(run(f, &j), 0);
	}
}

static void test_fsync_fails(void **state)
{
	fault = (struct fault){ .op = DISK_REQUEST_FSYNC, .nth = 1, .error = -EIO };
	check_failed(*state, -EIO, "fsync");
}

static void test_read_fails(void **state)
{
	struct fixture *f = *state;
	struct stream s = { .seed = 6 * PIECE };
	struct disk_job j = job_of(DISK_READ, "a", 0, &s);

	write_ok(f, "a", 6 * PIECE);
	fault = (struct fault){ .op = DISK_REQUEST_READ, .nth = 3, .error = -EIO };
	assert_int_equal(run(f, &j), -EIO);
	assert_string_equal(j.what, "read");
	assert_int_equal(j.error_at, 2 * PIECE);
	assert_true(s.next <= 2 * PIECE);
	fault = (struct fault){ 0 };
	read_ok(f, "a", 6 * PIECE);
}

/* Some are told "half of it", or "not now". */
static void test_parts(void **state)
{
	static const int errors[] = { 0, -EAGAIN, -EINTR };
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(errors); i++)
		for (unsigned n = 1; n <= 4; n++) {
			struct fault once = { .nth = n, .error = errors[i] };

			fault = once;
			fault.op = DISK_REQUEST_WRITE;
			write_ok(f, "a", 3 * PIECE + 99);
			assert_true(fault.now);
			fault = once;
			fault.op = DISK_REQUEST_READ;
			read_ok(f, "a", 3 * PIECE + 99);
			assert_true(fault.now);
		}
	/* Always half: ends all the same. */
	fault = (struct fault){ .op = DISK_REQUEST_READ, .nth = 1, .every = true };
	read_ok(f, "a", 3 * PIECE + 99);
}

/* Disks answer in any order: pieces are handed over in theirs all the same. */
static void test_any_order(void **state)
{
	struct fixture *f = *state;

	fault.late = true;
	write_ok(f, "a", 11 * PIECE + 7);
	read_ok(f, "a", 11 * PIECE + 7);
}

/* The file got shorter while it was read. */
static void test_cut_short(void **state)
{
	struct fixture *f = *state;
	struct stream s = { .seed = 50 * PIECE, .stop_at = PIECE };
	struct disk_job j = job_of(DISK_READ, "a", 0, &s);
	int fd;

	write_ok(f, "a", 50 * PIECE);
	disk_submit(f->disk, &j);
	wait_for(&s);
	fd = openat(f->directory, "a", O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, 20 * PIECE + 300), 0);
	close(fd);
	store_release(&s.go_on, 1u);
	assert_ptr_equal(fetch(f), &j);
	assert_int_equal(j.error, -EIO);
	assert_string_equal(j.what, "end of file");
	assert_true(j.error_at >= 20 * PIECE && j.error_at < 25 * PIECE);
	assert_true(s.next <= 20 * PIECE);
	assert_int_equal(s.wrong, 0);
}

/* An engine that is of no use any more answers every job. */
static void test_broken(void **state)
{
	struct fixture *f = *state;
	struct stream s = { 0 };
	struct disk_job j = job_of(DISK_WRITE, "a", 9 * PIECE, &s);

	fault = (struct fault){
		.op = DISK_REQUEST_WRITE,
		.nth = 2,
		.error = -EIO,
		.wait_error = -EBADF,
	};
	assert_int_equal(run(f, &j), -EBADF);
	assert_false(exists(f, "a") || exists(f, "a.tmp"));
	s = (struct stream){ 0 };
	assert_int_equal(run(f, &j), -EBADF);
	assert_false(exists(f, "a") || exists(f, "a.tmp"));
}

int main(void)
{
	const struct CMUnitTest good[] = {
		cmocka_unit_test_setup_teardown(test_there_and_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_remove, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_link, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_head, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_contents_fail, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_cancel, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_read_overtakes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_turns, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_free_under_way, set_up, tear_down),
	};
	const struct CMUnitTest bad[] = {
		cmocka_unit_test_setup_teardown(test_write_fails, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_fsync_fails, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_read_fails, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_parts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_any_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_cut_short, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_broken, set_up, tear_down),
	};
	int failed;

	kind = DISK_SYNC;
	failed = cmocka_run_group_tests_name("system calls", good, NULL, NULL);
	kind = DISK_BEST; /* io_uring where it may be used */
	failed += cmocka_run_group_tests_name("best", good, NULL, NULL);
	faulty = true;
	failed += cmocka_run_group_tests_name("faulty", good, NULL, NULL);
	return failed + cmocka_run_group_tests_name("errors", bad, NULL, NULL);
}
