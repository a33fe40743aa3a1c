/* SPDX-License-Identifier: Apache-2.0 */
/* What the attacks share. */
#include "tests/system/enemy.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/base.h"

#define CALL_NS 5000000000          /* an answer later than this is none */
#define CLOSE_MS 2000               /* how soon an offender must be out */
#define ITEMS 8u                    /* that are planted at a time */
#define OF_ITEMS 0x6974656d73000000 /* user_data of entries that name them */

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	exit(1);
}

uint64_t draw(struct enemy *e)
{
	uint64_t z = (e->seed += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- getting in ----------------------------------------------------------- */

int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("connect: %m");
	return fd;
}

void hello_message(union message *m)
{
	message_init(m, SPARQ_MSG_HELLO);
	m->hello.magic = SPARQ_MAGIC;
	m->hello.abi = SPARQ_ABI_MAJOR;
	m->hello.n_queues = 1;
	m->hello.sq_entries = 64;
	m->hello.node = -1;
	m->hello.arena_bytes = MIB;
}

int ask(struct enemy *e, union message *m, int *fds, unsigned n_fds, char *text)
{
	return message_call(e->socket, m, fds, n_fds, CALL_NS, text);
}

static void read_layout(struct enemy *e)
{
	const struct sparq_msg_hello_reply *r = &e->told;

	e->layout = (struct segment_layout){
		.bytes = r->segment_bytes,
		.arena_offset = r->arena_offset,
		.arena_bytes = r->arena_bytes,
		.n_queues = r->n_queues,
		.sq_entries = r->sq_entries,
		.cq_entries = r->cq_entries,
	};
	memcpy(e->layout.ring, r->ring, sizeof(r->ring));
}

void enter(struct enemy *e)
{
	int fds[MESSAGE_MAX_FDS] = { -1, -1, -1 };
	const struct sparq_daemon_page *page;
	char text[SPARQ_ERROR_TEXT] = "";
	union message m;
	int r;

	e->socket = connect_to(e->socket_path);
	hello_message(&m);
	r = ask(e, &m, fds, 3, text);
	if (r < 0)
		die("hello: %s: %s", strerror(-r), text);
	e->told = m.hello_reply;
	read_layout(e);
	e->segment_fd = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
	e->page_fd = fcntl(fds[1], F_DUPFD_CLOEXEC, 0);
	if (segment_map(fds[0], e->told.segment_bytes, true, &e->segment) < 0 ||
	    segment_map(fds[1], (size_t)lseek(fds[1], 0, SEEK_END), false, &e->page) < 0 ||
	    segment_ring(&e->segment, &e->layout, 0, &e->map) < 0)
		die("cannot map the session");
	e->bell = fds[2];
	page = e->page.base;
	e->doorbell = (struct doorbell){ .poller = &page->poller[e->told.poller],
					 .ctl = e->map.ctl,
					 .fd = e->bell };
	message_init(&m, SPARQ_MSG_MAPPED);
	r = ask(e, &m, NULL, 0, text);
	if (r < 0)
		die("mapped: %s: %s", strerror(-r), text);
}

/* A cache and sequences, so that some of the garbage hits something. */
void own_something(struct enemy *e)
{
	union message m;
	uint64_t cache;
	int r;

	message_init(&m, SPARQ_MSG_CACHE_CREATE);
	m.cache_create.layers = 2;
	m.cache_create.heads = 4;
	m.cache_create.kv_heads = 2;
	m.cache_create.k_dim = m.cache_create.v_dim = 64;
	m.cache_create.dtype = SPARQ_DTYPE_F16;
	strcpy(m.cache_create.k_format, "f16");
	strcpy(m.cache_create.policy, "dense");
	r = ask(e, &m, NULL, 0, NULL);
	if (r < 0)
		die("cache: %s", strerror(-r));
	cache = m.cache.cache;
	for (unsigned i = 0; i < ENEMY_SEQUENCES; i++) {
		own_sequence(e, cache);
		e->several[i] = e->sequence;
	}
}

void own_sequence(struct enemy *e, uint64_t cache)
{
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_SEQ_CREATE);
	m.seq_create.cache = cache;
	r = ask(e, &m, NULL, 0, NULL);
	if (r < 0)
		die("sequence: %s", strerror(-r));
	e->sequence = m.seq.sequence;
}

