/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model of sequences: for each layer the plain list of what was appended. It
 * drives the token path as a worker does and compares what kernels would read,
 * bit by bit, and what recovery would find in the catalogue.
 */
#pragma once

#include "store-fixture.h"

#define MODEL_LAYERS 2
#define MODEL_ROWS 9000
#define MODEL_RING 3

struct model {
	struct store_fixture *fixture;
	struct seq *seq;
	uint64_t id;
	uint32_t rows[MODEL_LAYERS];
	uint32_t *tag[MODEL_LAYERS]; /* [MODEL_ROWS] what each row was made of */
	uint32_t next_tag;
};

void model_init(struct model *m, struct store_fixture *f, struct seq *s, uint32_t first_tag);
void model_fork(struct model *m, const struct model *parent, struct seq *s, uint32_t rows,
		uint32_t first_tag);
void model_deinit(struct model *m); /* the model alone, not the sequence */

/* As a worker: hold, reserve, write, commit, flush what is due, release. What an append returned;
 * rows are there or not at all. */
int model_append(struct model *m, uint32_t layer, uint32_t n);
int model_cut(struct model *m, uint32_t layer, uint32_t rows);
/* Others in the place of rows that it has. */
int model_overwrite(struct model *m, uint32_t layer, uint32_t row, uint32_t n);
/* All rows below `rows`, of all layers: NULL, or what is wrong. */
const char *model_check(struct model *m, uint32_t rows);
/* What is derived of each layer against its record. */
const char *model_check_record(struct model *m);
