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
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/base.h"
#include "tests/system/enemy.h"

#define PATIENCE 30 /* seconds */

/* ---- garbage ----------------------------------------------------------------- */

/* Well-formed rings, senseless entries: each must be answered, the session stays. */
static void attack_entries(struct enemy *e)
{
	double end = now() + e->seconds;
	unsigned long sent = 0, answered = 0;

	enter(e);
	own_something(e);
	/* On a busy machine as long as it takes to come as far as what this is to try. */
	while (now() < end || (now() < end + PATIENCE && (!e->items_done || !e->items_refused))) {
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
	if (!e->items_done || !e->items_refused)
		die("items: %lu entries done, %lu refused", e->items_done, e->items_refused);
	printf("%lu entries answered, %lu of items done, %lu refused\n", sent, e->items_done,
	       e->items_refused);
}

/* Races with publish() on purpose: TSan is to find the daemon's races, not this one. */
__attribute__((no_sanitize("thread"))) static void *mutate(void *arg)
{
	struct enemy *e = arg;
	double end = now() + e->seconds;

	while (now() < end) {
		uint64_t r = draw(e);
		struct sparq_sqe *sqe = &e->map.sq[r % e->map.sq_entries];

		/* Every word but the number that makes it valid. */
		store_relaxed(&((uint64_t *)sqe)[(r >> 16) % 7], draw(e));
	}
	return NULL;
}

/* A second thread changes entries while the daemon reads them: the double fetch. */
static void attack_mutate(struct enemy *e)
{
	struct enemy twin;
	pthread_t thread;

	enter(e);
	own_something(e);
	twin = *e;
	twin.seed ^= 0x1234;
	if (pthread_create(&thread, NULL, mutate, &twin))
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
				store_relaxed(&word[draw(e) % (e->layout.arena_offset / 8)],
					      draw(e));
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

/* The segment cut or punched while it is not sealed yet: it is never used. */
static void attack_torn(struct enemy *e)
{
	for (unsigned i = 0; i < 2; i++) {
		int fds[MESSAGE_MAX_FDS] = { -1, -1, -1 }, r;
		char text[SPARQ_ERROR_TEXT] = "";
		union message m;

		e->socket = connect_to(e->socket_path);
		hello_message(&m);
		if (ask(e, &m, fds, 3, text) < 0)
			die("hello: %s", text);
		r = i ? ftruncate(fds[0], 4096)
		      : fallocate(fds[0], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
		if (r < 0)
			die("not sealed, and not cut: %m");
		message_init(&m, SPARQ_MSG_MAPPED);
		if (ask(e, &m, NULL, 0, text) != -EPROTO)
			die("a torn segment was taken: %s", text);
		must_be_out(e, "torn segment");
		for (unsigned k = 0; k < 3; k++)
			close_fd(&fds[k]);
		close_fd(&e->socket);
	}
}

/* The descriptor that the daemon rings for a queue: made to block, filled, never read. */
static void attack_bell(struct enemy *e)
{
	struct sparq_sqe nop = { 0 };
	uint64_t most = UINT64_MAX - 1;
	union message m;
	int fd = -1;

	enter(e);
	message_init(&m, SPARQ_MSG_QUEUE_FD);
	if (ask(e, &m, &fd, 1, NULL) < 0 || fcntl(fd, F_SETFL, 0) < 0)
		die("no descriptor of the queue");
	if (send(fd, &most, sizeof(most), MSG_NOSIGNAL) < 0 && errno == ENOTSOCK)
		(void)!write(fd, &most, sizeof(most));
	for (unsigned i = 0; i < 500; i++) {
		double end = now() + 5;

		store_release(&e->map.ctl->cq_need, 2);
		publish(e, &nop);
		doorbell_ring(&e->doorbell);
		for (; !reap(e); sched_yield())
			if (now() > end)
				die("stuck after %u rings", i);
	}
	close_fd(&fd);
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
		/* Somebody is in those that are there. */
		message_init(&m, SPARQ_MSG_SEQ_ADOPT);
		m.seq.sequence = (uint64_t)(i / 8) | (uint64_t)(i % 8) << 32;
		r = ask(e, &m, NULL, 0, NULL);
		if (r != -ENOENT && r != -EBUSY)
			die("adopting a guessed id: %d", r);
	}
	if (answers[0])
		die("%u of 4096 guessed ids answered", answers[0]);
}

/* A cache with one layer and many heads, so that what is asked for is often nearly right. */
static uint64_t own_cache(struct enemy *e)
{
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_CACHE_CREATE);
	m.cache_create.layers = 2;
	m.cache_create.heads = m.cache_create.kv_heads = 16;
	m.cache_create.k_dim = m.cache_create.v_dim = 64;
	strcpy(m.cache_create.k_format, "hier4");
	strcpy(m.cache_create.policy, "dense");
	strcpy(m.cache_create.options, "outliers=3");
	r = ask(e, &m, NULL, 0, NULL);
	if (r < 0)
		die("cache: %s", strerror(-r));
	return m.cache.cache;
}

/* Half of the tables are permutations, and then one thing of most is not right. */
static void some_table(struct enemy *e, uint64_t cache, union message *m)
{
	uint64_t r = draw(e);
	uint32_t *word = &m->cache_table.layer;

	message_init(m, SPARQ_MSG_CACHE_TABLE);
	m->cache_table.cache = r >> 60 ? cache : draw(e);
	m->cache_table.layer = r & 1;
	m->cache_table.kv_head = r >> 1 & 15;
	m->cache_table.n_k = m->cache_table.n_v = 64;
	m->cache_table.n_outliers = r >> 5 & 3;
	for (unsigned i = 0; i < 64; i++)
		m->cache_table.k_channels[i] = m->cache_table.v_channels[i] =
			(uint8_t)((i + (r >> 7)) % 64);
	if (r >> 13 & 1)
		m->cache_table.k_channels[r >> 14 & 255] = (uint8_t)(r >> 22);
	if (r >> 30 & 1)
		m->cache_table.v_channels[r >> 31 & 255] = (uint8_t)(r >> 39);
	if (r >> 47 & 1)
		word[(r >> 48) % 5] = (uint32_t)draw(e);
}

/* Tables right and wrong, over and over: each is answered, and a step over those taken is sane. */
static void attack_tables(struct enemy *e)
{
	double end = now() + e->seconds;
	unsigned taken = 0, refused = 0;
	char text[SPARQ_ERROR_TEXT];

	while (now() < end) {
		uint64_t cache;
		union message m;
		int r;

		enter(e);
		cache = own_cache(e);
		for (unsigned i = 0; i < 300; i++) {
			some_table(e, cache, &m);
			text[0] = '\0';
			r = ask(e, &m, NULL, 0, text);
			if (r < 0 && (r == -EPROTO || r == -ECONNRESET || !*text))
				die("table: %s, \"%s\"", strerror(-r), text);
			taken += r == 0;
			refused += r < 0;
		}
		own_sequence(e, cache);
		some_table(e, cache, &m);
		if (ask(e, &m, NULL, 0, NULL) == 0)
			die("a table was taken by a cache with a sequence");
		for (unsigned i = 0; i < 64; i++) {
			struct sparq_sqe sqe;

			some_entry(e, &sqe);
			publish(e, &sqe);
		}
		doorbell_ring(&e->doorbell);
		for (double limit = now() + 5; e->head < e->tail && now() < limit; usleep(100))
			reap(e);
		if (e->head < e->tail)
			die("%u of 64 entries answered", 64 - (e->tail - e->head));
		leave(e);
	}
	if (!taken || !refused)
		die("%u tables taken, %u refused", taken, refused);
	printf("%u tables taken, %u refused\n", taken, refused);
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
	{ "torn", attack_torn },	 { "bell", attack_bell },
	{ "tables", attack_tables },	 { "images", attack_images },
	{ "tokens", attack_tokens },
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
