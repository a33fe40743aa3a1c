/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stats page. Who reads it relies on three things: a block is one that was whole at one moment,
 * however busy its writer; a slot that another user took over has nothing of the one before; and
 * the page cannot be changed by those who get it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/stats.h"
#include "daemon/stats.h"
#include "shm/message.h"

static const struct stats_params params = {
	.n = {
		[STATS_CONTROL] = 1,
		[STATS_NODE] = 2,
		[STATS_WORKER] = 2,
		[STATS_USER] = 3,
		[STATS_CACHE] = 4,
		[STATS_SEQUENCE] = 5,
		[STATS_DEVICE] = 6,
	},
	.generation = 7,
};

static int set_up(void **state)
{
	struct stats_page *p = calloc(1, sizeof(*p));

	assert_int_equal(stats_page_create(&params, p), 0);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	stats_page_deinit(*state);
	free(*state);
	return 0;
}

/* ---- layout ------------------------------------------------------------------- */

static void test_blocks_do_not_overlap(void **state)
{
	const struct stats_page *p = *state;
	const uint8_t *end = (uint8_t *)p->segment.base + sizeof(*p->header);

	for (unsigned kind = 0; kind < STATS_KINDS; kind++) {
		for (uint32_t i = 0; i < params.n[kind]; i++) {
			const uint8_t *block = stats_page_block(p, kind, i);

			assert_true(block >= end);
			assert_int_equal((uintptr_t)block % SPARQ_LINE_BYTES, 0);
			end = block + p->header->section[kind].stride;
		}
		assert_null(stats_page_block(p, kind, params.n[kind]));
	}
	assert_true(end <= (uint8_t *)p->segment.base + p->header->bytes);
	assert_null(stats_page_block(NULL, STATS_CONTROL, 0));
}

static void test_policies_and_formats_have_names(void **state)
{
	const struct stats_page *p = *state;

	assert_string_equal(p->header->policy[0], "dense");
	assert_string_equal(p->header->policy[STATS_POLICY_NONE], "none");
	assert_int_equal(stats_page_format(p, p->header->format[2]), 2);
	assert_int_equal(stats_page_format(p, "no such format"), STATS_FORMATS);
}

/* ---- users -------------------------------------------------------------------- */

static void test_a_user_keeps_its_slot_while_there_is_room(void **state)
{
	const struct stats_page *p = *state;
	struct stats_user *a = stats_page_user(p, 100), *b = stats_page_user(p, 200);

	assert_ptr_not_equal(a, b);
	stats_set(&a->steps, 5);
	stats_set(&a->used, STATS_GONE);
	assert_ptr_equal(stats_page_user(p, 100), a); /* it came back */
	assert_int_equal(a->steps, 5);
	assert_non_null(stats_page_user(p, 300));
	assert_null(stats_page_user(p, 400)); /* all three are somebody's */
	stats_set(&a->used, STATS_GONE);
	assert_ptr_equal(stats_page_user(p, 400), a);
	assert_int_equal(a->steps, 0); /* nothing of another user */
	assert_int_equal(a->uid, 400);
}

/* ---- who may see it ------------------------------------------------------------- */

#define ADMINS 54321
#define EXPORTER 54322
#define SOMEBODY 54323

/* What is said of a process with these ids and groups that connects. */
static int check_as(uid_t uid, gid_t gid, const gid_t *groups, size_t n)
{
	const struct stats_readers r = {
		.exporter = EXPORTER, .admins = ADMINS, .has_exporter = true, .has_admins = true
	};
	int end[2], error;

	/* The kernel takes them down when the pair is made. */
	assert_int_equal(setgroups(n, groups), 0);
	assert_int_equal(setegid(gid), 0);
	assert_int_equal(seteuid(uid), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, end), 0);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(setegid(0), 0);
	error = stats_readers_check(&r, end[0]);
	close(end[0]);
	close(end[1]);
	return error;
}

