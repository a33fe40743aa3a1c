/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that outlive the daemon: what is handed over at the start, and handing them on. */
#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "daemon/keep.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "shm/base.h"

#define FIRST_FD 3 /* of those handed over, by the protocol */
#define GIVEN_MOST 65536
#define GIVEN_BYTES 256 /* a name may be that long, with its end */
#define SETTLE_MS 5000
#define REST_S 2

/* ---- names ----------------------------------------------------------------- */

void keep_pool_name(unsigned i, char ret[KEEP_NAME_BYTES])
{
	snprintf(ret, KEEP_NAME_BYTES, "pool-%u", i);
}

static bool is_ours(const char *name)
{
	char pool[KEEP_NAME_BYTES];
	unsigned i;

	if (strcmp(name, KEEP_CATALOGUE) == 0)
		return true;
	if (sscanf(name, "pool-%u", &i) != 1 || i >= KEEP_MOST - 1)
		return false;
	keep_pool_name(i, pool);
	return strcmp(name, pool) == 0; /* one spelling, so each name is there once */
}

/* ---- what is handed over ---------------------------------------------------- */

static int suspect(struct kept *k, const char *name, const char *what)
{
	if (!k->error) {
		k->error = -EUCLEAN;
		snprintf(k->why, sizeof(k->why), "what is stored as \"%.15s\" %s", name, what);
	}
	return k->error;
}

static bool takes_type(int fd, int type)
{
	int is = 0, listens = 0;
	socklen_t n = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &is, &n) == 0 && is == type &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) == 0 && listens;
}

static bool take_socket(struct kept *k, int fd)
{
	if (k->session < 0 && takes_type(fd, SOCK_SEQPACKET))
		k->session = fd;
	else if (k->control < 0 && takes_type(fd, SOCK_STREAM))
		k->control = fd;
	else
		return false;
	return true;
}

