/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparq-bench device: attention of one decoding step on a GPU, one layer, over sequences that are
 * in no cache of it, beside what a copy within its memory reaches in the same run. It loads the
 * daemon's module and speaks to nothing else, so the times are of kernels and launches, not of a
 * daemon: by the device's own clock, and from call to answer. Each line's answer is compared with
 * this machine's processor.
 */
#include <stdio.h>
#include <string.h>

#include "shm/base.h"
#include "tests/bench/bench.h"
#include "tests/bench/device.h"
#include "tests/bench/option.h"

#define LEAST_ROWS 512u
#define ERROR_MOST 1e-3 /* sums in another order */

/* What the kernels are held to; each length and batch with dense f16, which its ratio is of. The
 * last two have the setting of the paper's figure: 32 KV heads, S = 4096, batch 64. */
static const struct bench_case cases[] = {
	{ "sparq", "hier4", 131072, 1, 8 }, { "dense", "f16", 131072, 1, 8 },
	{ "sparq", "hier4", 32768, 16, 8 }, { "dense", "f16", 32768, 16, 8 },
	{ "sparq", "hier4", 32768, 64, 8 }, { "dense", "f16", 32768, 64, 8 },
	{ "sparq", "hier4", 4096, 64, 32 }, { "dense", "f16", 4096, 64, 32 },
};

#define AT(field) offsetof(struct device_options, field)
static const struct bench_option table[] = {
	{ "device", BENCH_TEXT, AT(device), 0, 0, "NAME", "cuda:0 to cuda:15; cuda:0" },
	{ "module", BENCH_TEXT, AT(module), 0, 0, "PATH",
	  "another sparq-cuda.so than the installed" },
	{ "seconds", BENCH_SECONDS, AT(seconds), 0, 0, "S", "for each figure, 1" },
	{ "shrink", BENCH_NUMBER, AT(shrink), 1, 256, "N",
	  "rows and batches by so much, to try it" },
	{ "json", BENCH_SWITCH, AT(json), 0, 0, NULL, "all of it, for programs" },
};

static int measure_all(const struct device_options *o, struct bench_gpu *g)
{
	struct device_figures figures[ARRAY_SIZE(cases)];
	struct bench_case shrunk[ARRAY_SIZE(cases)];
	unsigned n = 0;
	int r = 0;

	for (; n < ARRAY_SIZE(cases) && r == 0; n++) {
		shrunk[n] = cases[n];
		shrunk[n].rows = MAX(cases[n].rows / o->shrink, LEAST_ROWS);
		shrunk[n].batch = MAX(cases[n].batch / o->shrink, 1u);
		r = device_measure(g, &shrunk[n], o->seconds, &figures[n]);
	}
	device_show(o, g, figures, n);
	for (unsigned i = 0; i < n; i++)
		if (!figures[i].why[0] && !(figures[i].error < ERROR_MOST)) {
			fprintf(stderr, "sparq-bench: device: %s over %s: o is off by %.1e\n",
				figures[i].which->policy, figures[i].which->format,
				figures[i].error);
			r = -EBADMSG;
		}
	return r < 0 ? 1 : 0;
}

int bench_device(int argc, char **argv)
{
	struct device_options o = {
		.device = "cuda:0", .module = SPARQ_CUDA_MODULE, .shrink = 1, .seconds = 1
	};
	CLEANUP(bench_gpu_deinit) struct bench_gpu g = BENCH_GPU_NULL;
	char why[KV_GPU_WHY] = "";
	int r;

	r = bench_options(table, ARRAY_SIZE(table),
			  "Attention of one decoding step on a GPU, one layer, cold.", &o, argc,
			  argv);
	if (r)
		return r == 1 ? 0 : r;
	r = bench_gpu_open(o.device, o.module, &g, why);
	if (r < 0) {
		fprintf(stderr, "sparq-bench: device %s: %s\n", o.device, why);
		return 1;
	}
	return measure_all(&o, &g);
}
