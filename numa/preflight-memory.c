/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for the pool: reserved pages, ordinary memory, and what limits either.
 *
 * Each node's part lies in one kind of pages. What kind it will be is foreseen
 * as arena_create decides it, so that all that follows (free memory, limits of
 * the control group, swap) is held against the right need.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "numa/cgroup.h"
#include "numa/preflight.h"
#include "numa/sysfs.h"
#include "shm/base.h"

#define THP_FILE "sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define HUGE_PATH "/sys/devices/system/node/node%d/hugepages/hugepages-%zukB"
#define FLAT_PATH "/sys/kernel/mm/hugepages/hugepages-%zukB"

#define GROUP_SLACK_BYTES (16 * MIB)

struct need {
	uint64_t ordinary;  /* bytes still to be taken of ordinary memory */
	uint64_t swappable; /* bytes that lie there or will */
	uint64_t huge[2];   /* still to be taken, of pages of 2 MiB and of 1 GiB */
};

static bool is_hugetlb(enum arena_pages p)
{
	return p == ARENA_HUGETLB_1G || p == ARENA_HUGETLB_2M;
}

static const struct topo_node *find_node(const struct topo *t, int id)
{
	int at = topo_find(t, id);

	return at < 0 ? NULL : &t->node[at];
}

/* The directory of a node's pages; of the machine's where it knows no nodes. */
static void huge_directory(int root, int node, size_t page_bytes, char *ret, size_t n)
{
	snprintf(ret, n, HUGE_PATH, node, page_bytes / KIB);
	if (faccessat(root, ret + 1, F_OK, 0) < 0)
		snprintf(ret, n, FLAT_PATH, page_bytes / KIB);
}

/* What the part of a node will lie in, by what is free now. */
static enum arena_pages foresee(const struct preflight *p, const struct preflight_node *want,
				const struct topo_node *n)
{
	if (p->want_1g && want->bytes % GIB == 0 && n->huge_free[1] * GIB >= want->bytes)
		return ARENA_HUGETLB_1G;
	if (p->want_2m && n->huge_free[0] * 2 * MIB >= want->bytes)
		return ARENA_HUGETLB_2M;
	return ARENA_THP;
}

/* ---- reserved pages ------------------------------------------------------------ */

static void mend_huge(int root, struct check *c, const struct preflight_node *want,
		      const struct topo_node *n, size_t page_bytes)
{
	uint64_t free_pages = n->huge_free[page_bytes == GIB], total = 0;
	uint64_t short_of = DIV_UP(want->bytes, page_bytes) - free_pages;
	char directory[128], file[160];

	huge_directory(root, want->node, page_bytes, directory, sizeof(directory));
	snprintf(file, sizeof(file), "%s/nr_hugepages", directory + 1);
	if (sysfs_number(root, file, &total) < 0)
		return;
	if (short_of * page_bytes > n->free_bytes) {
		size_t used = strlen(c->text);

		snprintf(c->text + used, sizeof(c->text) - used,
			 "; the node has only %" PRIu64 " MiB free for more: lower pool_bytes",
			 n->free_bytes / MIB);
		return;
	}
	check_mend(c, "echo %" PRIu64 " > %s/nr_hugepages", total + short_of, directory);
}

static void short_of_huge(const struct preflight *p, int root, const struct preflight_node *want,
			  const struct topo_node *n, struct checks *c)
{
	size_t page_bytes = p->want_1g && want->bytes % GIB == 0 ? GIB : 2 * MIB;
	unsigned large = page_bytes == GIB;
	char directory[128];
	struct check *one;

	huge_directory(root, want->node, page_bytes, directory, sizeof(directory));
	if (faccessat(root, directory + 1, F_OK, 0) < 0) {
		checks_add(c, "huge-pages", p->insist ? CHECK_WRONG : CHECK_WARNING,
			   "node %d: this kernel or CPU has no pages of %s", want->node,
			   large ? "1 GiB" : "2 MiB");
		return;
	}
	one = checks_add(c, "huge-pages", p->insist ? CHECK_WRONG : CHECK_WARNING,
			 "node %d: %" PRIu64 " pages of %s are free, %" PRIu64 " are wanted",
			 want->node, n->huge_free[large], large ? "1 GiB" : "2 MiB",
			 DIV_UP(want->bytes, page_bytes));
	one->said = true;
	mend_huge(root, one, want, n, page_bytes);
}

