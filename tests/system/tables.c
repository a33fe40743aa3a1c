/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two caches that are sent the same rows, one with channel tables: they must
 * answer alike, whatever happens to their sequences. With rows of which a few
 * channels are wide, outliers must come closer to a cache that does not quantise.
 *
 *   tables SOCKET POLICY HEAD-DIM
 *
 * Exit: 0 they did, 1 they did not.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/sparq.h"

#define LAYERS 2u
#define HEADS 4u
#define KV_HEADS 2u
#define MOST_DIM 256u
#define ROWS 1500u
#define BATCH 100u
#define N_WIDE 3u
#define WAIT_NS 20000000000

static const uint8_t wide[N_WIDE] = { 5, 31, 60 };

struct side { /* a cache and what lies in it */
	sparq_cache *cache;
	sparq_seq *seq;
	float o[HEADS * MOST_DIM];
};

static sparq *c;
static sparq_queue *queue;
static sparq_buf *buf;
static const char *policy;
static uint32_t dim, row_floats; /* of a head; of K and V of all heads */
static float rows[ROWS * 2 * KV_HEADS * MOST_DIM];
static uint32_t order[MOST_DIM]; /* of channels, shuffled */

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(": %s\n", c ? sparq_error(c) : "");
	exit(1);
}

static float uniform(uint64_t *state) /* -1 .. 1 */
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(*state >> 11) / (double)(1ull << 52) - 1.0);
}

static void make_rows(float widen)
{
	uint64_t random = 3;

	for (size_t i = 0; i < ROWS * row_floats; i++)
		rows[i] = uniform(&random);
	for (size_t i = 0; i < ROWS * KV_HEADS * N_WIDE; i++)
		rows[i / (KV_HEADS * N_WIDE) * row_floats + i / N_WIDE % KV_HEADS * dim +
		     wide[i % N_WIDE]] *= widen;
	for (uint32_t i = 0; i < dim; i++) {
		uint32_t j = (uint32_t)((uniform(&random) + 1) / 2 * (float)i);

		order[i] = order[j];
		order[j] = i;
	}
}

/* ---- caches -------------------------------------------------------------------- */

static sparq_cache *create(sparq *session, const char *name, const char *format,
			   const char *options)
{
	struct sparq_cache_params p = { .size = sizeof(p),
					.layers = LAYERS,
					.heads = HEADS,
					.kv_heads = KV_HEADS,
					.k_dim = dim,
					.v_dim = dim,
					.dtype = SPARQ_DTYPE_F32,
					.k_format = format,
					.policy = policy,
					.name = name,
					.options = options };
	sparq_cache *k;

	if (sparq_cache_create(session, &p, &k) < 0)
		die("cache");
	return k;
}

/* Another order for each; the wide channels first if they are to be outliers. */
static int load(sparq_cache *k, uint32_t layer, uint32_t head, uint32_t n_outliers)
{
	uint8_t k_channels[MOST_DIM], v_channels[MOST_DIM];
	struct sparq_cache_table_params t = { .size = sizeof(t),
					      .layer = layer,
					      .kv_head = head,
					      .n_outliers = n_outliers,
					      .n_k = dim,
					      .n_v = dim,
					      .k_channels = k_channels,
					      .v_channels = v_channels };
	uint32_t n = n_outliers, turn = 7 * layer + 3 * head;

	memcpy(k_channels, wide, n_outliers);
	for (uint32_t i = 0; i < dim; i++) {
		uint8_t channel = (uint8_t)order[(i + turn) % dim];

		v_channels[i] = (uint8_t)order[(dim - i + turn) % dim];
		if (!memchr(wide, channel, n_outliers))
			k_channels[n++] = channel;
	}
	return sparq_cache_table(k, &t);
}

static void load_all(sparq_cache *k, uint32_t n_outliers)
{
	for (uint32_t layer = 0; layer < LAYERS; layer++)
		for (uint32_t head = 0; head < KV_HEADS; head++)
			if (load(k, layer, head, n_outliers) < 0)
				die("table of layer %u, head %u", layer, head);
}

static void begin(struct side *s)
{
	if (sparq_seq_create(s->cache, NULL, &s->seq) < 0)
		die("sequence");
}

static void end(struct side *s)
{
	s->seq = sparq_seq_unref(s->seq);
	s->cache = sparq_cache_unref(s->cache);
}

/* ---- steps ---------------------------------------------------------------------- */

static void run(void)
{
	struct sparq_cqe *cqe;
	int r;

	r = sparq_submit(queue, 0);
	if (r < 0 || sparq_wait(queue, &cqe, WAIT_NS) < 0)
		die("submit");
	if (cqe->res < 0)
		die("%s, %s", strerror(-cqe->res), sparq_reason(cqe->aux >> 16));
	sparq_seen(queue, 1);
}

static void append(struct side *s, uint32_t from, uint32_t to)
{
	float *kv = sparq_buf_data(buf, NULL);

	for (uint32_t row = from; row < to; row += BATCH)
		for (uint16_t layer = 0; layer < LAYERS; layer++) {
			struct sparq_sqe *e = sparq_get_sqe(queue);
			uint32_t n = to - row < BATCH ? to - row : BATCH;

			memcpy(kv, rows + (size_t)row * row_floats, n * row_floats * sizeof(*kv));
			sparq_prep_append(e, sparq_seq_id(s->seq), layer, sparq_buf_addr(buf), row,
					  (uint16_t)n);
			run();
		}
}