void leave(struct enemy *e)
{
	close_fd(&e->socket);
	close_fd(&e->bell);
	close_fd(&e->segment_fd);
	close_fd(&e->page_fd);
	segment_deinit(&e->segment);
	segment_deinit(&e->page);
	e->tail = e->head = 0;
	e->several[0] = e->items = 0;
}

bool thrown_out(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, ms) == 1 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

void must_be_out(struct enemy *e, const char *what)
{
	if (!thrown_out(e->socket, CLOSE_MS))
		die("%s: the session still lives", what);
}

void must_be_well(struct enemy *e)
{
	struct enemy fresh = ENEMY_NULL(e->socket_path);

	enter(&fresh);
	leave(&fresh);
}

/* ---- garbage ----------------------------------------------------------------- */

uint64_t some_address(struct enemy *e)
{
	uint64_t r = draw(e), arena = e->told.arena_bytes;

	switch (r % 6) {
	case 0:
		return 0;
	case 1:
		return arena - (r >> 8) % 256;
	case 2:
		return UINT64_MAX - (r >> 8) % 4096;
	case 3:
		return draw(e);
	default:
		return (r >> 8) % arena & ~15ull;
	}
}

/* One in eight is wrong, in whatever way. */
static uint64_t nearly_an_address(struct enemy *e)
{
	uint64_t r = draw(e);

	return r % 8 ? (r >> 8) % (e->told.arena_bytes / 2) & ~63ull : some_address(e);
}

/* What an operation makes no use of is 0, but for one in sixteen. */
static void leave_out(struct enemy *e, struct sparq_item *t)
{
	bool appends = e->items_op != SPARQ_OP_ATTEND && e->items_op != SPARQ_OP_TRUNCATE;
	bool attends = e->items_op == SPARQ_OP_ATTEND || e->items_op == SPARQ_OP_STEP;

	if (draw(e) % 16 == 0)
		return;
	if (!appends) {
		t->kv = t->n_rows = 0;
		t->kv_stride = 0;
	}
	if (!attends) {
		t->q = t->o = t->lse = t->report = t->n_q = 0;
		t->q_stride = t->o_stride = 0;
	}
}

/* The i-th of one entry. */
static void some_item(struct enemy *e, unsigned i, struct sparq_item *ret)
{
	uint64_t r = draw(e);

	*ret = (struct sparq_item){
		.sequence = (r & 15) ? e->several[i % ENEMY_SEQUENCES] : draw(e),
		.q = nearly_an_address(e),
		.kv = nearly_an_address(e),
		.o = nearly_an_address(e),
		.row = (uint32_t)((r >> 4 & 15) ? draw(e) % 8 : draw(e)),
		.n_rows = (uint16_t)((r >> 8 & 15) ? 1 + draw(e) % 4 : draw(e)),
		.n_q = (uint16_t)((r >> 12 & 15) ? 1 + draw(e) % 4 : draw(e)),
		.lse = (r >> 16 & 1) ? nearly_an_address(e) : 0,
		.report = (r >> 17 & 1) ? nearly_an_address(e) : 0,
		.q_stride = (r >> 18 & 15) ? 0 : (uint32_t)draw(e) & ~15u,
		.kv_stride = (r >> 22 & 15) ? 0 : (uint32_t)draw(e) & ~15u,
		.o_stride = (r >> 26 & 15) ? 0 : (uint32_t)draw(e) & ~15u,
	};
	leave_out(e, ret);
	if ((r >> 30 & 15) == 0)
		ret->rsv[(r >> 34) % ARRAY_SIZE(ret->rsv)] = (uint32_t)draw(e);
}

