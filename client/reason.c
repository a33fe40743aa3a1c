/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reasons of a failed completion, in words: upper half of sparq_cqe.aux.
 */
#include "client/private.h"

static const char *const reasons[SPARQ_REASONS] = {
	[SPARQ_REASON_NONE] = "no reason given",
	[SPARQ_REASON_OP] = "unknown operation",
	[SPARQ_REASON_FLAGS] = "unknown flag, or one that this operation does not take",
	[SPARQ_REASON_CLASS] = "unknown class",
	[SPARQ_REASON_LAYER] = "the cache has no such layer",
	[SPARQ_REASON_UNUSED] = "a field that this operation does not use is not 0",
	[SPARQ_REASON_ITEMS] = "too many items, or items outside the arena",
	[SPARQ_REASON_SEQUENCE] = "no such sequence in this session",
	[SPARQ_REASON_DUPLICATE] = "a sequence occurs twice in one entry",
	[SPARQ_REASON_CACHE] = "the items belong to different caches",
	[SPARQ_REASON_ADDRESS] = "an address outside the arena, or not 16-byte aligned",
	[SPARQ_REASON_STRIDE] = "a stride that is no multiple of 16, or shorter than a row",
	[SPARQ_REASON_ROWS] = "no rows where rows are needed, or more than max_rows",
	[SPARQ_REASON_QUERIES] = "no queries where queries are needed, or more than max_rows",
	[SPARQ_REASON_ROW] = "row is not the number of rows so far, or is past the limit",
	[SPARQ_REASON_BUSY] = "in flight on another queue, or under a control call",
	[SPARQ_REASON_BUDGET] = "the budget of the cache is spent: budget_bytes",
	[SPARQ_REASON_POOL] = "the pool of the daemon is full: pool_bytes",
	[SPARQ_REASON_DEADLINE] = "the deadline has passed",
	[SPARQ_REASON_LINKED] = "the entry before, to which it was linked, failed",
	[SPARQ_REASON_UNSUPPORTED] = "not supported by this cache",
	[SPARQ_REASON_RESERVED] = "a reserved field is not 0",
	[SPARQ_REASON_QUOTA] = "the quota of the user is spent: user_bytes",
	[SPARQ_REASON_CATALOGUE] = "the catalogue of the daemon is full: catalogue_bytes",
	[SPARQ_REASON_DEVICE] = "the device of the cache is lost, or its memory is full",
};

const char *sparq_reason(uint32_t reason)
{
	if (reason >= ARRAY_SIZE(reasons) || !reasons[reason])
		return "a reason that this library does not know";
	return reasons[reason];
}
