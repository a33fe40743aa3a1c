/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eviction as a client sees it: a budget of four sequences, and a fifth.
 *
 *   evict SOCKET lru      the fifth is appended to; the one used the longest time ago is gone
 *   evict SOCKET wait     a step that finds no room has it when a session ends
 *   evict SOCKET stays    pinned ones and the one in use are not; then the append names the limit
 *   evict SOCKET pinned   what the last call has pinned is still there, and still pinned
 *   evict SOCKET default  without the option nothing goes
 *   evict SOCKET spill    what is parked goes to a file, and comes back
 *   evict SOCKET quota    the quota of the user makes room in another cache of his
 *
 *   evict SOCKET load     many of which few fit: the daemon may die of it (test-evict-killed.sh)
 *   evict SOCKET check N  what N deaths have left
 *
 * The environment names the control socket. Exit: 0 so it was, 1 it was not.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/sparq.h"

#define LAYERS 2u
#define KV_HEADS 2u
#define DIM 64u
#define ROWS 1000u
#define FORKS 3u
#define BATCH 50u
#define ROW_BYTES (2 * KV_HEADS * DIM * sizeof(float))
#define WAIT_NS 20000000000

struct party { /* a session with a handle of the cache */
	sparq *c;
	sparq_cache *cache;
	sparq_queue *queue;
	sparq_buf *buf;
	sparq_seq *seq;
};

static const char *socket_path;
static const char *options = "on_disconnect=park evict=lru";
static uint64_t budget;
static int n_parties;
static unsigned parts_most; /* deaths so far */

__attribute__((noreturn, format(printf, 2, 3))) static void die(const struct party *p,
								const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(": %s\n", p && p->c ? sparq_error(p->c) : "");
	exit(1);
}

static void come(struct party *p, const char *cache)
{
	struct sparq_cache_params params = { .size = sizeof(params),
					     .layers = LAYERS,
					     .heads = KV_HEADS,
					     .kv_heads = KV_HEADS,
					     .k_dim = DIM,
					     .v_dim = DIM,
					     .dtype = SPARQ_DTYPE_F32,
					     .k_format = "f32",
					     .policy = "dense",
					     .name = cache,
					     .budget_bytes = budget,
					     .options = options };
	struct sparq_open_params open = { .size = sizeof(open), .arena_bytes = 1 << 17 };

	*p = (struct party){ .c = NULL };
	if (sparq_open(socket_path, &open, &p->c) < 0)
		die(NULL, "open");
	if (sparq_queue_create(p->c, NULL, &p->queue) < 0 ||
	    sparq_buf_alloc(p->c, BATCH * ROW_BYTES, &p->buf) < 0 ||
	    sparq_cache_create(p->c, &params, &p->cache) < 0)
		die(p, "session");
	memset(sparq_buf_data(p->buf, NULL), 0, BATCH * ROW_BYTES);
	n_parties++;
}

static int sessions(void)
{
	char *answer = NULL, *at;
	int n;

	if (sparq_control(NULL, "io.sparqd.Control.Status", NULL, &answer) < 0)
		die(NULL, "status");
	at = strstr(answer, "\"sessions\":");
	n = at ? atoi(at + strlen("\"sessions\":")) : -1;
	free(answer);
	return n;
}

/* Its sequences are parked, and the daemon knows: what happens next comes after. */
static void go(struct party *p)
{
	p->seq = sparq_seq_unref(p->seq);
	p->cache = sparq_cache_unref(p->cache);
	p->buf = sparq_buf_unref(p->buf);
	p->queue = sparq_queue_close(p->queue);
	p->c = sparq_close(p->c);
	n_parties--;
	for (unsigned i = 0; sessions() != n_parties; i++) {
		if (i == 2000)
			die(NULL, "%d sessions, not %d", sessions(), n_parties);
		usleep(1000);
	}
}

static struct sparq_cqe append(struct party *p, uint32_t row, uint16_t layer)
{
	struct sparq_sqe *e = sparq_get_sqe(p->queue);
	struct sparq_cqe *shared, cqe;

