/* SPDX-License-Identifier: Apache-2.0 */
/* Between server.c (while it runs) and server-start.c (before and after). */
#pragma once

struct server;

void server_limit_users(struct server *s);   /* as the configuration says now */
/* Topology, pool, catalogue and what is in them; 0 also if it is refused. */
int server_open_store(struct server *s);
int server_watch(struct server *s);          /* signals, faults, workers, listeners */
int server_start_refusing(struct server *s); /* instead of memory and threads */
void server_start_timers(struct server *s);