/* An arena that is there: good, or made of what there was. */
static void look_at_arena(const struct preflight *p, const struct preflight_node *want,
			  const struct topo_node *n, int root, struct checks *c)
{
	bool as_wanted =
		p->insist && p->want_1g ? want->pages == ARENA_HUGETLB_1G : is_hugetlb(want->pages);
	struct check *one;

	if (as_wanted) {
		checks_add(c, "huge-pages", CHECK_OK, "node %d: %" PRIu64 " MiB in %s", want->node,
			   want->bytes / MIB, arena_pages_name(want->pages));
		return;
	}
	if (!is_hugetlb(foresee(p, want, n))) {
		short_of_huge(p, root, want, n, c);
		return;
	}
	one = checks_add(c, "huge-pages", p->insist ? CHECK_WRONG : CHECK_WARNING,
			 "node %d: %" PRIu64 " MiB in %s, though enough huge pages are free now; "
			 "the command drops the KV",
			 want->node, want->bytes / MIB, arena_pages_name(want->pages));
	one->said = true;
	check_mend(one, "systemctl stop sparqd && systemctl start sparqd");
}

static void check_huge(const struct preflight *p, int root, const struct preflight_node *want,
		       const struct topo_node *n, struct checks *c)
{
	enum arena_pages will_be = foresee(p, want, n);

	if (!p->want_2m && !p->want_1g)
		checks_add(c, "huge-pages", CHECK_OK, "node %d: none wanted", want->node);
	else if (want->taken)
		look_at_arena(p, want, n, root, c);
	else if (will_be == ARENA_HUGETLB_1G || (will_be == ARENA_HUGETLB_2M && !p->want_1g) ||
		 (will_be == ARENA_HUGETLB_2M && !p->insist))
		checks_add(c, "huge-pages", CHECK_OK,
			   "node %d: %" PRIu64 " MiB wanted, enough pages of %s are free",
			   want->node, want->bytes / MIB,
			   will_be == ARENA_HUGETLB_1G ? "1 GiB" : "2 MiB");
	else
		short_of_huge(p, root, want, n, c);
}

/* ---- ordinary memory ------------------------------------------------------------- */

/* One assignment instead of those that are there: as much as the least node has, a tenth left over.
 */
static void mend_pool(struct check *c, const struct preflight *p, const struct topo *t)
{
	const char *end = strrchr(p->config, '/');
	int directory = end ? (int)(end - p->config) : 0;
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < p->n_nodes; i++) {
		const struct topo_node *n = find_node(t, p->node[i].node);

		if (n)
			least = MIN(least, n->free_bytes - MIN(n->free_bytes, p->other_bytes));
	}
	check_mend(c,
		   "mkdir -p %.*s/; sed -i '/^ *pool_bytes *=/d' %s; "
		   "echo 'pool_bytes = %" PRIu64 "M' >> %s",
		   directory, p->config, p->config, least / 10 * 9 / MIB * p->n_nodes, p->config);
}

static void check_free(const struct preflight *p, const struct topo *t,
		       const struct preflight_node *want, const struct topo_node *n,
		       struct checks *c)
{
	struct check *one;

	if (want->taken || is_hugetlb(foresee(p, want, n))) {
		checks_add(c, "memory", CHECK_OK, "node %d: its part of the pool is %s", want->node,
			   want->taken ? "taken" : "reserved");
		return;
	}
	if (want->bytes <= n->free_bytes) {
		checks_add(c, "memory", CHECK_OK,
			   "node %d: %" PRIu64 " MiB can be had, %" PRIu64 " are wanted",
			   want->node, n->free_bytes / MIB, want->bytes / MIB);
		return;
	}
	one = checks_add(c, "memory", CHECK_WRONG,
			 "node %d: %" PRIu64 " MiB can be had, %" PRIu64
			 " are wanted: sparqd will not start",
			 want->node, n->free_bytes / MIB, want->bytes / MIB);
	one->said = true;
	mend_pool(one, p, t);
}

