/* SPDX-License-Identifier: Apache-2.0 */
/* Between server.c (while it runs) and server-start.c (before and after). */
#pragma once

struct cache;
struct server;
struct stats_cache;
struct stats_control;

void server_limit_users(struct server *s); /* as the configuration says now */
/* Topology, pool, catalogue and what is in them; 0 also if it is refused. */
int server_open_store(struct server *s);
/* Before workers; and what it has counted, when the page is brought up to date. */
int server_open_audit(struct server *s);
void server_refresh_audit(const struct server *s, struct stats_control *to);
void server_show_audit(const struct cache *c, struct stats_cache *to);
void server_refresh_devices(struct server *s); /* server-device.c */
int server_watch(struct server *s);            /* signals, faults, workers, listeners */
int server_start_refusing(struct server *s);   /* instead of memory and threads */
void server_start_timers(struct server *s);
void server_tell_end(
	const struct server *s); /* it is about to stop: what becomes of what it holds */
void server_feed_watchdog(struct server *s); /* and notices that nobody is there to be fed */
