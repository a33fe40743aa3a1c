/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon does while it runs: signals, timers, drain, reload. Start: server-start.c. */
#include "daemon/server.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#include "daemon/audit.h"
#include "daemon/control.h"
#include "daemon/notify.h"
#include "daemon/peer.h"
#include "daemon/server-private.h"
#include "daemon/spill.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define MS 1000000ull
#define HEARTBEAT_NS (50 * MS)
#define SWEEP_NS (1000 * MS)
#define STATUS_NS (1000 * MS)
#define DRAIN_S 10ull

/* ---- configuration -------------------------------------------------------- */

int server_config(const struct server_args *args, struct config *ret, char *why)
{
	struct config c;
	int r;

	config_defaults(&c);
	r = config_read(&c, args->config_path, why);
	if (r < 0 && (r != -ENOENT || args->config_required))
		return r;
	for (unsigned i = 0; i < args->n_set; i++) {
		r = config_set(&c, args->set[i], why);
		if (r < 0)
			return r;
	}
	*ret = c;
	return 0;
}

uint64_t server_segment_limit(const struct server *s)
{
	return s->config.segment_bytes ? s->config.segment_bytes : s->placement.pool.bytes;
}

void server_limit_users(struct server *s)
{
	const struct config *c = &s->config;
	/* Without a quota one user may have everything there is, but no more. */
	uint64_t all = s->placement.pool.bytes + c->catalogue_bytes + server_segment_limit(s);
	uint64_t limit[USER_WHATS] = {
		[USER_BYTES] = c->user_bytes ? c->user_bytes : all,
		[USER_SESSIONS] = c->user_sessions,
		[USER_QUEUES] = c->user_queues,
		[USER_CACHES] = c->user_caches,
		[USER_SEQUENCES] = c->user_sequences,
		[USER_SPILLED] = c->user_spill_bytes ? c->user_spill_bytes : UINT64_MAX,
		[USER_DEVICE_BYTES] = c->user_device_bytes ? c->user_device_bytes : UINT64_MAX,
	};

	users_limit(&s->users, limit);
}

int server_reload(struct server *s, char *why)
{
	struct config fresh;
	int r;

	notify_reloading();
	r = server_config(s->args, &fresh, why);
	if (r == 0)
		r = config_reload(&s->config, &fresh, why);
	if (r < 0) {
		log_event(EVENT_NOT_RELOADED, NULL, "not reloaded: %s",
			  why[0] ? why : strerror(-r));
	} else {
		server_limit_users(s);
		if (s->store.auditor)
			audit_set_every(s->store.auditor, s->config.audit);
		log_level_set(s->config.log_level);
		log_event(EVENT_RELOADED, NULL, "reloaded %s", s->args->config_path);
	}
	notify_ready();
	return r;
}

/* ---- the end -------------------------------------------------------------- */

/* A worker that does not give a session back is stuck: the stop must not be. */
static void on_drain_deadline(void *arg)
{
	struct server *s = arg;

	log_event(EVENT_DRAIN_LATE, NULL,
		  "%" PRIu32 " sessions did not end within %llu s: leaving them", s->n_sessions,
		  DRAIN_S);
	listener_stop(&s->session_listener);
	listener_stop(&s->control_listener);
	_exit(1);
}

static void drain(struct server *s)
{
	struct peer *next;

	if (s->draining)
		return;
	s->draining = true;
	notify_stopping();
	server_tell_end(s);
	listener_stop(&s->session_listener);
	listener_stop(&s->control_listener);
	loop_timer_set(s->loop, &s->deadline, DRAIN_S * 1000 * MS, on_drain_deadline, s);
	for (struct peer *p = s->peers; p; p = next) {
		next = p->next;
		peer_close(p);
	}
	server_changed(s);
}

/* ---- events --------------------------------------------------------------- */

static void on_signal(void *arg, uint32_t events)
{
	struct signalfd_siginfo info;
	char why[CONFIG_WHY_BYTES] = "";
	struct server *s = arg;

	while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			server_reload(s, why);
		else
			drain(s);
	}
}