/* One query over the first n rows of a layer. */
static void attend(struct side *s, uint16_t layer, uint32_t n, float heat)
{
	float *q = sparq_buf_data(buf, NULL);
	struct sparq_sqe *e = sparq_get_sqe(queue);
	uint64_t random = n * 31 + layer, at = sparq_buf_addr(buf);

	for (uint32_t i = 0; i < HEADS * dim; i++)
		q[i] = uniform(&random) * heat;
	sparq_prep_attend(e, sparq_seq_id(s->seq), layer, at, at + HEADS * dim * sizeof(*q), n, 1);
	run();
	memcpy(s->o, q + HEADS * dim, HEADS * dim * sizeof(*s->o));
}

static double distance(const struct side *a, const struct side *b)
{
	double most = 0, size = 0;

	for (uint32_t i = 0; i < HEADS * dim; i++) {
		most = fmax(most, fabs((double)a->o[i] - (double)b->o[i]));
		size = fmax(size, fabs((double)b->o[i]));
	}
	return size > 0 && isfinite(most) ? most / size : INFINITY;
}

/* Sums are taken in another order: alike, not equal. */
static void compare(struct side *with, struct side *without, uint32_t n, const char *what)
{
	for (uint16_t layer = 0; layer < LAYERS; layer++) {
		attend(with, layer, n, 2);
		attend(without, layer, n, 2);
		if (distance(with, without) > 1e-5)
			die("%s, %u rows, layer %u: %g apart", what, n, layer,
			    distance(with, without));
	}
}

static void fork_off(struct side *s, uint32_t n)
{
	sparq_seq *child;

	if (sparq_seq_fork(s->seq, n, &child) < 0)
		die("fork");
	sparq_seq_unref(s->seq);
	s->seq = child;
}

/* ---- what must hold --------------------------------------------------------------- */

static void check_alike(const char *format)
{
	struct side with = { .cache = create(c, NULL, format, "outliers=2") };
	struct side without = { .cache = create(c, NULL, format, NULL) },
		    *both[] = { &with, &without };

	make_rows(1);
	load_all(with.cache, 0);
	for (unsigned i = 0; i < 2; i++) {
		begin(both[i]);
		append(both[i], 0, 1200);
	}
	compare(&with, &without, 10, "sinks");
	compare(&with, &without, 1200, "appended");
	for (unsigned i = 0; i < 2; i++)
		fork_off(both[i], 777);
	compare(&with, &without, 777, "forked");
	for (unsigned i = 0; i < 2; i++)
		append(both[i], 777, ROWS);
	compare(&with, &without, ROWS, "grown again");
	for (unsigned i = 0; i < 2; i++)
		if (sparq_seq_truncate(both[i]->seq, 555) < 0)
			die("truncate");
	compare(&with, &without, 555, "truncated");
	for (unsigned i = 0; i < 2; i++)
		end(both[i]);
}

static double error_of(const char *format, uint32_t n_outliers, const struct side *exact)
{
	struct side s = { .cache = create(c, NULL, format, "outliers=3") };
	double error;

	if (n_outliers)
		load_all(s.cache, n_outliers);
	begin(&s);
	append(&s, 0, ROWS);
	attend(&s, 1, ROWS, 0.1f);
	error = distance(&s, exact);
	end(&s);
	return error;
}

static void check_outliers(void)
{
	struct side exact = { .cache = create(c, NULL, "f32", NULL) };
	double without, with;

	make_rows(300);
	begin(&exact);
	append(&exact, 0, ROWS);
	attend(&exact, 1, ROWS, 0.1f);
	without = error_of("int4", 0, &exact);
	with = error_of("int4", N_WIDE, &exact);
	end(&exact);
	printf("%s: error of int4 %.3g, with outliers %.3g\n", policy, without, with);
	if (!(with < without))
		die("outliers did not help");
}

static void expect(int r, int want, const char *text)
{
	if (r != want || !strstr(sparq_error(c), text))
		die("%d instead of %d, \"%s\"", r, want, text);
}

static void check_refused(const char *socket)
{
	sparq_cache *k = create(c, "tables", "hier4", "outliers=2"), *other;
	sparq *mine = c;
	sparq_seq *seq;

	expect(load(k, 2, 0, 0), -EINVAL, "layer 2: the cache has 2");
	expect(load(k, 0, 2, 0), -EINVAL, "kv_head 2: the cache has 2");
	expect(load(k, 0, 0, 3), -EINVAL, "n_outliers=3: the cache was made with room");
	if (sparq_open(socket, NULL, &c) < 0)
		die("open");
	other = create(c, "tables", "hier4", "outliers=2");
	expect(load(other, 0, 0, 0), -EPERM, "only the session that made it");
	sparq_cache_unref(other);
	sparq_close(c);
	c = mine;
	if (load(k, 0, 0, 2) < 0 || sparq_seq_create(k, NULL, &seq) < 0)
		die("after the refusals");
	expect(load(k, 1, 1, 0), -EBUSY, "table of layer 1, KV head 1: the cache has sequences");
	sparq_seq_unref(seq);
	sparq_cache_unref(k);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 64;
	policy = argv[2];
	dim = (uint32_t)strtoul(argv[3], NULL, 10);
	row_floats = 2 * KV_HEADS * dim;
	if (dim < 64 || dim > MOST_DIM) /* `wide` are below 64 */
		return 64;
	if (sparq_open(argv[1], NULL, &c) < 0 || sparq_queue_create(c, NULL, &queue) < 0 ||
	    sparq_buf_alloc(c, BATCH * row_floats * sizeof(float), &buf) < 0)
		die("session");
	check_alike("hier4");
	check_alike("int8,f16:1");
	check_outliers();
	check_refused(argv[1]);
	sparq_buf_unref(buf);
	sparq_queue_close(queue);
	sparq_close(c);
	return 0;
}
