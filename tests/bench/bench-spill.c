/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparq-bench spill: how fast a parked sequence goes to a file and comes back,
 * against dd past the page cache on the same disk within the same seconds; and what
 * that costs the steps of somebody else.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "shm/base.h"
#include "tests/bench/bench.h"
#include "tests/bench/option.h"
#include "tests/bench/spill.h"

extern char **environ;

/* ---- dd ------------------------------------------------------------------------------- */

static int run(const char *const *argv)
{
	posix_spawn_file_actions_t quiet;
	int status, e;
	pid_t pid;

	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	e = posix_spawnp(&pid, argv[0], &quiet, NULL, (char *const *)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&quiet);
	if (e)
		return -e;
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

/* As many MiB there, and back; GB/s. */
static int run_dd(const struct spill_options *o, double *ret_out, double *ret_in)
{
	char to[220], from[220], count[32];
	const char *const out[] = { "dd",  "if=/dev/zero", to,           "bs=1M",
				    count, "oflag=direct", "conv=fsync", NULL };
	const char *const in[] = { "dd", from, "of=/dev/null", "bs=1M", "iflag=direct", NULL };
	double begin = bench_now_ns(), half;
	int e;

	snprintf(to, sizeof(to), "of=%s/dd.tmp", o->directory);
	snprintf(from, sizeof(from), "if=%s/dd.tmp", o->directory);
	snprintf(count, sizeof(count), "count=%u", o->mebibytes);
	e = run(out);
	half = bench_now_ns();
	if (e == 0)
		e = run(in);
	*ret_out = o->mebibytes * (double)MIB / (half - begin);
	*ret_in = o->mebibytes * (double)MIB / (bench_now_ns() - half);
	unlink(to + strlen("of="));
	return e;
}

/* ---- output ---------------------------------------------------------------------------- */

static const char *const classes[SPILL_CLASSES] = { "alone", "beside_spill", "beside_load" };

static double at(struct spill_steps *s, double part)
{
	return s->us[MIN((unsigned)(part * s->n), s->n - 1)];
}

static void print_rate(const char *name, double *rate, unsigned n)
{
	double median = bench_median(rate, n);

	printf("%-13s %7.2f %7.2f %7.2f\n", name, median, rate[0], rate[n - 1]);
}

static void print(const struct spill_options *o, struct spill_figures *f, double *dd_out,
		  double *dd_in)
{
	printf("a file of %.1f MiB, %u pieces of 1 MiB under way, %u rounds; GB/s\n"
	       "%-13s %7s %7s %7s\n",
	       (double)f->file_bytes / (double)MIB, o->depth, f->n, "", "median", "least", "most");
	print_rate("spill", f->out, f->n);
	print_rate("dd, writing", dd_out, f->n);
	print_rate("load", f->in, f->n);
	print_rate("dd, reading", dd_in, f->n);
	printf("\nsteps of another session, dense f16, %u rows; us\n%-13s %7s %8s %8s %8s %8s\n",
	       o->rows, "", "steps", "median", "p99", "p99.9", "most");
	for (unsigned i = 0; i < SPILL_CLASSES; i++) {
		struct spill_steps *s = &f->steps[i];

		if (!s->n)
			continue;
		bench_median(s->us, s->n);
		printf("%-13s %7u %8.1f %8.1f %8.1f %8.1f\n", classes[i], s->n, at(s, 0.5),
		       at(s, 0.99), at(s, 0.999), s->us[s->n - 1]);
	}
}

static void add(json_object *j, const char *name, double value)
{
	json_object_object_add(j, name, json_object_new_double(value));
}

static void print_json(struct spill_figures *f, double *dd_out, double *dd_in)
{
	json_object *j = json_object_new_object();
	char name[64];

	add(j, "file_bytes", (double)f->file_bytes);
	add(j, "spill_gb_s", bench_median(f->out, f->n));
	add(j, "dd_write_gb_s", bench_median(dd_out, f->n));
	add(j, "load_gb_s", bench_median(f->in, f->n));
	add(j, "dd_read_gb_s", bench_median(dd_in, f->n));
	for (unsigned i = 0; i < SPILL_CLASSES; i++) {
		struct spill_steps *s = &f->steps[i];

		if (!s->n)
			continue;
		snprintf(name, sizeof(name), "step_%s_us", classes[i]);
		add(j, name, bench_median(s->us, s->n));
		snprintf(name, sizeof(name), "step_%s_p99_us", classes[i]);
		add(j, name, at(s, 0.99));
	}
	puts(json_object_to_json_string_ext(j, JSON_C_TO_STRING_PRETTY));
	json_object_put(j);
}

/* ---- all of it -------------------------------------------------------------------------- */

#define AT(field) offsetof(struct spill_options, field)
static const struct bench_option table[] = {
	{ "directory", BENCH_TEXT, AT(directory), 0, 0, "PATH", "on the disk, /var/tmp" },
	{ "size", BENCH_NUMBER, AT(mebibytes), 4, 1u << 20, "MIB", "of the sequence, 1024" },
	{ "rounds", BENCH_NUMBER, AT(rounds), 1, 1000, "N", "there and back, 5" },
	{ "depth", BENCH_NUMBER, AT(depth), 1, 64, "N", "pieces under way, 4" },
	{ "rows", BENCH_NUMBER, AT(rows), 1, 1u << 20, "N", "of the other's steps, 4096" },
	{ "seconds", BENCH_SECONDS, AT(seconds), 0, 0, "S", "of a round at least, 2" },
	{ "daemon", BENCH_TEXT, AT(daemon), 0, 0, "PROGRAM", "another sparqd than this build's" },
	{ "json", BENCH_SWITCH, AT(json), 0, 0, NULL, "for programs" },
};

static int measure(const struct spill_options *o, struct spill_figures *f, double *dd_out,
		   double *dd_in)
{
	struct spill_remote *r = NULL;
	int e = spill_remote_start(o, &r);

	for (unsigned i = 0; i < o->rounds && e == 0; i++) {
		e = spill_remote_out(r, f, &f->out[i]);
		/* Now there is nothing to be spilled meanwhile. */
		if (e == 0)
			e = run_dd(o, &dd_out[i], &dd_in[i]);
		if (e == 0)
			e = spill_remote_in(r, f, &f->in[i]);
		f->n += e == 0;
	}
	if (r)
		spill_remote_stop(r);
	return e;
}

/* In a directory of its own, which goes. */
static int measure_there(struct spill_options *o, struct spill_figures *f, double *dd_out,
			 double *dd_in)
{
	char path[160], command[200];
	int e;

	snprintf(path, sizeof(path), "%.120s/sparq-bench-XXXXXX", o->directory);
	if (!mkdtemp(path))
		return -errno;
	o->directory = path;
	e = measure(o, f, dd_out, dd_in);
	snprintf(command, sizeof(command), "rm -r '%s'", path);
	if (system(command) != 0 && e == 0)
		e = -EIO;
	return e;
}

int bench_spill(int argc, char **argv)
{
	struct spill_options o = {
		.directory = "/var/tmp",
		.mebibytes = 1024,
		.rounds = 5,
		.depth = 4,
		.rows = 4096,
		.seconds = 2,
	};
	struct spill_figures f = { .n = 0 };
	double *rate;
	int r = bench_options(table, ARRAY_SIZE(table), "A sequence to a file and back.", &o, argc,
			      argv);

	if (r)
		return r == 1 ? 0 : r;
	rate = calloc(4 * o.rounds, sizeof(*rate));
	if (!rate)
		return bench_fail(-ENOMEM, "spill");
	f.out = rate;
	f.in = rate + o.rounds;
	r = measure_there(&o, &f, rate + 2 * o.rounds, rate + 3 * o.rounds);
	if (r < 0)
		r = bench_fail(r, "spill");
	else if (o.json)
		print_json(&f, rate + 2 * o.rounds, rate + 3 * o.rounds);
	else
		print(&o, &f, rate + 2 * o.rounds, rate + 3 * o.rounds);
	for (unsigned i = 0; i < SPILL_CLASSES; i++)
		free(f.steps[i].us);
	free(rate);
	return r;
}
