/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that are killed while a child of theirs still holds the session's
 * socket: the daemon must hear of the death from their pidfd, not from a hang-up
 * that may never come, and give what they had to the next process of the user.
 *
 *   orphan SOCKET [rounds]
 *
 * Prints how long it took from the kill until the sequence was free. 77: this
 * kernel has no SO_PEERPIDFD.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/sparq.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define ROWS 100u
#define KV_BYTES (ROWS * 2 * 64 * sizeof(float))
#define PATIENCE_US 5e6
#define NOBODY 65534

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	_exit(1);
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static sparq *open_session(const char *socket)
{
	char why[SPARQ_ERROR_TEXT] = "";
	struct sparq_open_params p = { .size = sizeof(p), .arena_bytes = 1 << 20, .why = why };
	sparq *c;

	if (sparq_open(socket, &p, &c) < 0)
		die("open: %s", why);
	return c;
}

static sparq_cache *open_cache(sparq *c, bool park)
{
	struct sparq_cache_params p = {
		.size = sizeof(p),
		.layers = 1,
		.heads = 1,
		.kv_heads = 1,
		.k_dim = 64,
		.v_dim = 64,
		.dtype = SPARQ_DTYPE_F32,
		.name = park ? "parked" : "dropped",
		.options = park ? "on_disconnect=park" : "on_disconnect=drop",
	};
	sparq_cache *k;

	if (sparq_cache_create(c, &p, &k) < 0)
		die("cache: %s", sparq_error(c));
	return k;
}

/* ---- the client that dies, and its child ------------------------------------------ */

static void append_rows(sparq *c, sparq_seq *s)
{
	struct sparq_cqe *cqe;
	sparq_queue *q;
	sparq_buf *b;

	if (sparq_queue_create(c, NULL, &q) < 0 || sparq_buf_alloc(c, KV_BYTES, &b) < 0)
		die("queue: %s", sparq_error(c));
	memset(sparq_buf_data(b, NULL), 0, KV_BYTES);
	sparq_prep_append(sparq_get_sqe(q), sparq_seq_id(s), 0, sparq_buf_addr(b), 0, ROWS);
	if (sparq_submit(q, 0) != 1 || sparq_wait(q, &cqe, 10000000000) < 0 || cqe->res != 1)
		die("append failed");
	sparq_seen(q, 1);
}

/* Holds the socket of a session that is its parent's, until it is killed. */
__attribute__((noreturn)) static void be_child(void)
{
	for (;;)
		pause();
}

__attribute__((noreturn)) static void be_client(const char *socket, bool park, int to)
{
	sparq *c = open_session(socket);
	sparq_seq *s;
	pid_t child;

	if (sparq_seq_create(open_cache(c, park), "turn", &s) < 0)
		die("sequence: %s", sparq_error(c));
	append_rows(c, s);
	child = fork();
	if (child == 0)
		be_child();
	if (write(to, &child, sizeof(child)) != sizeof(child))
		_exit(1);
	be_child();
}

/* ---- who comes after ------------------------------------------------------------------ */

static bool kernel_tells(void)
{
	int pair[2], fd = -1;
	socklen_t n = sizeof(fd);

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0)
		die("socketpair: %s", strerror(errno));
	return getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &fd, &n) == 0;
}

/* Until the sequence is nobody's: parked, it is ours then; dropped, there is none. */
static double await_free(sparq *c, sparq_cache *k, bool park, double begin)
{
	struct sparq_seq_stat stat = { .size = sizeof(stat) };
	sparq_seq *s = NULL;
	int r;

	while ((r = sparq_seq_attach(k, "turn", &s)) == -EBUSY && now_us() - begin < PATIENCE_US)
		;
	begin = now_us() - begin;
	if (r != (park ? 0 : -ENOENT))
		die("after %.0f us: %s", begin, r ? sparq_error(c) : "it is still there");
	if (!park)
		return begin;
	if (sparq_seq_stat_get(s, 0, &stat) < 0 || stat.rows_least != ROWS)
		die("%llu rows of %u are left", (unsigned long long)stat.rows_least, ROWS);
	if (sparq_seq_drop(s) < 0)
		die("drop: %s", sparq_error(c));
	return begin;
}

static double orphan(const char *socket, sparq *c, sparq_cache *k, bool park)
{
	pid_t client, child;
	int ends[2], status;
	double begin, us;

	if (pipe(ends) < 0)
		die("pipe: %s", strerror(errno));
	client = fork();
	if (client == 0)
		be_client(socket, park, ends[1]);
	close(ends[1]);
	if (read(ends[0], &child, sizeof(child)) != sizeof(child))
		die("the client did not get as far as its child");
	close(ends[0]);
	begin = now_us();
	kill(client, SIGKILL);
	if (waitpid(client, &status, 0) != client)
		die("wait: %s", strerror(errno));
	us = await_free(c, k, park, begin);
	if (kill(child, 0) < 0)
		die("the child was gone, so that it may have been the hang-up");
	kill(child, SIGKILL);
	return us;
}

/* Another user finds nothing of that name, in the words for what never was. */
static void ask_as_nobody(const char *socket)
{
	sparq_cache *k;
	pid_t child;
	sparq_seq *s;
	int status;
	sparq *c;

	if (geteuid() != 0) {
		printf("not root: no other user was asked for it\n");
		return;
	}
	child = fork();
	if (child == 0) {
		if (setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
			die("setuid: %s", strerror(errno));
		c = open_session(socket);
		if (sparq_cache_attach(c, "parked", NULL, &k) != -ENOENT)
			die("another user's cache: %s", sparq_error(c));
		if (sparq_seq_attach(open_cache(c, true), "kept", &s) != -ENOENT)
			die("another user's sequence: %s", sparq_error(c));
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || status != 0)
		die("as another user: status %d", status);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure(const char *socket, sparq *c, bool park, unsigned rounds)
{
	sparq_cache *k = open_cache(c, park);
	double *us = calloc(rounds, sizeof(*us));

	for (unsigned i = 0; i < rounds; i++)
		us[i] = orphan(socket, c, k, park);
	qsort(us, rounds, sizeof(*us), compare);
	printf("%s: %u clients died; free again after %.0f us, median %.0f us, at most %.0f us\n",
	       park ? "parked" : "dropped", rounds, us[0], us[rounds / 2], us[rounds - 1]);
	free(us);
	sparq_cache_unref(k);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 20;
	sparq_seq *kept;
	sparq_cache *k;
	sparq *c;

	if (argc < 2 || rounds == 0)
		return 64;
	if (!kernel_tells()) {
		printf("no SO_PEERPIDFD: skipped\n");
		return 77;
	}
	c = open_session(argv[1]);
	k = open_cache(c, true);
	if (sparq_seq_create(k, "kept", &kept) < 0)
		die("sequence: %s", sparq_error(c));
	ask_as_nobody(argv[1]);
	measure(argv[1], c, true, rounds);
	measure(argv[1], c, false, rounds);
	sparq_seq_drop(kept);
	sparq_cache_unref(k);
	sparq_close(c);
	return 0;
}
