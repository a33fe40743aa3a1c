/* SPDX-License-Identifier: Apache-2.0 */
/* One job at a time, piece by piece: see disk-private.h. */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/disk-private.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

static void fail(struct lane *l, int error, const char *what, uint64_t at)
{
	struct disk_job *j = l->job;

	if (j->error) /* the first one is what happened */
		return;
	j->error = error;
	j->what = what;
	j->error_at = at;
}

static bool over(const struct lane *l)
{
	return l->job->error || load_relaxed(&l->job->cancelled);
}

/* ---- files ---------------------------------------------------------------------- */

static void temporary_name(const struct disk_job *j, char *ret)
{
	snprintf(ret, DISK_NAME_MAX + 4, "%s.tmp", j->name);
}

/* All of it before the first byte: a full disk says so now, and pieces that do not move the end of
 * the file are written side by side. */
static int reserve(int fd, uint64_t bytes)
{
	int r = fallocate(fd, 0, 0, (off_t)ALIGN_UP(bytes, DISK_ALIGN));

	/* Some file systems cannot; then the writes will tell. */
	return r < 0 && errno != EOPNOTSUPP ? -errno : 0;
}

static void open_to_write(struct lane *l, int flags)
{
	char name[DISK_NAME_MAX + 4];
	int r;

	temporary_name(l->job, name);
	l->fd = openat(l->params->directory, name, O_RDWR | O_CREAT | O_TRUNC | flags, 0600);
	if (l->fd < 0) {
		fail(l, -errno, "open", 0);
		return;
	}
	r = l->job->bytes ? reserve(l->fd, l->job->bytes) : 0;
	if (r < 0)
		fail(l, r, "reserve", 0);
}

static void open_to_read(struct lane *l, int flags)
{
	struct stat st;
	int r;

	l->fd = openat(l->params->directory, l->job->name, O_RDONLY | flags);
	if (l->fd < 0 || fstat(l->fd, &st) < 0) {
		fail(l, -errno, "open", 0);
		return;
	}
	if (!S_ISREG(st.st_mode)) {
		fail(l, -EINVAL, "open", 0);
		return;
	}
	l->job->bytes = (uint64_t)st.st_size;
	r = l->job->opened ? l->job->opened(l->job->arg, l->fd, l->job->bytes) : 0;
	if (r < 0)
		fail(l, r, "contents", 0);
}

/* What was padded to whole blocks ends where the file does, before it is made to last. */
static void cut_padding(struct lane *l)
{
	if (l->job->bytes % DISK_ALIGN && ftruncate(l->fd, (off_t)l->job->bytes) < 0)
		fail(l, -errno, "truncate", l->job->bytes);
}

static void give_name(struct lane *l)
{
	int directory = l->params->directory;
	char name[DISK_NAME_MAX + 4];

	temporary_name(l->job, name);
	/* Written around the cache, or meant to be: it would only drive out what is used. */
	if (!l->params->direct)
		posix_fadvise(l->fd, 0, 0, POSIX_FADV_DONTNEED);
	if (renameat(directory, name, directory, l->job->name) < 0)
		fail(l, -errno, "rename", 0);
	else if (fsync(directory) < 0)
		fail(l, -errno, "fsync of the directory", 0);
}

/* ---- requests ------------------------------------------------------------------- */

static void submit(struct lane *l, const struct disk_request *q, const char *what, uint64_t at)
{
	int r = l->backend->submit(l->state, q);

	if (r < 0)
		fail(l, r, what, at);
	else
		l->under_way++;
}

static bool writes(const struct lane *l)
{
	return l->job->op == DISK_WRITE;
}

static const char *verb(const struct lane *l)
{
	return writes(l) ? "write" : "read";
}

/* What is left of a piece, from a whole block on. */
static void submit_piece(struct lane *l, struct piece *p)
{
	struct disk_request q = {
		.op = writes(l) ? DISK_REQUEST_WRITE : DISK_REQUEST_READ,
		.fd = l->fd,
		.data = p->data + p->done,
		.bytes = (uint32_t)ALIGN_UP(p->bytes, DISK_ALIGN) - p->done,
		.at = p->at + p->done,
		.token = p,
	};

	submit(l, &q, verb(l), q.at);
}

static uint64_t head_bytes(const struct lane *l)
{
	return l->job->head_bytes ? l->job->head_bytes : l->params->piece_bytes;
}

/* Where piece i begins; behind the last one: the end. */
static uint64_t piece_at(const struct lane *l, uint64_t i)
{
	uint64_t at = i ? head_bytes(l) + (i - 1) * l->params->piece_bytes : 0;

	return MIN(at, l->job->bytes);
}

