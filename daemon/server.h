/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon: everything it owns, from start to end. One thread runs the
 * control loop and all of this; workers see of it what they were handed.
 *
 *   serving --(SIGTERM, SIGINT)--> draining --(last session detached)--> stopped
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/cache.h"
#include "daemon/config.h"
#include "daemon/evict.h"
#include "daemon/keep.h"
#include "daemon/listen.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/patrol.h"
#include "daemon/placement.h"
#include "daemon/rate.h"
#include "daemon/rebalance.h"
#include "daemon/recover.h"
#include "daemon/stats.h"
#include "daemon/worker.h"

struct calibration;
struct control;
struct peer;
struct spill;

#define SERVER_MAX_WORKERS 64 /* pollers of the daemon page */

/* Where the configuration comes from; a reload reads it again. */
struct server_args {
	const char *config_path;
	bool config_required;   /* named on the command line: its absence is an error */
	const char *const *set; /* "key=value", in order, over what the file says */
	unsigned n_set;
};

/* A pass over all sequences, a part at a time. */
struct stats_walk {
	uint32_t next; /* slot */
	uint64_t parked, prefixes, rows[STATS_FORMATS];
};

struct server {
	const struct server_args *args;
	struct config config;
	struct loop *loop;
	struct kept kept; /* until the start has taken of it what it wants */
	struct topo topo;
	struct placement placement;
	struct patrol patrol;
	struct rebalance rebalance;
	struct catalogue *catalogue;
	struct users users;
	struct store store;
	struct evictor evictor;
	struct recovered recovered; /* at the start */
	struct segment page;        /* struct sparq_daemon_page */
	struct stats_page stats;
	struct stats_readers stats_readers;
	struct stats_walk stats_walk;
	struct loop_timer stats_timer;   /* its next part */
	struct calibration *calibration; /* the last one; NULL: none was asked for */
	struct spill *spill;
	int device_fd;
	struct workers *workers;
	uint32_t rings[SERVER_MAX_WORKERS]; /* attached to each */

	struct listener session_listener, control_listener;
	int signal_fd, fault_fd;
	struct loop_source signals, faults, events, room, audits, device;
	struct loop_timer heartbeat, watchdog, sweep, status, deadline, reattach;

	struct peer *peers;
	uint32_t n_sessions;    /* peers that count as sessions */
	uint32_t n_refused;     /* peers that wait to hear why they are not */
	uint32_t n_watchers;    /* peers that read the stats page */
	uint64_t broken[STATS_FAULTS], refused_sessions; /* by enum stats_fault */
	uint64_t segment_bytes; /* of all sessions */
	uint64_t part_ns;       /* when the last part of one was taken */
	struct rate rate;
	struct log_limit violations, audit_lines;
	struct control *controls;
	struct aside *aside; /* answers its long calls; NULL: there was none */
	uint32_t n_controls;
	uid_t asking_uid; /* whose message of the control socket is being answered */

	uint64_t started_ns, next_session, watchdog_ns, progress;
	uint32_t generation, spin_ns;
	bool pinned; /* worker i runs on the i-th CPU of the topology */
	bool draining;
	bool unkept; /* there is a manager, but it does not hold the memory */
	int refused; /* -errno that every HELLO is answered with; 0: it serves */
	char refusal[SPARQ_ERROR_TEXT];
};

/* File, then assignments; `why` has CONFIG_WHY_BYTES. */
int server_config(const struct server_args *args, struct config *ret, char *why);
/* Reads the configuration again: all that a reload may change, or nothing. -errno after it was
 * logged; `why` has CONFIG_WHY_BYTES, the first of them 0. */
int server_reload(struct server *s, char *why);
/* Starts, serves until a signal, ends. 0, or -errno after it was logged. */
int server_run(const struct server_args *args, const struct config *c);

/* Instead of serving: every client hears `error` and the reason, which ends in what can be done
 * about it; the status says it too; what is stored stays stored. While the server starts, before
 * it has memory. Logs it. */
void server_refuse(struct server *s, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Somebody holds the memory: an end of ours is not the end of what sessions have. */
bool server_is_kept(const struct server *s);

/* ---- for peers ------------------------------------------------------------ */

/* The worker with the fewest rings, of those on a node (the kernel's number) if there are any
 * there; -1: of all. And the node it runs on, -1 if it may run on any. */
unsigned server_choose_worker(const struct server *s, int node);
int server_worker_node(const struct server *s, unsigned worker);
uint64_t server_segment_limit(const struct server *s); /* of all sessions together */
void server_changed(struct server *s); /* sessions came or went: heartbeat, status, drain */
void server_sweep_soon(struct server *s);
/* What the stats page says that is not counted as it happens. At most ten times a second. */
int server_open_stats(struct server *s);
void server_refresh_stats(struct server *s);
/* One sentence for administrators; how many bytes. */
int server_sentence(const struct server *s, char *ret, size_t n);