static void mend_group(struct check *c, const struct cgroup_room *room, uint64_t limit)
{
	const char *end = strrchr(room->file, '/'), *name;

	if (!end)
		return;
	name = memrchr(room->file, '/', (size_t)(end - room->file));
	name = name ? name + 1 : room->file;
	/* A limit of systemd's is changed where it would be set again. */
	if (strncmp(end, "/memory.", 8) == 0 &&
	    (memmem(name, (size_t)(end - name), ".service", 8) ||
	     memmem(name, (size_t)(end - name), ".slice", 6)))
		check_mend(c, "systemctl set-property %.*s MemoryMax=%" PRIu64 "M",
			   (int)(end - name), name, DIV_UP(limit, MIB));
	else
		check_mend(c, "echo %" PRIu64 " > /%s", limit, room->file);
}

struct group_need {
	const char *name, *of, *else_what;
	uint64_t bytes;
};

static void check_group(const struct group_need *need, const struct cgroup_room *room,
			struct checks *c)
{
	struct check *one;

	if (room->limit == UINT64_MAX) {
		checks_add(c, need->name, CHECK_OK, "no limit of a control group");
		return;
	}
	if (need->bytes <= room->left) {
		checks_add(c, need->name, CHECK_OK,
			   "the control group leaves %" PRIu64 " MiB of %s, %" PRIu64 " are wanted",
			   room->left / MIB, need->of, need->bytes / MIB);
		return;
	}
	one = checks_add(c, need->name, CHECK_WRONG,
			 "the control group leaves %" PRIu64 " MiB of %s, %" PRIu64
			 " are wanted: %s",
			 room->left / MIB, need->of, need->bytes / MIB, need->else_what);
	/* What the group uses moves while this is read. */
	mend_group(one, room,
		   ALIGN_UP(room->limit - room->left + need->bytes + GROUP_SLACK_BYTES,
			    GROUP_SLACK_BYTES));
}

static void check_groups(const struct preflight *p, const struct need *need, struct checks *c)
{
	/* A tenth more: the page tables and the daemon itself. */
	const struct group_need memory = { "cgroup-memory", "memory", "sparqd will not start",
					   (need->ordinary + p->other_bytes) / 10 * 11 };
	const struct group_need huge[] = {
		{ "cgroup-hugetlb", "pages of 2 MiB", "they will not be had", need->huge[0] },
		{ "cgroup-hugetlb", "pages of 1 GiB", "they will not be had", need->huge[1] },
	};
	struct cgroup_room room;

	cgroup_memory_room(p->root, &room);
	check_group(&memory, &room, c);
	for (unsigned i = 0; i < ARRAY_SIZE(huge); i++) {
		if (need->huge[i] == 0)
			continue;
		cgroup_hugetlb_room(p->root, i ? GIB : 2 * MIB, &room);
		check_group(&huge[i], &room, c);
	}
}

/* The chosen word of "always [never] deny". */
static int chosen_word(int root, const char *path, char *ret, size_t n)
{
	char text[128], *open, *close;
	int r = sysfs_text(root, path, text, sizeof(text));

	if (r < 0)
		return r;
	open = strchr(text, '[');
	close = open ? strchr(open, ']') : NULL;
	if (!close)
		return -EINVAL;
	snprintf(ret, n, "%.*s", (int)(close - open - 1), open + 1);
	return 0;
}

static void check_thp(const struct preflight *p, int root, const struct need *need,
		      struct checks *c)
{
	struct check *one;
	char word[16];
	int r;

	if (need->swappable == 0) {
		checks_add(c, "thp-shmem", CHECK_OK, "not needed: the pool is in reserved pages");
		return;
	}
	r = chosen_word(root, THP_FILE, word, sizeof(word));
	if (r < 0) {
		checks_add(c, "thp-shmem", CHECK_UNKNOWN, "/" THP_FILE ": %s", strerror(-r));
		return;
	}
	if (strcmp(word, "never") && strcmp(word, "deny")) {
		checks_add(c, "thp-shmem", CHECK_OK, "shared memory may be in huge pages (%s)",
			   word);
		return;
	}
	one = checks_add(c, "thp-shmem", CHECK_WARNING,
			 "%" PRIu64
			 " MiB of the pool in pages of 4 KiB: huge pages for shared memory "
			 "are off (%s)",
			 need->swappable / MIB, word);
	one->said = true;
	check_mend(one, "echo advise > /" THP_FILE);
}

