/* SPDX-License-Identifier: Apache-2.0 */
/* sparq-bench: the figures of the README. One command a file. */
#include "tests/bench/bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"
#include "shm/base.h"

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{ "append", bench_append, "a row appended to a growing sequence, its flush included" },
	{ "attend", bench_attend,
	  "attention of one decoding step, cold, against memory bandwidth" },
	{ "device", bench_device, "attention on a GPU, against a copy within its memory" },
	{ "fork", bench_fork, "a sequence that begins with the rows of a long one" },
	{ "overwrite", bench_overwrite, "rows changed in place, against a cut and all rows again" },
	{ "ring", bench_ring, "a NOP through a daemon, against a cache line between two threads" },
	{ "spill", bench_spill, "a sequence to a file and back, and steps of others meanwhile" },
};

int bench_isa(const char *command, const char *isa)
{
	if (kv_isa_limit(isa) == 0)
		return 0;
	fprintf(stderr, "sparq-bench: %s: --isa \"%s\": this CPU and build have", command, isa);
	for (unsigned i = 0; kv_isa_at(i); i++)
		fprintf(stderr, " %s", kv_isa_at(i));
	fputc('\n', stderr);
	return 2;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(double *sample, unsigned n)
{
	qsort(sample, n, sizeof(*sample), compare_doubles);
	return sample[n / 2];
}

double bench_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int bench_fail(int error, const char *format, ...)
{
	va_list args;

	fputs("sparq-bench: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, ": %s\n", strerror(-error));
	return 1;
}

static void usage(FILE *to)
{
	fputs("usage: sparq-bench COMMAND [OPTION]...\n", to);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].help);
	fputs("COMMAND --help lists its options; --device cuda:N alone is \"device\" with it.\n",
	      to);
}

int main(int argc, char **argv)
{
	if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		usage(argc < 2 ? stderr : stdout);
		return argc < 2 ? 2 : 0;
	}
	/* "sparq-bench --device cuda:0" is all that there is of that device. */
	if (!strncmp(argv[1], "--device", 8)) {
		static char name[] = "device";

		argv[0] = name;
		return bench_device(argc, argv);
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	fprintf(stderr, "sparq-bench: no command \"%s\"\n", argv[1]);
	usage(stderr);
	return 2;
}
