/* SPDX-License-Identifier: Apache-2.0 */
/* The stats page: its memory, its sections, and who gets it. */
#include "daemon/stats.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "shm/base.h"

#define ADMINS "sparq-admin"
#define EXPORTER "sparqd-exporter"
#define PAGE_BYTES 4096u

/* ---- memory ----------------------------------------------------------------- */

static const size_t block_bytes[STATS_KINDS] = {
	[STATS_CONTROL] = sizeof(struct stats_control),
	[STATS_NODE] = sizeof(struct stats_node),
	[STATS_WORKER] = sizeof(struct stats_worker),
	[STATS_USER] = sizeof(struct stats_user),
	[STATS_CACHE] = sizeof(struct stats_cache),
	[STATS_SEQUENCE] = sizeof(struct stats_sequence),
	[STATS_DEVICE] = sizeof(struct stats_device),
};

static uint64_t plan_sections(const struct stats_params *p, struct stats_section *ret)
{
	uint64_t at = ALIGN_UP(sizeof(struct stats_header), SPARQ_LINE_BYTES);

	for (unsigned kind = 0; kind < STATS_KINDS; kind++) {
		uint32_t stride = (uint32_t)ALIGN_UP(block_bytes[kind], SPARQ_LINE_BYTES);

		ret[kind] = (struct stats_section){ .at = at, .n = p->n[kind], .stride = stride };
		at += (uint64_t)stride * p->n[kind];
	}
	return ALIGN_UP(at, PAGE_BYTES);
}

/* The page is sealed against further writable mappings; a descriptor opened to read can besides
 * not be written to, and its mode lets nobody but us and root open it again. */
static int open_to_read(int fd)
{
	char path[32];
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = open(path, O_RDONLY | O_CLOEXEC);
	return r < 0 ? -errno : r;
}

static void name_all(struct stats_header *h)
{
	_Static_assert(SPARQ_OP_COUNT <= STATS_OPS, "operations");
	_Static_assert(SPARQ_REASONS <= STATS_REASONS, "reasons");
	for (unsigned i = 0; i < STATS_POLICY_NONE && kv_policy_at(i, false); i++)
		snprintf(h->policy[i], sizeof(h->policy[i]), "%s", kv_policy_at(i, false)->name);
	snprintf(h->policy[STATS_POLICY_NONE], sizeof(h->policy[0]), "none");
	for (unsigned i = 0; i < STATS_FORMATS && kv_format_at(i); i++)
		snprintf(h->format[i], sizeof(h->format[i]), "%s", kv_format_at(i));
}

static void fill_header(struct stats_header *h, const struct stats_params *p,
			const struct stats_section *section, size_t bytes)
{
	h->layout = STATS_LAYOUT;
	h->header_bytes = sizeof(*h);
	h->bytes = bytes;
	h->generation = p->generation;
	h->pid = getpid();
	h->started_s = (uint64_t)time(NULL);
	snprintf(h->version, sizeof(h->version), "%s", SPARQ_VERSION);
	snprintf(h->isa, sizeof(h->isa), "%s", kv_isa_name());
	name_all(h);
	memcpy(h->section, section, sizeof(h->section));
	h->magic = STATS_MAGIC;
}

int stats_page_create(const struct stats_params *p, struct stats_page *ret)
{
	CLEANUP(stats_page_deinit) struct stats_page page = STATS_PAGE_NULL;
	struct stats_section section[STATS_KINDS];
	uint64_t bytes = plan_sections(p, section);
	int r;

	r = segment_create("sparqd-stats", bytes, &page.segment);
	if (r == 0)
		r = segment_seal(&page.segment);
	if (r < 0)
		return r;
	page.fd = open_to_read(page.segment.fd);
	if (page.fd < 0)
		return page.fd;
	close_fd(&page.segment.fd);
	page.header = page.segment.base;
	fill_header(page.header, p, section, bytes);
	*ret = STEAL(page, STATS_PAGE_NULL);
	return 0;
}

void stats_page_deinit(struct stats_page *p)
{
	segment_deinit(&p->segment);
	close_fd(&p->fd);
	*p = STATS_PAGE_NULL;
}

void *stats_page_block(const struct stats_page *p, enum stats_kind kind, uint32_t index)
{
	const struct stats_section *s;

	if (!p || !p->header || index >= p->header->section[kind].n)
		return NULL;
	s = &p->header->section[kind];
	return (uint8_t *)p->segment.base + s->at + (uint64_t)s->stride * index;
}

