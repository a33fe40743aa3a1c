/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which limit was in the way, and of how many bytes: what those who charge leave
 * behind when they refuse, so that others can make room, or name it to the client.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum limit {
	LIMIT_NONE,
	LIMIT_BUDGET,    /* budget_bytes of the cache */
	LIMIT_QUOTA,     /* user_bytes */
	LIMIT_POOL,      /* pool_bytes: no page of that size on any node */
	LIMIT_CATALOGUE, /* catalogue_bytes: no block */
	LIMIT_SEQUENCES, /* user_sequences */
	LIMIT_SLOTS,     /* max_sequences */
	LIMITS
};
/* As status and log say them: what room was made for, "ahead" where nothing lacked any yet. */
extern const char *const limit_names[LIMITS];

struct shortage {
	enum limit limit;
	uint64_t cache; /* id: whose budget, or for whom it was wanted */
	uint64_t bytes; /* that were wanted; 0 where things are counted */
};
#define SHORTAGE_NONE ((struct shortage){ LIMIT_NONE, 0, 0 })

struct cache;

/* SPARQ_REASON_* for a completion. */
uint32_t shortage_reason(const struct shortage *s);
/* A sentence for a client whose `what` found no room; -ENOSPC, or -EDQUOT where a number of things
 * is what a user may not exceed. */
int shortage_fail(const struct shortage *s, const struct cache *c, const char *what, char *why);
