/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One layer of one sequence in plain memory, grown as the daemon grows it:
 * sinks, tail in chunks, tiles flushed into extents. For tests and benchmarks
 * of the executor.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

enum rig_pages {
	RIG_THP,    /* huge where the system gives them */
	RIG_SMALL,  /* 4 KiB */
	RIG_HUGE,   /* reserved ones of 2 MiB, or none */
	RIG_SHARED, /* what a daemon without reserved huge pages has */
};

struct rig {
	const struct kv_space *space;
	enum rig_pages pages;
	uint32_t rollback, max_rows;
	struct kv_view view;
	struct kv_extent *extent;
	char *memory;
	size_t bytes, used;
	void *spare[KV_MAX_CHUNKS]; /* chunks */
	unsigned n_spare;
};

/* 0 or -ENOMEM. */
int rig_init(struct rig *r, const struct kv_space *s, uint32_t max_rows, uint32_t rollback);
int rig_init_on(struct rig *r, const struct kv_space *s, uint32_t max_rows, uint32_t rollback,
		enum rig_pages pages);
/* Zeroed memory of such pages, a multiple of 2 MiB, for munmap; NULL: there is not so much. */
void *rig_map(size_t bytes, enum rig_pages pages);
/* The same rows in memory of their own, of the same pages. 0 or -ENOMEM. */
int rig_clone(struct rig *r, const struct rig *from);
void rig_deinit(struct rig *r);
size_t rig_bytes(const struct kv_space *s, uint32_t max_rows);

/* Appends rows and flushes what became due after every `entry` rows (at most KV_MAX_ENTRY_ROWS).
 * `kv` as kv_write takes it, packed. */
void rig_append(struct rig *r, const void *kv, uint32_t n, uint32_t entry);
/* Without the flush: what a step sees. */
void rig_write(struct rig *r, const void *kv, uint32_t n);
void rig_flush(struct rig *r);

/* Keeps rows [0, rows), as a fork or a cut does: the last tile may count in part, what follows it
 * goes into the tail. */
void rig_cut(struct rig *r, uint32_t rows);

/* All shares of all KV heads in turn, then each head's finish; results one after the other in
 * `ret` [kv_heads]. `scratch`: kv_exec_scratch_bytes for each KV head. */
void rig_attend(const struct rig *r, const struct kv_plan *plan, const struct kv_query *query,
		void *scratch, bool backwards, struct kv_result *ret);
