/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring's bookkeeping, both halves in one process. Every client and every
 * worker relies on it: an entry is seen once, whole, in order, and never
 * before its place is free; a client cannot talk a worker out of its credit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shm/ring.h"

#define SQ 8u
#define CQ 16u

struct pair {
	struct sparq_ring_ctl ctl;
	struct sparq_sqe sq[SQ];
	struct sparq_cqe cq[CQ];
	struct ring_client client;
	struct ring_daemon daemon;
};

/* A pair whose positions have come to `at`: the arrays hold the lap before, as they would. */
static void pair_init(struct pair *p, uint32_t at)
{
	struct ring_map map = { &p->ctl, p->sq, p->cq, SQ, CQ };

	memset(p, 0, sizeof(*p));
	ring_client_init(&p->client, &map);
	ring_daemon_init(&p->daemon, &map);
	if (at == 0)
		return;
	for (uint32_t i = at - SQ; i != at; i++)
		p->sq[i % SQ].seq = i + 1;
	for (uint32_t i = at - CQ; i != at; i++)
		p->cq[i % CQ].seq = i + 1;
	p->ctl.cq_head = p->ctl.sq_head = at;
	p->client.sq_tail = p->client.sq_published = p->client.sq_head = at;
	p->client.cq_head = p->client.cq_told = at;
	p->daemon.sq_head = p->daemon.sq_told = p->daemon.cq_tail = p->daemon.cq_head = at;
}

static void submit(struct pair *p, uint64_t user_data)
{
	struct sparq_sqe *e = ring_client_get(&p->client);

	assert_non_null(e);
	e->user_data = user_data;
	e->timeout_us = (uint32_t)user_data;
	assert_int_equal(ring_client_publish(&p->client), 1);
}

/* Copies and completes up to `n`; how many. */
static unsigned serve(struct pair *p, unsigned n)
{
	struct sparq_sqe e;
	unsigned done = 0;

	while (done < n && ring_daemon_copy(&p->daemon, &e) == 1) {
		struct sparq_cqe c = { .user_data = e.user_data, .res = 1, .aux = e.timeout_us };

		ring_daemon_post(&p->daemon, &c);
		done++;
	}
	return done;
}

static void expect(struct pair *p, uint64_t user_data)
{
	struct sparq_cqe *c = ring_client_peek(&p->client, 0);

	assert_non_null(c);
	assert_int_equal(c->user_data, user_data);
	assert_int_equal(c->aux, (uint32_t)user_data);
	assert_int_equal(c->res, 1);
	ring_client_seen(&p->client, 1);
}

/* Every position is used once and in order, over many laps and over the wrap of 32 bits. */
static void round_trips(uint32_t at)
{
	struct pair p;
	uint64_t sent = 0, seen = 0;

	pair_init(&p, at);
	for (unsigned step = 0; step < 2000; step++) {
		for (unsigned i = 0; i < 1 + step % SQ; i++)
			submit(&p, 1000 + sent++);
		assert_int_equal(serve(&p, SQ), 1 + step % SQ);
		ring_daemon_tell(&p.daemon, step % 3 == 0);
		while (seen < sent)
			expect(&p, 1000 + seen++);
		assert_null(ring_client_peek(&p.client, 0));
		assert_int_equal(ring_client_in_flight(&p.client), 0);
		assert_int_equal(p.daemon.in_flight, 0);
	}
	assert_int_equal(p.client.sq_tail, at + (uint32_t)sent);
}

static void test_round_trips(void **state)
{
	round_trips(0);
}

static void test_round_trips_over_the_wrap(void **state)
{
	for (uint32_t before = 0; before < 2 * CQ; before++)
		round_trips(0u - before);
}

/* Nothing is read from memory that was never written, nor from the lap before. */
static void test_old_laps_never_match(void **state)
{
	static const uint32_t starts[] = {
		0, SQ, 12345 * SQ, 0x80000000u, 0u - SQ, 0u - CQ, 0u - 1
	};
	struct pair p;

	for (size_t i = 0; i < ARRAY_SIZE(starts); i++) {
		pair_init(&p, starts[i]);
		assert_false(ring_daemon_ready(&p.daemon));
		for (unsigned ahead = 0; ahead < CQ; ahead++)
			assert_null(ring_client_peek(&p.client, ahead));
	}
}

/* An entry that is got but not published does not exist for the daemon: a client that dies while
 * it fills one leaves nothing behind. */
