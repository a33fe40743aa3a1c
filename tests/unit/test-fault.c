/* SPDX-License-Identifier: Apache-2.0 */
/* The last net: a fault in a segment costs its session, any other fault the process. Rates beside
 * it. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "daemon/fault.h"
#include "daemon/rate.h"
#include "shm/base.h"

#define BYTES (16 * 4096)

/* A mapping whose pages are gone: the next touch is a SIGBUS. */
static char *torn_segment(void)
{
	int fd = memfd_create("torn", MFD_CLOEXEC);
	char *p;

	assert_int_equal(ftruncate(fd, BYTES), 0);
	p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(p != MAP_FAILED);
	memset(p, 7, BYTES);
	assert_int_equal(ftruncate(fd, 0), 0);
	close(fd);
	return p;
}

static void test_caught(void **state)
{
	volatile char *torn = torn_segment();
	int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	static char whole[BYTES];
	uint32_t a, b;
	uint64_t n;

	assert_int_equal(fault_open(2, wake), 0);
	assert_int_equal(fault_watch(whole, BYTES, &a), 0);
	assert_int_equal(fault_watch((char *)torn, BYTES, &b), 0);
	assert_int_equal(fault_watch((char *)torn, BYTES, &b), -ENOSPC);
	assert_int_equal(torn[5 * 4096 + 3], 0);
	torn[BYTES - 1] = 1;
	assert_int_equal(torn[BYTES - 1], 1);
	assert_true(fault_hit(b));
	assert_false(fault_hit(a));
	assert_int_equal(read(wake, &n, sizeof(n)), sizeof(n));
	/* A slot that is used again starts unhurt. */
	fault_forget(b);
	assert_int_equal(fault_watch(whole, BYTES, &b), 0);
	assert_false(fault_hit(b));
	fault_close();
	munmap((char *)torn, BYTES);
	close(wake);
}

/* Memory of our own that fails must end the daemon: going on would compute with zeros. */
static void test_not_ours(void **state)
{
	volatile char *torn = torn_segment();
	pid_t child = fork();
	int status;

	if (child == 0) {
		struct rlimit none = { 0, 0 };
		static char other[BYTES];
		uint32_t slot;

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGBUS, SIG_DFL); /* not cmocka's */
		if (fault_open(1, -1) < 0 || fault_watch(other, BYTES, &slot) < 0)
			_exit(1);
		_exit(torn[0]);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGBUS);
	munmap((char *)torn, BYTES);
}

#define MS 1000000ull

/* A uid that opens sessions in a loop gets its second's worth, and others theirs. */
static void test_rate(void **state)
{
	struct rate r = { 0 };
	uint64_t now = 1000 * MS;
	unsigned taken = 0;

	for (unsigned i = 0; i < 100; i++)
		taken += rate_take(&r, 1000, 10, now);
	assert_int_equal(taken, 10);
	assert_true(rate_take(&r, 1001, 10, now));
	assert_false(rate_take(&r, 1000, 10, now + 99 * MS));
	assert_true(rate_take(&r, 1000, 10, now + 101 * MS));
	assert_false(rate_take(&r, 1000, 10, now + 102 * MS));
	/* Waiting longer than a second saves up no more than a second's worth. */
	taken = 0;
	for (unsigned i = 0; i < 100; i++)
		taken += rate_take(&r, 1000, 10, now + 90000 * MS);
	assert_int_equal(taken, 10);
	for (unsigned i = 0; i < 1000; i++)
		assert_true(rate_take(&r, 1000, 0, now));
	/* More uids than there are buckets: the table holds, nobody is refused for it. */
	for (uid_t uid = 0; uid < 1000; uid++)
		assert_true(rate_take(&r, 5000 + uid, 1, now + 100000 * MS + uid));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_caught),
		cmocka_unit_test(test_not_ours),
		cmocka_unit_test(test_rate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