	sparq_prep_append(e, sparq_seq_id(p->seq), layer, sparq_buf_addr(p->buf), row, BATCH);
	if (sparq_submit(p->queue, 0) < 0 || sparq_wait(p->queue, &shared, WAIT_NS) < 0)
		die(p, "row %u", row);
	cqe = *shared;
	sparq_seen(p->queue, 1);
	return cqe;
}

/* How many rows fitted; `ret` is the last completion. */
static uint32_t fill(struct party *p, uint32_t from, uint32_t to, struct sparq_cqe *ret)
{
	for (uint32_t row = from; row < to; row += BATCH)
		for (uint16_t layer = 0; layer < LAYERS; layer++) {
			*ret = append(p, row, layer);
			if (ret->res < 0)
				return row;
		}
	return to;
}

static void make(struct party *p, const char *name)
{
	struct sparq_cqe cqe;

	if (sparq_seq_create(p->cache, name, &p->seq) < 0)
		die(p, "sequence %s", name);
	if (fill(p, 0, ROWS, &cqe) < ROWS)
		die(p, "%s: %s: %s", name, strerror(-cqe.res), sparq_reason(cqe.aux >> 16));
}

/* Made in a session of its own, which has ended. */
static void park(const char *cache, const char *name)
{
	struct party p;

	come(&p, cache);
	make(&p, name);
	go(&p);
}

/* Taken up and left again; false: it is gone. */
static bool is_there(const char *cache, const char *name, uint32_t *ret_flags)
{
	struct sparq_seq_stat stat = { .size = sizeof(stat) };
	struct party p;
	int r;

	come(&p, cache);
	r = sparq_seq_attach(p.cache, name, &p.seq);
	if (r < 0 && r != -ENOENT)
		die(&p, "attach %s", name);
	if (r == 0 &&
	    (sparq_seq_stat_get(p.seq, SPARQ_LAYER_ALL, &stat) < 0 || stat.rows_least != ROWS))
		die(&p, "%s has %u rows", name, (unsigned)stat.rows_least);
	if (ret_flags)
		*ret_flags = stat.flags;
	go(&p);
	return r == 0;
}

static void expect(const char *cache, const char *name, bool there)
{
	if (is_there(cache, name, NULL) != there)
		die(NULL, "\"%s\" %s", name, there ? "is gone" : "is still there");
}

/* What a sequence of ROWS rows takes. */
static uint64_t measure(void)
{
	struct sparq_seq_stat stat = { .size = sizeof(stat) };
	struct party p;

	come(&p, "measure");
	make(&p, NULL);
	if (sparq_seq_stat_get(p.seq, SPARQ_LAYER_ALL, &stat) < 0)
		die(&p, "stat");
	go(&p);
	return stat.bytes;
}

/* Four of them, and what lies beyond the mark at which eviction begins. */
static void set_budget(unsigned n)
{
	budget = measure() * n * 20 / 19 + (64 << 10);
}

/* ---- what must hold ---------------------------------------------------------------- */

static void run_lru(void)
{
	sparq_seq *fork[FORKS];
	struct party p;

	set_budget(4);
	park("lru", "a");
	park("lru", "b");
	park("lru", "c");
	park("lru", "d");
	expect("lru", "a", true); /* and it is the newest now */
	park("lru", "e");
	expect("lru", "b", false);
	expect("lru", "c", true);
	expect("lru", "a", true);
	/* A control call makes room as well: a fork of all of it. */
	come(&p, "lru");
	make(&p, "f");
	expect("lru", "d", false);
	for (unsigned i = 0; i < FORKS; i++)
		if (sparq_seq_fork(p.seq, ROWS, &fork[i]) < 0)
			die(&p, "fork %u", i);
	for (unsigned i = 0; i < FORKS; i++)
		sparq_seq_unref(fork[i]);
	go(&p);
}

