/* SPDX-License-Identifier: Apache-2.0 */
/* Lines on stderr and in the journal: level, fields, control characters, the limit for hostile
 * clients. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "daemon/journal.h"
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

/* The journal's place is taken, daemon/journal.c is not linked. */
static struct {
	int level, result;
	char line[256], fields[512]; /* one a line */
} sent;

int journal_send(int level, const char *line, const char *const *fields, unsigned n)
{
	sent.level = level;
	snprintf(sent.line, sizeof(sent.line), "%s", line);
	sent.fields[0] = '\0';
	for (unsigned i = 0; i < n; i++) {
		strcat(sent.fields, fields[i]);
		strcat(sent.fields, "\n");
	}
	return sent.result;
}

/* As if stderr were the stream that systemd has made. */
static void pretend_journal(const struct capture *c)
{
	char stream[64];
	struct stat st;

	assert_int_equal(fstat(c->file, &st), 0);
	snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_open(LOG_INFO);
}

/* journalctl SPARQ_UID=1000 finds what is about a user, journalctl -x explains it. */
static void test_fields(void **state)
{
	const uint32_t uid = 0; /* root is somebody */
	struct capture c;

	capture_begin(&c);
	pretend_journal(&c);
	log_event(EVENT_EVICTED,
		  ABOUT(.uid = &uid, .session = 3, .sequence = 1ull << 40, .cache = "a\nMESSAGE=b"),
		  "evicted %d", 7);
	assert_int_equal(sent.level, LOG_INFO);
	assert_string_equal(sent.line, "evicted 7");
	assert_string_equal(strchr(sent.fields, '\n'), "\nSPARQ_UID=0\nSPARQ_SESSION=3\n"
						       "SPARQ_SEQUENCE=1099511627776\n"
						       "SPARQ_CACHE=a?MESSAGE=b\n");
	assert_int_equal(strncmp(sent.fields, "MESSAGE_ID=", 11), 0);
	assert_int_equal(strcspn(sent.fields + 11, "\n"), 32);
	log_event(EVENT_RECOVERED, NULL, "recovered");
	assert_null(strstr(sent.fields, "SPARQ_"));
	log_info("plain");
	assert_string_equal(sent.fields, "");
	log_level_set(LOG_ERR);
	log_event(EVENT_EVICTED, NULL, "not this");
	assert_string_equal(sent.line, "plain");
	assert_string_equal(capture_end(&c), "");
	unsetenv("JOURNAL_STREAM");
}

/* A journal that does not take it: the line is not lost. */
static void test_no_journal(void **state)
{
	struct capture c;

	capture_begin(&c);
	pretend_journal(&c);
	sent.result = -ENOTCONN;
	log_event(EVENT_STUCK, NULL, "stuck");
	sent.result = 0;
	assert_string_equal(capture_end(&c), "sparqd: warning: stuck\n");
	unsetenv("JOURNAL_STREAM");
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
		cmocka_unit_test(test_level),      cmocka_unit_test(test_hostile_text),
		cmocka_unit_test(test_limit),      cmocka_unit_test(test_fields),
		cmocka_unit_test(test_no_journal), cmocka_unit_test(test_errno),
	};

	unsetenv("JOURNAL_STREAM");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
