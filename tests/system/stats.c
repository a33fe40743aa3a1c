/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stats page for tests/system/test-stats.sh.
 *
 *   stats SOCKET sums       bytes and steps, by who counted them: these agree
 *   stats SOCKET watch      a line for each line of input: what a refresh said, and the generation
 *   stats SOCKET sources    what the hardware of each node counts, or why not
 *   stats SOCKET order      requests in an order that no program of ours uses, and too many
 * watchers stats SOCKET write      tries to write what it was given; 0: it could not
 *
 * Exit: 0, 1 with the daemon's sentence on stderr.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "client/stats.h"
#include "shm/base.h"
#include "shm/message.h"

static int complain(const char *why)
{
	fprintf(stderr, "stats: %s\n", why);
	return 1;
}

static uint64_t read_sum(const struct stats_read *r)
{
	uint64_t sum = 0;

	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		sum += r->bytes[p];
	return sum;
}

static void add_worker(const struct stats_worker *w, uint64_t *ops, uint64_t nodes[STATS_NODES],
		       uint64_t *steps)
{
	for (unsigned op = 0; op < STATS_OPS; op++) {
		*ops += read_sum(&w->op[op]);
		for (unsigned policy = 0; policy < STATS_POLICIES; policy++)
			*steps += op == SPARQ_OP_NOP ? 0 : w->steps[op][policy].done;
	}
	for (unsigned node = 0; node < STATS_NODES; node++)
		for (unsigned p = 0; p < SPARQ_PLANES; p++)
			nodes[node] += w->read_node_bytes[node][p];
}

/* What each has, and the sum over all that were read. */
static uint64_t print_nodes(const struct stats *s, const uint64_t bytes[STATS_NODES])
{
	uint64_t sum = 0, roofline = 0;
	struct stats_node n;

	for (uint32_t i = 0; stats_copy(s, STATS_NODE, i, &n) == 0; i++) {
		printf("read-%d %" PRIu64 "\nused-%d %" PRIu64 "\n", n.node, bytes[i], n.node,
		       n.pool_used_bytes);
		roofline += n.roofline_bytes_s;
	}
	for (unsigned i = 0; i < STATS_NODES; i++)
		sum += bytes[i];
	printf("roofline %" PRIu64 "\n", roofline);
	return sum;
}

static int print_sums(const struct stats *s)
{
	uint64_t node_bytes[STATS_NODES] = { 0 };
	uint64_t ops = 0, nodes = 0, steps = 0, users = 0, sequences = 0, n = 0, rows = 0;
	struct stats_sequence q;
	struct stats_control c;
	struct stats_worker w;
	struct stats_user u;

	for (uint32_t i = 0; i < stats_count(s, STATS_WORKER); i++)
		if (stats_copy(s, STATS_WORKER, i, &w) == 0)
			add_worker(&w, &ops, node_bytes, &steps);
	for (uint32_t i = 0; i < stats_count(s, STATS_USER); i++)
		if (stats_copy(s, STATS_USER, i, &u) == 0 && u.used)
			users += read_sum(&u.read);
	for (uint32_t i = 0; i < stats_count(s, STATS_SEQUENCE); i++) {
		if (stats_copy(s, STATS_SEQUENCE, i, &q) < 0 || !q.id)
			continue;
		sequences += read_sum(&q.read);
		rows += q.rows;
		n++;
	}
	if (stats_copy(s, STATS_CONTROL, 0, &c) < 0)
		return complain("the control block is never still");
	nodes = print_nodes(s, node_bytes);
	printf("ops %" PRIu64 "\nnodes %" PRIu64 "\nusers %" PRIu64 "\nsequences %" PRIu64
	       "\nsteps %" PRIu64 "\nthere %" PRIu64 "\nrows %" PRIu64 "\ncounted %" PRIu64
	       "\nsessions %u\nparked %" PRIu64 "\n",
	       ops, nodes, users, sequences, steps, n, rows, c.sequences, c.sessions, c.parked);
	return 0;
}

static int print_sources(const struct stats *s)
{
	struct stats_node n;

	for (uint32_t i = 0; stats_copy(s, STATS_NODE, i, &n) == 0; i++)
		for (unsigned k = 0; k < STATS_SOURCES; k++)
			printf("node %d %s: %s\n", n.node, n.source[k].name,
			       n.source[k].why[0] ? n.source[k].why : "counts");
	return 0;
}

static int watch(struct stats *s)
{
	char line[16], why[SPARQ_ERROR_TEXT] = "";

	while (fgets(line, sizeof(line), stdin)) {
		int r = stats_refresh(s, why);

		printf("%s %" PRIu32 "\n",
		       r < 0 ? why
		       : r   ? "new"
			     : "same",
		       stats_header(s)->generation);
		fflush(stdout);
	}
	return 0;
}