/* ---- the machine's policy ----------------------------------------------------------- */

static void check_overcommit(const struct preflight *p, int root, const struct need *need,
			     struct checks *c)
{
	uint64_t wanted = need->ordinary + p->other_bytes, mode, limit, committed, left;
	char text[8192];
	struct check *one;
	int r = sysfs_number(root, "proc/sys/vm/overcommit_memory", &mode);

	if (r == 0)
		r = sysfs_text(root, "proc/meminfo", text, sizeof(text));
	if (r < 0) {
		checks_add(c, "overcommit", CHECK_UNKNOWN, "/proc: %s", strerror(-r));
		return;
	}
	limit = sysfs_kilobytes(text, "CommitLimit:");
	committed = sysfs_kilobytes(text, "Committed_AS:");
	left = limit - MIN(limit, committed);
	if (mode != 2 || wanted <= left) {
		checks_add(c, "overcommit", CHECK_OK, "vm.overcommit_memory = %" PRIu64, mode);
		return;
	}
	one = checks_add(c, "overcommit", CHECK_WRONG,
			 "vm.overcommit_memory = 2 leaves %" PRIu64 " MiB, %" PRIu64
			 " are wanted: sparqd will not start",
			 left / MIB, wanted / MIB);
	check_mend(one, "sysctl -w vm.overcommit_memory=0");
}

static void check_swap(const struct preflight *p, int root, const struct need *need,
		       struct checks *c)
{
	struct check *one;
	char text[8192];
	int r = sysfs_text(root, "proc/meminfo", text, sizeof(text));
	uint64_t swap = r < 0 ? 0 : sysfs_kilobytes(text, "SwapTotal:");

	if (r < 0)
		checks_add(c, "swap", CHECK_UNKNOWN, "/proc/meminfo: %s", strerror(-r));
	else if (swap == 0)
		checks_add(c, "swap", CHECK_OK, "none");
	else if (need->swappable == 0)
		checks_add(c, "swap", CHECK_OK, "the pool is in reserved pages, which stay");
	else {
		one = checks_add(c, "swap", CHECK_WARNING,
				 "%" PRIu64 " MiB of the pool may be swapped out (%" PRIu64
				 " MiB of swap): a step would wait for the disk",
				 need->swappable / MIB, swap / MIB);
		check_mend(one, "swapoff -a");
	}
}

/* ---- all of it ------------------------------------------------------------------------ */

static void add_need(const struct preflight *p, const struct preflight_node *want,
		     const struct topo_node *n, struct need *need)
{
	enum arena_pages pages = want->taken ? want->pages : foresee(p, want, n);

	if (!is_hugetlb(pages)) {
		need->swappable += want->bytes;
		need->ordinary += want->taken ? 0 : want->bytes;
	} else if (!want->taken) {
		need->huge[pages == ARENA_HUGETLB_1G] += want->bytes;
	}
}

void preflight_memory(const struct preflight *p, const struct topo *t, struct checks *c)
{
	CLOSE_FD int root = open(p->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct need need = { 0 };

	if (root < 0) {
		checks_add(c, "memory", CHECK_UNKNOWN, "%s: %s", p->root, strerror(errno));
		return;
	}
	for (unsigned i = 0; i < p->n_nodes; i++) {
		const struct preflight_node *want = &p->node[i];
		const struct topo_node *n = find_node(t, want->node);

		if (!n) {
			checks_add(
				c, "memory", CHECK_WRONG,
				"node %d: a part of the pool was made for it, and it is not there",
				want->node);
			continue;
		}
		add_need(p, want, n, &need);
		check_huge(p, root, want, n, c);
	}
	for (unsigned i = 0; i < p->n_nodes; i++) {
		const struct topo_node *n = find_node(t, p->node[i].node);

		if (n)
			check_free(p, t, &p->node[i], n, c);
	}
	check_thp(p, root, &need, c);
	check_groups(p, &need, c);
	check_overcommit(p, root, &need, c);
	check_swap(p, root, &need, c);
}
