/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client that means harm, below libsparq: it speaks raw messages and writes
 * what it likes into the memory it shares with the daemon. One attack a name,
 * each says what the daemon must do about it.
 *
 *   hostile SOCKET ATTACK [SECONDS [SEED]]     hostile list
 *
 * Exit: 0 the daemon did what it must, 1 it did not.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/doorbell.h"
#include "shm/message.h"
#include "shm/ring.h"
#include "shm/segment.h"

#define CALL_NS 5000000000 /* an answer later than this is none */
#define CLOSE_MS 2000      /* how soon an offender must be out */

struct enemy {
	const char *socket_path;
	double seconds;
	uint64_t seed;
	int socket, bell, segment_fd, page_fd;
	struct segment segment, page;
	struct segment_layout layout;
	struct sparq_msg_hello_reply told;
	struct ring_map map;
	struct doorbell doorbell;
	uint64_t sequence;
	uint32_t tail, head; /* as an honest client would count */
};
#define ENEMY_NULL(path)                                                            \
	{ .socket_path = (path), .socket = -1, .bell = -1, .segment_fd = -1,        \
	  .page_fd = -1, .segment = SEGMENT_NULL, .page = SEGMENT_NULL }

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	exit(1);
}

static uint64_t draw(struct enemy *e)
{
	uint64_t z = (e->seed += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- getting in ----------------------------------------------------------- */

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("connect: %m");
	return fd;
}

static void hello_message(union message *m)
{
	message_init(m, SPARQ_MSG_HELLO);
	m->hello.magic = SPARQ_MAGIC;
	m->hello.abi = SPARQ_ABI_MAJOR;
	m->hello.n_queues = 1;
	m->hello.sq_entries = 64;
	m->hello.node = -1;
	m->hello.arena_bytes = MIB;
}

/* Sends a request and returns its result; `m` becomes the reply. */
static int ask(struct enemy *e, union message *m, int *fds, unsigned n_fds, char *text)
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

/* An ordinary session with one ring. */
static void enter(struct enemy *e)
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
					 .ctl = e->map.ctl, .fd = e->bell };
	message_init(&m, SPARQ_MSG_MAPPED);
	r = ask(e, &m, NULL, 0, text);
	if (r < 0)
		die("mapped: %s: %s", strerror(-r), text);
}

/* A cache and a sequence, so that some of the garbage hits something. */
static void own_something(struct enemy *e)
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
	message_init(&m, SPARQ_MSG_SEQ_CREATE);
	m.seq_create.cache = cache;
	r = ask(e, &m, NULL, 0, NULL);
	if (r < 0)
		die("sequence: %s", strerror(-r));
	e->sequence = m.seq.sequence;
}

static void leave(struct enemy *e)
{
	close_fd(&e->socket);
	close_fd(&e->bell);
	close_fd(&e->segment_fd);
	close_fd(&e->page_fd);
	segment_deinit(&e->segment);
	segment_deinit(&e->page);
	e->tail = e->head = 0;
}

/* True if the daemon hangs up within `ms`. */
static bool thrown_out(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, ms) == 1 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

static void must_be_out(struct enemy *e, const char *what)
{
	if (!thrown_out(e->socket, CLOSE_MS))
		die("%s: the session still lives", what);
}

/* The daemon answers a newcomer: it is neither dead nor stuck. */
static void must_be_well(struct enemy *e)
{
	struct enemy fresh = ENEMY_NULL(e->socket_path);

	enter(&fresh);
	leave(&fresh);
}

/* ---- garbage ----------------------------------------------------------------- */

/* An address: in the arena, at its ends, or anywhere. */
static uint64_t some_address(struct enemy *e)
{
	uint64_t r = draw(e), arena = e->told.arena_bytes;

	switch (r % 6) {
	case 0: return 0;
	case 1: return arena - (r >> 8) % 256;
	case 2: return UINT64_MAX - (r >> 8) % 4096;
	case 3: return draw(e);
	default: return (r >> 8) % arena & ~15ull;
	}
}

