/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel takes a number and sets aside what it can; what came of it is read
 * back. Where that is less, free memory may be there in pieces that are too
 * small: the node is compacted, and asked again as long as it helps.
 */
#include "numa/reserve.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "numa/sysfs.h"
#include "shm/base.h"

#define NODE_PATH "sys/devices/system/node/node%d"
#define ROUNDS 3

/* ---- text ------------------------------------------------------------------------ */

static const char *skip(const char *text, const char *word)
{
	size_t n = strlen(word);

	return text && strncmp(text, word, n) == 0 ? text + n : NULL;
}

/* Digits, at most `most`; what follows, NULL. */
static const char *number(const char *text, uint64_t most, uint64_t *ret)
{
	uint64_t n = 0;
	const char *at = text;

	for (; at && *at >= '0' && *at <= '9'; at++) {
		n = n * 10 + (uint64_t)(*at - '0');
		if (n > most)
			return NULL;
	}
	*ret = n;
	return at == text ? NULL : at;
}

/* "node0:2M:4096": what follows, NULL. */
static const char *parse_item(const char *text, struct reserve_item *ret)
{
	const char *at = skip(text, "node"), *size;
	uint64_t node;

	at = skip(number(at, 1023, &node), ":");
	size = skip(at, "1G:");
	ret->page_bytes = size ? GIB : 2 * MIB;
	ret->node = (int)node;
	return number(size ?: skip(at, "2M:"), UINT32_MAX, &ret->pages);
}

static bool is_there(const struct reserve *r, const struct reserve_item *item)
{
	for (unsigned i = 0; i < r->n; i++)
		if (r->item[i].node == item->node && r->item[i].page_bytes == item->page_bytes)
			return true;
	return false;
}

int reserve_parse(const char *text, struct reserve *ret)
{
	FREE_MEMORY struct reserve *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->automatic = strcmp(text, "auto") == 0;
	if (r->automatic || strcmp(text, "no") == 0) {
		*ret = *r;
		return 0;
	}
	for (;;) {
		struct reserve_item item = { 0 };

		text = parse_item(text, &item);
		if (!text || r->n == RESERVE_MOST || is_there(r, &item))
			return -EINVAL;
		r->item[r->n++] = item;
		if (*text == '\0')
			break;
		text = skip(text, ",");
	}
	*ret = *r;
	return 0;
}

/* ---- pages ----------------------------------------------------------------------- */

/* The number as the kernel knows it: of the node, or of a machine that has no nodes. */
static int find_count(int root, const struct reserve_item *item, char *ret, size_t n)
{
	snprintf(ret, n, NODE_PATH "/hugepages/hugepages-%zukB/nr_hugepages", item->node,
		 item->page_bytes / KIB);
	if (faccessat(root, ret, F_OK, 0) == 0)
		return 0;
	if (item->node != 0 || faccessat(root, "sys/devices/system/node", F_OK, 0) == 0)
		return -ENOENT;
	snprintf(ret, n, "sys/kernel/mm/hugepages/hugepages-%zukB/nr_hugepages",
		 item->page_bytes / KIB);
	return faccessat(root, ret, F_OK, 0) == 0 ? 0 : -ENOENT;
}

static int write_number(int root, const char *path, uint64_t value)
{
	CLOSE_FD int fd = openat(root, path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	char text[32];
	int n;

	if (fd < 0)
		return -errno;
	n = snprintf(text, sizeof(text), "%" PRIu64, value);
	return write(fd, text, (size_t)n) == n ? 0 : -errno;
}

/* Best effort: kernels without compaction have no such file. */
static void compact(int root, int node)
{
	char path[64];

	snprintf(path, sizeof(path), NODE_PATH "/compact", node);
	write_number(root, path, 1);
}

int reserve_pages(const char *root, const struct reserve_item *item, bool exact,
		  struct reserved *ret)
{
	CLOSE_FD int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct reserved done = { 0 };
	char path[128];
	uint64_t last;
	int r = dir < 0 ? -errno : find_count(dir, item, path, sizeof(path));

	if (r == 0)
		r = sysfs_number(dir, path, &done.before);
	if (r < 0)
		return r;
	done.got = last = done.before;
	for (unsigned round = 0; round < ROUNDS; round++) {
		if (done.got == item->pages || (done.got > item->pages && !exact))
			break;
		if (round > 0) {
			compact(dir, item->node);
			done.compacted = true;
		}
		r = write_number(dir, path, item->pages);
		if (r == 0)
			r = sysfs_number(dir, path, &done.got);
		if (r < 0)
			return r;
		if (round > 0 && done.got == last)
			break;
		last = done.got;
	}
	*ret = done;
	return 0;
}