static void some_entry_of_items(struct enemy *e, struct sparq_sqe *sqe)
{
	uint64_t r = draw(e);

	*sqe = (struct sparq_sqe){
		.op = (r & 15) ? e->items_op : (uint8_t)(r >> 4),
		.flags = (uint16_t)((r >> 8 & 3) ? 0 : r >> 10 & SPARQ_SQE_FLAGS),
		.layer = (uint16_t)(r >> 17 & 1),
		.n_items =
			(uint16_t)((r >> 18 & 7) ? 1 + (r >> 21) % ENEMY_SEQUENCES : draw(e) % 64),
		.sequence = e->items,
		.user_data = OF_ITEMS,
	};
}

/* Small values of all fields are plausible, so that the checks behind the first are met too. */
void some_entry(struct enemy *e, struct sparq_sqe *sqe)
{
	uint64_t r = draw(e);

	if (r % 8 == 0) {
		for (unsigned i = 0; i < 7; i++)
			((uint64_t *)sqe)[i] = draw(e);
		return;
	}
	if (r % 8 < 4 && e->items) {
		some_entry_of_items(e, sqe);
		return;
	}
	*sqe = (struct sparq_sqe){
		.op = (uint8_t)(r >> 3 & 7),
		.class_ = (uint8_t)((r >> 6 & 63) == 0),
		.flags = (r >> 12 & 3) ? 0 : (uint16_t)(r >> 14 & 0xff),
		.layer = (uint16_t)((r >> 22 & 15) == 0 ? r >> 26 : r >> 26 & 1),
		.n_items = (uint16_t)((r >> 42 & 7) ? 0 : draw(e)),
		.user_data = draw(e),
		.sequence = (r >> 45 & 7) ? e->sequence : draw(e),
		.q = some_address(e),
		.kv = some_address(e),
		.o = some_address(e),
		.row = (uint32_t)((r >> 48 & 3) ? draw(e) % 64 : draw(e)),
		.n_rows = (uint16_t)((r >> 50 & 3) ? draw(e) % 4 : draw(e)),
		.n_q = (uint16_t)((r >> 52 & 3) ? draw(e) % 4 : draw(e)),
		.timeout_us = (r >> 54 & 7) ? 0 : (uint32_t)draw(e),
	};
}

void publish(struct enemy *e, const struct sparq_sqe *sqe)
{
	struct sparq_sqe *at = &e->map.sq[e->tail & (e->map.sq_entries - 1)];

	memcpy(at, sqe, offsetof(struct sparq_sqe, seq));
	store_release(&at->seq, ++e->tail);
}

unsigned reap(struct enemy *e)
{
	unsigned n = 0;

	for (;;) {
		const struct sparq_cqe *c = &e->map.cq[e->head & (e->map.cq_entries - 1)];

		if (load_acquire(&c->seq) != e->head + 1)
			break;
		e->items_done += c->user_data == OF_ITEMS && c->res > 0;
		e->items_refused += c->user_data == OF_ITEMS && c->res < 0;
		e->head++;
		n++;
	}
	if (n)
		store_release(&e->map.ctl->cq_head, e->head);
	return n;
}

bool fatal(const struct enemy *e)
{
	return load_acquire(&e->map.ctl->fatal) != 0;
}

/* The arena is the client's to scribble in at any time, items and tensors alike. */
void scribble(struct enemy *e)
{
	uint64_t *word = (uint64_t *)((char *)e->segment.base + e->layout.arena_offset);

	for (unsigned i = 0; i < 64; i++)
		word[draw(e) % (e->layout.arena_bytes / 8)] = draw(e);
	if (!e->several[0])
		return;
	e->items_op = (uint8_t)(1 + draw(e) % (SPARQ_OP_COUNT - 1));
	/* Beyond what most of them have for tensors. */
	e->items = e->layout.arena_bytes / 2 +
		   draw(e) % (e->layout.arena_bytes / 2 - ITEMS * sizeof(struct sparq_item));
	e->items &= ~63ull;
	for (unsigned i = 0; i < ITEMS; i++)
		some_item(e, i, (struct sparq_item *)((char *)word + e->items) + i);
}
