/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start and end. The order matters: names first (so that a second daemon on the same
 * sockets fails before it takes memory), then memory, then threads, and
 * clients last, when there is something to serve them with.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "daemon/audit.h"
#include "daemon/calibrate.h"
#include "daemon/control.h"
#include "daemon/doctor.h"
#include "daemon/fault.h"
#include "daemon/notify.h"
#include "daemon/server-private.h"
#include "daemon/server.h"
#include "daemon/spill.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "shm/doorbell.h"

#define SPIN_LEAST_NS 20000u
#define SPIN_MOST_NS 50000u

_Static_assert(SERVER_MAX_WORKERS == ARRAY_SIZE(((struct sparq_daemon_page *)0)->poller),
	       "a poller per worker");
_Static_assert((int)KV_PLANES == (int)SPARQ_PLANES && KV_MAX_ENTRY_ROWS == SPARQ_MAX_ROWS,
	       "kernels and the wire name the same things");

static int failed(const char *what, int error)
{
	log_error("%s: %s", what, strerror(-error));
	return error;
}

/* ---- before memory -------------------------------------------------------- */

static int open_listener(struct listener *l, int *passed, int type, const char *path)
{
	char why[CONFIG_WHY_BYTES] = "";
	int r;

	if (*passed >= 0) {
		if (keep_kind() == KEEP_KEEPER)
			listener_claim(*passed);
		listener_adopt(l, STEAL_FD(*passed));
		return 0;
	}
	r = listener_open(l, type, path, why);
	if (r < 0)
		log_error("%s", why[0] ? why : strerror(-r));
	return r;
}

static int open_sockets(struct server *s)
{
	struct kept *k = &s->kept;
	int r = keep_take(k);

	if (r < 0)
		return failed("what the service manager hands over", r);
	r = open_listener(&s->session_listener, &k->session, SOCK_SEQPACKET, s->config.socket);
	if (r < 0)
		return r;
	return open_listener(&s->control_listener, &k->control, SOCK_STREAM, s->config.control);
}

/* A session has about five descriptors; the usual soft limit of 1024 is for select(). */
static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		log_warning("RLIMIT_NOFILE: %s", strerror(errno));
}

static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int open_loop(struct server *s)
{
	int r = loop_new(LOOP_BEST, &s->loop);

	if (r < 0)
		return failed("no control loop", r);
	if (loop_fallback(s->loop) < 0)
		log_event(EVENT_NO_IO_URING, NULL,
			  "io_uring is not available (%s): the control loop uses %s",
			  strerror(-loop_fallback(s->loop)), loop_name(s->loop));
	return 0;
}

/* ---- memory of clients --------------------------------------------------- */

/* The page that every client maps: only we can write it, for as long as it exists. */
static int open_page(struct server *s)
{
	struct sparq_daemon_page *page;
	int r = segment_create("sparqd-page", ALIGN_UP(sizeof(*page), 4096), &s->page);

	if (r == 0)
		r = segment_seal(&s->page);
	if (r < 0)
		return failed("the daemon page", r);
	s->generation = catalogue_header(s->catalogue)->generation;
	page = s->page.base;
	page->magic = SPARQ_MAGIC;
	page->abi = SPARQ_ABI_MAJOR;
	page->generation = s->generation;
	page->pid = getpid();
	page->features = SPARQ_FEATURES_COMPAT;
	store_relaxed(&page->heartbeat_ns, clock_now_ns());
	return 0;
}

/* ---- threads -------------------------------------------------------------- */

static uint32_t measure_spin(const struct config *c)
{
	uint32_t wake_ns;

	if (c->spin_us)
		return c->spin_us * 1000;
	/* Polling as long as a wake would cost is never worse than twice the best choice. */
	wake_ns = measure_wake_ns();
	return MIN(MAX(wake_ns + wake_ns / 2, SPIN_LEAST_NS), SPIN_MOST_NS);
}

static int start_workers(struct server *s)
{
	const struct config *c = &s->config;
	struct sparq_daemon_page *page = s->page.base;
	unsigned n = c->workers ? c->workers : s->topo.n_cpus;
	struct workers_params params = {
		.store = &s->store,
		.topo = &s->topo,
		.arena = s->placement.arena,
		.n = MIN(n, SERVER_MAX_WORKERS),
		.pin = c->pin_workers && n <= s->topo.n_cpus,
		.timeout_us = c->timeout_us,
		.page = page,
		.stats = &s->stats,
	};
	int r;

	s->pinned = params.pin;
	s->spin_ns = params.spin_ns = measure_spin(c);
	page->n_pollers = params.n;
	r = workers_start(&params, &s->workers);
	return r < 0 ? failed("the workers", r) : 0;
}

