/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A well-behaved client for the system tests: all it sends follows from a seed,
 * so two runs print the same sum of their outputs, or somebody interfered.
 *
 *   probe [options] run      tokens through all layers; prints rows and sum
 *   probe [options] burst    as many entries as the ring takes, then all completions
 *   probe [options] fill     appends until refused, drops the sequence, starts again
 *   probe [options] info     what the pool and this user hold
 *   probe [options] placement   what the cache and a sequence of it say of theirs
 *
 *   --socket PATH  --seed N  --tokens N  --layers N  --policy P  --format F  --name NAME
 *   --pause-us N   between tokens
 *   --die-at N     SIGKILL of itself with an entry of token N in flight
 *   --options TEXT of the cache
 *   --arena BYTES  of the session
 *   --park         the cache keeps sequences whose client went away
 *   --attach       goes on with a kept one, where it stopped
 *   --from N       only outputs from token N on count for the sum
 *   --layer N      only those of this layer do
 *   --head-dim N   channels of a head, 64
 *
 * Exit: 0 done, 1 wrong, 3 the daemon went away (prints which call said so).
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/sparq.h"

#define HEADS 8
#define KV_HEADS 2
#define FILL_ROWS 256
#define WAIT_NS 20000000000

#define ALL_LAYERS UINT32_MAX

enum { GONE = 3 };

struct options {
	const char *socket, *policy, *format, *name, *words;
	uint64_t seed;
	unsigned tokens, layers, pause_us, from, layer, dim;
	size_t arena;
	bool park, attach;
	long die_at; /* -1: never */
};

struct probe {
	struct options opt;
	sparq *c;
	sparq_cache *cache;
	sparq_seq *seq;
	sparq_queue *queue;
	sparq_buf *buf;
	unsigned first; /* token that this process begins with */
	float *q, *kv, *o; /* in the arena: one token's */
	uint64_t q_at, kv_at, o_at;
	uint64_t sum; /* FNV-1a of all outputs */
};

static int lost(int error)
{
	return error == -ENOTCONN || error == -ECONNRESET || error == -EPIPE;
}

/* Says what failed and ends the program. */
__attribute__((noreturn)) static void fail(const struct probe *p, const char *what, int error)
{
	const char *text = p->c ? sparq_error(p->c) : "";

	printf("%s: %s%s%s\n", what, strerror(-error), *text ? ": " : "", text);
	exit(lost(error) ? GONE : 1);
}

static void must(const struct probe *p, const char *what, int result)
{
	if (result < 0)
		fail(p, what, result);
}

