/* SPDX-License-Identifier: Apache-2.0 */
/* Limits, by name: see shortage.h. */
#include "daemon/shortage.h"

#include <errno.h>

#include "daemon/cache.h"
#include "daemon/name.h"
#include "shm/atomic.h"
#include "shm/sparq-abi.h"

const char *const limit_names[LIMITS] = {
	[LIMIT_NONE] = "ahead",  [LIMIT_BUDGET] = "budget",       [LIMIT_QUOTA] = "quota",
	[LIMIT_POOL] = "pool",   [LIMIT_CATALOGUE] = "catalogue", [LIMIT_SEQUENCES] = "sequences",
	[LIMIT_SLOTS] = "slots",
};

uint32_t shortage_reason(const struct shortage *s)
{
	switch (s->limit) {
	case LIMIT_BUDGET:
		return SPARQ_REASON_BUDGET;
	case LIMIT_QUOTA:
		return SPARQ_REASON_QUOTA;
	case LIMIT_CATALOGUE:
		return SPARQ_REASON_CATALOGUE;
	default:
		return SPARQ_REASON_POOL;
	}
}

int shortage_fail(const struct shortage *s, const struct cache *c, const char *what, char *why)
{
	const struct user *u = c->user;
	unsigned long long bytes = s->bytes;

	switch (s->limit) {
	case LIMIT_BUDGET:
		return why_fail(why, ENOSPC,
				"%s: %llu bytes do not fit into the budget of the cache "
				"(budget_bytes = %llu)",
				what, bytes, (unsigned long long)c->budget_bytes);
	case LIMIT_QUOTA:
		return why_fail(why, ENOSPC,
				"%s: %llu bytes do not fit into the quota of the user "
				"(user_bytes = %llu)",
				what, bytes,
				(unsigned long long)load_relaxed(&u->limit[USER_BYTES]));
	case LIMIT_SEQUENCES:
		return why_fail(why, EDQUOT, "%s: the limit of %llu per user is reached", what,
				(unsigned long long)load_relaxed(&u->limit[USER_SEQUENCES]));
	case LIMIT_SLOTS:
		return why_fail(why, ENOSPC, "%s: all %u slots of this daemon are taken", what,
				c->store->max_sequences);
	case LIMIT_CATALOGUE:
		return why_fail(why, ENOSPC, "%s: the catalogue of the daemon is full", what);
	default:
		return why_fail(why, ENOSPC,
				"%s: the pool of the daemon has no %llu bytes in one piece", what,
				bytes);
	}
}
