/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a daemon told in the handshake, checked whole before any of it is used.
 * The daemon is trusted with our data, yet an error of either side, or another
 * program behind the socket, must end in a sentence and not in a wild store.
 */
#include <stdbool.h>

#include "client/private.h"

static bool power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static bool inside(uint64_t offset, uint64_t bytes, uint64_t whole)
{
	return bytes <= whole && offset <= whole - bytes;
}

static const char *version_fault(const struct sparq_msg_hello_reply *r)
{
	if (r->abi != SPARQ_ABI_MAJOR)
		return "the daemon speaks another major version of the protocol";
	if (r->features_incompat & ~SPARQ_FEATURES_INCOMPAT)
		return "the daemon demands a feature that this library does not know";
	return NULL;
}

static const char *ring_fault(const struct sparq_msg_hello_reply *r)
{
	uint64_t sq = (uint64_t)r->sq_entries * sizeof(struct sparq_sqe);
	uint64_t cq = (uint64_t)r->cq_entries * sizeof(struct sparq_cqe);

	for (uint32_t i = 0; i < r->n_queues; i++) {
		const struct sparq_ring_place *p = &r->ring[i];

		if ((p->ctl | p->sq | p->cq) % 64)
			return "a ring is not aligned";
		if (!inside(p->ctl, sizeof(struct sparq_ring_ctl), r->segment_bytes) ||
		    !inside(p->sq, sq, r->segment_bytes) || !inside(p->cq, cq, r->segment_bytes))
			return "a ring lies outside the segment";
	}
	return NULL;
}

static const char *size_fault(const struct sparq_msg_hello_reply *r, uint32_t n_queues)
{
	if (r->n_queues != n_queues)
		return "not as many queues as were asked for";
	if (!power_of_two(r->sq_entries) || r->sq_entries > SPARQ_MAX_SQ_ENTRIES ||
	    !power_of_two(r->cq_entries) || r->cq_entries < r->sq_entries ||
	    r->cq_entries > 2 * SPARQ_MAX_SQ_ENTRIES)
		return "an impossible number of entries";
	if (!r->max_rows || r->max_rows > SPARQ_MAX_ROWS || !r->max_items ||
	    r->max_items > SPARQ_MAX_ITEMS)
		return "an impossible limit of rows or items";
	if (!r->segment_bytes || r->segment_bytes >> SPARQ_ADDR_OFFSET_BITS)
		return "an impossible size of the segment";
	if (r->arena_offset % ARENA_ALIGN ||
	    !inside(r->arena_offset, r->arena_bytes, r->segment_bytes))
		return "the arena lies outside the segment";
	return ring_fault(r);
}

int hello_check(const struct sparq_msg_hello_reply *r, const struct sparq_msg_hello *asked,
		const char **why)
{
	*why = version_fault(r);
	if (*why)
		return -EPROTONOSUPPORT;
	*why = size_fault(r, asked->n_queues);
	return *why ? -EPROTO : 0;
}

int hello_check_page(const struct sparq_daemon_page *p, const struct sparq_msg_hello_reply *r,
		     const char **why)
{
	*why = NULL;
	if (p->magic != SPARQ_MAGIC)
		*why = "the daemon page has a wrong magic number";
	else if (p->abi != r->abi || p->generation != r->generation)
		*why = "the daemon page is of another daemon";
	else if (p->n_pollers > ARRAY_SIZE(p->poller) || r->poller >= p->n_pollers)
		*why = "the daemon page has no such poller";
	return *why ? -EPROTO : 0;
}
