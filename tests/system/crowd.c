/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many sequences, and work on them that can be counted: what tests of lists and of
 * displays look at.
 *
 *   crowd SOCKET CACHE SEQUENCES ROWS STEPS
 *
 * Makes a cache that parks and SEQUENCES of it, "s0" and so on, with ROWS rows; attends STEPS times
 * in a second to one after the other until stdin ends; then parks them. Prints "ready" when all are
 * there, and at the end how many steps were done and how many bytes they read.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/sparq.h"
#include "shm/clock.h"

#define HEADS 8
#define KV_HEADS 2
#define DIM 64
#define SEQUENCES_MAX 20000
#define ROWS_MAX 256

struct crowd {
	sparq *c;
	sparq_cache *cache;
	sparq_queue *queue;
	sparq_buf *buf;
	sparq_seq *seq[SEQUENCES_MAX];
	unsigned n, rows;
	uint64_t q_at, kv_at, o_at, steps, bytes;
};

__attribute__((noreturn)) static void fail(const struct crowd *k, const char *what, int error)
{
	printf("%s: %s: %s\n", what, strerror(-error), k->c ? sparq_error(k->c) : "");
	exit(1);
}

static void must(const struct crowd *k, const char *what, int r)
{
	if (r < 0)
		fail(k, what, r);
}

static void set_up(struct crowd *k, const char *socket, const char *name)
{
	size_t q = HEADS * DIM * sizeof(float), kv = ROWS_MAX * KV_HEADS * 2 * DIM * sizeof(float);
	struct sparq_open_params session = { .size = sizeof(session), .arena_bytes = 1 << 20 };
	struct sparq_cache_params shape = {
		.size = sizeof(shape),
		.layers = 1,
		.heads = HEADS,
		.kv_heads = KV_HEADS,
		.k_dim = DIM,
		.v_dim = DIM,
		.dtype = SPARQ_DTYPE_F32,
		.name = name,
		.options = "on_disconnect=park",
	};

	must(k, "open", sparq_open(socket, &session, &k->c));
	must(k, "queue", sparq_queue_create(k->c, NULL, &k->queue));
	must(k, "cache", sparq_cache_create(k->c, &shape, &k->cache));
	must(k, "buffer", sparq_buf_alloc(k->c, 2 * q + kv, &k->buf));
	memset(sparq_buf_data(k->buf, NULL), 0, 2 * q + kv);
	k->q_at = sparq_buf_addr(k->buf);
	k->o_at = k->q_at + q;
	k->kv_at = k->o_at + q;
}

static void finish(struct crowd *k)
{
	struct sparq_cqe *done;

	must(k, "submit", sparq_submit(k->queue, 0));
	must(k, "wait", sparq_wait(k->queue, &done, 20 * NS_PER_S));
	must(k, "entry", done->res);
	k->bytes += done->bytes_read;
	sparq_seen(k->queue, 1);
}

static void make(struct crowd *k)
{
	char name[16];

	for (unsigned i = 0; i < k->n; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		must(k, "sequence", sparq_seq_create(k->cache, name, &k->seq[i]));
		sparq_prep_append(sparq_get_sqe(k->queue), sparq_seq_id(k->seq[i]), 0, k->kv_at, 0,
				  (uint16_t)k->rows);
		finish(k);
	}
	k->bytes = 0;
	puts("ready");
	fflush(stdout);
}

static void attend(struct crowd *k, double per_second)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	int64_t began = clock_now_ns();
	char byte;

	for (;;) {
		double due = (double)(clock_now_ns() - began) / (double)NS_PER_S * per_second;

		if (poll(&in, 1, per_second > 0 ? 1 : -1) > 0 && read(STDIN_FILENO, &byte, 1) <= 0)
			return;
		for (; (double)k->steps < due; k->steps++) {
			sparq_prep_attend(sparq_get_sqe(k->queue),
					  sparq_seq_id(k->seq[k->steps % k->n]), 0, k->q_at,
					  k->o_at, k->rows, 1);
			finish(k);
		}
	}
}

int main(int argc, char **argv)
{
	static struct crowd k;

	if (argc != 6)
		return 2;
	k.n = (unsigned)atoi(argv[3]);
	k.rows = (unsigned)atoi(argv[4]);
	if (!k.n || k.n > SEQUENCES_MAX || !k.rows || k.rows > ROWS_MAX)
		return 2;
	set_up(&k, argv[1], argv[2]);
	make(&k);
	attend(&k, atof(argv[5]));
	printf("steps %llu bytes %llu\n", (unsigned long long)k.steps, (unsigned long long)k.bytes);
	sparq_queue_close(k.queue);
	sparq_close(k.c);
	return 0;
}
