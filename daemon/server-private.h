/* SPDX-License-Identifier: Apache-2.0 */
/* Between server.c (while it runs) and server-start.c (before and after). */
#pragma once

struct server;

void server_limit_users(struct server *s);   /* as the configuration says now */
int server_watch(struct server *s);          /* signals, faults, workers, listeners */
int server_start_refusing(struct server *s); /* instead of memory and threads */
void server_start_timers(struct server *s);