/* Small values of all fields are plausible, so that the checks behind the first are met too. */
static void some_entry(struct enemy *e, struct sparq_sqe *sqe)
{
	uint64_t r = draw(e);

	if (r % 8 == 0) {
		for (unsigned i = 0; i < 7; i++)
			((uint64_t *)sqe)[i] = draw(e);
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

static void publish(struct enemy *e, const struct sparq_sqe *sqe)
{
	struct sparq_sqe *at = &e->map.sq[e->tail & (e->map.sq_entries - 1)];

	memcpy(at, sqe, offsetof(struct sparq_sqe, seq));
	store_release(&at->seq, ++e->tail);
}

/* Reads what completions there are; how many. */
static unsigned reap(struct enemy *e)
{
	unsigned n = 0;

	while (load_acquire(&e->map.cq[e->head & (e->map.cq_entries - 1)].seq) == e->head + 1) {
		e->head++;
		n++;
	}
	if (n)
		store_release(&e->map.ctl->cq_head, e->head);
	return n;
}

static bool fatal(const struct enemy *e)
{
	return load_acquire(&e->map.ctl->fatal) != 0;
}

/* The arena is the client's to scribble in at any time, items and tensors alike. */
static void scribble(struct enemy *e)
{
	uint64_t *word = (uint64_t *)((char *)e->segment.base + e->layout.arena_offset);

	for (unsigned i = 0; i < 64; i++)
		word[draw(e) % (e->layout.arena_bytes / 8)] = draw(e);
}

/* Well-formed rings, senseless entries: each must be answered, the session stays. */
static void attack_entries(struct enemy *e)
{
	double end = now() + e->seconds;
	unsigned long sent = 0, answered = 0;

	enter(e);
	own_something(e);
	while (now() < end) {
		for (unsigned i = 0; i < 32 && e->tail - e->head < e->map.sq_entries; i++) {
			struct sparq_sqe sqe;

			some_entry(e, &sqe);
			publish(e, &sqe);
			sent++;
		}
		scribble(e);
		doorbell_ring(&e->doorbell);
		answered += reap(e);
		if (fatal(e))
			die("thrown out for entries: error %u", e->map.ctl->fatal);
	}
	for (end = now() + 5; answered < sent && now() < end; usleep(1000))
		answered += reap(e);
	if (answered != sent)
		die("%lu entries, %lu answers", sent, answered);
	printf("%lu entries answered\n", sent);
}

static void *mutate(void *arg)
{
	struct enemy e = *(struct enemy *)arg;
	double end = now() + e.seconds;

	e.seed ^= 0x1234;
	while (now() < end) {
		uint64_t r = draw(&e);
		struct sparq_sqe *sqe = &e.map.sq[r % e.map.sq_entries];

		/* Every word but the number that makes it valid. */
		store_relaxed(&((uint64_t *)sqe)[(r >> 16) % 7], draw(&e));
	}
	return NULL;
}

/* A second thread changes entries while the daemon reads them: the double fetch. */
static void attack_mutate(struct enemy *e)
{
	pthread_t thread;

	enter(e);
	own_something(e);
	if (pthread_create(&thread, NULL, mutate, e))
		die("no thread");
	for (double end = now() + e->seconds; now() < end;) {
		for (unsigned i = 0; i < 32 && e->tail - e->head < e->map.sq_entries; i++) {
			struct sparq_sqe sqe;

			some_entry(e, &sqe);
			publish(e, &sqe);
		}
		doorbell_ring(&e->doorbell);
		reap(e);
	}
	pthread_join(thread, NULL);
	if (fatal(e))
		die("thrown out: error %u", e->map.ctl->fatal);
	printf("%u entries\n", e->tail);
}

/* Every byte of the segment, control words included. Being thrown out is fine: come again. */
static void attack_garbage(struct enemy *e)
{
	double end = now() + e->seconds;
	unsigned sessions = 0;

	while (now() < end) {
		enter(e);
		own_something(e);
		sessions++;
		for (unsigned i = 0; i < 2000 && !fatal(e); i++) {
			uint64_t *word = e->segment.base;

			for (unsigned k = 0; k < 16; k++)
				store_relaxed(&word[draw(e) % (e->layout.arena_offset / 8)], draw(e));
			for (unsigned k = 0; k < 8; k++) {
				struct sparq_sqe sqe;

				some_entry(e, &sqe);
				publish(e, &sqe);
			}
			scribble(e);
			doorbell_ring(&e->doorbell);
		}
		leave(e);
	}
	printf("%u sessions of garbage\n", sessions);
}

/* ---- what must end the session -------------------------------------------------- */

/* Credit for completions that were never written. */
static void attack_cq_head(struct enemy *e)
{
	static const uint32_t heads[] = { 1u << 31, UINT32_MAX, 0x12345678 };

	for (unsigned i = 0; i < ARRAY_SIZE(heads); i++) {
		struct sparq_sqe nop = { 0 };

		enter(e);
		store_release(&e->map.ctl->cq_head, heads[i]);
		/* The word is read when credit is spent: more entries than the CQ holds. */
		for (unsigned k = 0; k < e->map.sq_entries; k++)
			publish(e, &nop);
		doorbell_ring(&e->doorbell);
		for (double end = now() + 2; !fatal(e) && now() < end; usleep(1000)) {
			uint32_t read = load_acquire(&e->map.ctl->sq_head);

			/* As the daemon reads on, give it more. */
			while (e->tail - read < e->map.sq_entries)
				publish(e, &nop);
			doorbell_ring(&e->doorbell);
		}
		if (load_acquire(&e->map.ctl->fatal) != EPROTO)
			die("cq_head %u: fatal is %u", heads[i], e->map.ctl->fatal);
		must_be_out(e, "impossible cq_head");
		leave(e);
	}
}

/* Nobody reads the completions: this ring stalls, and nothing else does. */
static void attack_stalled(struct enemy *e)
{
	struct sparq_sqe nop = { 0 };
	uint32_t read = 0;

	enter(e);
	for (double end = now() + 1; now() < end; usleep(1000)) {
		read = load_acquire(&e->map.ctl->sq_head);
		while (e->tail - read < e->map.sq_entries)
			publish(e, &nop);
		doorbell_ring(&e->doorbell);
	}
	if (read > e->map.cq_entries)
		die("%u entries read with room for %u completions", read, e->map.cq_entries);
	must_be_well(e);
	e->head = 0;
	for (double end = now() + 5; e->head < e->map.cq_entries && now() < end; usleep(1000)) {
		reap(e);
		doorbell_ring(&e->doorbell);
	}
	if (e->head < e->map.cq_entries)
		die("%u of %u completions", e->head, e->map.cq_entries);
	printf("stalled after %u, went on when read\n", read);
}

/* ---- messages ------------------------------------------------------------------- */

static void refused(struct enemy *e, const char *what, int expected, uint64_t magic, uint32_t abi)
{
	int fds[MESSAGE_MAX_FDS] = { -1, -1, -1 }, r;
	char text[SPARQ_ERROR_TEXT] = "";
	union message m;

	e->socket = connect_to(e->socket_path);
	hello_message(&m);
	m.hello.magic = magic;
	m.hello.abi = abi;
	r = ask(e, &m, fds, 3, text);
	if (r != expected || !*text)
		die("%s: %d (%s), expected %d and a sentence", what, r, text, expected);
	printf("%s: %s: %s\n", what, strerror(-r), text);
	close_fd(&e->socket);
}

/* Another major version is told so, in words. */
static void attack_abi(struct enemy *e)
{
	refused(e, "a later abi", -EPROTONOSUPPORT, SPARQ_MAGIC, SPARQ_ABI_MAJOR + 1);
	refused(e, "abi 0", -EPROTONOSUPPORT, SPARQ_MAGIC, 0);
}

/* Random packets, whole messages cut short or long, unknown types. */
static void attack_messages(struct enemy *e)
{
	double end = now() + e->seconds;
	unsigned n = 0;

	for (; now() < end; n++) {
		union message m;
		uint64_t r = draw(e);
		size_t size = r % 3 ? draw(e) % 2048 : sizeof(struct sparq_msg);

		e->socket = connect_to(e->socket_path);
		hello_message(&m);
		if (r >> 8 & 1)
			for (size_t i = 0; i < sizeof(m) / 8; i++)
				((uint64_t *)&m)[i] = draw(e);
		if (r >> 9 & 1)
			m.head.size = (uint16_t)size;
		if (send(e->socket, &m, size, MSG_NOSIGNAL) < 0 && errno != EPIPE)
			die("send: %m");
		if (r >> 10 & 1)
			thrown_out(e->socket, 20);
		close_fd(&e->socket);
	}
	printf("%u packets\n", n);
}

/* A request of the wrong size, or with descriptors it does not take, ends the connection. */
static void attack_packets(struct enemy *e)
{
	int surplus[2] = { STDIN_FILENO, STDIN_FILENO };
	union message m;

	e->socket = connect_to(e->socket_path);
	hello_message(&m);
	send(e->socket, &m, sizeof(m.hello) - 1, MSG_NOSIGNAL);
	must_be_out(e, "short hello");
	close_fd(&e->socket);

	e->socket = connect_to(e->socket_path);
	hello_message(&m);
	message_send(e->socket, &m, surplus, 2);
	must_be_out(e, "surplus descriptors");
	close_fd(&e->socket);

	e->socket = connect_to(e->socket_path);
	message_init(&m, SPARQ_MSG_MAPPED);
	message_send(e->socket, &m, NULL, 0);
	must_be_out(e, "mapped before hello");
	close_fd(&e->socket);
}

/* The daemon's memory under its feet: each must be refused by the seals. */
static void attack_seals(struct enemy *e)
{
	enter(e);
	if (ftruncate(e->segment_fd, 0) == 0 || errno != EPERM)
		die("shrunk: %m");
	if (ftruncate(e->segment_fd, (off_t)e->segment.bytes * 2) == 0 || errno != EPERM)
		die("grown: %m");
	if (fallocate(e->segment_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0 ||
	    errno != EPERM)
		die("hole punched: %m");
	if (write(e->segment_fd, "x", 1) >= 0 || errno != EPERM)
		die("written: %m");
	if (mmap(NULL, e->segment.bytes, PROT_WRITE, MAP_SHARED, e->segment_fd, 0) != MAP_FAILED)
		die("the segment can be mapped again for writing");
	if (mmap(NULL, e->page.bytes, PROT_WRITE, MAP_SHARED, e->page_fd, 0) != MAP_FAILED)
		die("the daemon page can be mapped for writing");
}

/* Somebody else's ids: none of them may be told from one that never was. */
static void attack_ids(struct enemy *e)
{
	unsigned answers[2] = { 0, 0 };

	enter(e);
	for (unsigned i = 0; i < 4096; i++) {
		union message m;
		int r;

		message_init(&m, SPARQ_MSG_SEQ_STAT);
		m.seq.sequence = (uint64_t)(i / 8) | (uint64_t)(i % 8) << 32;
		m.seq.rows = SPARQ_LAYER_ALL;
		r = ask(e, &m, NULL, 0, NULL);
		answers[r == -ENOENT]++;
	}
	if (answers[0])
		die("%u of 4096 guessed ids answered", answers[0]);
}

/* ------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	void (*run)(struct enemy *e);
} attacks[] = {
	{ "entries", attack_entries },	 { "mutate", attack_mutate },
	{ "garbage", attack_garbage },	 { "cq-head", attack_cq_head },
	{ "stalled", attack_stalled },	 { "abi", attack_abi },
	{ "messages", attack_messages }, { "packets", attack_packets },
	{ "seals", attack_seals },	 { "ids", attack_ids },
};

int main(int argc, char **argv)
{
	struct enemy e = ENEMY_NULL(argv[1]);

	for (unsigned i = 0; argc == 2 && i < ARRAY_SIZE(attacks); i++)
		puts(attacks[i].name);
	if (argc < 3)
		return argc == 2 ? 0 : 64;
	e.seconds = argc > 3 ? atof(argv[3]) : 1;
	e.seed = argc > 4 ? strtoull(argv[4], NULL, 0) : 1;
	for (unsigned i = 0; i < ARRAY_SIZE(attacks); i++) {
		if (strcmp(attacks[i].name, argv[2]) == 0) {
			attacks[i].run(&e);
			leave(&e);
			must_be_well(&e);
			return 0;
		}
	}
	fprintf(stderr, "no attack %s\n", argv[2]);
	return 64;
}
