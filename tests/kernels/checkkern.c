/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every row of the kernel table against the reference: see checkkern.h.
 *
 *   checkkern [--isa ISA] [--format FORMAT] [--seed N] [--golden FILE]
 *   checkkern --random CASES ...    calls of chance, so many for each ISA
 *   checkkern --control ...         rows that are wrong on purpose must fail
 *   checkkern --bench ...           times of the stages
 *
 * A failure prints a seed. With --isa, --format and --random 16 it begins with
 * that case again.
 */
#include "tests/kernels/checkkern.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "shm/base.h"

#define GUARD_BYTE 0xa5

static char case_text[200]; /* what a crash handler can still print */

struct guarded guarded_new(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), body = ALIGN_UP(size, page);
	struct guarded g = { .size = size, .map_size = body + 2 * page };
	char *end;

	g.map = mmap(NULL, g.map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (g.map == MAP_FAILED)
		abort();
	end = (char *)g.map + page + body;
	memset(g.map, GUARD_BYTE, page + body);
	if (mprotect(end, page, PROT_NONE) < 0)
		abort();
	g.data = end - size;
	return g;
}

void guarded_free(struct guarded *g)
{
	if (g->map)
		munmap(g->map, g->map_size);
	*g = (struct guarded){ 0 };
}

bool guarded_intact(const struct guarded *g)
{
	const uint8_t *p = g->map;

	for (; p < (const uint8_t *)g->data; p++)
		if (*p != GUARD_BYTE)
			return false;
	return true;
}

