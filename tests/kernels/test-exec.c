/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The executor against double precision, over random shapes: formats, ISAs,
 * dimensions, rows, groups, queries, sinks, policies and their parameters,
 * histories with cuts. All randomness comes from one seed, which a failure
 * prints with the shape.
 *
 *   test-exec [--isa ISA] [--seed N] [--shapes N]
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/kernels/exec-check.h"

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint32_t below(uint64_t *state, uint32_t n)
{
	return (uint32_t)(next_random(state) % n);
}

#define PICK(state, array) (array)[below(state, ARRAY_SIZE(array))]

static void add_set(struct shape *x, const char *key, const char *value)
{
	size_t used = strlen(x->sets);

	snprintf(x->sets + used, sizeof(x->sets) - used, "%s=%s ", key, value);
}

static void pick_policy(struct shape *x, uint64_t *random)
{
	static const char *const policy[] = {
		"sparq", "sparq", "sparq", "sparq", "dense", "window"
	};
	static const char *const r[] = { "1", "8", "16", "31", "32", "64" };
	static const char *const k[] = { "1", "4", "64", "128", "500" };
	static const char *const rule[] = { "softmax", "softmax", "logits" };
	static const char *const mean[] = { "auto", "off", "all", "rest" };
	static const char *const tail[] = { "all", "select" };
	static const char *const recent[] = { "1", "100", "5000" };

	x->policy = PICK(random, policy);
	if (!strcmp(x->policy, "window"))
		add_set(x, "recent", PICK(random, recent));
	if (strcmp(x->policy, "sparq"))
		return;
	add_set(x, "r", PICK(random, r));
	add_set(x, "k", PICK(random, k));
	if (below(random, 3) == 0)
		add_set(x, "l", "0");
	add_set(x, "group_rule", PICK(random, rule));
	add_set(x, "mean", PICK(random, mean));
	add_set(x, "tail", PICK(random, tail));
	add_set(x, "dense_below", below(random, 8) ? "0" : "2048");
}

static const char *pick_format(uint64_t *random)
{
	unsigned n = 0;

	while (kv_format_at(n))
		n++;
	return kv_format_at(below(random, n));
}

static struct shape pick_shape(uint64_t *random)
{
	static const uint32_t dim[] = { 64, 80, 96, 112, 128, 192, 256 };
	static const uint32_t rows[] = { 0, 1, 127, 128, 129, 1023, 1025, 4097 };
	static const uint32_t group[] = { 1, 1, 2, 3, 4, 5, 6, 7, 8, 16 };
	static const uint32_t n_q[] = { 1, 1, 1, 3, 16, 17, 100 };
	static const uint32_t sinks[] = { 0, 16 }, rollback[] = { 0, 16, 128 };
	struct shape x = { .random = next_random(random) };

	x.dim = PICK(random, dim);
	x.rows = below(random, 3) ? PICK(random, rows) : 1 + 2 * below(random, 1000);
	x.group = PICK(random, group);
	x.n_q = PICK(random, n_q);
	x.sinks = PICK(random, sinks);
	x.rollback = PICK(random, rollback);
	x.dtype = (enum kv_dtype)below(random, 3);
	x.k_format = pick_format(random);
	x.v_format = below(random, 4) ? x.k_format : pick_format(random);
	x.cut = below(random, 3) == 0;
	x.settled = below(random, 3) == 0;
	x.full = below(random, 8) == 0;
	x.draft = below(random, 8) == 0;
	x.ordered = below(random, 3) == 0;
	x.outliers = below(random, 2) ? 0 : below(random, KV_MAX_OUTLIERS + 1);
	pick_policy(&x, random);
	return x;
}

/* Multiply-adds of the reference: shapes beyond this are worth less than their time. */
static bool too_large(const struct shape *x)
{
	return (uint64_t)x->rows * x->dim * x->group * x->n_q > 20000000;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "isa", required_argument, NULL, 'i' },
		{ "seed", required_argument, NULL, 's' },
		{ "shapes", required_argument, NULL, 'n' },
		{ 0 },
	};
	uint64_t random = 1;
	unsigned shapes = 100, failed = 0, done = 0;
	const char *isa = NULL;

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
		if (c == 'i')
			isa = optarg;
		else if (c == 's')
			random = strtoull(optarg, NULL, 0);
		else if (c == 'n')
			shapes = (unsigned)strtoul(optarg, NULL, 0);
		else
			return 2;
	if (kv_isa_limit(isa)) {
		printf("this CPU lacks %s\n", isa);
		return 77;
	}
	kv_thread_init(); /* as workers do */
	while (done < shapes) {
		struct shape x = pick_shape(&random);

		if (too_large(&x))
			continue;
		failed += !exec_check(&x);
		done++;
	}
	printf("%s: %u shapes, %u failed\n", kv_isa_name(), done, failed);
	return failed > 0;
}