static void test_unpublished_is_invisible(void **state)
{
	struct sparq_sqe copy;
	struct pair p;

	for (uint32_t at = 0u - 2 * SQ; at != 2 * SQ; at++) {
		pair_init(&p, at);
		for (unsigned i = 0; i < SQ; i++)
			memset(ring_client_get(&p.client), 0xee, 60);
		assert_int_equal(ring_daemon_copy(&p.daemon, &copy), 0);
		assert_int_equal(ring_client_in_flight(&p.client), 0);
		assert_int_equal(ring_client_publish(&p.client), SQ);
		assert_int_equal(ring_client_publish(&p.client), 0);
		assert_int_equal(ring_daemon_copy(&p.daemon, &copy), 1);
		assert_int_equal(copy.seq, at + 1);
	}
}

static void test_get_gives_zeroed_entries(void **state)
{
	static const uint8_t zero[60];
	struct pair p;

	pair_init(&p, 5 * SQ);
	memset(p.sq, 0xff, sizeof(p.sq));
	assert_memory_equal(ring_client_get(&p.client), zero, sizeof(zero));
	assert_int_equal(p.sq[0].seq, 0xffffffff); /* the old number stays */
}

/* The SQ gives back-pressure, and room by either proof: the daemon's word, or a completion. */
static void test_full_ring(void **state)
{
	struct pair p;

	pair_init(&p, 0);
	for (unsigned i = 0; i < SQ; i++)
		submit(&p, i);
	assert_null(ring_client_get(&p.client));
	assert_int_equal(serve(&p, SQ / 4 - 1), SQ / 4 - 1);
	ring_daemon_tell(&p.daemon, false);
	assert_int_equal(p.ctl.sq_head, 0); /* not worth a store yet */
	assert_null(ring_client_get(&p.client));
	ring_daemon_tell(&p.daemon, true);
	assert_int_equal(p.ctl.sq_head, SQ / 4 - 1);
	assert_non_null(ring_client_get(&p.client));
	assert_null(ring_client_get(&p.client));

	assert_int_equal(serve(&p, 2), 2);
	expect(&p, 0);
	expect(&p, 1);
	assert_non_null(ring_client_get(&p.client));
	assert_null(ring_client_get(&p.client));
}

/* The daemon promises no completion it has no place for: in_flight + unread <= CQ. */
static void test_credit(void **state)
{
	struct sparq_sqe e;
	struct pair p;

	pair_init(&p, 0u - 3);
	for (unsigned round = 0; round < CQ / SQ; round++) {
		for (unsigned i = 0; i < SQ; i++)
			submit(&p, round * SQ + i);
		/* Half of them are left in flight: they count like unread ones. */
		for (unsigned i = 0; i < SQ; i++)
			assert_int_equal(ring_daemon_copy(&p.daemon, &e), 1);
		for (unsigned i = 0; i < SQ / 2; i++)
			ring_daemon_post(&p.daemon, &(struct sparq_cqe){ .res = 1 });
		ring_daemon_tell(&p.daemon, true);
	}
	assert_int_equal(p.daemon.in_flight, CQ / 2);
	assert_int_equal(ring_daemon_credit(&p.daemon), 0);
	submit(&p, 99);
	assert_true(ring_daemon_ready(&p.daemon));
	assert_int_equal(ring_daemon_copy(&p.daemon, &e), 0);
	assert_int_equal(p.daemon.in_flight, CQ / 2);

	/* The first completion read and told lets exactly one in. */
	assert_non_null(ring_client_peek(&p.client, 0));
	p.client.cq_head++;
	assert_true(ring_client_tell(&p.client));
	assert_int_equal(ring_daemon_copy(&p.daemon, &e), 1);
	assert_int_equal(e.user_data, 99);
	assert_int_equal(ring_daemon_copy(&p.daemon, &e), 0);
}

/* cq_head is told every SQ/2 completions and when the CQ is drained; it counts as a publish exactly
 * when an entry can have waited for it. */
static void test_telling(void **state)
{
	struct pair p;

	pair_init(&p, 0);
	for (unsigned i = 0; i < SQ; i++)
		submit(&p, i);
	serve(&p, SQ);
	for (unsigned i = 0; i < SQ / 2 - 1; i++)
		assert_false(ring_client_seen(&p.client, 1));
	assert_int_equal(p.ctl.cq_head, 0);
	assert_false(ring_client_seen(&p.client, 1));
	assert_int_equal(p.ctl.cq_head, SQ / 2);
	assert_false(ring_client_seen(&p.client, 1));
	assert_int_equal(p.ctl.cq_head, SQ / 2);
	assert_false(ring_client_tell(&p.client)); /* before a sleep */
	assert_int_equal(p.ctl.cq_head, SQ / 2 + 1);
	assert_false(ring_client_seen(&p.client, SQ / 2 - 1)); /* drained */
	assert_int_equal(p.ctl.cq_head, SQ);
	assert_false(ring_client_tell(&p.client)); /* nothing new to tell */
}

