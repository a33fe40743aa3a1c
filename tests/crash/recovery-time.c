/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a restarted daemon takes to have everything again, against the number of sequences
 * and rows, as the daemon itself logs it.
 *
 *   recovery-time [--daemon PATH] [--layers L] [SEQUENCESxROWS]...
 *
 * Fills a daemon with sequences of one layer (or L) of an int8 cache with one KV head of 64
 * channels, kills it, and prints the line of the one that follows, three times; the best counts.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/sparq.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "tests/crash/content.h"
#include "tests/crash/daemon.h"

#define TIMES 3
#define BLOCK_ROWS 500
#define WAIT_NS (30 * NS_PER_S)
#define READY_TRIES 3000

struct filler {
	sparq *c;
	sparq_cache *cache;
	sparq_queue *queue;
	sparq_buf *buf;
	unsigned layers;
};

static int fail(const struct filler *f, const char *what, int error)
{
	fprintf(stderr, "%s: %s: %s\n", what, strerror(-error), f->c ? sparq_error(f->c) : "");
	return error;
}

static int open_filler(struct filler *f, const char *socket)
{
	struct sparq_cache_params params = {
		.size = sizeof(params),
		.layers = f->layers,
		.heads = 1,
		.kv_heads = 1,
		.k_dim = CONTENT_DIM,
		.v_dim = CONTENT_DIM,
		.dtype = SPARQ_DTYPE_F32,
		.name = "rows",
		.k_format = "int8",
		.policy = "dense",
		.options = "on_disconnect=park",
	};
	int r = sparq_open(socket, NULL, &f->c);

	if (r == 0)
		r = sparq_queue_create(f->c, NULL, &f->queue);
	if (r == 0)
		r = sparq_cache_create(f->c, &params, &f->cache);
	if (r == 0)
		r = sparq_buf_alloc(f->c, BLOCK_ROWS * CONTENT_ROW_BYTES, &f->buf);
	for (uint32_t row = 0; r == 0 && row < BLOCK_ROWS; row++)
		content_row(1, 0, row, 0,
			    (float *)sparq_buf_data(f->buf, NULL) + row * CONTENT_ROW_FLOATS);
	return r < 0 ? fail(f, "open", r) : 0;
}

static void close_filler(struct filler *f)
{
	f->buf = sparq_buf_unref(f->buf);
	f->cache = sparq_cache_unref(f->cache);
	f->queue = sparq_queue_close(f->queue);
	f->c = sparq_close(f->c);
}

static int append(struct filler *f, sparq_seq *s, unsigned layer, uint32_t row, uint32_t n)
{
	struct sparq_sqe *sqe = sparq_get_sqe(f->queue);
	struct sparq_cqe *cqe;
	int r;

	if (!sqe)
		return -ENOTCONN;
	sparq_prep_append(sqe, sparq_seq_id(s), (uint16_t)layer, sparq_buf_addr(f->buf), row,
			  (uint16_t)n);
	r = sparq_submit(f->queue, 0);
	if (r >= 0)
		r = sparq_wait(f->queue, &cqe, WAIT_NS);
	if (r < 0)
		return r;
	r = MIN(cqe->res, 0);
	sparq_seen(f->queue, 1);
	return r;
}

static int fill(struct filler *f, uint32_t sequences, uint32_t rows)
{
	char name[SPARQ_NAME_MAX + 1];
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < sequences; i++) {
		sparq_seq *s = NULL;

		snprintf(name, sizeof(name), "s%u", i);
		r = sparq_seq_create(f->cache, name, &s);
		for (unsigned l = 0; r == 0 && l < f->layers; l++)
			for (uint32_t at = 0; r == 0 && at < rows; at += BLOCK_ROWS)
				r = append(f, s, l, at, MIN(BLOCK_ROWS, rows - at));
		sparq_seq_unref(s);
	}
	return r < 0 ? fail(f, "fill", r) : 0;
}

/* The last line of the log that has these words, from where the reader stopped. */
static bool find_line(FILE *log, const char *words, char *ret, size_t n)
{
	char line[512];
	bool found = false;

	clearerr(log);
	while (fgets(line, sizeof(line), log)) {
		if (!strstr(line, words))
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(ret, n, "%s", line);
		found = true;
	}
	return found;
}

static int restart(struct daemon *d, FILE *log)
{
	char line[512];
	int r = daemon_kill(d, d->child);

	if (r == 0)
		r = daemon_restart(d);
	for (unsigned i = 0; r == 0 && i < READY_TRIES; i++) {
		daemon_wait(d, 10000);
		if (find_line(log, "recovered ", line, sizeof(line))) {
			printf("  %s\n", strstr(line, "recovered "));
			return 0;
		}
	}
	return r < 0 ? r : -ETIMEDOUT;
}

static int measure(const char *path, unsigned layers, uint32_t sequences, uint32_t rows)
{
	char pool[64], most[64], of_user[64], catalogue[64];
	const char *const set[] = { pool, most, of_user, catalogue, NULL };
	/* int8: 128 bytes and a few a row; the tail and what a slab does not fill come on top. */
	uint64_t bytes = (uint64_t)sequences * layers * (rows * 140ull + 64 * 1024);
	struct filler f = { .layers = layers };
	struct daemon d;
	FILE *log;
	int r;

	snprintf(pool, sizeof(pool), "pool_bytes=%" PRIu64, ALIGN_UP(bytes, MIB) + 32 * MIB);
	snprintf(most, sizeof(most), "max_sequences=%u", sequences + 8);
	snprintf(of_user, sizeof(of_user), "user_sequences=%u", sequences + 8);
	snprintf(catalogue, sizeof(catalogue), "catalogue_bytes=%" PRIu64,
		 (uint64_t)sequences * (layers + 2) * 8192 + 16 * MIB);
	r = daemon_start(&d, DAEMON_STORE, path, set);
	log = r == 0 ? fopen(d.log, "re") : NULL;
	if (!log)
		return r < 0 ? r : -errno;
	/* It waits for its store to listen before it serves. */
	for (unsigned i = 0; i < READY_TRIES && daemon_alive(&d); i++) {
		char line[512];

		if (find_line(log, " ready: ", line, sizeof(line)))
			break;
		daemon_wait(&d, 10000);
	}
	r = open_filler(&f, d.socket);
	r = r < 0 ? r : fill(&f, sequences, rows);
	printf("%u sequences of %u rows, %u layers\n", sequences, rows, layers);
	for (unsigned i = 0; r == 0 && i < TIMES; i++)
		r = restart(&d, log);
	close_filler(&f);
	fclose(log);
	if (r < 0)
		daemon_show_log(&d);
	daemon_stop(&d);
	return r;
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "daemon", required_argument, NULL, 'd' },
		{ "layers", required_argument, NULL, 'l' },
		{ 0 },
	};
	const char *path = "sparqd";
	unsigned layers = 1, sequences, rows;
	int c;

	setlinebuf(stdout);
	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (c == 'd')
			path = optarg;
		else if (c == 'l')
			layers = (unsigned)strtoul(optarg, NULL, 0);
		else
			return 64;
	}
	for (; optind < argc; optind++) {
		if (sscanf(argv[optind], "%ux%u", &sequences, &rows) != 2 || !layers) {
			fprintf(stderr, "\"%s\": SEQUENCESxROWS, as 1000x100\n", argv[optind]);
			return 64;
		}
		if (measure(path, layers, sequences, rows) < 0)
			return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
