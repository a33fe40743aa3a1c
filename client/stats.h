/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stats page as programs of this tree read it: sparqctl and sparqd-exporter. No part of
 * libsparq: the page's layout is not promised to others.
 *
 *	struct stats *s;
 *	char why[SPARQ_ERROR_TEXT];
 *	int r = stats_open(NULL, &s, why);
 *	...
 *	r = stats_refresh(s, why);             before each look
 *	for (uint32_t i = 0; i < stats_count(s, STATS_USER); i++)
 *		r = stats_copy(s, STATS_USER, i, &user);
 *	stats_close(s);
 *
 * Not thread-safe.
 */
#pragma once

#include <stdint.h>

#include "shm/stats-page.h"

struct stats;

/* Connects and maps the page. `socket` NULL: $SPARQ_SOCKET, else the usual one. -errno with `why`
 * (SPARQ_ERROR_TEXT bytes), a sentence: -EACCES if the page is not for this user. */
int stats_open(const char *socket, struct stats **ret, char *why);
struct stats *stats_close(struct stats *s); /* NULL */
/* The same page for another reader, as long as that likes: refreshing the first, or closing it,
 * takes nothing from it. It is not refreshed itself. NULL: out of memory. */
struct stats *stats_share(const struct stats *s);

/* Has the daemon bring up to date what is not counted as it happens: gauges, what the nodes'
 * counters say. 1: another daemon serves by now, and its page is what is read from here on
 * (counters began at 0, sizes may differ); 0; -errno with `why`, the page stays the old one and
 * the next call tries again. */
int stats_refresh(struct stats *s, char *why);

const struct stats_header *stats_header(const struct stats *s);
uint32_t stats_count(const struct stats *s, enum stats_kind kind);
/* One block as it was at one moment: `ret` is the struct of its kind. -EAGAIN: its writer was never
 * still for long enough, -ENOENT: there is no such block. */
int stats_copy(const struct stats *s, enum stats_kind kind, uint32_t index, void *ret);