static void begin_piece(struct lane *l)
{
	struct piece *p = &l->piece[l->begun % l->params->depth];
	uint64_t at = piece_at(l, l->begun);
	int r;

	p->lane = l;
	p->at = at;
	p->bytes = (uint32_t)(piece_at(l, l->begun + 1) - at);
	p->done = 0;
	p->whole = false;
	if (writes(l)) {
		r = l->job->move(l->job->arg, at, p->data, p->bytes);
		if (r < 0) {
			fail(l, r, "contents", at);
			return;
		}
		memset(p->data + p->bytes, 0, ALIGN_UP(p->bytes, DISK_ALIGN) - p->bytes);
	}
	submit_piece(l, p);
	l->begun++;
}

static void begin_pieces(struct lane *l)
{
	while (!over(l) && piece_at(l, l->begun) < l->job->bytes &&
	       l->begun - l->ended < l->params->depth)
		begin_piece(l);
}

/* Hands over what was read, frees the slots of what was written. */
static void end_pieces(struct lane *l)
{
	while (!over(l) && l->ended < l->begun) {
		struct piece *p = &l->piece[l->ended % l->params->depth];
		int r = 0;

		if (!p->whole)
			return;
		if (!writes(l))
			r = l->job->move(l->job->arg, p->at, p->data, p->bytes);
		if (r < 0) {
			fail(l, r, "contents", p->at);
			return;
		}
		l->ended++;
		fetch_add(&l->job->moved, (uint64_t)p->bytes);
	}
}

static void begin_sync(struct lane *l)
{
	cut_padding(l);
	if (over(l))
		return;
	submit(l, &(struct disk_request){ .op = DISK_REQUEST_FSYNC, .fd = l->fd, .token = l },
	       "fsync", 0);
	l->stage = LANE_SYNCING;
}

static void begin_remove(struct lane *l)
{
	struct disk_request q = {
		.op = DISK_REQUEST_UNLINK,
		.fd = l->params->directory,
		.name = l->job->name,
		.token = l,
	};

	l->stage = LANE_REMOVING;
	submit(l, &q, "remove", 0);
}

/* ---- steps ---------------------------------------------------------------------- */

void lane_begin(struct lane *l, struct disk_job *job)
{
	int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (l->params->direct ? O_DIRECT : 0);

	assert(l->stage == LANE_IDLE && l->fd < 0 && !l->under_way);
	l->job = job;
	l->begun_ns = clock_now_ns();
	l->begun = l->ended = 0;
	l->stage = LANE_MOVING;
	if (over(l))
		return;
	if (job->op == DISK_WRITE)
		open_to_write(l, flags);
	else if (job->op == DISK_READ)
		open_to_read(l, flags);
	else
		begin_remove(l);
}

static bool all_moved(const struct lane *l)
{
	return piece_at(l, l->ended) == l->job->bytes;
}

static struct disk_job *finish(struct lane *l)
{
	char name[DISK_NAME_MAX + 4];
	struct disk_job *job = l->job;

	if (load_relaxed(&job->cancelled))
		fail(l, -ECANCELED, verb(l), 0);
	if (!job->error && l->stage == LANE_SYNCING)
		give_name(l);
	if (job->error && job->op == DISK_WRITE && l->fd >= 0) {
		temporary_name(job, name);
		unlinkat(l->params->directory, name, 0);
	}
	close_fd(&l->fd);
	job->ns = clock_now_ns() - l->begun_ns;
	l->stage = LANE_IDLE;
	l->job = NULL;
	return job;
}

struct disk_job *lane_go_on(struct lane *l)
{
	if (l->stage == LANE_IDLE)
		return NULL;
	if (l->stage == LANE_MOVING && !over(l)) {
		end_pieces(l);
		begin_pieces(l);
		if (!over(l) && writes(l) && all_moved(l))
			begin_sync(l);
	}
	if (l->under_way)
		return NULL;
	/* Pieces that were whole are all handed over: nothing under way is the end. */
	return finish(l);
}

static void piece_event(struct lane *l, struct piece *p, int res)
{
	uint32_t before = p->done;
	uint64_t stop = p->at + before;

	if (res == -EAGAIN || res == -EINTR)
		res = 0;
	else if (res <= 0)
		fail(l, res < 0 ? res : -EIO, res < 0 ? verb(l) : "end of file", stop);
	if (over(l))
		return;
	p->done += (uint32_t)res;
	if (p->done >= p->bytes) {
		p->whole = true;
		return;
	}
	/* A part: the block in which it ended once more, where only whole ones go. */
	if (l->params->direct)
		p->done -= p->done % DISK_ALIGN;
	if (res && p->done == before)
		fail(l, -EIO, "part of a block", stop);
	else
		submit_piece(l, p);
}

void lane_event(struct lane *l, void *token, int res)
{
	assert(l->under_way > 0);
	l->under_way--;
	if (token != l)
		piece_event(l, token, res);
	else if (res < 0)
		fail(l, res, l->stage == LANE_REMOVING ? "remove" : "fsync", 0);
}

struct disk_job *lane_break(struct lane *l, int error)
{
	if (l->stage == LANE_IDLE)
		return NULL;
	fail(l, error, "io_uring", 0);
	l->under_way = 0;
	return finish(l);
}