static void on_worker_event(void *arg, uint32_t events)
{
	struct server *s = arg;
	struct worker_event e;

	while (workers_next_event(s->workers, &e)) {
		if (e.kind == WORKER_DETACHED)
			peer_detached(e.session->peer);
		else
			peer_fatal(e.session->peer, e.error);
	}
}

/* Workers lack room, or soon will. Those whose entries wait come first. */
static void on_room(void *arg, uint32_t events)
{
	struct server *s = arg;
	uint64_t n;

	/* Before it is looked what they want: who asks from here on is heard next time. */
	if (read(s->store.room_fd, &n, sizeof(n)) < 0)
		return;
	for (struct peer *p = s->peers, *next; p; p = next) {
		next = p->next;
		if (p->session && evict_answer(&s->evictor, p->session))
			workers_wake(s->workers, p->session);
		peer_look_for_room(p);
	}
	evict_ahead(&s->evictor);
}

static void on_device(void *arg, uint32_t events)
{
	struct server *s = arg;
	uint64_t n;

	if (read(s->device_fd, &n, sizeof(n)) < 0)
		return;
	devices_tell(s->store.devices);
	for (struct peer *p = s->peers, *next; p; p = next) {
		next = p->next;
		peer_look_for_device(p);
	}
}

/* A SIGBUS in a segment was caught: its client goes, nobody else notices. */
static void on_fault(void *arg, uint32_t events)
{
	struct server *s = arg;
	struct peer *next;
	uint64_t n;

	if (read(s->fault_fd, &n, sizeof(n)) < 0)
		return;
	for (struct peer *p = s->peers; p; p = next) {
		next = p->next;
		if (peer_hit(p))
			peer_fatal(p, -EFAULT);
	}
}

static int add_signals(struct server *s)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0)
		return -errno;
	return loop_add(s->loop, &s->signals, s->signal_fd, POLLIN, on_signal, s);
}

static void accept_peer(void *arg, int fd)
{
	peer_accept(arg, fd);
}

static void accept_control(void *arg, int fd)
{
	control_accept(arg, fd);
}

int server_watch(struct server *s)
{
	int r = add_signals(s);

	if (r == 0)
		r = loop_add(s->loop, &s->faults, s->fault_fd, POLLIN, on_fault, s);
	if (r == 0 && s->workers)
		r = loop_add(s->loop, &s->events, workers_event_fd(s->workers), POLLIN,
			     on_worker_event, s);
	if (r == 0 && s->workers)
		r = loop_add(s->loop, &s->room, s->store.room_fd, POLLIN, on_room, s);
	if (r == 0 && s->workers)
		r = loop_add(s->loop, &s->device, s->device_fd, POLLIN, on_device, s);
	if (r == 0)
		r = listener_start(&s->session_listener, s->loop, accept_peer, s);
	if (r == 0)
		r = listener_start(&s->control_listener, s->loop, accept_control, s);
	return r;
}

/* ---- timers: none runs while nobody is connected, but for the watchdog ------- */

static struct sparq_daemon_page *page_of(const struct server *s)
{
	return s->page.base;
}

static void on_heartbeat(void *arg)
{
	struct server *s = arg;

	if (s->refused)
		return;
	/* Relaxed: a hint to clients, never a verdict. */
	store_relaxed(&page_of(s)->heartbeat_ns, clock_now_ns());
	if (s->n_sessions > 0)
		loop_timer_set(s->loop, &s->heartbeat, HEARTBEAT_NS, on_heartbeat, s);
}

static bool all_asleep(const struct server *s)
{
	for (unsigned i = 0; i < workers_count(s->workers); i++)
		if (!load_relaxed(&page_of(s)->poller[i].sleep_epoch))
			return false;
	return true;
}

/* Fed by the data path: by what it did since the last time, or because it has nothing to do. A
 * worker that is awake and does nothing is what the watchdog is for. */
