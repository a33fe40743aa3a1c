/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue after the daemon's end. What it published is delivered, then one
 * completion with -ECONNRESET for each entry that was in flight, then every
 * call returns -ENOTCONN. Nothing is submitted again: the caller knows which
 * entries may be repeated, and has the flag REPEAT for them.
 */
#include "client/private.h"

void queue_end(struct sparq_queue *q)
{
	const struct sparq_cqe *cqe;
	uint64_t user_data;

	if (q->ended)
		return;
	q->ended = true;
	/* Counted once: a daemon that only closed the session may still write behind this. */
	while (q->n_last < q->ring.map.cq_entries &&
	       (cqe = ring_client_peek(&q->ring, q->n_last))) {
		flight_done(&q->flight, cqe->user_data);
		q->n_last++;
	}
	while (flight_take(&q->flight, &user_data))
		q->lost[q->n_lost++] = (struct sparq_cqe){
			.user_data = user_data,
			.res = -ECONNRESET,
		};
}

int queue_end_peek(struct sparq_queue *q, struct sparq_cqe **ret, unsigned n)
{
	unsigned i = 0;

	for (; i < n && i < q->n_last; i++)
		ret[i] = ring_client_peek(&q->ring, i);
	for (uint32_t l = q->lost_read; i < n && l < q->n_lost; i++)
		ret[i] = &q->lost[l++];
	return i || !n ? (int)i : -ENOTCONN;
}

void queue_end_seen(struct sparq_queue *q, unsigned n)
{
	uint32_t last = MIN(n, q->n_last);

	(void)ring_client_seen(&q->ring, last); /* nobody is left to be told */
	q->n_last -= last;
	q->lost_read += MIN(n - last, q->n_lost - q->lost_read);
}
