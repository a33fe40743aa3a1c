/* SPDX-License-Identifier: Apache-2.0 */
/* The auditor's thread, and the control thread's side of it: see audit.h. */
#include "daemon/audit.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>

#include "daemon/seq.h"
#include "daemon/store.h"
#include "daemon/table.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define LOWEST 19               /* setpriority(2) */
#define TOUCHED_BYTES (2 * MIB) /* of the job, before a worker needs them */
#define SCRATCH_MOST (256 * MIB)

/* ---- one audit -------------------------------------------------------------------- */

/* Two sums over what was compared so far. */
struct compared {
	double difference, reference;
};

static void compare(const struct audit_job *j, const struct kv_exec *e, struct compared *c)
{
	const struct kv_space *s = &j->space;
	size_t n = (size_t)s->group * s->v_dim, row = (size_t)s->heads * s->v_dim;

	for (uint32_t q = 0; q < j->query.n_q; q++) {
		const float *have = j->o + q * row + e->head * n, *want = e->result.y + q * n;

		for (size_t k = 0; k < n; k++) {
			double by = (double)have[k] - (double)want[k];

			c->difference += by * by;
			c->reference += (double)want[k] * (double)want[k];
		}
	}
}

static bool is_over(const struct auditor *a)
{
	return load_relaxed(&a->job.cancel) || load_relaxed(&a->stopping);
}

static int audit_head(struct auditor *a, const struct kv_plan *plan, uint32_t head, void *scratch,
		      struct compared *c)
{
	struct audit_job *j = &a->job;
	struct kv_exec e;

	kv_exec_init(&e, &j->space, plan, &j->view, &j->query, head, scratch);
	for (uint32_t share = 0; share < e.shares; share++) {
		if (is_over(a))
			return -ECANCELED;
		kv_exec_share(&e, share);
	}
	kv_exec_finish(&e);
	compare(j, &e, c);
	return 0;
}

static int relative(const struct compared *c, double *ret)
{
	double difference = sqrt(c->difference), reference = sqrt(c->reference);

	if (!isfinite(difference) || !isfinite(reference))
		return -EDOM;
	/* Of nothing, anything is infinitely more; the largest figure that there is a bucket for.
	 */
	*ret = difference > 0 ? difference / fmax(reference, difference * 1e-9) : 0;
	return 0;
}

static int audit_all(struct auditor *a, double *ret)
{
	struct audit_job *j = &a->job;
	struct compared c = { 0 };
	FREE_MEMORY void *scratch = NULL;
	struct kv_plan plan;
	uint64_t bytes;
	int r = kv_plan_step(&j->space, &j->view, &j->query, j->result.layer, j->layers, true,
			     &plan);

	if (r < 0)
		return r;
	bytes = kv_exec_scratch_bytes(&j->space, &plan, &j->view, &j->query);
	if (bytes > SCRATCH_MOST || posix_memalign(&scratch, 128, bytes))
		return -ENOMEM;
	for (uint32_t head = 0; head < j->space.kv_heads && r == 0; head++)
		r = audit_head(a, &plan, head, scratch, &c);
	return r < 0 ? r : relative(&c, ret);
}

