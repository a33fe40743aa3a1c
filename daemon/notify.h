/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the service manager is told and what it hands over: readiness, a
 * sentence of status, the watchdog, listening sockets, journal lines.
 *
 * notify-none.c stands in where libsystemd is not built in; it is equivalent to
 * running outside systemd.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

void notify_ready(void);
void notify_reloading(void); /* notify_ready ends it */
void notify_stopping(void);
void notify_status(const char *format, ...) __attribute__((format(printf, 1, 2)));
void notify_extend(uint64_t usec); /* the start may take this much longer */

/* How often the manager wants to hear notify_watchdog; 0: it does not. */
uint64_t notify_watchdog_ns(void);
void notify_watchdog(void);

/* Sockets passed in by the manager, by type: SEQPACKET for sessions, STREAM for control; -1 where
 * there is none. Others are closed. 0, or -errno. */
int notify_sockets(int *ret_session, int *ret_control);

/* One line to the journal with its priority; -errno: not sent. */
int notify_journal(int level, const char *line);
