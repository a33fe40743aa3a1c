/* SPDX-License-Identifier: Apache-2.0 */
/* The disk's thread, its queues and its buffers: see disk.h. */
#include <assert.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "daemon/disk-private.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define HUGE_BYTES (2 * MIB)

enum { LANE_READS, LANE_WRITES, LANES };

struct queue {
	struct disk_job *first, **end;
};

struct disk {
	struct disk_params params;
	const struct disk_backend *backend;
	void *state;
	struct disk_made made;
	char *memory;
	size_t mapped;
	int event_fd;

	/* The thread's alone. */
	struct lane lane[LANES];
	uint32_t last_group[LANES];
	int broken; /* -errno: the back end is of no use any more */

	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct queue waiting[LANES], done; /* under the lock, like `stop` */
	bool stop;
};

/* ---- queues --------------------------------------------------------------------- */

static void queue_init(struct queue *q)
{
	q->first = NULL;
	q->end = &q->first;
}

static void queue_add(struct queue *q, struct disk_job *job)
{
	job->next = NULL;
	*q->end = job;
	q->end = &job->next;
}

static struct disk_job *queue_take(struct queue *q, struct disk_job **at)
{
	struct disk_job *job = *at;

	*at = job->next;
	if (!job->next)
		q->end = at;
	job->next = NULL;
	return job;
}

/* What is over anyway; else the first of another group than the one before; else the first. */
static struct disk_job *queue_choose(struct queue *q, uint32_t last_group)
{
	struct disk_job **other = NULL;

	for (struct disk_job **at = &q->first; *at; at = &(*at)->next) {
		if (load_relaxed(&(*at)->cancelled))
			return queue_take(q, at);
		if (!other && (*at)->group != last_group)
			other = at;
	}
	return q->first ? queue_take(q, other ? other : &q->first) : NULL;
}

/* ---- thread --------------------------------------------------------------------- */

static void hand_back(struct disk *d, struct disk_job *job)
{
	if (!job)
		return;
	pthread_mutex_lock(&d->lock);
	queue_add(&d->done, job);
	pthread_mutex_unlock(&d->lock);
	/* Whoever reads the count finds the job in the queue. */
	eventfd_write(d->event_fd, 1);
}

static bool idle(const struct disk *d)
{
	for (unsigned i = 0; i < LANES; i++)
		if (d->lane[i].stage != LANE_IDLE)
			return false;
	return true;
}

/* Jobs for the lanes that have none; false: nothing to do any more. */
static bool fetch_jobs(struct disk *d, struct disk_job *ret[LANES])
{
	bool go_on;

	pthread_mutex_lock(&d->lock);
	while (!d->stop && idle(d) && !d->waiting[LANE_READS].first &&
	       !d->waiting[LANE_WRITES].first)
		pthread_cond_wait(&d->wake, &d->lock);
	for (unsigned i = 0; i < LANES; i++) {
		ret[i] = NULL;
		if (d->stop && d->lane[i].stage != LANE_IDLE)
			store_relaxed(&d->lane[i].job->cancelled, 1u);
		else if (!d->stop && d->lane[i].stage == LANE_IDLE)
			ret[i] = queue_choose(&d->waiting[i], d->last_group[i]);
	}
	go_on = !d->stop || !idle(d);
	pthread_mutex_unlock(&d->lock);
	return go_on;
}

static void go_on(struct disk *d, unsigned i)
{
	struct lane *l = &d->lane[i];

	/* A job that is over at once makes room for the next one only after the other lane. */
	hand_back(d, d->broken ? lane_break(l, d->broken) : lane_go_on(l));
}

static void wait_for_events(struct disk *d)
{
	struct disk_event event[DISK_DEPTH_MAX];
	unsigned under_way = 0;
	int n;

	for (unsigned i = 0; i < LANES; i++)
		under_way += d->lane[i].under_way;
	if (!under_way)
		return;
	n = d->backend->wait(d->state, event, DISK_DEPTH_MAX);
	if (n < 0)
		d->broken = n;
	for (int i = 0; i < n; i++) {
		/* A lane is its own token, a piece is in its lane. */
		bool writes = (char *)event[i].token >= (char *)&d->lane[LANE_WRITES];

		lane_event(&d->lane[writes ? LANE_WRITES : LANE_READS], event[i].token,
			   event[i].res);
	}
}

static void *run(void *arg)
{
	struct disk_job *job[LANES];
	struct disk *d = arg;

	pthread_setname_np(pthread_self(), "disk");
	while (fetch_jobs(d, job)) {
		for (unsigned i = 0; i < LANES; i++) {
			if (job[i]) {
				d->last_group[i] = job[i]->group;
				lane_begin(&d->lane[i], job[i]);
			}
			go_on(d, i);
		}
		wait_for_events(d);
	}
	return NULL;
}

/* ---- made and unmade -------------------------------------------------------------- */

