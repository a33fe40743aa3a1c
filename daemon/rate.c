/* SPDX-License-Identifier: Apache-2.0 */
/* Token buckets per uid. */
#include "daemon/rate.h"
#include "shm/base.h"

#define SECOND_NS 1000000000ull

/* The bucket of a uid, or the one longest untouched. */
static struct rate_bucket *bucket_of(struct rate *r, uid_t uid)
{
	struct rate_bucket *oldest = &r->bucket[0];

	for (unsigned i = 0; i < RATE_UIDS; i++) {
		struct rate_bucket *b = &r->bucket[i];

		if (b->at_ns != 0 && b->uid == uid)
			return b;
		if (b->at_ns < oldest->at_ns)
			oldest = b;
	}
	*oldest = (struct rate_bucket){ .uid = uid };
	return oldest;
}

bool rate_take(struct rate *r, uid_t uid, uint32_t per_second, uint64_t now_ns)
{
	uint64_t full = per_second * SECOND_NS;
	struct rate_bucket *b;

	if (per_second == 0)
		return true;
	b = bucket_of(r, uid);
	/* A nanosecond brings per_second nanotokens; a second fills the bucket. */
	if (b->at_ns == 0 || now_ns - b->at_ns >= SECOND_NS)
		b->level = full;
	else
		b->level = MIN(b->level + (now_ns - b->at_ns) * per_second, full);
	b->at_ns = now_ns;
	if (b->level < SECOND_NS)
		return false;
	b->level -= SECOND_NS;
	return true;
}