static void test_few_may_see_it(void **state)
{
	const struct stats_readers none = { .has_admins = false };
	gid_t before[256], many[200];
	int n = getgroups(256, before), end[2];

	if (geteuid() != 0)
		skip();
	for (unsigned i = 0; i < 200; i++)
		many[i] = 60000 + i;
	assert_int_equal(check_as(0, 0, NULL, 0), 0);
	assert_int_equal(check_as(EXPORTER, SOMEBODY, NULL, 0), 0);
	assert_int_equal(check_as(SOMEBODY, ADMINS, NULL, 0), 0);
	assert_int_equal(check_as(SOMEBODY, SOMEBODY, NULL, 0), -EACCES);
	assert_int_equal(check_as(SOMEBODY, SOMEBODY, many, 200), -EACCES);
	assert_int_equal(check_as(SOMEBODY, SOMEBODY, many, 0), -EACCES);
	many[199] = ADMINS;
	assert_int_equal(check_as(SOMEBODY, SOMEBODY, many, 200), 0);
	/* A machine without that group: its number, 0 here, is nobody's way in. */
	assert_int_equal(setegid(0), 0);
	assert_int_equal(seteuid(SOMEBODY), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, end), 0);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(stats_readers_check(&none, end[0]), -EACCES);
	close(end[0]);
	close(end[1]);
	assert_int_equal(setgroups((size_t)n, before), 0);
}

/* ---- nobody writes it ----------------------------------------------------------- */