/* A budget spent to the last byte while both were in use: the step has to wait for its room. */
static void run_wait(void)
{
	struct sparq_cqe cqe;
	struct party idle, p;

	budget = measure() * 2;
	come(&idle, "wait");
	make(&idle, "idle");
	come(&p, "wait");
	make(&p, "used");
	if (fill(&p, ROWS, 2 * ROWS, &cqe) == 2 * ROWS || cqe.res != -ENOSPC)
		die(&p, "there is room");
	go(&idle);
	if (fill(&p, ROWS, ROWS + 2 * BATCH, &cqe) != ROWS + 2 * BATCH)
		die(&p, "%s, %s", strerror(-cqe.res), sparq_reason(cqe.aux >> 16));
	go(&p);
	expect("wait", "idle", false);
}

static void pin(const char *cache, const char *name)
{
	struct party p;

	come(&p, cache);
	if (sparq_seq_attach(p.cache, name, &p.seq) < 0 || sparq_seq_pin(p.seq, 1) < 0)
		die(&p, "pin %s", name);
	go(&p);
}

static void run_stays(void)
{
	struct sparq_cqe cqe;
	struct party used, p;

	set_budget(4);
	park("stays", "pinned");
	pin("stays", "pinned");
	come(&used, "stays");
	make(&used, "used");
	park("stays", "parked");
	come(&p, "stays");
	make(&p, "growing");
	/* Twice what it has: the parked one must go for it, and then nothing is left that may. */
	fill(&p, ROWS, 100 * ROWS, &cqe);
	if (cqe.res != -ENOSPC || cqe.aux >> 16 != SPARQ_REASON_BUDGET)
		die(&p, "%s, %s", strerror(-cqe.res), sparq_reason(cqe.aux >> 16));
	expect("stays", "parked", false);
	expect("stays", "pinned", true);
	printf("refused: %s\n", sparq_reason(cqe.aux >> 16));
	if (fill(&used, ROWS, ROWS + BATCH, &cqe) == ROWS && cqe.res != -ENOSPC)
		die(&used, "the one in use");
	sparq_seq_drop(p.seq);
	p.seq = NULL;
	if (fill(&used, ROWS, 2 * ROWS, &cqe) != 2 * ROWS)
		die(&used, "the one in use, with room");
	sparq_seq_drop(used.seq);
	used.seq = NULL;
	go(&used);
	go(&p);
}

static void run_pinned(void)
{
	uint32_t flags = 0;

	set_budget(4);
	if (!is_there("stays", "pinned", &flags) || !(flags & SPARQ_SEQ_PINNED))
		die(NULL, "\"pinned\" is gone, or not pinned");
	park("stays", "a");
	park("stays", "b");
	park("stays", "c");
	park("stays", "d");
	expect("stays", "pinned", true);
	expect("stays", "a", false);
}

static void run_default(void)
{
	struct sparq_cqe cqe;
	struct party p;

	options = "on_disconnect=park";
	set_budget(2);
	park("default", "a");
	come(&p, "default");
	make(&p, "b");
	fill(&p, ROWS, 100 * ROWS, &cqe);
	if (cqe.res != -ENOSPC || cqe.aux >> 16 != SPARQ_REASON_BUDGET)
		die(&p, "%s, %s", strerror(-cqe.res), sparq_reason(cqe.aux >> 16));
	expect("default", "a", true);
	go(&p);
}

/* The budget is spent by one that is parked and one that grows, in a cache that never evicts. */
static void spend(const char *cache, struct party *p)
{
	struct party idle;

	come(&idle, cache);
	make(&idle, "idle");
	come(p, cache);
	make(p, "used");
	go(&idle);
}

/* There is a spill_dir: who lacks room waits for it, by the ring and by a call, and nothing is
 * lost. */