static void on_watchdog(void *arg)
{
	struct workers_stat stat;
	struct server *s = arg;

	workers_stat(s->workers, &stat);
	if (stat.progress != s->progress || all_asleep(s))
		server_feed_watchdog(s);
	else
		log_event(EVENT_STUCK, NULL, "the workers make no progress");
	s->progress = stat.progress;
	loop_timer_set(s->loop, &s->watchdog, s->watchdog_ns / 3, on_watchdog, s);
}

static void on_sweep(void *arg)
{
	uint64_t now = clock_now_ns();
	struct server *s = arg;
	struct peer *next;
	bool again = false;

	for (struct peer *p = s->peers; p; p = next) {
		next = p->next;
		again |= peer_sweep(p, now);
	}
	if (again)
		server_sweep_soon(s);
}

void server_sweep_soon(struct server *s)
{
	if (s->sweep.at_ns == 0)
		loop_timer_set(s->loop, &s->sweep, SWEEP_NS, on_sweep, s);
}

int server_sentence(const struct server *s, char *ret, size_t n)
{
	const struct pool *pool = &s->placement.pool;
	char saving[192] = "";
	int at;

	if (s->refused)
		return snprintf(ret, n, "serving nobody: %s", s->refusal);
	at = snprintf(ret, n, "serving %" PRIu32 " clients, %.1f of %.1f GiB in %s%s",
		      s->n_sessions, (double)load_relaxed(&pool->used_bytes) / (double)GIB,
		      (double)pool->bytes / (double)GIB,
		      arena_pages_name(s->placement.arena[0].pages),
		      s->placement.shortfall_bytes ? " (huge pages fell short)" : "");
	if ((size_t)at < n)
		at += spill_sentence(s->spill, ret + at, n - (size_t)at);
	if ((size_t)at < n)
		at += (int)devices_sentence(s->store.devices, ret + at, n - (size_t)at);
	peer_save_sentence(s, saving, sizeof(saving));
	if ((size_t)at < n)
		at += snprintf(ret + at, n - (size_t)at, "%s%s", saving,
			       s->unkept ? "; nobody keeps its memory" : "");
	return at;
}

static void on_status(void *arg)
{
	struct server *s = arg;
	struct spill_stat spill = spill_stat(s->spill);
	char text[256];

	server_sentence(s, text, sizeof(text));
	notify_status("%s", text);
	/* How far it is. */
	if (spill.out + spill.in)
		loop_timer_set(s->loop, &s->status, STATUS_NS, on_status, s);
}

void server_start_timers(struct server *s)
{
	s->watchdog_ns = notify_watchdog_ns();
	if (s->watchdog_ns) /* there is nothing to compare with yet */
		loop_timer_set(s->loop, &s->watchdog, s->watchdog_ns / 3, on_watchdog, s);
	on_heartbeat(s);
	on_status(s);
}

void server_changed(struct server *s)
{
	if (s->draining && !s->peers) {
		loop_stop(s->loop, 0);
		return;
	}
	if (s->n_sessions > 0 && s->heartbeat.at_ns == 0)
		on_heartbeat(s);
	patrol_watch(&s->patrol, s->n_sessions > 0);
	rebalance_watch(&s->rebalance, s->n_sessions > 0);
	/* At most once a second: a client that comes and goes must not flood the manager. */
	if (s->status.at_ns == 0)
		loop_timer_set(s->loop, &s->status, STATUS_NS, on_status, s);
}

int server_worker_node(const struct server *s, unsigned worker)
{
	unsigned node;

	if (!s->pinned || topo_cpu(&s->topo, worker, &node) < 0)
		return -1;
	return s->topo.node[node].id;
}

unsigned server_choose_worker(const struct server *s, int node)
{
	unsigned n = workers_count(s->workers), best = n;

	for (unsigned i = 0; i < n; i++)
		if ((node == -1 || server_worker_node(s, i) == node) &&
		    (best == n || s->rings[i] < s->rings[best]))
			best = i;
	return best < n ? best : server_choose_worker(s, -1);
}