uint32_t stats_page_format(const struct stats_page *p, const char *name)
{
	uint32_t i = 0;

	while (i < STATS_FORMATS && strcmp(p->header->format[i], name) != 0)
		i++;
	return i;
}

/* ---- sequences -------------------------------------------------------------- */

void stats_page_text(char *to, size_t n, const char *text)
{
	uint64_t *word = (uint64_t *)(void *)to;
	uint64_t from[32] = { 0 };

	assert(n <= sizeof(from) && n % sizeof(from[0]) == 0);
	snprintf((char *)from, n, "%s", text);
	for (size_t i = 0; i < n / sizeof(from[0]); i++)
		stats_set(&word[i], from[i]);
}

static void clear_read(struct stats_read *r)
{
	for (unsigned i = 0; i < SPARQ_PLANES; i++)
		stats_set(&r->bytes[i], 0);
	stats_set(&r->dense_bytes, 0);
}

void stats_page_begin(struct stats_sequence *q, uint64_t id, uint64_t cache, uid_t uid,
		      const char *name)
{
	stats_begin(&q->seq);
	clear_read(&q->read);
	stats_set(&q->steps, 0);
	stats_set(&q->written_bytes, 0);
	stats_set(&q->uid, uid);
	stats_set(&q->id, id);
	stats_set(&q->cache, cache);
	stats_set(&q->flags, 0);
	stats_set(&q->rows, 0);
	stats_set(&q->bytes, 0);
	stats_page_text(q->name, sizeof(q->name), name);
	stats_end(&q->seq);
}

/* ---- users ------------------------------------------------------------------ */

static void clear_user(struct stats_user *u, uid_t uid)
{
	stats_begin(&u->seq);
	clear_read(&u->read);
	stats_set(&u->steps, 0);
	stats_set(&u->written_bytes, 0);
	stats_set(&u->uid, uid);
	stats_end(&u->seq);
}

struct stats_user *stats_page_user(const struct stats_page *p, uid_t uid)
{
	struct stats_user *u, *gone = NULL;

	/* Slots are filled in order and never free again: nobody is behind a free one. */
	for (uint32_t i = 0; (u = stats_page_block(p, STATS_USER, i)); i++) {
		if (u->used == STATS_FREE || u->uid == uid)
			break;
		if (u->used == STATS_GONE && !gone)
			gone = u;
	}
	if (!u)
		u = gone;
	if (!u)
		return NULL;
	if (u->used == STATS_FREE || u->uid != uid)
		clear_user(u, uid);
	stats_set(&u->used, STATS_USED);
	return u;
}

/* ---- who may see it --------------------------------------------------------- */

void stats_readers_find(struct stats_readers *r)
{
	const struct passwd *user = getpwnam(EXPORTER);
	const struct group *group = getgrnam(ADMINS);

	*r = (struct stats_readers){ .has_exporter = user, .has_admins = group };
	if (user)
		r->exporter = user->pw_uid;
	if (group)
		r->admins = group->gr_gid;
}

/* The groups of a process when it connected: 1 it is a member, 0 it is not, -errno. */
static int is_member(int socket, gid_t gid)
{
	FREE_MEMORY gid_t *groups = NULL;
	socklen_t bytes = 0;

	/* With no room it says how much it would take. */
	if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, NULL, &bytes) == 0)
		return 0;
	if (errno != ERANGE)
		return -errno;
	groups = malloc(bytes);
	if (!groups)
		return -ENOMEM;
	if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &bytes) < 0)
		return -errno;
	for (size_t i = 0; i < bytes / sizeof(*groups); i++)
		if (groups[i] == gid)
			return 1;
	return 0;
}

int stats_readers_check(const struct stats_readers *r, int socket)
{
	struct ucred cred;
	socklen_t bytes = sizeof(cred);
	int n;

	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &cred, &bytes) < 0)
		return -errno;
	if (cred.uid == 0 || cred.uid == geteuid() ||
	    (r->has_exporter && cred.uid == r->exporter) ||
	    (r->has_admins && cred.gid == r->admins))
		return 0;
	if (!r->has_admins)
		return -EACCES;
	n = is_member(socket, r->admins);
	if (n < 0)
		return n;
	return n ? 0 : -EACCES;
}