/* ---- what a descriptor allows ----------------------------------------------------- */

static bool can_write(int fd, size_t bytes)
{
	char path[32], byte = 1;
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CLOSE_FD int again = -1;

	if (p != MAP_FAILED)
		return true;
	p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED || mprotect(p, bytes, PROT_READ | PROT_WRITE) == 0)
		return true;
	if (pwrite(fd, &byte, 1, 0) >= 0 || ftruncate(fd, 0) == 0)
		return true;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	return again >= 0 && (mmap(NULL, bytes, PROT_WRITE, MAP_SHARED, again, 0) != MAP_FAILED ||
			      pwrite(again, &byte, 1, 0) >= 0);
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : fd;
}

/* The page's size, -errno with the daemon's sentence; its descriptor is *ret_fd. */
static int64_t ask(int socket, int *ret_fd, char *why)
{
	union message m;
	int fd = -1, r;

	message_init(&m, SPARQ_MSG_STATS);
	r = message_call(socket, &m, &fd, 1, -1, why);
	*ret_fd = fd;
	return r < 0 ? r : (int64_t)m.stats.bytes;
}

static int try_to_write(const char *path)
{
	CLOSE_FD int socket = connect_to(path);
	char why[SPARQ_ERROR_TEXT] = "";
	CLOSE_FD int fd = -1;
	int64_t bytes = ask(socket, &fd, why);

	if (bytes < 0)
		return complain(why);
	return can_write(fd, (size_t)bytes) ? complain("it can be written") : 0;
}

/* ---- what the daemon must take ------------------------------------------------------ */

#define WATCHERS 16 /* of one user */

static int say_hello(int socket, int fds[3], char *why)
{
	union message m;

	message_init(&m, SPARQ_MSG_HELLO);
	m.hello.magic = SPARQ_MAGIC;
	m.hello.abi = SPARQ_ABI_MAJOR;
	m.hello.node = -1;
	return message_call(socket, &m, fds, 3, -1, why);
}

static int expect(int64_t have, int64_t want, const char *what, const char *why)
{
	if (have == want)
		return 0;
	fprintf(stderr, "stats: %s: %" PRId64 ", not %" PRId64 ": %s\n", what, have, want, why);
	return 1;
}

/* A watcher can become no session, and stays what it is; a session can become no watcher. */
static int try_both(const char *path)
{
	CLOSE_FD int watcher = connect_to(path), session = connect_to(path), page = -1;
	char why[SPARQ_ERROR_TEXT] = "";
	int fds[3] = { -1, -1, -1 }, wrong;
	int64_t bytes = ask(watcher, &page, why);

	wrong = expect(say_hello(watcher, fds, why), -EPROTO, "HELLO of a watcher", why);
	close_fd(&page);
	wrong |= expect(ask(watcher, &page, why), bytes, "STATS after that", why);
	wrong |= expect(say_hello(session, fds, why), 0, "HELLO", why);
	close_fd(&page);
	wrong |= expect(ask(session, &page, why), -EPROTO, "STATS after HELLO", why);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		close_fd(&fds[i]);
	return wrong;
}

static int try_many(const char *path)
{
	int socket[WATCHERS + 1], page, wrong = 0;
	char why[SPARQ_ERROR_TEXT] = "";

	for (unsigned i = 0; i < WATCHERS + 1; i++) {
		int64_t r;

		socket[i] = connect_to(path);
		r = ask(socket[i], &page, why);
		close_fd(&page);
		wrong |= expect(r < 0 ? r : 0, i < WATCHERS ? 0 : -EMFILE, "a watcher", why);
	}
	wrong |= expect(strstr(why, "end one") != NULL, 1, "the refusal", why);
	for (unsigned i = 0; i < WATCHERS + 1; i++)
		close_fd(&socket[i]);
	return wrong;
}

int main(int argc, char **argv)
{
	char why[SPARQ_ERROR_TEXT] = "";
	struct stats *s;
	int r;

	if (argc != 3)
		return complain("SOCKET and sums, sources, watch, order or write are expected");
	if (!strcmp(argv[2], "write"))
		return try_to_write(argv[1]);
	if (!strcmp(argv[2], "order"))
		return try_both(argv[1]) | try_many(argv[1]);
	if (stats_open(argv[1], &s, why) < 0)
		return complain(why);
	if (!strcmp(argv[2], "watch"))
		r = watch(s);
	else
		r = strcmp(argv[2], "sums") ? print_sources(s) : print_sums(s);
	stats_close(s);
	return r;
}
