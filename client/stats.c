/* SPDX-License-Identifier: Apache-2.0 */
/* Getting the stats page, and reading a block of it: see stats.h. */
#include "client/stats.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "client/private.h"
#include "client/socket-why.h"
#include "shm/atomic.h"
#include "shm/clock.h"

#define LIMIT_NS (5 * NS_PER_S) /* a scrape has ten, and is to say that the daemon is away */
/* A writer is at work for less than a microsecond, unless its thread loses the CPU. */
#define COPY_TRIES 1000u

struct shared_page {
	struct segment page;
	uint32_t readers; /* atomic */
};

struct stats {
	char *path;
	int socket; /* stays open; its end is the daemon's. -1: shared */
	struct shared_page *shared;
};

static struct shared_page *page_put(struct shared_page *p)
{
	if (p && fetch_sub(&p->readers, 1u) == 1) {
		segment_deinit(&p->page);
		free(p);
	}
	return NULL;
}

static const size_t block_bytes[STATS_KINDS] = {
	[STATS_CONTROL] = sizeof(struct stats_control),
	[STATS_NODE] = sizeof(struct stats_node),
	[STATS_WORKER] = sizeof(struct stats_worker),
	[STATS_USER] = sizeof(struct stats_user),
	[STATS_CACHE] = sizeof(struct stats_cache),
	[STATS_SEQUENCE] = sizeof(struct stats_sequence),
	[STATS_DEVICE] = sizeof(struct stats_device),
};

static int fail(char *why, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(char *why, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, SPARQ_ERROR_TEXT, format, args);
	va_end(args);
	return error;
}

/* ---- what came is what we know ----------------------------------------------- */

static bool section_fits(const struct stats_header *h, enum stats_kind kind)
{
	const struct stats_section *s = &h->section[kind];

	return s->stride >= block_bytes[kind] && s->stride % sizeof(uint64_t) == 0 &&
	       s->at % sizeof(uint64_t) == 0 && s->at <= h->bytes &&
	       s->n <= (h->bytes - s->at) / s->stride;
}

static int check_page(const struct segment *page, char *why)
{
	const struct stats_header *h = page->base;

	if (page->bytes < sizeof(*h) || h->magic != STATS_MAGIC)
		return fail(why, -EPROTO, "what sparqd sent is no stats page");
	if (h->layout != STATS_LAYOUT || h->header_bytes != sizeof(*h))
		return fail(why, -EPROTONOSUPPORT,
			    "the stats page of the running sparqd (%.31s) has another layout: "
			    "restart sparqd, or use the programs of its version",
			    h->version);
	if (h->bytes != page->bytes)
		return fail(why, -EPROTO, "the stats page says another size than it has");
	for (unsigned kind = 0; kind < STATS_KINDS; kind++)
		if (!section_fits(h, kind))
			return fail(why, -EPROTO, "section %u of the stats page does not fit in it",
				    kind);
	return 0;
}

static int map_page(int *fd, uint64_t bytes, struct shared_page **ret, char *why)
{
	struct shared_page *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return fail(why, -ENOMEM, "out of memory");
	p->page = SEGMENT_NULL;
	p->readers = 1;
	r = segment_map(*fd, bytes, false, &p->page);
	if (r < 0)
		fail(why, r, "cannot map the stats page: %s", strerror(-r));
	else
		*fd = -1;
	if (r == 0)
		r = check_page(&p->page, why);
	if (r < 0) {
		page_put(p);
		return r;
	}
	*ret = p;
	return 0;
}

/* ---- asking for it ------------------------------------------------------------ */

/* Has the page on `socket` brought up to date; *ret_fd is the caller's. */
static int ask(int socket, struct sparq_msg_stats *ret, int *ret_fd, char *why)
{
	char text[SPARQ_ERROR_TEXT] = "";
	union message m;
	int fd = -1, r;

	message_init(&m, SPARQ_MSG_STATS);
	r = message_call(socket, &m, &fd, 1, LIMIT_NS, text);
	if (r < 0)
		return fail(why, r, "%s", text[0] ? text : strerror(-r));
	*ret = m.stats;
	*ret_fd = fd;
	return 0;
}

static int connect_page(struct stats *s, char *why)
{
	struct shared_page *page = NULL;
	struct sparq_msg_stats reply;
	CLOSE_FD int socket = -1;
	CLOSE_FD int fd = -1;
	int r = socket_connect(s->path, SOCK_SEQPACKET, LIMIT_NS, &socket);

	if (r < 0) {
		socket_why(s->path, r, why, SPARQ_ERROR_TEXT);
		return r;
	}
	r = ask(socket, &reply, &fd, why);
	if (r == 0)
		r = map_page(&fd, reply.bytes, &page, why);
	if (r < 0)
		return r;
	close_fd(&s->socket);
	page_put(s->shared);
	s->socket = STEAL_FD(socket);
	s->shared = page;
	return 0;
}

int stats_open(const char *socket, struct stats **ret, char *why)
{
	struct stats *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return fail(why, -ENOMEM, "out of memory");
	s->socket = -1;
	if (!socket)
		socket = secure_getenv("SPARQ_SOCKET");
	s->path = strdup(socket ? socket : SPARQ_SOCKET_PATH);
	r = s->path ? connect_page(s, why) : fail(why, -ENOMEM, "out of memory");
	if (r < 0) {
		stats_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct stats *stats_close(struct stats *s)
{
	if (!s)
		return NULL;
	close_fd(&s->socket);
	page_put(s->shared);
	free(s->path);
	free(s);
	return NULL;
}

struct stats *stats_share(const struct stats *s)
{
	struct stats *other = calloc(1, sizeof(*other));

	if (!other)
		return NULL;
	other->socket = -1;
	other->shared = s->shared;
	fetch_add(&other->shared->readers, 1u);
	return other;
}

int stats_refresh(struct stats *s, char *why)
{
	struct sparq_msg_stats reply;
	CLOSE_FD int fd = -1;
	int r = s->socket < 0 ? -ECONNRESET : ask(s->socket, &reply, &fd, why);

	if (r == 0)
		return 0;
	/* Whatever it was, this connection is over: a late answer must not be taken for the next.
	 */
	close_fd(&s->socket);
	if (r != -ECONNRESET && r != -EPIPE)
		return r;
	r = connect_page(s, why);
	return r < 0 ? r : 1;
}

/* ---- reading ------------------------------------------------------------------ */

const struct stats_header *stats_header(const struct stats *s)
{
	return s->shared->page.base;
}

uint32_t stats_count(const struct stats *s, enum stats_kind kind)
{
	return stats_header(s)->section[kind].n;
}

/* Word by word: whoever has seen a new word sees the number that goes with it. */
static void copy_words(const uint64_t *from, uint64_t *to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = load_acquire(&from[i]);
}

int stats_copy(const struct stats *s, enum stats_kind kind, uint32_t index, void *ret)
{
	const struct stats_section *section = &stats_header(s)->section[kind];
	const uint8_t *block;

	if (index >= section->n)
		return -ENOENT;
	block = (const uint8_t *)s->shared->page.base + section->at +
		(uint64_t)section->stride * index;
	for (unsigned i = 0; i < COPY_TRIES; i++) {
		const uint32_t *seq = (const uint32_t *)(const void *)block;
		uint32_t before = load_acquire(seq);

		if (before % 2) {
			cpu_pause();
			continue;
		}
		copy_words((const uint64_t *)(const void *)block, ret,
			   block_bytes[kind] / sizeof(uint64_t));
		/* The words were loaded before this, each with acquire. */
		if (load_relaxed(seq) == before)
			return 0;
	}
	return -EAGAIN;
}
