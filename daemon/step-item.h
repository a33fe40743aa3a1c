/* SPDX-License-Identifier: Apache-2.0 */
/* One item of an entry, and one KV head of an item: what step.c and step-item.c share. */
#pragma once

#include "daemon/seq.h"
#include "daemon/step.h"

#define MAX_WAVE_HEADS 4096u

struct step_item {
	struct sparq_item in; /* the daemon's copy */
	struct seq *seq;      /* held, or NULL */
	int error;            /* 0 or -errno */
	uint32_t reason, flags;
	uint32_t rows;       /* of the layer after this item, to commit */
	uint32_t heads_left; /* KV heads not yet run */
	bool commits;        /* appended something */
	bool audited;        /* has the auditor's job */
	uint8_t beside;      /* enum device_beside: not computed by its cache's device */
	/* in the lane, from staging to the end of its last wave */
	struct kv_view view;
	struct kv_query query;
	struct kv_plan plan;
	struct sparq_report report; /* sums so far */
	double alpha_sum;
	uint64_t bytes_read, written_bytes;
	uint32_t written_rows;
};

struct step_head {
	struct board_task task;
	struct kv_exec exec;
	struct step_item *item;
	const struct stepper *stepper;
	uint32_t cut;   /* atomic: a share was passed over, there is no result */
	bool on_device; /* it read no memory of a node */
	bool is_half; /* its result is one of two (step-split.h), and written with the other */
};

/* Fails the item; nothing of it stays. */
void item_fail(struct step_item *i, int error, uint32_t reason);
/* Holds the sequence and checks the item against its cache. */
void item_hold(struct stepper *s, struct step_item *i);
/* Where an offset is that check_item found inside the arena. */
void *item_arena(const struct stepper *s, uint64_t offset);
/* Appends its rows beside what is live. */
void item_append(struct stepper *s, struct step_item *i);
/* Its rows in the place of others, at once and for good: step-overwrite.c. */
void item_overwrite(struct stepper *s, struct step_item *i);
/* View, queries and plan into the lane; false: the lane is full, try again with an empty one. */
bool item_stage(struct stepper *s, struct step_item *i);
/* One KV head as a task of the wave; false: the lane is full. */
bool item_stage_head(struct stepper *s, struct step_item *i, uint32_t head);
/* Too late, or for nobody: what is asked for is not worth its end. */
bool step_is_over(const struct stepper *s);
/* Its result, straight into the arena. */
void item_write_head(const struct step_head *h);
/* The same of a plan, a view and a query that are not all of the item's. */
struct step_head *item_stage_half(struct stepper *s, struct step_item *i,
				  const struct kv_half *half, uint32_t head);
/* After its wave: adds what the head found to the item's report. */
void item_gather(struct step_head *h);
/* Only what it read; the rest is in the other half's result. */
void item_gather_bytes(struct step_head *h);
/* All heads done: publishes its rows and writes its report. */
void item_complete(struct stepper *s, struct step_item *i);
/* Quantises what is due of one layer. */
void item_flush(struct stepper *s, struct step_item *i);