/* Of huge pages if some are left; they cost the kernel less to pin, and us fewer misses. */
static int map_buffers(struct disk *d)
{
	size_t bytes = LANES * d->params.depth * d->params.piece_bytes;
	size_t whole = ALIGN_UP(bytes, HUGE_BYTES);
	int flags = MAP_PRIVATE | MAP_ANONYMOUS, protection = PROT_READ | PROT_WRITE;
	void *p = mmap(NULL, whole, protection, flags | MAP_HUGETLB | MAP_POPULATE, -1, 0);

	d->made.huge = p != MAP_FAILED;
	if (p == MAP_FAILED) {
		p = mmap(NULL, whole, protection, flags | MAP_POPULATE, -1, 0);
		if (p == MAP_FAILED)
			return -errno;
	}
	d->memory = p;
	d->mapped = whole;
	d->made.buffer_bytes = bytes;
	return 0;
}

static int open_backend(struct disk *d, const struct disk_backend *backend)
{
	unsigned entries = LANES * (d->params.depth + 1); /* each piece, and the lane's own */
	int r = backend->open(entries, d->memory, d->mapped, &d->state, &d->made.register_error);

	if (r < 0)
		return r;
	d->backend = backend;
	d->made.engine = backend->name;
	return 0;
}

static int choose_backend(struct disk *d)
{
	int r = -ENOSYS;

	if (d->params.kind != DISK_SYNC)
		r = open_backend(d, &disk_uring);
	if (r < 0 && d->params.kind != DISK_URING) {
		d->made.uring_error = d->params.kind == DISK_BEST ? r : 0;
		r = open_backend(d, &disk_sync);
	}
	return r;
}

static void init_lanes(struct disk *d)
{
	for (unsigned i = 0; i < LANES; i++) {
		struct lane *l = &d->lane[i];
		char *data = d->memory + i * d->params.depth * d->params.piece_bytes;

		l->params = &d->params;
		l->backend = d->backend;
		l->state = d->state;
		l->fd = -1;
		for (unsigned k = 0; k < d->params.depth; k++)
			l->piece[k].data = data + k * d->params.piece_bytes;
	}
}

static int start(struct disk *d)
{
	int r;

	d->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->event_fd < 0)
		return -errno;
	init_lanes(d);
	r = pthread_create(&d->thread, NULL, run, d);
	d->started = r == 0;
	return -r;
}

static void free_disk(struct disk **d)
{
	*d = disk_free(*d);
}

int disk_new_over(const struct disk_params *p, const struct disk_backend *backend,
		  struct disk **ret)
{
	CLEANUP(free_disk) struct disk *d = calloc(1, sizeof(*d));
	int r;

	assert(p->depth > 0 && p->depth <= DISK_DEPTH_MAX);
	assert(p->piece_bytes >= DISK_PIECE_MIN && p->piece_bytes <= DISK_PIECE_MAX);
	assert(p->piece_bytes % DISK_ALIGN == 0);
	if (!d)
		return -ENOMEM;
	d->params = *p;
	d->event_fd = -1;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->wake, NULL);
	for (unsigned i = 0; i < LANES; i++)
		queue_init(&d->waiting[i]);
	queue_init(&d->done);
	r = map_buffers(d);
	if (r == 0)
		r = backend ? open_backend(d, backend) : choose_backend(d);
	if (r == 0)
		r = start(d);
	if (r < 0)
		return r;
	*ret = STEAL_PTR(d);
	return 0;
}

int disk_new(const struct disk_params *p, struct disk **ret)
{
	return disk_new_over(p, NULL, ret);
}

static void stop(struct disk *d)
{
	pthread_mutex_lock(&d->lock);
	d->stop = true;
	pthread_cond_signal(&d->wake);
	pthread_mutex_unlock(&d->lock);
	pthread_join(d->thread, NULL);
}

struct disk *disk_free(struct disk *d)
{
	if (!d)
		return NULL;
	if (d->started)
		stop(d);
	if (d->backend)
		d->backend->close(d->state);
	if (d->memory)
		munmap(d->memory, d->mapped);
	close_fd(&d->event_fd);
	pthread_cond_destroy(&d->wake);
	pthread_mutex_destroy(&d->lock);
	free(d);
	return NULL;
}

struct disk_made disk_made(const struct disk *d)
{
	return d->made;
}

int disk_event_fd(const struct disk *d)
{
	return d->event_fd;
}

/* ---- jobs ----------------------------------------------------------------------- */

void disk_submit(struct disk *d, struct disk_job *job)
{
	job->error = 0;
	job->what = NULL;
	job->error_at = 0;
	job->moved = 0;
	job->cancelled = 0;
	pthread_mutex_lock(&d->lock);
	queue_add(&d->waiting[job->op == DISK_READ ? LANE_READS : LANE_WRITES], job);
	pthread_cond_signal(&d->wake);
	pthread_mutex_unlock(&d->lock);
}

void disk_cancel(struct disk *d, struct disk_job *job)
{
	store_relaxed(&job->cancelled, 1u);
}

struct disk_job *disk_fetch(struct disk *d)
{
	struct disk_job *job = NULL;
	eventfd_t n;

	pthread_mutex_lock(&d->lock);
	if (d->done.first)
		job = queue_take(&d->done, &d->done.first);
	if (!d->done.first)
		eventfd_read(d->event_fd, &n); /* 0 already: nobody minds */
	pthread_mutex_unlock(&d->lock);
	return job;
}
