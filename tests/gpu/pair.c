/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two caches that are sent the same: one on a device, one without. Whatever happens
 * to their sequences, in an order that follows from the seed, they must answer alike.
 *
 *   pair SOCKET COMMAND [options]
 *
 *   run          all kinds of things; exit 0: alike throughout
 *   make         a pair of caches "on" and "off", each with a sequence of 3000 rows, parked
 *   go-on        attaches to those and attends: alike
 *   until-error  steps on the device until one fails: prints its error and its reason; then rows
 *                that were there must be there, and the other cache must answer
 *   create       a cache on the device; prints what refuses it
 *
 *   --policy P --format F --seed N --ops N --head-dim N --options TEXT --device D
 *   --timeout-us N  deadline of steps
 *   --bound X    how far apart two results may be, of the largest; 0: not at all
 *
 * Exit: 0 as above, 1 not.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/sparq.h"

#define LAYERS 2u
#define HEADS 8u
#define KV_HEADS 2u
#define SEQUENCES 4u
#define MOST_ROWS 4000u
#define MOST_BATCH 300u /* rows of an append */
#define MOST_Q 20u      /* more than 16 are a prompt */
#define WAIT_NS 60000000000

struct options {
	const char *policy, *format, *extra, *device;
	uint64_t seed;
	unsigned ops, dim, timeout_us;
	double bound;
};

struct side {
	sparq_cache *cache;
	sparq_seq *seq[SEQUENCES];
};

static struct options opt = {
	.policy = "sparq", .format = "hier4", .device = "cuda:0", .seed = 1, .ops = 300, .dim = 64
};
static sparq *c;
static sparq_queue *queue;
static sparq_buf *buf;
static char *arena;
static size_t q_bytes, row_bytes; /* of a query, of a row of K and V */
static uint64_t random_state;
static struct side side[2]; /* on the device, and not */
static uint32_t rows[SEQUENCES];
static unsigned compared;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(": %s\n", c ? sparq_error(c) : "");
	exit(1);
}

static uint32_t below(uint32_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((random_state >> 33) % n);
}

static void fill(void *to, size_t bytes, float size)
{
	float *x = to;

	for (size_t i = 0; i < bytes / sizeof(*x); i++)
		x[i] = ((float)below(20001) / 10000 - 1) * size;
}

/* ---- entries ------------------------------------------------------------------------ */

/* Where in the arena: queries, rows, and the results of both sides. */
static char *rows_at(void)
{
	return arena + MOST_Q * SEQUENCES * q_bytes;
}

static char *o_at(unsigned which)
{
	return rows_at() + MOST_BATCH * row_bytes + which * MOST_Q * SEQUENCES * q_bytes;
}

static uint64_t addr(const void *p)
{
	return sparq_buf_addr(buf) + (uint64_t)((const char *)p - arena);
}

static int run(uint32_t *ret_reason)
{
	struct sparq_cqe *cqe;
	int r = sparq_submit(queue, 0);

	if (r < 0)
		die("submit");
	r = sparq_wait(queue, &cqe, WAIT_NS);
	if (r < 0)
		die("wait: %s", strerror(-r));
	r = cqe->res;
	if (ret_reason)
		*ret_reason = cqe->aux >> 16;
	sparq_seen(queue, 1);
	return r;
}

static void must(const char *what)
{
	uint32_t reason;
	int r = run(&reason);

	if (r < 0)
		die("%s: %s, %s", what, strerror(-r), sparq_reason(reason));
}

static void compare(const char *what, uint32_t n_q)
{
	const float *a = (const float *)o_at(0), *b = (const float *)o_at(1);
	double most = 0, size = 0;

	for (size_t i = 0; i < n_q * q_bytes / sizeof(*a); i++) {
		most = fmax(most, fabs((double)a[i] - (double)b[i]));
		size = fmax(size, fabs((double)b[i]));
		if (isnan(a[i]) || isnan(b[i]))
			die("%s: not a number", what);
	}
	compared++;
	if (most > opt.bound * size)
		die("%s, comparison %u: %g apart of %g", what, compared, most, size);
}

/* ---- what may happen ------------------------------------------------------------------ */

static void append(uint32_t i, uint32_t n)
{
	fill(rows_at(), n * row_bytes, 1);
	for (uint16_t layer = 0; layer < LAYERS; layer++)
		for (unsigned k = 0; k < 2; k++) {
			struct sparq_sqe *e = sparq_get_sqe(queue);

			sparq_prep_append(e, sparq_seq_id(side[k].seq[i]), layer, addr(rows_at()),
					  rows[i], (uint16_t)n);
			must("append");
		}
	rows[i] += n;
}

static void step(uint32_t i, uint32_t n_q)
{
	fill(rows_at(), n_q * row_bytes, 1);
	fill(arena, n_q * q_bytes, 2);
	for (uint16_t layer = 0; layer < LAYERS; layer++) {
		for (unsigned k = 0; k < 2; k++) {
			struct sparq_sqe *e = sparq_get_sqe(queue);

			sparq_prep_step(e, sparq_seq_id(side[k].seq[i]), layer, addr(arena),
					addr(rows_at()), addr(o_at(k)), rows[i], (uint16_t)n_q,
					(uint16_t)n_q);
			must("step");
		}
		compare("step", n_q);
	}
	rows[i] += n_q;
}

