/* SPDX-License-Identifier: Apache-2.0 */
/* Pages set aside: the grammar of the key, and what becomes of numbers that others wrote. */
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "numa/reserve.h"
#include "numa/sysfs.h"
#include "shm/base.h"

static void words(void **state)
{
	struct reserve r = { 0 };

	assert_int_equal(reserve_parse("auto", &r), 0);
	assert_true(r.automatic);
	assert_int_equal(reserve_parse("no", &r), 0);
	assert_false(r.automatic);
	assert_int_equal(r.n, 0);
	assert_int_equal(reserve_parse("node0:2M:4096,node0:1G:0,node17:1G:16", &r), 0);
	assert_int_equal(r.n, 3);
	assert_int_equal(r.item[0].node, 0);
	assert_int_equal(r.item[0].page_bytes, 2 * MIB);
	assert_int_equal(r.item[0].pages, 4096);
	assert_int_equal(r.item[1].page_bytes, GIB);
	assert_int_equal(r.item[1].pages, 0);
	assert_int_equal(r.item[2].node, 17);
	assert_int_equal(r.item[2].pages, 16);
}

static void not_words(void **state)
{
	static const char *const texts[] = {
		"",
		"automatic",
		"node0",
		"node0:2M",
		"node0:2M:",
		"node0:4M:1",
		"node:2M:1",
		"node0:2M:1,",
		",node0:2M:1",
		"node0:2M:1 ",
		"node0:2M:1,node0:2M:2",
		"node0:2M:-1",
		"node0:2M:4294967296",
		"node99999999999999999999:2M:1",
		"node1024:2M:1",
		"Node0:2M:1",
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct reserve r = { .n = 77 };

		assert_int_equal(reserve_parse(texts[i], &r), -EINVAL);
		assert_int_equal(r.n, 77);
	}
}

struct tree {
	char root[64];
};

static void put(const struct tree *t, const char *path, const char *text)
{
	char full[256];
	FILE *f;

	snprintf(full, sizeof(full), "%s/%s", t->root, path);
	for (char *at = strchr(full + 1, '/'); at; at = strchr(at + 1, '/')) {
		*at = '\0';
		mkdir(full, 0755);
		*at = '/';
	}
	f = fopen(full, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static uint64_t number_in(const struct tree *t, const char *path)
{
	CLOSE_FD int dir = open(t->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t n = UINT64_MAX;

	assert_int_equal(sysfs_number(dir, path, &n), 0);
	return n;
}

#define COUNT "sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"
#define COMPACT "sys/devices/system/node/node1/compact"

static int setup(void **state)
{
	struct tree *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	strcpy(t->root, "/tmp/sparq-reserve-XXXXXX");
	assert_non_null(mkdtemp(t->root));
	put(t, COUNT, "100\n");
	put(t, COMPACT, "");
	*state = t;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct tree *t = *state;

	nftw(t->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(t);
	return 0;
}

static void raised_and_left(void **state)
{
	struct reserve_item item = { .node = 1, .page_bytes = 2 * MIB, .pages = 4096 };
	struct tree *t = *state;
	struct reserved got;

	assert_int_equal(reserve_pages(t->root, &item, false, &got), 0);
	assert_int_equal(got.before, 100);
	assert_int_equal(got.got, 4096);
	assert_false(got.compacted);
	assert_int_equal(number_in(t, COUNT), 4096);
	/* What others have set aside stays. */
	item.pages = 8;
	assert_int_equal(reserve_pages(t->root, &item, false, &got), 0);
	assert_int_equal(got.got, 4096);
	assert_int_equal(number_in(t, COUNT), 4096);
	assert_int_equal(reserve_pages(t->root, &item, true, &got), 0);
	assert_int_equal(got.before, 4096);
	assert_int_equal(got.got, 8);
	assert_int_equal(number_in(t, COUNT), 8);
}

/* A count that takes everything and reads as nothing is no success. What a kernel does that has
 * fewer pages is seen in tests/system/pages-guest.sh. */
static void unreadable(void **state)
{
	struct reserve_item item = { .node = 1, .page_bytes = 2 * MIB, .pages = 4096 };
	struct tree *t = *state;
	struct reserved got;
	char path[256];

	snprintf(path, sizeof(path), "%s/" COUNT, t->root);
	unlink(path);
	assert_int_equal(symlink("/dev/null", path), 0);
	assert_int_equal(reserve_pages(t->root, &item, false, &got), -EINVAL);
}

static void no_such_pages(void **state)
{
	struct reserve_item item = { .node = 1, .page_bytes = GIB, .pages = 1 };
	struct tree *t = *state;
	struct reserved got;

	assert_int_equal(reserve_pages(t->root, &item, false, &got), -ENOENT);
	item = (struct reserve_item){ .node = 5, .page_bytes = 2 * MIB, .pages = 1 };
	assert_int_equal(reserve_pages(t->root, &item, false, &got), -ENOENT);
	assert_int_equal(reserve_pages("/no/such/root", &item, false, &got), -ENOENT);
}

#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words), cmocka_unit_test(not_words), IN_TREE(raised_and_left),
		IN_TREE(unreadable),     IN_TREE(no_such_pages),
	};

	return cmocka_run_group_tests_name("reserve", tests, NULL, NULL);
}
