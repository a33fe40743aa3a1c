/* SPDX-License-Identifier: Apache-2.0 */
/* Which format a client gets, and that nobody is shown to the world by mistake. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "client/exporter.h"
#include "shm/base.h"

static void test_accept(void **state)
{
	static const struct {
		const char *accept;
		enum metrics_format format;
	} cases[] = {
		{ NULL, METRICS_PLAIN },
		{ "", METRICS_PLAIN },
		{ "*/*", METRICS_PLAIN },
		{ "text/html", METRICS_PLAIN },
		{ "application/openmetrics-text", METRICS_OPENMETRICS },
		{ "Application/OpenMetrics-Text; version=0.0.1", METRICS_OPENMETRICS },
		{ "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
		  "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
		  METRICS_OPENMETRICS },
		{ "text/plain;version=0.0.4;q=1,*/*;q=0.1", METRICS_PLAIN },
		{ "text/plain;q=0.9, application/openmetrics-text;q=0.8", METRICS_PLAIN },
		{ "application/openmetrics-text;q=0.8,text/plain;q=0.8", METRICS_OPENMETRICS },
		{ "application/openmetrics-text;q=0", METRICS_PLAIN },
		{ "application/openmetrics-text;q=nonsense", METRICS_PLAIN },
		{ "application/openmetrics-textual", METRICS_PLAIN },
		{ "*/*;q=1, text/plain;q=0.1, application/openmetrics-text;q=0.5",
		  METRICS_OPENMETRICS }, /* the exact range counts */
		{ ",,;q=1, ,", METRICS_PLAIN },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		if (exporter_format(cases[i].accept) != cases[i].format)
			fail_msg("Accept: %s", cases[i].accept ? cases[i].accept : "(none)");
}

static void test_addresses(void **state)
{
	static const char *const local[] = { "127.0.0.1:0", "127.9.8.7:0", "[::1]:0" };
	static const char *const public[] = { "0.0.0.0:0", "[::]:0" };
	static const char *const wrong[] = { "",          ":",          "localhost:80",
					     "127.0.0.1", "127.0.0.1:", "127.0.0.1:x",
					     "[::1:9",    "unix:" };
	char why[EXPORTER_WHY_BYTES];
	int fd;

	for (unsigned i = 0; i < ARRAY_SIZE(local); i++) {
		int r = exporter_listen(local[i], false, &fd, why);

		if (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT)
			continue; /* no IPv6 here */
		assert_int_equal(r, 0);
		assert_string_equal(why, "");
		assert_int_equal(exporter_check(fd, false, why), 0);
		close(fd);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(public); i++) {
		int r = exporter_listen(public[i], false, &fd, why);

		if (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT)
			continue;
		assert_int_equal(r, -EPERM);
		assert_non_null(strstr(why, "--public"));
		assert_int_equal(exporter_listen(public[i], true, &fd, why), 0);
		assert_non_null(strstr(why, "everybody")); /* a warning */
		/* One that somebody else has opened, and passed in. */
		assert_int_equal(exporter_check(fd, false, why), -EPERM);
		close(fd);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(exporter_listen(wrong[i], true, &fd, why), -EINVAL);
		assert_true(strlen(why) > 0);
	}
}

/* A killed exporter's socket is in nobody's way; a living one's, or a file, is. */
static void test_path(void **state)
{
	char directory[] = "/tmp/sparq-exporter.XXXXXX", where[64], why[EXPORTER_WHY_BYTES];
	const char *path = where + strlen("unix:");
	struct stat st;
	int fd, again;
	FILE *file;

	assert_non_null(mkdtemp(directory));
	snprintf(where, sizeof(where), "unix:%s/s", directory);
	assert_int_equal(exporter_listen(where, false, &fd, why), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	assert_int_equal(exporter_listen(where, false, &again, why), -EADDRINUSE);
	close(fd);
	assert_int_equal(exporter_listen(where, false, &fd, why), 0);
	close(fd);
	exporter_unlisten(where);
	assert_int_equal(stat(path, &st), -1);
	file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	assert_int_equal(exporter_listen(where, false, &fd, why), -EADDRINUSE);
	assert_int_equal(stat(path, &st), 0);
	unlink(path);
	rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accept),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