uint64_t check_random(struct check *c)
{
	uint64_t z = c->random += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

uint32_t check_below(struct check *c, uint32_t n)
{
	return (uint32_t)(check_random(c) % n);
}

float check_unit(struct check *c)
{
	return (float)((double)(int64_t)check_random(c) * 0x1p-63);
}

float check_normal(struct check *c)
{
	float sum = 0;

	for (unsigned i = 0; i < 4; i++)
		sum += check_unit(c);
	return sum * 0.866f;
}

void check_case(struct check *c, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(case_text, sizeof(case_text), format, ap);
	va_end(ap);
}

static void report(struct check *c, const char *what)
{
	if (c->failed++ < 20 && !c->quiet)
		printf("FAIL %s: %s (--seed %llu)", case_text, what, (unsigned long long)c->seed);
}

bool check_near(struct check *c, const char *what, double got, double want, double bound)
{
	c->done++;
	if (got == want || fabs(got - want) <= bound)
		return true;
	report(c, what);
	if (c->failed <= 20 && !c->quiet)
		printf(": %.9g, not %.9g within %.3g\n", got, want, bound);
	return false;
}

bool check_true(struct check *c, const char *what, bool held)
{
	c->done++;
	if (held)
		return true;
	report(c, what);
	if (c->failed <= 20 && !c->quiet)
		printf("\n");
	return false;
}

bool check_enough(const struct check *c)
{
	return c->quiet && c->failed;
}

/* A touched guard page ends the run with the case's name. */
static void on_fault(int number)
{
	ssize_t rc = write(STDOUT_FILENO, "FAULT ", 6);

	rc = write(STDOUT_FILENO, case_text, strlen(case_text));
	rc = write(STDOUT_FILENO, "\n", 1);
	(void)rc;
	_exit(1);
}

static bool wanted(const char *filter, const char *name)
{
	return !filter || !strcmp(filter, name);
}

static const struct kv_kernels *row_of(const char *format, const char *isa)
{
	const struct kv_kernels *k;

	for (unsigned i = 0; (k = kv_kernels_at(i)); i++)
		if (!strcmp(k->format, format) && !strcmp(k->isa, isa))
			return k;
	return NULL;
}

static const struct kv_ops *ops_of(const char *isa)
{
	const struct kv_ops *o;

	for (unsigned i = 0; (o = kv_ops_at(i)); i++)
		if (!strcmp(o->isa, isa))
			return o;
	return NULL;
}

/* Three quarters of the cases over the formats, a quarter for what has none. */
static void check_by_chance(struct check *c, uint64_t cases)
{
	const struct kv_kernels *k;
	const struct kv_ops *o;
	unsigned formats = 0;

	while (kv_format_at(formats))
		formats++;
	for (unsigned i = 0; (o = kv_ops_at(i)); i++)
		if (wanted(c->isa, o->isa) && kv_isa_usable(o->isa) && !c->format)
			check_random_cases(c, NULL, o, cases / 4);
	for (unsigned i = 0; (k = kv_kernels_at(i)); i++)
		if (wanted(c->isa, k->isa) && wanted(c->format, k->format) && kv_isa_usable(k->isa))
			check_random_cases(c, k, NULL, DIV_UP(cases * 3 / 4, formats));
}

static void check_all(struct check *c, const char *golden, bool control)
{
	const struct kv_kernels *k;
	const struct kv_ops *o;

	for (unsigned i = 0; (o = kv_ops_at(i)); i++) {
		if (control || !wanted(c->isa, o->isa) || !kv_isa_usable(o->isa))
			continue;
		c->random = c->seed;
		check_ops(c, o);
		check_golden_ops(c, o, golden);
	}
	for (unsigned i = 0; (k = kv_kernels_at(i)); i++) {
		if (!wanted(c->isa, k->isa) || !wanted(c->format, k->format) ||
		    !kv_isa_usable(k->isa))
			continue;
		c->random = c->seed;
		if (control) {
			check_control(c, k, ops_of(k->isa));
		} else {
			check_rows(c, k);
			check_golden_rows(c, k, golden);
		}
	}
	check_cpu(c);
}

static void bench_all(const struct check *c)
{
	const struct kv_kernels *k;
	const struct kv_ops *o;

	for (unsigned i = 0; (k = kv_kernels_at(i)); i++)
		if (wanted(c->isa, k->isa) && wanted(c->format, k->format) && kv_isa_usable(k->isa))
			bench_rows(k, row_of(k->format, "scalar"));
	for (unsigned i = 0; (o = kv_ops_at(i)); i++)
		if (wanted(c->isa, o->isa) && kv_isa_usable(o->isa))
			bench_ops(o, ops_of("scalar"));
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", 1, NULL, 's' },   { "isa", 1, NULL, 'i' },
		{ "format", 1, NULL, 'f' }, { "bench", 0, NULL, 'b' },
		{ "golden", 1, NULL, 'g' }, { "control", 0, NULL, 'c' },
		{ "random", 1, NULL, 'r' }, { 0 },
	};
	struct check c = { .seed = (uint64_t)time(NULL) };
	const char *golden = "golden.json";
	bool bench = false, control = false;
	uint64_t cases = 0;

	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (o) {
		case 's':
			c.seed = strtoull(optarg, NULL, 0);
			break;
		case 'i':
			c.isa = optarg;
			break;
		case 'f':
			c.format = optarg;
			break;
		case 'b':
			bench = true;
			break;
		case 'g':
			golden = optarg;
			break;
		case 'c':
			control = true;
			break;
		case 'r':
			cases = strtoull(optarg, NULL, 0);
			break;
		default:
			return 2;
		}
	}
	if (c.isa && !kv_isa_usable(c.isa)) {
		printf("this CPU has no %s\n", c.isa);
		return 77;
	}
	kv_thread_init(); /* as the workers run them */
	if (bench) {
		bench_all(&c);
		return 0;
	}
	signal(SIGSEGV, on_fault);
	signal(SIGBUS, on_fault);
	printf("seed %llu\n", (unsigned long long)c.seed);
	if (cases)
		check_by_chance(&c, cases);
	else
		check_all(&c, golden, control);
	printf("%llu checks, %llu failed\n", (unsigned long long)c.done,
	       (unsigned long long)c.failed);
	return c.failed ? 1 : c.done ? 0 : 2;
}