static uint64_t splitmix(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static void draw(float *to, size_t n, uint64_t *state)
{
	for (size_t i = 0; i < n; i++)
		to[i] = (float)(int32_t)(splitmix(state) >> 32) / 2147483648.0f;
}

static size_t q_floats(const struct probe *p) /* and of an o */
{
	return (size_t)HEADS * p->opt.dim;
}

static size_t kv_floats(const struct probe *p)
{
	return (size_t)2 * KV_HEADS * p->opt.dim;
}

static void open_session(struct probe *p)
{
	char why[SPARQ_ERROR_TEXT] = "";
	struct sparq_open_params params = {
		.size = sizeof(params),
		.arena_bytes = p->opt.arena ? p->opt.arena : (size_t)p->opt.dim << 14,
		.why = why,
	};
	int r = sparq_open(p->opt.socket, &params, &p->c);

	if (r < 0) {
		printf("open: %s: %s\n", strerror(-r), why);
		exit(lost(r) || r == -ECONNREFUSED ? GONE : 1);
	}
	must(p, "queue", sparq_queue_create(p->c, NULL, &p->queue));
}

static void close_session(struct probe *p)
{
	p->buf = sparq_buf_unref(p->buf);
	p->seq = sparq_seq_unref(p->seq);
	p->cache = sparq_cache_unref(p->cache);
	p->queue = sparq_queue_close(p->queue);
	p->c = sparq_close(p->c);
}

static void open_cache(struct probe *p)
{
	struct sparq_cache_params params = {
		.size = sizeof(params), .layers = p->opt.layers, .heads = HEADS,
		.kv_heads = KV_HEADS, .k_dim = p->opt.dim, .v_dim = p->opt.dim,
		.dtype = SPARQ_DTYPE_F32,
		.k_format = p->opt.format, .policy = p->opt.policy, .name = p->opt.name,
		.options = p->opt.park ? "on_disconnect=park" : p->opt.words,
	};
	struct sparq_seq_stat stat = { .size = sizeof(stat) };

	must(p, "cache", sparq_cache_create(p->c, &params, &p->cache));
	if (!p->opt.attach) {
		must(p, "sequence", sparq_seq_create(p->cache, p->opt.name, &p->seq));
		return;
	}
	must(p, "attach", sparq_seq_attach(p->cache, p->opt.name, &p->seq));
	must(p, "stat", sparq_seq_stat_get(p->seq, SPARQ_LAYER_ALL, &stat));
	p->first = (unsigned)stat.rows_least;
	printf("attached at row %u\n", p->first);
}

static void open_buffers(struct probe *p)
{
	size_t q = q_floats(p), kv = FILL_ROWS * kv_floats(p), o = q;

	must(p, "buffer", sparq_buf_alloc(p->c, (q + kv + o) * sizeof(float), &p->buf));
	p->q = sparq_buf_data(p->buf, NULL);
	p->kv = p->q + q;
	p->o = p->kv + kv;
	p->q_at = sparq_buf_addr(p->buf);
	p->kv_at = p->q_at + q * sizeof(float);
	p->o_at = p->kv_at + kv * sizeof(float);
}

/* Waits for one completion and checks that it is that of `user_data`. */
static struct sparq_cqe take(struct probe *p, uint64_t user_data)
{
	struct sparq_cqe *shared, cqe;

	must(p, "wait", sparq_wait(p->queue, &shared, WAIT_NS));
	cqe = *shared;
	sparq_seen(p->queue, 1);
	if (cqe.user_data != user_data) {
		printf("completion of %lu, expected %lu\n", (unsigned long)cqe.user_data,
		       (unsigned long)user_data);
		exit(1);
	}
	return cqe;
}

static void add_to_sum(struct probe *p)
{
	const uint8_t *byte = (const uint8_t *)p->o;

	for (size_t i = 0; i < q_floats(p) * sizeof(float); i++)
		p->sum = (p->sum ^ byte[i]) * 0x100000001b3;
}

static void step(struct probe *p, unsigned token, unsigned layer)
{
	uint64_t state = p->opt.seed ^ ((uint64_t)token << 20 | layer);
	struct sparq_sqe *sqe = sparq_get_sqe(p->queue);
	struct sparq_cqe cqe;

	if (!sqe)
		fail(p, "get_sqe", -ENOTCONN); /* one entry at a time: never full */
	draw(p->q, q_floats(p), &state);
	draw(p->kv, kv_floats(p), &state);
	memset(p->o, 0xff, q_floats(p) * sizeof(float)); /* NaN: what is not written shows */
	sparq_prep_step(sqe, sparq_seq_id(p->seq), (uint16_t)layer, p->q_at, p->kv_at, p->o_at,
			token, 1, 1);
	sqe->user_data = state;
	if (p->opt.attach) /* the one who died may have got this far */
		sqe->flags = SPARQ_SQE_REPEAT;
	must(p, "submit", sparq_submit(p->queue, 0));
	if ((long)token == p->opt.die_at)
		raise(SIGKILL);
	cqe = take(p, state);
	if (cqe.res < 0)
		fail(p, cqe.aux ? sparq_reason(cqe.aux >> 16) : "completion", cqe.res);
	for (size_t i = 0; i < q_floats(p); i++) {
		if (!isfinite(p->o[i])) {
			printf("token %u layer %u: output %zu is not finite\n", token, layer, i);
			exit(1);
		}
	}
	if (token >= p->opt.from && (p->opt.layer == ALL_LAYERS || p->opt.layer == layer))
		add_to_sum(p);
}

static int run(struct probe *p)
{
	open_cache(p);
	open_buffers(p);
	for (unsigned token = p->first; token < p->opt.tokens; token++) {
		for (unsigned layer = 0; layer < p->opt.layers; layer++)
			step(p, token, layer);
		if (p->opt.pause_us)
			usleep(p->opt.pause_us);
		if (token == p->first) { /* whoever waits for us to be under way */
			printf("started\n");
			fflush(stdout);
		}
	}
	printf("rows %u sum %016lx\n", p->opt.tokens, (unsigned long)p->sum);
	return 0;
}

/* The ring must say when it is full, and answer each entry once. */
static int burst(struct probe *p)
{
	unsigned n = 0, seen = 0;
	struct sparq_sqe *sqe;
	uint8_t *answered;

	while ((sqe = sparq_get_sqe(p->queue)))
		sparq_prep_nop(sqe, n++);
	answered = calloc(n, 1);
	if (!answered || n == 0)
		fail(p, "burst", -ENOMEM);
	must(p, "submit", sparq_submit(p->queue, 0));
	while (seen < n) {
		struct sparq_cqe *cqe;

		must(p, "wait", sparq_wait(p->queue, &cqe, WAIT_NS));
		if (cqe->res < 0)
			fail(p, sparq_reason(cqe->aux >> 16), cqe->res);
		if (cqe->user_data >= n || answered[cqe->user_data]++) {
			printf("entry %lu answered twice\n", (unsigned long)cqe->user_data);
			return 1;
		}
		sparq_seen(p->queue, 1);
		seen++;
	}
	free(answered);
	printf("entries %u\n", n);
	return 0;
}

/* Appends to one layer until refused: how many rows fitted; `ret` says why no more. */
static unsigned append_until_refused(struct probe *p, unsigned limit, struct sparq_cqe *ret)
{
	uint64_t state = p->opt.seed;

	for (unsigned row = 0; row < limit; row += FILL_ROWS) {
		struct sparq_sqe *sqe = sparq_get_sqe(p->queue);

		if (!sqe)
			fail(p, "get_sqe", -ENOTCONN);
		draw(p->kv, FILL_ROWS * kv_floats(p), &state);
		sparq_prep_append(sqe, sparq_seq_id(p->seq), 0, p->kv_at, row, FILL_ROWS);
		sqe->user_data = row;
		must(p, "submit", sparq_submit(p->queue, 0));
		*ret = take(p, row);
		if (ret->res < 0)
			return row;
	}
	return limit;
}

static int fill(struct probe *p)
{
	struct sparq_cqe cqe;
	unsigned rows;

	open_cache(p);
	open_buffers(p);
	rows = append_until_refused(p, 1u << 24, &cqe);
	if (cqe.res >= 0) {
		printf("%u rows fitted, and no end\n", rows);
		return 1;
	}
	printf("full after %u rows: %s: %s\n", rows, strerror(-cqe.res),
	       sparq_reason(cqe.aux >> 16));
	must(p, "drop", sparq_seq_drop(p->seq));
	must(p, "sequence", sparq_seq_create(p->cache, p->opt.name, &p->seq));
	/* What the first one held is free again: half of it must fit at the least. */
	if (append_until_refused(p, rows / 2 / FILL_ROWS * FILL_ROWS, &cqe) <
	    rows / 2 / FILL_ROWS) {
		printf("after the drop: %s\n", sparq_reason(cqe.aux >> 16));
		return 1;
	}
	printf("space is back\n");
	return 0;
}

static int info(struct probe *p)
{
	struct sparq_info i = { .size = sizeof(i) };

	must(p, "info", sparq_info_get(p->c, &i));
	printf("used %lu\ncharged %lu\npool %lu\n", (unsigned long)i.pool_used_bytes,
	       (unsigned long)i.charged_bytes, (unsigned long)i.pool_bytes);
	return 0;
}

static int placement(struct probe *p)
{
	struct sparq_cache_stat cache = { .size = sizeof(cache) };
	struct sparq_seq_stat seq = { .size = sizeof(seq) };

	open_cache(p);
	must(p, "cache", sparq_cache_stat_get(p->cache, &cache));
	must(p, "sequence", sparq_seq_stat_get(p->seq, SPARQ_LAYER_ALL, &seq));
	printf("%u %u\n", cache.placement, seq.placement);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(struct probe *p);
} commands[] = {
	{ "run", run }, { "burst", burst }, { "fill", fill }, { "info", info },
	{ "placement", placement },
};

static const struct option long_options[] = {
	{ "socket", required_argument, NULL, 's' }, { "seed", required_argument, NULL, 'r' },
	{ "tokens", required_argument, NULL, 't' }, { "layers", required_argument, NULL, 'l' },
	{ "policy", required_argument, NULL, 'p' }, { "format", required_argument, NULL, 'f' },
	{ "name", required_argument, NULL, 'n' },   { "pause-us", required_argument, NULL, 'u' },
	{ "die-at", required_argument, NULL, 'd' }, { "park", no_argument, NULL, 'k' },
	{ "attach", no_argument, NULL, 'a' },       { "from", required_argument, NULL, 'm' },
	{ "layer", required_argument, NULL, 'y' },  { "options", required_argument, NULL, 'o' },
	{ "head-dim", required_argument, NULL, 'h' }, { "arena", required_argument, NULL, 'A' },
	{ 0 },
};

static struct options read_options(int argc, char **argv)
{
	struct options o = {
		.seed = 1, .tokens = 300, .layers = 2, .die_at = -1, .layer = ALL_LAYERS,
		.dim = 64,
	};
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 's': o.socket = optarg; break;
		case 'r': o.seed = strtoull(optarg, NULL, 0); break;
		case 't': o.tokens = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'l': o.layers = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'p': o.policy = optarg; break;
		case 'f': o.format = optarg; break;
		case 'n': o.name = optarg; break;
		case 'u': o.pause_us = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'd': o.die_at = strtol(optarg, NULL, 0); break;
		case 'o': o.words = optarg; break;
		case 'A': o.arena = strtoull(optarg, NULL, 0); break;
		case 'k': o.park = true; break;
		case 'a': o.attach = true; break;
		case 'm': o.from = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'y':
			o.layer = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'h': o.dim = (unsigned)strtoul(optarg, NULL, 0); break;
		default: exit(64);
		}
	}
	return o;
}

int main(int argc, char **argv)
{
	struct probe p = { .opt = read_options(argc, argv), .sum = 0xcbf29ce484222325 };

	for (unsigned i = 0; optind < argc && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, argv[optind]) == 0) {
			int r;

			open_session(&p);
			r = commands[i].run(&p);
			close_session(&p);
			return r;
		}
	}
	fprintf(stderr, "usage: probe [options] run|burst|fill|info|placement\n");
	return 64;
}
