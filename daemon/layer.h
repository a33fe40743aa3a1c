/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One layer of a sequence: its record in the catalogue and what is derived of
 * it. The token path of seq.h is implemented over it in layer.c and cut.c; these
 * are the parts that seq.c needs besides.
 */
#pragma once

#include <stdint.h>

#include "daemon/record.h"

struct seq;

struct seq_layer {
	struct layer_record *record;
	uint32_t tail_first; /* number of the tail's first row: sinks + sealed rows */
	uint32_t n_chunks;   /* of the tail, from its first on */
	uint32_t n_extents;  /* sealed, all the way down */
	int flush_error;     /* why the tail could not be flushed, until it could */
};

/* An empty layer over a zeroed record. */
void layer_init(struct seq *s, struct seq_layer *l, struct layer_record *record);
struct commit layer_commit(const struct seq_layer *l);
void layer_publish(struct seq_layer *l, struct commit c);
/* Sinks and tail of rows [0, rows), without the sealed ones. */
void layer_view(const struct seq *s, struct seq_layer *l, uint32_t rows, struct kv_view *ret);
/* Gives back the pages of sinks and tail that `rows` rows do not need. */
void layer_trim(struct seq *s, struct seq_layer *l, uint32_t rows);

/* ---- cut.c ---- */

/* The rows of `parent` below `rows`, in a layer that was just initialised: sealed tiles by
 * reference, sinks and tail copied. On failure layer_clear takes back what was taken. */
int layer_fork(struct seq *parent, struct seq *child, uint32_t layer, uint32_t rows);
/* Gives back everything. */
void layer_clear(struct seq *s, struct seq_layer *l);
