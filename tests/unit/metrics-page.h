/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stats page in ordinary memory, in the place of client/stats.c: what is shown of a page is
 * tested without a daemon.
 */
#pragma once

#include "client/stats.h"

struct stats {
	struct stats_header header;
	struct stats_control control;
	struct stats_node node[2];
	struct stats_worker worker[2];
	struct stats_user user[3];
	struct stats_cache cache[2];
	struct stats_device device[4];
	struct stats_sequence *sequence;
	uint32_t n_sequences;
	unsigned busy; /* so many reads find a writer at work */
};

/* A daemon that has just started, on a machine with one node and no hardware counter. */
void page_fresh(struct stats *ret);
/* One that has worked for two users on two nodes and a device, with n sequences in use. Freed by
 * page_deinit. */
void page_busy(struct stats *ret, uint32_t n_sequences);
void page_deinit(struct stats *s);
