/* SPDX-License-Identifier: Apache-2.0 */
/* How often a uid may do something: a bucket of one second's worth per uid. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define RATE_UIDS 64

struct rate_bucket {
	uid_t uid;
	uint64_t at_ns; /* when `level` was right; 0: unused */
	uint64_t level; /* nanotokens */
};

/* The uids seen last; one that was pushed out starts with a full bucket, as after a second. */
struct rate {
	struct rate_bucket bucket[RATE_UIDS];
};

/* Takes one of `per_second` (0: no limit) at `now_ns`; false: not now. */
bool rate_take(struct rate *r, uid_t uid, uint32_t per_second, uint64_t now_ns);