static void test_telling_counts_as_publish_when_awaited(void **state)
{
	struct pair p;

	pair_init(&p, 0);
	for (unsigned i = 0; i < CQ + 1; i++) {
		submit(&p, i);
		serve(&p, 1);
		ring_daemon_tell(&p.daemon, true);
	}
	assert_int_equal(p.daemon.sq_head, CQ); /* the last one waits */
	assert_true(ring_client_seen(&p.client, SQ / 2));
	assert_int_equal(serve(&p, 1), 1);
	assert_false(ring_client_seen(&p.client, SQ / 2)); /* no entry waits any more */
}

/* What a hostile client may write into cq_head, and what must come of it. */
static void test_hostile_cq_head(void **state)
{
	static const uint32_t ats[] = { 0, 7, 0x7ffffffe, 0u - 4 };

	for (size_t k = 0; k < ARRAY_SIZE(ats); k++) {
		uint32_t at = ats[k];
		struct pair p;

		pair_init(&p, at);
		for (unsigned i = 0; i < 6; i++)
			submit(&p, i);
		assert_int_equal(serve(&p, 6), 6);
		p.ctl.cq_head = at + 4;
		assert_int_equal(ring_daemon_credit(&p.daemon), CQ - 2);
		for (uint32_t d = 1; d < 40; d++) {
			p.ctl.cq_head = at + 4 - d; /* backwards */
			assert_int_equal(ring_daemon_credit(&p.daemon), -EPROTO);
			p.ctl.cq_head = at + 6 + d; /* never written */
			assert_int_equal(ring_daemon_credit(&p.daemon), -EPROTO);
		}
		for (unsigned bit = 3; bit < 32; bit++) {
			p.ctl.cq_head = (at + 4) ^ (1u << bit);
			if (p.ctl.cq_head - (at + 4) > 2)
				assert_int_equal(ring_daemon_credit(&p.daemon), -EPROTO);
		}
		p.ctl.cq_head = at + 6; /* refused ones left no trace */
		assert_int_equal(ring_daemon_credit(&p.daemon), CQ);
	}
}

/* A copy reports the violation when it needs the credit, and takes nothing. */
static void test_hostile_cq_head_on_copy(void **state)
{
	struct sparq_sqe e;
	struct pair p;

	pair_init(&p, 0);
	for (unsigned i = 0; i < CQ + 1; i++) {
		submit(&p, i);
		serve(&p, 1);
		ring_daemon_tell(&p.daemon, true);
	}
	p.ctl.cq_head = CQ + 1;
	assert_int_equal(ring_daemon_copy(&p.daemon, &e), -EPROTO);
	assert_int_equal(p.daemon.sq_head, CQ);
	assert_int_equal(p.daemon.in_flight, 0);
}

/* The copy is the client's bytes of that moment, but its seq is ours. */
static void test_copy_is_private(void **state)
{
	struct sparq_sqe e;
	struct pair p;

	pair_init(&p, 0);
	submit(&p, 0x1122334455667788);
	assert_int_equal(ring_daemon_copy(&p.daemon, &e), 1);
	memset(p.sq, 0xff, sizeof(p.sq));
	assert_int_equal(e.user_data, 0x1122334455667788);
	assert_int_equal(e.timeout_us, 0x55667788);
	assert_int_equal(e.seq, 1);
	assert_int_equal(ring_daemon_copy(&p.daemon, &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_round_trips_over_the_wrap),
		cmocka_unit_test(test_old_laps_never_match),
		cmocka_unit_test(test_unpublished_is_invisible),
		cmocka_unit_test(test_get_gives_zeroed_entries),
		cmocka_unit_test(test_full_ring),
		cmocka_unit_test(test_credit),
		cmocka_unit_test(test_telling),
		cmocka_unit_test(test_telling_counts_as_publish_when_awaited),
		cmocka_unit_test(test_hostile_cq_head),
		cmocka_unit_test(test_hostile_cq_head_on_copy),
		cmocka_unit_test(test_copy_is_private),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