static void run_spill(void)
{
	struct sparq_cqe cqe;
	struct party p;
	sparq_seq *more;

	options = "on_disconnect=park";
	budget = measure() * 2;
	spend("ring", &p);
	if (fill(&p, ROWS, ROWS + 4 * BATCH, &cqe) != ROWS + 4 * BATCH)
		die(&p, "%s, %s", strerror(-cqe.res), sparq_reason(cqe.aux >> 16));
	if (sparq_seq_drop(p.seq) < 0)
		die(&p, "drop");
	p.seq = NULL;
	expect("ring", "idle", true);
	go(&p);
	spend("call", &p);
	if (sparq_seq_create(p.cache, NULL, &more) < 0)
		die(&p, "create");
	sparq_seq_unref(more);
	if (sparq_seq_drop(p.seq) < 0)
		die(&p, "drop");
	p.seq = NULL;
	expect("call", "idle", true);
	go(&p);
}

/* More than fit, one after the other, and one that is pinned; the daemon may die of it. */
static void run_load(void)
{
	char name[16];

	set_budget(4);
	if (!is_there("load", "pinned", NULL)) {
		park("load", "pinned");
		pin("load", "pinned");
	}
	for (unsigned i = 0; i < 8; i++) {
		struct party p;

		snprintf(name, sizeof(name), "n%u", i);
		come(&p, "load");
		if (sparq_seq_attach(p.cache, name, &p.seq) == 0)
			sparq_seq_drop(p.seq);
		make(&p, name);
		go(&p);
	}
}

/* Each of them is whole or gone, but for those that were written to when the daemon died. */
static void run_check(void)
{
	struct sparq_seq_stat stat = { .size = sizeof(stat) };
	unsigned there = 0, part = 0;
	char name[16] = "pinned";
	struct party p;

	set_budget(4);
	come(&p, "load");
	for (unsigned i = 0; i < 9; i++) {
		int r = sparq_seq_attach(p.cache, name, &p.seq);

		if (r < 0 && r != -ENOENT)
			die(&p, "attach %s", name);
		if (r == 0 && sparq_seq_stat_get(p.seq, SPARQ_LAYER_ALL, &stat) < 0)
			die(&p, "stat %s", name);
		if (i == 0 && (r < 0 || stat.rows_least != ROWS || stat.flags != SPARQ_SEQ_PINNED))
			die(&p, "%u rows of \"pinned\", flags %u", (unsigned)stat.rows_least,
			    stat.flags);
		there += r == 0;
		part += r == 0 && stat.rows_least != ROWS;
		p.seq = r == 0 ? sparq_seq_unref(p.seq) : NULL;
		snprintf(name, sizeof(name), "n%u", i);
	}
	if (part > parts_most || there < 3)
		die(&p, "%u are there, %u in part", there, part);
	go(&p);
}

/* user_bytes is what the daemon was started with: less than a hundred times ROWS. */
static void run_quota(void)
{
	struct sparq_cqe cqe;
	struct party p;

	park("one", "a");
	park("one", "b");
	come(&p, "other");
	make(&p, "growing");
	fill(&p, ROWS, 100 * ROWS, &cqe);
	if (cqe.res != -ENOSPC || cqe.aux >> 16 != SPARQ_REASON_QUOTA)
		die(&p, "%s, %s", strerror(-cqe.res), sparq_reason(cqe.aux >> 16));
	printf("refused: %s\n", sparq_reason(cqe.aux >> 16));
	sparq_seq_drop(p.seq);
	p.seq = NULL;
	go(&p);
	expect("one", "a", false);
	expect("one", "b", false);
}

static const struct {
	const char *name;
	void (*run)(void);
} runs[] = {
	{ "lru", run_lru },       { "wait", run_wait },       { "stays", run_stays },
	{ "pinned", run_pinned }, { "default", run_default }, { "quota", run_quota },
	{ "spill", run_spill },   { "load", run_load },       { "check", run_check },
};

int main(int argc, char **argv)
{
	for (unsigned i = 0; argc >= 3 && i < sizeof(runs) / sizeof(runs[0]); i++)
		if (!strcmp(argv[2], runs[i].name)) {
			socket_path = argv[1];
			parts_most = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
			runs[i].run();
			return 0;
		}
	return 64;
}
