/* SPDX-License-Identifier: Apache-2.0 */
/* Lines on stderr: level, control characters, the limit for hostile clients. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "daemon/log.h"
#include "shm/base.h"

struct capture {
	int file, saved;
	char text[4096];
};

static void capture_begin(struct capture *c)
{
	c->file = memfd_create("stderr", MFD_CLOEXEC);
	assert_true(c->file >= 0);
	c->saved = dup(STDERR_FILENO);
	assert_true(dup2(c->file, STDERR_FILENO) >= 0);
}

static const char *capture_end(struct capture *c)
{
	ssize_t n = pread(c->file, c->text, sizeof(c->text) - 1, 0);

	assert_true(n >= 0);
	c->text[n] = '\0';
	dup2(c->saved, STDERR_FILENO);
	close(c->saved);
	close(c->file);
	return c->text;
}

static void test_level(void **state)
{
	struct capture c;

	capture_begin(&c);
	log_open(LOG_INFO);
	log_debug("not this");
	log_info("one %d", 1);
	log_error("two");
	log_level_set(LOG_ERR);
	log_warning("nor this");
	assert_string_equal(capture_end(&c), "sparqd: one 1\nsparqd: error: two\n");
	assert_int_equal(log_level_parse("notice"), LOG_NOTICE);
	assert_int_equal(log_level_parse("loud"), -EINVAL);
	for (int level = LOG_ERR; level <= LOG_DEBUG; level++)
		assert_int_equal(log_level_parse(log_level_name(level)), level);
}

/* Names come from clients: none of them may forge a line of ours, and a long one is cut. */
static void test_hostile_text(void **state)
{
	char longer[4000];
	struct capture c;
	const char *text;

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	capture_begin(&c);
	log_open(LOG_INFO);
	log_info("name %s", "a\nsparqd: error: b\033[31m");
	log_info("%s", longer);
	text = capture_end(&c);
	assert_true(strncmp(text, "sparqd: name a?sparqd: error: b?[31m\n", 37) == 0);
	assert_true(strlen(text) < 1200);
	assert_int_equal(text[strlen(text) - 1], '\n');
}

/* A client that errs a million times costs five lines in ten seconds and then one. */
static void test_limit(void **state)
{
	struct log_limit limit = { 0 };
	unsigned lines = 0;
	struct capture c;

	log_open(LOG_INFO);
	for (unsigned i = 0; i < 1000; i++)
		lines += !log_limited(&limit);
	assert_int_equal(lines, 5);
	assert_int_equal(limit.dropped, 995);
	limit.since_ns -= 10000000000ull;
	capture_begin(&c);
	assert_false(log_limited(&limit));
	assert_string_equal(capture_end(&c),
			    "sparqd: warning: 995 lines like the next were left out\n");
	assert_int_equal(limit.dropped, 0);
}

/* A caller between a failed call and its errno may log. */
static void test_errno(void **state)
{
	struct capture c;

	capture_begin(&c);
	errno = ENOTTY;
	log_info("x");
	assert_int_equal(errno, ENOTTY);
	capture_end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_hostile_text),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_errno),
	};

	unsetenv("JOURNAL_STREAM");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