/* Memory as sparqd makes it: a memfd that can be mapped to write, and only its owner's. */
static int check_memory(struct kept *k, const char *name, int fd, const struct stat *st)
{
	int flags = fcntl(fd, F_GETFL), seals = fcntl(fd, F_GET_SEALS);

	if (!S_ISREG(st->st_mode) || flags < 0 || seals < 0)
		return suspect(k, name, "is no memfd");
	if ((flags & O_ACCMODE) != O_RDWR || seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return suspect(k, name, "cannot be written");
	if (st->st_mode & 0077)
		return suspect(k, name, "can be opened by other users");
	return 0;
}

static struct kept_fd *find(struct kept *k, const char *name)
{
	for (unsigned i = 0; i < k->n; i++)
		if (k->stored[i].fd >= 0 && strcmp(k->stored[i].name, name) == 0)
			return &k->stored[i];
	return NULL;
}

/* A file twice under one name is one; two files are a doubt that only a person can resolve. */
static int check_twice(struct kept *k, const char *name, const struct stat *st, bool *ret_known)
{
	const struct kept_fd *before = find(k, name);
	struct stat other;

	*ret_known = before != NULL;
	if (!before)
		return 0;
	if (fstat(before->fd, &other) < 0)
		return -errno;
	if (other.st_dev != st->st_dev || other.st_ino != st->st_ino)
		return suspect(k, name, "is there twice, with different memory");
	return 0;
}

/* One descriptor of ours. True: it is in `stored` now. */
static bool take_memory(struct kept *k, const char *name, int fd)
{
	bool known = false;
	struct stat st;

	if (fstat(fd, &st) < 0 || check_memory(k, name, fd, &st) < 0 ||
	    check_twice(k, name, &st, &known) < 0 || known)
		return false;
	assert(k->n < KEEP_MOST); /* there are no more names */
	strcpy(k->stored[k->n].name, name);
	k->stored[k->n++].fd = fd;
	return true;
}

static void close_stored(struct kept *k)
{
	for (unsigned i = 0; i < k->n; i++)
		close_fd(&k->stored[i].fd);
	k->n = 0;
}

struct strangers {
	unsigned n;
	char first[32];
};

/* One of those handed over; what is neither a socket that we want nor ours is closed. */
static void take_one(struct kept *k, int fd, const char *name, struct strangers *strangers)
{
	bool ours = is_ours(name);

	if (ours ? take_memory(k, name, fd) : take_socket(k, fd))
		return;
	if (!ours && strangers->n++ == 0)
		snprintf(strangers->first, sizeof(strangers->first), "%.31s", name);
	close(fd);
}

/* The next of the names that ':' separates; "" where there are no more. */
static void next_name(const char **names, char ret[static GIVEN_BYTES])
{
	size_t n = *names ? strcspn(*names, ":") : 0;

	snprintf(ret, GIVEN_BYTES, "%.*s", (int)MIN(n, GIVEN_BYTES), *names ? *names : "");
	*names = *names && (*names)[n] ? *names + n + 1 : NULL;
}

static int take_all(struct kept *k, unsigned n, const char *names)
{
	struct strangers strangers = { 0 };
	char name[GIVEN_BYTES];

	for (unsigned i = 0; i < n; i++)
		if (fcntl(FIRST_FD + (int)i, F_SETFD, FD_CLOEXEC) < 0)
			return -errno;
	for (unsigned i = 0; i < n; i++) {
		next_name(&names, name);
		take_one(k, FIRST_FD + (int)i, name, &strangers);
	}
	if (strangers.n)
		log_warning(
			"descriptors handed over that sparqd %s does not know: %u, the first is "
			"\"%s\"; closed here, left where they are stored",
			SPARQ_VERSION, strangers.n, strangers.first);
	return 0;
}

/* LISTEN_FDS, if it is meant for this process: how many. */
static int handed_over(unsigned *ret)
{
	const char *n = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
	unsigned long count;
	char *end;

	*ret = 0;
	if (!n || !pid || strtol(pid, NULL, 10) != getpid())
		return 0;
	errno = 0;
	count = strtoul(n, &end, 10);
	if (errno || *end || end == n || count > GIVEN_MOST)
		return -EINVAL;
	*ret = (unsigned)count;
	return 0;
}

int keep_take(struct kept *ret)
{
	unsigned n;
	int r = handed_over(&n);

	if (r < 0)
		return r;
	*ret = KEPT_NULL;
	r = take_all(ret, n, getenv("LISTEN_FDNAMES"));
	if (ret->error)
		close_stored(ret);
	/* Not for our children. */
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDNAMES");
	return r;
}

int kept_steal(struct kept *k, const char *name)
{
	struct kept_fd *f = find(k, name);

	return f ? STEAL_FD(f->fd) : -ENOENT;
}

unsigned kept_left(const struct kept *k)
{
	unsigned n = 0;

	for (unsigned i = 0; i < k->n; i++)
		n += k->stored[i].fd >= 0;
	return n;
}

void kept_deinit(struct kept *k)
{
	close_fd(&k->session);
	close_fd(&k->control);
	close_stored(k);
}

/* ---- handing on -------------------------------------------------------------- */

enum keep_kind keep_kind(void)
{
	const char *manager = getenv("NOTIFY_SOCKET");

	if (!manager || !*manager)
		return KEEP_NONE;
	return getenv("SPARQD_KEEPER") ? KEEP_KEEPER : KEEP_SYSTEMD;
}

const char *keep_kind_name(enum keep_kind kind)
{
	static const char *const names[] = {
		[KEEP_NONE] = "nobody",
		[KEEP_SYSTEMD] = "systemd",
		[KEEP_KEEPER] = "the keeper",
	};

	return names[kind];
}

int keep_push(const char *name, int fd)
{
	char text[64];
	int r;

	/* Not watched for hang-up: memory has none. */
	snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
	r = notify_send(text, &fd, 1);
	return MIN(r, 0);
}

int keep_drop(const char *name)
{
	char text[64];
	int r;

	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	r = notify_send(text, NULL, 0);
	return MIN(r, 0);
}

void keep_rest(void)
{
	const struct timespec rest = { .tv_sec = REST_S };
	sigset_t end;

	if (keep_kind() != KEEP_SYSTEMD)
		return;
	sigemptyset(&end);
	sigaddset(&end, SIGTERM);
	sigaddset(&end, SIGINT);
	sigprocmask(SIG_BLOCK, &end, NULL);
	sigtimedwait(&end, NULL, &rest);
}

int keep_settle(void)
{
	int r = notify_barrier(SETTLE_MS);

	return MIN(r, 0);
}