static void attend(uint32_t i, uint32_t n_q, uint32_t n)
{
	fill(arena, n_q * q_bytes, 2);
	for (uint16_t layer = 0; layer < LAYERS; layer++) {
		for (unsigned k = 0; k < 2; k++) {
			struct sparq_sqe *e = sparq_get_sqe(queue);

			sparq_prep_attend(e, sparq_seq_id(side[k].seq[i]), layer, addr(arena),
					  addr(o_at(k)), n, (uint16_t)n_q);
			must("attend");
		}
		compare("attend", n_q);
	}
}

/* All of them in one entry. */
static void attend_all(void)
{
	struct sparq_item *item = (struct sparq_item *)rows_at();

	fill(arena, SEQUENCES * q_bytes, 2);
	for (unsigned k = 0; k < 2; k++) {
		struct sparq_sqe *e = sparq_get_sqe(queue);
		uint16_t n = 0;

		memset(item, 0, SEQUENCES * sizeof(*item));
		for (uint32_t i = 0; i < SEQUENCES; i++) {
			if (!rows[i])
				continue;
			item[n].sequence = sparq_seq_id(side[k].seq[i]);
			item[n].q = addr(arena + n * q_bytes);
			item[n].o = addr(o_at(k) + n * q_bytes);
			item[n].row = rows[i];
			item[n++].n_q = 1;
		}
		sparq_prep_items(e, SPARQ_OP_ATTEND, 1, addr(item), n);
		must("batch");
	}
	compare("batch", 1);
}

static void cut(uint32_t i, uint32_t n)
{
	for (unsigned k = 0; k < 2; k++) {
		struct sparq_sqe *e = sparq_get_sqe(queue);

		sparq_prep_truncate(e, sparq_seq_id(side[k].seq[i]), SPARQ_LAYER_ALL, n);
		must("truncate");
	}
	rows[i] = n;
}

static void overwrite(uint32_t i, uint32_t row, uint32_t n)
{
	fill(rows_at(), n * row_bytes, 1);
	for (unsigned k = 0; k < 2; k++) {
		struct sparq_sqe *e = sparq_get_sqe(queue);

		sparq_prep_overwrite(e, sparq_seq_id(side[k].seq[i]), 0, addr(rows_at()), row,
				     (uint16_t)n);
		must("overwrite");
	}
}

static void fork_off(uint32_t from, uint32_t to, uint32_t n)
{
	for (unsigned k = 0; k < 2; k++) {
		sparq_seq *child;

		if (sparq_seq_fork(side[k].seq[from], n, &child) < 0)
			die("fork");
		sparq_seq_unref(side[k].seq[to]);
		side[k].seq[to] = child;
	}
	rows[to] = n;
}

static void something(void)
{
	uint32_t what = below(20), i = below(SEQUENCES), room = MOST_ROWS - rows[i];
	uint32_t j = rows[i] ? below(rows[i]) : 0, other = below(SEQUENCES);

	if (what < 4 && room)
		append(i, 1 + below(room < MOST_BATCH ? room : MOST_BATCH));
	else if (what < 9 && room >= MOST_Q)
		step(i, 1 + below(below(4) ? 4 : MOST_Q));
	else if (what < 12 && rows[i])
		attend(i, 1, 1 + below(rows[i]));
	else if (what < 14 && rows[0] + rows[1] + rows[2] + rows[3])
		attend_all();
	else if (what < 16 && rows[i])
		cut(i, rows[i] - below(rows[i] < 400 ? rows[i] : 400));
	else if (what < 18 && rows[i])
		overwrite(i, j, 1 + below(rows[i] - j < 40 ? rows[i] - j : 40));
	else if (what >= 18 && i != other)
		fork_off(i, other, rows[i] ? 1 + j : 0);
}

/* ---- commands -------------------------------------------------------------------------- */

static int create(const char *device, const char *name, const char *options, sparq_cache **ret)
{
	const struct sparq_cache_params p = {
		.size = sizeof(p),
		.layers = LAYERS,
		.heads = HEADS,
		.kv_heads = KV_HEADS,
		.k_dim = opt.dim,
		.v_dim = opt.dim,
		.dtype = SPARQ_DTYPE_F32,
		.k_format = opt.format,
		.policy = opt.policy,
		.device = device,
		.name = name,
		.options = options,
	};

	return sparq_cache_create(c, &p, ret);
}

static void create_both(bool named, const char *options)
{
	for (unsigned k = 0; k < 2; k++)
		if (create(k ? "cpu" : opt.device, named ? (k ? "off" : "on") : NULL, options,
			   &side[k].cache) < 0)
			die("cache %u", k);
}