/* ---- its thread ------------------------------------------------------------------- */

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void ring(int fd)
{
	uint64_t one = 1;

	/* A full counter (EAGAIN) is as good. */
	if (write(fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

void audit_run(struct auditor *a)
{
	uint32_t queued = AUDIT_QUEUED;
	uint64_t began = cpu_ns();
	struct audit_job *j = &a->job;

	/* Acquires what the worker put into it. */
	if (!compare_exchange(&j->state, &queued, AUDIT_RUNNING))
		return;
	j->result.r = audit_all(a, &j->result.error);
	/* A hint to workers: who sees it late takes a job a little early. */
	store_relaxed(&a->rest_until_ns, (uint64_t)clock_now_ns() + (cpu_ns() - began) * a->rest);
	/* The result is whole, and nothing of the rows is read any more. */
	store_release(&j->state, AUDIT_DONE);
	ring(a->done);
}

static void *audit_thread(void *arg)
{
	struct auditor *a = arg;
	uint64_t n;

	kv_thread_init();
	/* Of this thread alone on Linux. */
	a->is_low = setpriority(PRIO_PROCESS, 0, LOWEST) == 0;
	ring(a->done);
	while (!load_acquire(&a->stopping)) {
		if (read(a->wake, &n, sizeof(n)) < 0 && errno != EINTR)
			break;
		audit_run(a);
	}
	return NULL;
}

static int start_thread(struct auditor *a)
{
	struct pollfd started = { .fd = a->done, .events = POLLIN };
	sigset_t all, before;
	uint64_t n;
	int r;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&a->thread, NULL, audit_thread, a);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		return -r;
	a->started = true;
	pthread_setname_np(a->thread, "audit");
	/* It has said what priority it has. */
	while (poll(&started, 1, -1) < 0 || read(a->done, &n, sizeof(n)) < 0)
		;
	return 0;
}

/* ---- control thread --------------------------------------------------------------- */

int audit_open(const struct audit_params *p, struct auditor **ret)
{
	struct auditor *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	a->every = p->every;
	a->rest = p->rest;
	a->wake = eventfd(0, EFD_CLOEXEC);
	a->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = a->wake < 0 || a->done < 0 ? -errno : lane_init(&a->job.lane, p->bytes);
	if (r == 0) {
		memset(a->job.lane.base, 0, MIN(p->bytes, TOUCHED_BYTES));
	}
	if (r == 0 && !p->by_hand)
		r = start_thread(a);
	if (r < 0) {
		audit_close(a);
		return r;
	}
	*ret = a;
	return 0;
}

struct auditor *audit_close(struct auditor *a)
{
	struct audit_result unheard;

	if (!a)
		return NULL;
	store_release(&a->stopping, 1);
	if (a->started) {
		ring(a->wake);
		pthread_join(a->thread, NULL);
	}
	/* One that it never began. */
	if (load_acquire(&a->job.state) == AUDIT_QUEUED)
		store_release(&a->job.state, AUDIT_DONE);
	if (audit_next(a, &unheard))
		audit_collect(a);
	lane_deinit(&a->job.lane);
	close_fd(&a->wake);
	close_fd(&a->done);
	free(a);
	return NULL;
}

void audit_set_every(struct auditor *a, uint32_t every)
{
	store_relaxed(&a->every, every);
}

int audit_fd(const struct auditor *a)
{
	return a->done;
}

bool audit_next(struct auditor *a, struct audit_result *ret)
{
	uint64_t n;

	if (read(a->done, &n, sizeof(n)) < 0)
		assert(errno == EAGAIN);
	if (load_acquire(&a->job.state) != AUDIT_DONE)
		return false;
	*ret = a->job.result;
	if (ret->r < 0)
		fetch_add(&a->left_out[ret->r == -ECANCELED ? STATS_AUDIT_DROPPED
				       : ret->r == -EDOM    ? STATS_AUDIT_ODD
							    : STATS_AUDIT_LARGE],
			  1u);
	return true;
}

void audit_collect(struct auditor *a)
{
	struct audit_job *j = &a->job;
	struct cache *c = j->result.cache;

	assert(load_relaxed(&j->state) == AUDIT_DONE);
	table_unref(c->store, j->table);
	fetch_sub(&c->audits, 1u);
	/* Empty for the next one before a worker can take it. */
	store_release(&j->state, AUDIT_FREE);
	cache_drop_unused(c);
}

void audit_drop(struct auditor *a, const struct seq *s)
{
	uint32_t queued = AUDIT_QUEUED;
	struct audit_job *j;

	if (!a)
		return;
	j = &a->job;
	/* Nobody queues one of this sequence any more: the caller holds it. */
	if (load_acquire(&j->state) < AUDIT_QUEUED || j->result.sequence != s->id)
		return;
	/* Orders nothing: who sees it late reads another share in vain. */
	store_relaxed(&j->cancel, 1u);
	if (!compare_exchange(&j->state, &queued, AUDIT_DONE))
		return;
	j->result.r = -ECANCELED;
	ring(a->done);
}

bool audit_is_idle(const struct auditor *a)
{
	return !a || load_acquire(&a->job.state) == AUDIT_FREE;
}

void audit_leave(struct auditor *a, const struct cache *c)
{
	if (!a || !load_acquire(&c->audits))
		return;
	/* Its sequences are gone, so that it was told to stop: at the next share. */
	while (load_acquire(&a->job.state) != AUDIT_DONE)
		usleep(100);
}

/* ---- token path ------------------------------------------------------------------- */

static uint64_t next_random(struct audit_turn *t)
{
	/* Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003 */
	t->random = t->random ? t->random : (uintptr_t)t | 1;
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return t->random;
}

/* Between 1 and twice `every`, so that no rhythm of layers or clients meets always the same. */
static uint32_t draw(struct audit_turn *t, uint32_t every)
{
	return 1 + (uint32_t)(next_random(t) % (2 * (uint64_t)every - 1));
}

bool audit_is_turn(struct auditor *a, struct audit_turn *turn, uint16_t own)
{
	uint32_t every = a ? load_relaxed(&a->every) : 0;

	if (!every || own == AUDIT_OFF)
		return false;
	/* There are as many such turns as caches: each step draws its own. */
	if (own)
		return next_random(turn) % own == 0;
	/* The first time, or it was made to come more often. */
	if (!turn->left || turn->left >= 2 * (uint64_t)every)
		turn->left = draw(turn, every);
	return --turn->left == 0;
}

struct audit_job *audit_take(struct auditor *a, uint64_t now_ns)
{
	uint32_t is_free = AUDIT_FREE;
	struct audit_job *j = &a->job;

	if (now_ns < load_relaxed(&a->rest_until_ns) ||
	    !compare_exchange(&j->state, &is_free, AUDIT_TAKEN)) {
		fetch_add(&a->left_out[STATS_AUDIT_BUSY], 1u);
		return NULL;
	}
	j->lane.used = 0;
	j->table = BLOCK_NONE;
	store_relaxed(&j->cancel, 0u);
	return j;
}

void audit_put_back(struct auditor *a, unsigned why)
{
	if (why < STATS_AUDITS)
		fetch_add(&a->left_out[why], 1u);
	store_release(&a->job.state, AUDIT_FREE);
}

void audit_queue(struct auditor *a)
{
	store_release(&a->job.state, AUDIT_QUEUED);
	ring(a->wake);
}
