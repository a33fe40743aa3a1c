/* SPDX-License-Identifier: Apache-2.0 */
/* The control thread's side of the workers: start, stop, attach, detach, events. */
#include "daemon/worker.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/stats.h"
#include "daemon/worker-private.h"
#include "numa/pin.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define LANE_BYTES (512 * MIB)

static void wake_worker(struct worker *w)
{
	uint64_t one = 1;

	/* A full counter (EAGAIN) is as good as a ring. */
	if (write(w->wake, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

static int worker_command(struct worker *w, enum command_kind kind, struct session *s)
{
	struct command *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->kind = kind;
	c->session = s;
	pthread_mutex_lock(&w->mutex);
	*w->last = c;
	w->last = &c->next;
	pthread_mutex_unlock(&w->mutex);
	/* The command is in the list before the flag is up; the eventfd is sticky, so a worker that
	 * has just announced its sleep finds it readable. */
	store_release(&w->has_mail, 1);
	wake_worker(w);
	return 0;
}

/* Does this one sleep, and has it not been rung for that? */
static bool ring_sleeper(struct worker *w, struct worker *other)
{
	uint32_t *rung = &w->all->rung[w->index * w->all->n + other->index];
	uint32_t epoch = load_relaxed(&other->sleeper.poller->sleep_epoch);

	if (other == w || !epoch || epoch == *rung)
		return false;
	*rung = epoch;
	wake_worker(other);
	return true;
}

/* Its thread gives it up where it cannot be pinned. */
static int node_of(const struct worker *w)
{
	return load_relaxed(&w->stepper.hand.node);
}

/* Those that have shares near; how many shares are more than they can run at once. */
static uint32_t ring_near(struct worker *w)
{
	struct workers *all = w->all;
	const struct board *b = &w->stepper.board;
	uint32_t left = board_shares(b, BOARD_ANYWHERE);

	for (unsigned node = 0; node < b->n_nodes; node++) {
		uint32_t shares = board_shares(b, node), workers = 0;

		for (unsigned i = 0; i < all->n && shares; i++) {
			if (node_of(all->worker[i]) != (int)node)
				continue;
			workers++;
			ring_sleeper(w, all->worker[i]);
		}
		left += shares - MIN(shares, workers);
	}
	return left;
}

/* The other workers, for a wave that is worth a wake: those that sleep, once per epoch; of the
 * nodes that have work first, and of others only if that is more than they can do at once. */
static void call_helpers(void *arg)
{
	struct worker *w = arg;
	struct workers *all = w->all;
	uint32_t left;

	/* The open board is visible before the epoch is read: either this load sees the sleep, or
	 * the sleeper's last look sees the board. */
	fence_seq_cst();
	left = ring_near(w);
	/* Who may be anywhere is near to everything. */
	for (unsigned i = 0; i < all->n; i++)
		if (node_of(all->worker[i]) < 0)
			ring_sleeper(w, all->worker[i]);
	for (unsigned i = 0; i < all->n && left; i++)
		left -= ring_sleeper(w, all->worker[i]);
}

/* ---- start and stop ---------------------------------------------------------- */

/* Which of the pool's nodes that is: after a restart their order is the catalogue's. If it is none,
 * the first that has memory only and is worked for from there. */
static int pool_index(const struct workers_params *p, int node)
{
	unsigned n = p->store->pool->n_nodes;

	for (unsigned i = 0; i < n && node >= 0; i++)
		if (p->arena[i].node == node)
			return (int)i;
	for (unsigned i = 0; i < n && node >= 0; i++)
		if (topo_home(p->topo, p->arena[i].node) == node)
			return (int)i;
	return -1;
}

/* What lies on memory of no CPU is put up where the CPUs are that work for it. */
static void lend_hands(struct board *b, const struct workers_params *p)
{
	for (unsigned i = 0; i < b->n_nodes && p->arena; i++) {
		int home = topo_home(p->topo, p->arena[i].node);

		if (home >= 0 && home != p->arena[i].node)
			b->lane_of[i] = (uint8_t)pool_index(p, home);
	}
}

static void place_stepper(struct worker *w, const struct workers_params *p)
{
	struct board_hand *hand = &w->stepper.hand;
	int index = pool_index(p, w->node);

	hand->near_elsewhere = worker_run_near;
	hand->arg = w;
	/* One node is where everybody is, pinned or not. */
	if (index < 0 || p->store->pool->n_nodes == 1)
		return;
	hand->node = index;
	hand->order = pool_order(p->store->pool, (unsigned)index);
}

/* Where it counts what it reads of the pool's nodes; UINT8_MAX: nowhere. */
static void map_stats(struct stepper *s, const struct workers_params *p)
{
	for (unsigned i = 0; i < p->store->pool->n_nodes && p->arena; i++) {
		int k = topo_find(p->topo, p->arena[i].node);

		s->stats_node[i] = k >= 0 ? (uint8_t)k : UINT8_MAX;
	}
}

/* Who it is, for those who read what it counts. */
static void name_worker(const struct worker *w)
{
	struct stats_worker *stats = w->stepper.stats;

	stats_set(&stats->node, w->node);
	stats_set(&stats->cpu, w->cpu);
	stats_set(&stats->shares_far, STATS_UNKNOWN);
}

static int worker_init(struct worker *w, struct workers *all, const struct workers_params *p)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int r;

	w->all = all;
	w->sleeper.poller = &p->page->poller[w->index];
	w->last = &w->first;
	w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (w->wake < 0 || w->epoll < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->wake, &event) < 0)
		return -errno;
	r = stepper_init(&w->stepper, p->store, p->lane_bytes ? p->lane_bytes : LANE_BYTES);
	if (r < 0)
		return r;
	lend_hands(&w->stepper.board, p);
	place_stepper(w, p);
	map_stats(&w->stepper, p);
	w->stepper.stats = stats_page_block(p->stats, STATS_WORKER, w->index);
	if (w->stepper.stats)
		name_worker(w);
	w->stepper.timeout_us = p->timeout_us;
	w->stepper.may_share = all->n > 1;
	w->stepper.call_helpers = call_helpers;
	w->stepper.arg = w;
	return 0;
}

/* Pages of its own, touched here and now: those of the node that is preferred at the moment. */
static int worker_new(const struct workers_params *p, unsigned index, struct worker **ret)
{
	struct worker *w =
		mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned node;

	if (w == MAP_FAILED)
		return -ENOMEM;
	memset(w, 0, sizeof(*w));
	w->index = index;
	w->wake = w->epoll = w->cpu = w->node = -1;
	if (p->pin) {
		w->cpu = topo_cpu(p->topo, index % p->topo->n_cpus, &node);
		w->node = w->cpu < 0 ? -1 : p->topo->node[node].id;
	}
	pthread_mutex_init(&w->mutex, NULL);
	*ret = w;
	return 0;
}

static struct worker *worker_free(struct worker *w)
{
	if (!w)
		return NULL;
	close_fd(&w->wake);
	close_fd(&w->epoll);
	stepper_deinit(&w->stepper);
	pthread_mutex_destroy(&w->mutex);
	munmap(w, sizeof(*w));
	return NULL;
}

/* Where the kernel has no NUMA there is nothing to prefer, and it says so; a full node is no reason
 * not to start. */
static int make_worker(struct workers *w, const struct workers_params *p, unsigned index)
{
	unsigned node;
	bool placed = p->pin && topo_cpu(p->topo, index % p->topo->n_cpus, &node) >= 0 &&
		      pin_memory(p->topo->node[node].id) == 0;
	int r = worker_new(p, index, &w->worker[index]);

	if (r == 0)
		r = worker_init(w->worker[index], w, p);
	if (placed)
		pin_memory(-1);
	return r;
}

/* Every board knows which nodes have somebody to wait for. */
static void man_boards(struct workers *w)
{
	uint64_t manned = 0;

	for (unsigned i = 0; i < w->n; i++)
		if (w->worker[i]->stepper.hand.node >= 0)
			manned |= UINT64_C(1) << w->worker[i]->stepper.hand.node;
	for (unsigned i = 0; i < w->n; i++)
		w->worker[i]->stepper.board.manned = manned;
}

/* Workers take no signals: the control thread has them all. */
static int start_thread(struct worker *w)
{
	sigset_t all, before;
	char name[16];
	int r;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&w->thread, NULL, worker_thread, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		return -r;
	snprintf(name, sizeof(name), "worker-%u", w->index);
	pthread_setname_np(w->thread, name);
	return 0;
}

int workers_start(const struct workers_params *p, struct workers **ret)
{
	struct workers *w = calloc(1, sizeof(*w));
	int r = 0;

	assert(p->n > 0 && p->n <= ARRAY_SIZE(p->page->poller));
	if (!w)
		return -ENOMEM;
	w->store = p->store;
	w->n = p->n;
	w->spin_ns = p->spin_ns;
	w->last = &w->first;
	pthread_mutex_init(&w->mutex, NULL);
	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->worker = calloc(p->n, sizeof(struct worker *));
	w->rung = calloc((size_t)p->n * p->n, sizeof(*w->rung));
	if (w->event_fd < 0 || !w->worker || !w->rung) {
		workers_stop(w);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < p->n && r == 0; i++)
		r = make_worker(w, p, i);
	if (r == 0)
		man_boards(w);
	for (; w->n_started < p->n && r == 0; w->n_started += r == 0)
		r = start_thread(w->worker[w->n_started]);
	if (r < 0) {
		workers_stop(w);
		return r;
	}
	*ret = w;
	return 0;
}

struct workers *workers_stop(struct workers *w)
{
	struct worker_event event;

	if (!w)
		return NULL;
	for (unsigned i = 0; i < w->n_started; i++)
		while (worker_command(w->worker[i], COMMAND_STOP, NULL) < 0)
			usleep(1000); /* no memory for 32 bytes: the workers must stop all the same
				       */
	for (unsigned i = 0; i < w->n_started; i++)
		pthread_join(w->worker[i]->thread, NULL);
	while (workers_next_event(w, &event))
		;
	for (unsigned i = 0; w->worker && i < w->n; i++)
		worker_free(w->worker[i]);
	close_fd(&w->event_fd);
	pthread_mutex_destroy(&w->mutex);
	free(w->worker);
	free(w->rung);
	free(w);
	return NULL;
}

int workers_attach(struct workers *w, struct session *s)
{
	assert(s->worker < w->n);
	return worker_command(w->worker[s->worker], COMMAND_ATTACH, s);
}

int workers_detach(struct workers *w, struct session *s)
{
	/* Orders nothing: shares that see it late are computed in vain. */
	store_relaxed(&s->ending, 1);
	return worker_command(w->worker[s->worker], COMMAND_DETACH, s);
}

void workers_wake(struct workers *w, const struct session *s)
{
	wake_worker(w->worker[s->worker]);
}

void workers_post_event(struct workers *w, enum worker_event_kind kind, struct session *s,
			int error)
{
	struct worker_event_node *node = &s->event[kind];
	uint64_t one = 1;

	node->event = (struct worker_event){ .kind = kind, .session = s, .error = error };
	node->next = NULL;
	pthread_mutex_lock(&w->mutex);
	*w->last = node;
	w->last = &node->next;
	pthread_mutex_unlock(&w->mutex);
	if (write(w->event_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

int workers_event_fd(const struct workers *w)
{
	return w->event_fd;
}

bool workers_next_event(struct workers *w, struct worker_event *ret)
{
	struct worker_event_node *node;
	uint64_t n;

	pthread_mutex_lock(&w->mutex);
	node = w->first;
	if (node) {
		*ret = node->event;
		w->first = node->next;
		if (!w->first)
			w->last = &w->first;
	}
	pthread_mutex_unlock(&w->mutex);
	if (!node && read(w->event_fd, &n, sizeof(n)) > 0)
		return workers_next_event(w, ret); /* one may have come before the drain */
	return node != NULL;
}

void workers_stat(const struct workers *w, struct workers_stat *ret)
{
	*ret = (struct workers_stat){ 0 };
	for (unsigned i = 0; i < workers_count(w); i++) {
		const struct worker *one = w->worker[i];

		ret->steps += load_relaxed(&one->stepper.steps);
		ret->errors += load_relaxed(&one->stepper.errors);
		ret->read_bytes += load_relaxed(&one->stepper.read_bytes);
		ret->dense_bytes += load_relaxed(&one->stepper.dense_bytes);
		ret->shares_helped += load_relaxed(&one->shares_helped);
		ret->shares_near += load_relaxed(&one->stepper.hand.near);
		ret->shares_far += load_relaxed(&one->stepper.hand.far);
		ret->sleeps += load_relaxed(&one->sleeps);
		ret->timeouts_that_found_work += load_relaxed(&one->timeouts_that_found_work);
		/* A wave can be longer than the watchdog's patience: its shares move this too. */
		ret->progress += load_relaxed(&one->progress) + board_progress(&one->stepper.board);
	}
}

void workers_refresh_stats(const struct workers *w)
{
	for (unsigned i = 0; i < workers_count(w); i++) {
		const struct worker *one = w->worker[i];
		struct stats_worker *stats = one->stepper.stats;

		if (!stats)
			return;
		stats_set(&stats->sleeps, load_relaxed(&one->sleeps));
		stats_set(&stats->timeouts_that_found_work,
			  load_relaxed(&one->timeouts_that_found_work));
		stats_set(&stats->shares_helped, load_relaxed(&one->shares_helped));
		if (node_of(one) >= 0)
			stats_set(&stats->shares_far, load_relaxed(&one->stepper.hand.far));
	}
}

unsigned workers_count(const struct workers *w)
{
	return w ? w->n : 0;
}

struct worker_place workers_place(const struct workers *w, unsigned worker)
{
	const struct worker *one = w->worker[worker];

	return (struct worker_place){
		.cpu = one->cpu,
		.node = one->node,
		.shares_near = load_relaxed(&one->stepper.hand.near),
		.shares_far = load_relaxed(&one->stepper.hand.far),
	};
}