static void begin(bool named)
{
	for (unsigned k = 0; k < 2; k++)
		for (uint32_t i = 0; i < (named ? 1 : SEQUENCES); i++)
			if (sparq_seq_create(side[k].cache, named ? "s" : NULL, &side[k].seq[i]) <
			    0)
				die("sequence");
}

static int run_all(void)
{
	create_both(false, opt.extra);
	begin(false);
	for (unsigned i = 0; i < opt.ops; i++)
		something();
	printf("alike in %u comparisons\n", compared);
	return compared < opt.ops / 5;
}

static int make(void)
{
	create_both(true, "on_disconnect=park");
	begin(true);
	while (rows[0] < 3000)
		append(0, 250);
	attend(0, 1, rows[0]);
	return 0;
}

static int go_on(void)
{
	create_both(true, "on_disconnect=park");
	for (unsigned k = 0; k < 2; k++)
		if (sparq_seq_attach(side[k].cache, "s", &side[k].seq[0]) < 0)
			die("attach");
	rows[0] = 3000;
	random_state += 99;
	for (unsigned i = 0; i < 20; i++) {
		attend(0, 1, 1 + below(rows[0]));
		step(0, 2);
	}
	cut(0, 3000);
	printf("alike in %u comparisons\n", compared);
	return 0;
}

static int until_error(void)
{
	uint32_t reason;
	int r = 0;

	create_both(false, NULL);
	begin(false);
	append(0, 250);
	append(1, 250);
	fill(arena, q_bytes, 2);
	for (unsigned n = 0; n < 100000 && r >= 0; n++) {
		struct sparq_sqe *e = sparq_get_sqe(queue);

		sparq_prep_step(e, sparq_seq_id(side[0].seq[0]), 0, addr(arena), addr(rows_at()),
				addr(o_at(0)), rows[0], 1, 1);
		e->timeout_us = opt.timeout_us;
		r = run(&reason);
		rows[0] += r >= 0;
	}
	printf("%s, %s\n", strerror(-r), sparq_reason(reason));
	fflush(stdout);
	/* What failed did not happen; what was there is, and goes on. */
	sparq_prep_append(sparq_get_sqe(queue), sparq_seq_id(side[0].seq[0]), 0, addr(rows_at()),
			  rows[0], 1);
	must("append after it");
	sparq_prep_attend(sparq_get_sqe(queue), sparq_seq_id(side[1].seq[1]), 0, addr(arena),
			  addr(o_at(1)), rows[1], 1);
	must("attend without a device");
	return r == 0;
}

static int only_create(void)
{
	sparq_cache *k;
	int r = create(opt.device, NULL, opt.extra, &k);

	printf("%s: %s\n", r < 0 ? strerror(-r) : "created", r < 0 ? sparq_error(c) : "");
	return r < 0;
}

static void names(void)
{
	const char *name;

	for (unsigned i = 0; sparq_name(c, "device", i, &name) >= 0; i++)
		printf("%s\n", name);
}

static void read_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "policy", 1, NULL, 'p' },     { "format", 1, NULL, 'f' },
		{ "seed", 1, NULL, 's' },       { "ops", 1, NULL, 'n' },
		{ "bound", 1, NULL, 'b' },      { "head-dim", 1, NULL, 'd' },
		{ "options", 1, NULL, 'o' },    { "device", 1, NULL, 'D' },
		{ "timeout-us", 1, NULL, 't' }, { 0 },
	};
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) > 0) {
		const char **text = o == 'p'   ? &opt.policy
				    : o == 'f' ? &opt.format
				    : o == 'o' ? &opt.extra
				    : o == 'D' ? &opt.device
					       : NULL;
		unsigned *number = o == 'n' ? &opt.ops : o == 'd' ? &opt.dim : &opt.timeout_us;

		if (o == '?')
			exit(64);
		if (text)
			*text = optarg;
		else if (o == 's')
			opt.seed = strtoull(optarg, NULL, 10);
		else if (o == 'b')
			opt.bound = strtod(optarg, NULL);
		else
			*number = (unsigned)atoi(optarg);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(void);
	} commands[] = {
		{ "run", run_all },        { "make", make },
		{ "go-on", go_on },        { "until-error", until_error },
		{ "create", only_create },
	};

	read_options(argc, argv);
	if (argc - optind != 2)
		return 64;
	random_state = opt.seed;
	q_bytes = HEADS * opt.dim * sizeof(float);
	row_bytes = 2 * KV_HEADS * opt.dim * sizeof(float);
	if (sparq_open(argv[optind], NULL, &c) < 0 || sparq_queue_create(c, NULL, &queue) < 0 ||
	    sparq_buf_alloc(c, MOST_BATCH * row_bytes + 3 * MOST_Q * SEQUENCES * q_bytes, &buf) < 0)
		die("session");
	arena = sparq_buf_data(buf, NULL);
	if (!strcmp(argv[optind + 1], "names"))
		names();
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(argv[optind + 1], commands[i].name))
			return commands[i].run();
	return 0;
}