static int open_faults(struct server *s)
{
	int r;

	s->fault_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = s->fault_fd < 0 ? -errno : fault_open(s->config.max_sessions, s->fault_fd);
	return r < 0 ? failed("the fault handler", r) : 0;
}

/* ---- all of it ------------------------------------------------------------ */

static int limit_isa(const char *limit)
{
	int r = kv_isa_limit(limit);
	char have[80] = "";
	size_t n = 0;

	if (r == 0)
		return 0;
	for (unsigned i = 0; kv_isa_at(i) && n < sizeof(have); i++)
		if (kv_isa_usable(kv_isa_at(i)))
			n += (size_t)snprintf(have + n, sizeof(have) - n, "%s%s", n ? ", " : "",
					      kv_isa_at(i));
	log_error("isa = %s: %s; it can be %s", limit,
		  r == -EOPNOTSUPP ? "this CPU does not have it" : "unknown", have);
	return r;
}

static uint64_t steps_made(void *arg)
{
	const struct server *s = arg;
	struct workers_stat stat;

	workers_stat(s->workers, &stat);
	return stat.steps;
}

static int start_serving(struct server *s)
{
	int r = open_page(s);

	if (r == 0)
		r = server_open_audit(s);
	if (r == 0)
		r = start_workers(s);
	if (r < 0)
		return r;
	doctor_tell(s);
	patrol_init(&s->patrol, s->loop, &s->placement, steps_made, s);
	rebalance_init(&s->rebalance, s->loop, &s->store, s->placement.arena, &s->config);
	return server_watch(s);
}

static int server_start(struct server *s)
{
	int r = limit_isa(s->config.isa);

	if (r < 0)
		return r;
	block_signals();
	raise_descriptors();
	r = open_sockets(s);
	if (r == 0)
		r = open_loop(s);
	if (r == 0)
		r = open_faults(s);
	if (r == 0)
		r = server_open_store(s);
	if (r == 0)
		r = s->refused ? server_start_refusing(s) : start_serving(s);
	kept_deinit(&s->kept);
	s->started_ns = clock_now_ns();
	return r;
}

static void server_deinit(struct server *s)
{
	notify_stopping();
	listener_stop(&s->session_listener);
	listener_stop(&s->control_listener);
	control_close_all(s);
	workers_stop(s->workers);
	s->store.auditor = audit_close(s->store.auditor);
	rebalance_end(&s->rebalance);
	s->store.devices = devices_free(s->store.devices);
	s->calibration = calibrate_free(s->calibration);
	fault_close();
	s->spill = spill_close(s->spill);
	loop_free(s->loop);
	segment_deinit(&s->page);
	evict_deinit(&s->evictor);
	store_deinit(&s->store);
	s->catalogue = catalogue_free(s->catalogue);
	users_deinit(&s->users);
	placement_deinit(&s->placement);
	stats_page_deinit(&s->stats);
	kept_deinit(&s->kept);
	close_fd(&s->signal_fd);
	close_fd(&s->device_fd);
	close_fd(&s->fault_fd);
}

int server_run(const struct server_args *args, const struct config *c)
{
	struct server s = {
		.args = args,
		.config = *c,
		.session_listener = LISTENER_NULL,
		.control_listener = LISTENER_NULL,
		.signal_fd = -1,
		.device_fd = -1,
		.fault_fd = -1,
		.signals = LOOP_SOURCE_NULL,
		.faults = LOOP_SOURCE_NULL,
		.events = LOOP_SOURCE_NULL,
		.room = LOOP_SOURCE_NULL,
		.audits = LOOP_SOURCE_NULL,
		.device = LOOP_SOURCE_NULL,
		.page = SEGMENT_NULL,
		.stats = STATS_PAGE_NULL,
		.kept = KEPT_NULL,
	};
	int r = server_start(&s);

	if (r == 0) {
		if (!s.refused)
			log_event(EVENT_READY, NULL,
				  "sparqd %s ready: %u workers, %s kernels, %s, pid %d",
				  SPARQ_VERSION, workers_count(s.workers), kv_isa_name(),
				  s.config.socket, getpid());
		server_start_timers(&s);
		notify_ready();
		r = loop_run(s.loop);
		if (r < 0)
			failed("the control loop", r);
	}
	if (r == -ECANCELED) /* by a signal while it took memory: nothing was served yet */
		r = 0;
	server_deinit(&s);
	if (r == 0)
		log_notice("stopped");
	return r;
}