static void test_the_descriptor_cannot_write(void **state)
{
	const struct stats_page *p = *state;
	char path[64], byte = 1;
	struct stat st;
	int again;

	assert_int_equal(fcntl(p->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(fstat(p->fd, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0),
			 MAP_FAILED);
	/* Its owner and root can open it again all the same, and then gain nothing by it. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", p->fd);
	again = open(path, O_RDWR);
	assert_true(again >= 0);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0),
			 MAP_FAILED);
	assert_int_equal(errno, EPERM);
	assert_int_equal(pwrite(again, &byte, 1, 0), -1);
	assert_int_equal(ftruncate(again, 0), -1);
	assert_int_equal(fallocate(again, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
	close(again);
}

/* ---- a daemon that has nothing but a page --------------------------------------- */

struct server {
	const struct stats_page *page;
	char path[96];
	int listener;
	unsigned connections; /* to serve, one after the other */
	unsigned requests;    /* of each; then it hangs up */
	pthread_t thread;
};

static void serve_one(const struct server *s, int fd)
{
	unsigned n_fds = 0;
	union message m;
	size_t n;

	for (unsigned i = 0; i < s->requests; i++) {
		struct sparq_msg head;

		n_fds = 0;
		if (message_receive(fd, &m, &n, NULL, &n_fds) <= 0)
			break;
		assert_int_equal(message_check(&m, n, false, NULL), 0);
		head = m.head;
		message_reply(&m, &head);
		m.stats.bytes = s->page->header->bytes;
		assert_int_equal(message_send(fd, &m, &s->page->fd, 1), 0);
	}
	close(fd);
}

static void *server_thread(void *arg)
{
	const struct server *s = arg;

	for (unsigned i = 0; i < s->connections; i++)
		serve_one(s, accept(s->listener, NULL, NULL));
	return NULL;
}

static void serve(struct server *s)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(s->path, sizeof(s->path), "%s/stats-%d", P_tmpdir, getpid());
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", s->path);
	unlink(s->path);
	s->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(s->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(s->listener, 4), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, server_thread, s), 0);
}

static void end(struct server *s)
{
	pthread_join(s->thread, NULL);
	close(s->listener);
	unlink(s->path);
}

static void test_a_client_reads_what_was_written(void **state)
{
	const struct stats_page *p = *state;
	struct server server = { .page = p, .connections = 1, .requests = 2 };
	struct stats_sequence q, *written = stats_page_block(p, STATS_SEQUENCE, 4);
	char why[SPARQ_ERROR_TEXT] = "";
	struct stats *s;

	stats_page_begin(written, 0x100000004, 9, 1000, "a.name");
	stats_set(&written->rows, 77);
	serve(&server);
	if (stats_open(server.path, &s, why) < 0)
		fail_msg("%s", why);
	assert_int_equal(stats_header(s)->generation, 7);
	assert_int_equal(stats_count(s, STATS_SEQUENCE), 5);
	assert_int_equal(stats_copy(s, STATS_SEQUENCE, 4, &q), 0);
	assert_int_equal(q.id, 0x100000004);
	assert_int_equal(q.cache, 9);
	assert_int_equal(q.uid, 1000);
	assert_int_equal(q.rows, 77);
	assert_string_equal(q.name, "a.name");
	assert_int_equal(stats_copy(s, STATS_SEQUENCE, 5, &q), -ENOENT);
	assert_int_equal(stats_refresh(s, why), 0);
	stats_set(&written->rows, 78);
	assert_int_equal(stats_copy(s, STATS_SEQUENCE, 4, &q), 0);
	assert_int_equal(q.rows, 78);
	stats_begin(&written->seq); /* a writer that never ends */
	assert_int_equal(stats_copy(s, STATS_SEQUENCE, 4, &q), -EAGAIN);
	stats_close(s);
	end(&server);
}

static void test_another_daemon_is_noticed(void **state)
{
	struct server server = { .page = *state, .connections = 2, .requests = 1 };
	char why[SPARQ_ERROR_TEXT] = "";
	struct stats *s;

	serve(&server);
	assert_int_equal(stats_open(server.path, &s, why), 0);
	/* The connection ended: the next look is at another page. */
	assert_int_equal(stats_refresh(s, why), 1);
	end(&server);
	assert_true(stats_refresh(s, why) < 0);
	assert_non_null(strstr(why, server.path));
	assert_int_equal(stats_header(s)->generation, 7); /* still there to be read */
	stats_close(s);
}

/* ---- one moment ----------------------------------------------------------------- */

struct writer {
	struct stats_sequence *block;
	uint32_t stop;
};

static void *write_on(void *arg)
{
	struct writer *w = arg;

	while (!load_relaxed(&w->stop)) {
		stats_begin(&w->block->seq);
		stats_add(&w->block->steps, 1);
		for (unsigned p = 0; p < SPARQ_PLANES; p++)
			stats_add(&w->block->read.bytes[p], 1);
		stats_end(&w->block->seq);
	}
	return NULL;
}

static void test_a_block_is_of_one_moment(void **state)
{
	const struct stats_page *p = *state;
	struct server server = { .page = p, .connections = 1, .requests = 1 };
	struct writer w = { .block = stats_page_block(p, STATS_SEQUENCE, 0) };
	char why[SPARQ_ERROR_TEXT] = "";
	unsigned whole = 0;
	pthread_t thread;
	struct stats *s;

	serve(&server);
	assert_int_equal(stats_open(server.path, &s, why), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
	for (unsigned i = 0; i < 20000; i++) {
		struct stats_sequence q;

		if (stats_copy(s, STATS_SEQUENCE, 0, &q) < 0)
			continue;
		whole++;
		for (unsigned plane = 0; plane < SPARQ_PLANES; plane++)
			assert_int_equal(q.read.bytes[plane], q.steps);
	}
	store_relaxed(&w.stop, 1);
	pthread_join(thread, NULL);
	assert_true(whole > 0);
	stats_close(s);
	end(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_blocks_do_not_overlap, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_policies_and_formats_have_names, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_a_user_keeps_its_slot_while_there_is_room,
						set_up, tear_down),
		cmocka_unit_test(test_few_may_see_it),
		cmocka_unit_test_setup_teardown(test_the_descriptor_cannot_write, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_a_client_reads_what_was_written, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_another_daemon_is_noticed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_block_is_of_one_moment, set_up, tear_down),
	};

	return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
