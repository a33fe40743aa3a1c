/* SPDX-License-Identifier: Apache-2.0 */
/* sparq-bench spill: what bench-spill.c shows and spill-remote.c measures. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct spill_options {
	const char *daemon, *directory;
	uint32_t mebibytes, rounds, depth, rows;
	double seconds;
	bool json;
};

enum { SPILL_ALONE, SPILL_BESIDE_OUT, SPILL_BESIDE_IN, SPILL_CLASSES };

struct spill_steps { /* of a session that has nothing to do with it */
	double *us;
	unsigned n, room;
};

struct spill_figures {
	double *out, *in; /* [rounds] GB/s */
	unsigned n;
	uint64_t file_bytes;
	struct spill_steps steps[SPILL_CLASSES];
};

struct spill_remote;
int spill_remote_start(const struct spill_options *o, struct spill_remote **ret);
/* A quiet time and a spill; a load; GB/s. In turn. */
int spill_remote_out(struct spill_remote *r, struct spill_figures *f, double *ret);
int spill_remote_in(struct spill_remote *r, struct spill_figures *f, double *ret);
void spill_remote_stop(struct spill_remote *r);
