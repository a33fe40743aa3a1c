/* SPDX-License-Identifier: Apache-2.0 */
/* sparqd.conf: values, error texts, dump, reload, and damaged files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/config.h"
#include "daemon/log.h"
#include "shm/base.h"

static int parse(struct config *c, const char *text, char *why)
{
	why[0] = '\0';
	return config_parse(c, "f", text, strlen(text), why);
}

/* An administrator writes sizes as they think of them; blanks and comments do not matter. */
static void test_values(void **state)
{
	char why[CONFIG_WHY_BYTES];
	struct config c;

	config_defaults(&c);
	assert_string_equal(c.socket, "/run/sparqd/sparqd.sock");
	assert_int_equal(c.huge_pages, HUGE_YES);
	assert_int_equal(parse(&c,
			       "# a comment\n\n  pool_bytes=96GiB # trailing\nworkers\t= 3\r\n"
			       "huge_pages = off\nsocket = /a#b\nlog_level=debug\nisa =\n"
			       "arena_bytes_max = 512 K",
			       why),
			 0);
	assert_int_equal(c.pool_bytes, 96 * GIB);
	assert_int_equal(c.workers, 3);
	assert_int_equal(c.huge_pages, HUGE_NO);
	assert_int_equal(parse(&c, "huge_pages = 1G", why), 0);
	assert_int_equal(c.huge_pages, HUGE_1G);
	assert_int_equal(parse(&c, "huge_pages = 2M", why), 0);
	assert_int_equal(c.huge_pages, HUGE_2M);
	assert_string_equal(c.socket, "/a#b");
	assert_string_equal(c.isa, "");
	assert_int_equal(c.log_level, LOG_DEBUG);
	assert_int_equal(c.arena_bytes_max, 512 * KIB);
}

#define WORKERS "a whole number from 0 to 64 is expected"
#define SIZE "a size such as 512M or 96GiB is expected"

/* The text is all that an administrator sees: it names place, key, value and what is allowed. */
static void test_errors(void **state)
{
	static const char *const cases[][2] = {
		{ "workers = many", "f:1: workers = \"many\": " WORKERS },
		{ "\nworkers = 65", "f:2: workers = \"65\": " WORKERS },
		{ "workers = 1K", "f:1: workers = \"1K\": " WORKERS },
		{ "workers = -1", "f:1: workers = \"-1\": " WORKERS },
		{ "workers =", "f:1: workers = \"\": " WORKERS },
		{ "pool_bytes = 17179869184G", "f:1: pool_bytes = \"17179869184G\": " SIZE },
		{ "pool_bytes = 1T", "f:1: pool_bytes = \"1T\": " SIZE },
		{ "catalogue_bytes = 1",
		  "f:1: catalogue_bytes = \"1\": a size from 1MiB to 64GiB is expected" },
		{ "huge_pages = maybe",
		  "f:1: huge_pages = \"maybe\": yes, no, 2M or 1G is expected" },
		{ "reserve_huge_pages = node0:4M:1",
		  "f:1: reserve_huge_pages = \"node0:4M:1\": auto, no, or a list such as "
		  "node0:2M:4096,node1:1G:16 is expected" },
		{ "numa_nodes = node0",
		  "f:1: numa_nodes = \"node0\": a list of nodes such as 0-1,4 is expected" },
		{ "pin_workers = maybe", "f:1: pin_workers = \"maybe\": yes or no is expected" },
		{ "log_level = loud",
		  "f:1: log_level = \"loud\": error, warning, notice, info or debug is expected" },
		{ "socket =", "f:1: socket = \"\": a text of 1 to 107 characters is expected" },
		{ "worker = 1", "f:1: \"worker\" is not a key of sparqd.conf(5); "
				"sparqd --dump-config lists them" },
		{ "workers", "f:1: \"workers\": \"key = value\" is expected" },
		{ "workers = 1\nworkers = 2", "f:2: workers is given twice" },
	};
	char why[CONFIG_WHY_BYTES];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config c, before;

		config_defaults(&c);
		before = c;
		assert_int_equal(parse(&c, cases[i][0], why), -EINVAL);
		assert_string_equal(why, cases[i][1]);
		assert_memory_equal(&c, &before, sizeof(c));
	}
}

