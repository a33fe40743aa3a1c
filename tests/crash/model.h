/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client of the crash tests knows of its sequences: what was acknowledged, and the
 * operations after that whose fate it does not know, in the order in which it sent them.
 *
 * The daemon runs a ring's entries in order, so after a crash the truth is what was
 * acknowledged and the first few of the others: no row of the rest, and none of the first few in
 * part. Several numbers of them may explain the same counts of rows (cut, and appended again); the
 * content decides then.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/crash/content.h"

#define MODEL_LAYERS 2
#define MODEL_SEQUENCES 8
#define MODEL_PENDING 64
#define MODEL_SINKS 4 /* as the caches are made */
#define MODEL_ROLLBACK 8

struct model_seq {
	bool exists;
	bool cut; /* below the tail, since it was made: what is sealed does not follow from here on
		   */
	bool overwritten; /* other bits than those of a sequence that began with its rows */
	uint64_t key;
	uint32_t sealed[MODEL_LAYERS]; /* tiles, if what is due is done */
	uint32_t rows[MODEL_LAYERS];
	uint16_t version[MODEL_LAYERS][CONTENT_MAX_ROWS];
};

enum op_kind { OP_CREATE, OP_DROP, OP_APPEND, OP_TRUNCATE, OP_TRUNCATE_ALL, OP_OVERWRITE };

struct op {
	enum op_kind kind;
	uint32_t seq, layer, row, n;
	uint16_t version;
	uint64_t key;   /* of OP_CREATE */
	uint64_t entry; /* several may be acknowledged by one completion */
};

struct model {
	struct model_seq seq[MODEL_SEQUENCES]; /* acknowledged */
	struct op pending[MODEL_PENDING];      /* oldest first */
	uint32_t n_pending;
};

/* What a sequence that never had more rows has sealed. */
uint32_t model_tiles(uint32_t rows);

/* What was found. */
struct model_seen {
	bool exists[MODEL_SEQUENCES];
	uint32_t rows[MODEL_SEQUENCES][MODEL_LAYERS];
};

void model_send(struct model *m, const struct op *op);
/* The operations of this entry, which are the oldest, are acknowledged; rows they appended. */
uint32_t model_acknowledge(struct model *m, uint64_t entry);
/* Rows of a layer if all that was sent arrives. */
uint32_t model_rows_sent(const struct model *m, uint32_t seq, uint32_t layer);
bool model_exists_sent(const struct model *m, uint32_t seq);
/* The least number of pending operations from `from` on that explains the counts; -1: none. */
int model_explain(const struct model *m, const struct model_seen *seen, uint32_t from);
/* Acknowledged and the first n: into `ret`. */
void model_after(const struct model *m, uint32_t n, struct model *ret);
/* Acknowledged rows that are not there, by count. */
uint32_t model_missing(const struct model *m, const struct model_seen *seen);