static void test_bytes_that_are_no_text(void **state)
{
	static const char nul[] = "workers = 1\0 2\n";
	char why[CONFIG_WHY_BYTES], longer[600];
	struct config c;

	config_defaults(&c);
	assert_int_equal(config_parse(&c, "f", nul, sizeof(nul) - 1, why), -EINVAL);
	memset(longer, ' ', sizeof(longer));
	assert_int_equal(config_parse(&c, "f", longer, sizeof(longer), why), -EINVAL);
	assert_int_equal(config_set(&c, "isa=a\nb", why), -EINVAL);
	assert_int_equal(config_parse(&c, "f", "", 0, why), 0);
}

static void test_set(void **state)
{
	char why[CONFIG_WHY_BYTES];
	struct config c;

	config_defaults(&c);
	assert_int_equal(config_set(&c, "pool_bytes=1G", why), 0);
	assert_int_equal(c.pool_bytes, GIB);
	assert_int_equal(config_set(&c, "socket=/a #b", why), 0);
	assert_string_equal(c.socket, "/a #b");
	assert_int_equal(config_set(&c, "pool_bytes", why), -EINVAL);
	assert_string_equal(why, "\"pool_bytes\": key=value is expected");
	assert_int_equal(config_set(&c, "spin_us=x", why), -EINVAL);
	assert_string_equal(why, "spin_us = \"x\": a whole number from 0 to 10000 is expected");
}

/* What --dump-config prints is a file that says the same again: people copy it. */
static void test_dump(void **state)
{
	char text[8192], again[8192], why[CONFIG_WHY_BYTES];
	struct config a, b;
	size_t n;

	config_defaults(&a);
	assert_int_equal(parse(&a, "pool_bytes=3M\nuser_bytes=1025\nisa=avx2\nhuge_pages=no", why),
			 0);
	n = config_dump(&a, text, sizeof(text));
	assert_true(n < sizeof(text));
	assert_int_equal(n, strlen(text));
	assert_non_null(strstr(text, "\npool_bytes = 3MiB\n"));
	assert_non_null(strstr(text, "\nuser_bytes = 1025\n"));
	config_defaults(&b);
	assert_int_equal(parse(&b, text, why), 0);
	config_dump(&b, again, sizeof(again));
	assert_string_equal(text, again);
	assert_int_equal(config_dump(&a, NULL, 0), n);
	assert_int_equal(config_dump(&a, again, 10), n);
}

/* A reload takes all or nothing: half a configuration is nobody's. */
static void test_reload(void **state)
{
	char why[CONFIG_WHY_BYTES];
	struct config running, fresh;

	config_defaults(&running);
	fresh = running;
	assert_int_equal(parse(&fresh, "user_bytes = 5G\nlog_level = error", why), 0);
	assert_int_equal(config_reload(&running, &fresh, why), 0);
	assert_int_equal(running.user_bytes, 5 * GIB);
	assert_int_equal(running.log_level, LOG_ERR);
	assert_int_equal(parse(&fresh, "user_bytes = 6G\npool_bytes = 2G", why), 0);
	assert_int_equal(config_reload(&running, &fresh, why), -EINVAL);
	assert_string_equal(why, "pool_bytes runs as \"0\", the file says \"2GiB\": this needs a "
				 "restart, so nothing was reloaded");
	assert_int_equal(running.user_bytes, 5 * GIB);
}

/* Whatever a file holds, the parser ends with a verdict and leaves no half-read struct. */
static void test_damage(void **state)
{
	char text[8192], why[CONFIG_WHY_BYTES];
	struct config c, preset;
	size_t n;

	config_defaults(&preset);
	n = config_dump(&preset, text, sizeof(text));
	for (size_t cut = 0; cut <= n; cut++) {
		c = preset;
		if (config_parse(&c, "f", text, cut, why) < 0)
			assert_memory_equal(&c, &preset, sizeof(c));
	}
	for (size_t at = 0; at < n; at++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			text[at] ^= (char)(1u << bit);
			c = preset;
			why[0] = '\0';
			if (config_parse(&c, "f", text, n, why) < 0) {
				assert_memory_equal(&c, &preset, sizeof(c));
				assert_true(strncmp(why, "f:", 2) == 0);
			}
			text[at] ^= (char)(1u << bit);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_bytes_that_are_no_text),
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_dump),
		cmocka_unit_test(test_reload),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
