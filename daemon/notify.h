/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the manager hears: systemd, or the parent that `sparqd --keeper` is.
 * Readiness, a sentence of status, the watchdog.
 *
 * The protocol is that of sd_notify(3): datagrams of NAME=value lines to the
 * socket that NOTIFY_SOCKET names, which systemd promises to keep. It is spoken
 * here and not through libsystemd, so that a build without that library has the
 * same keeper, and there is one path to test. Without NOTIFY_SOCKET every call
 * does nothing.
 */
#pragma once

#include <stdint.h>

#define NOTIFY_MOST_FDS 253 /* the kernel's limit for a message */

void notify_ready(void);
void notify_reloading(void); /* notify_ready ends it */
void notify_stopping(void);
void notify_status(const char *format, ...) __attribute__((format(printf, 1, 2)));
void notify_extend(uint64_t usec); /* the start may take this much longer */

/* How often the manager wants to hear notify_watchdog; 0: it does not. */
uint64_t notify_watchdog_ns(void);
/* 0, or -errno: -ECONNREFUSED if the manager is gone. */
int notify_watchdog(void);

/* Lines with descriptors, of which the manager gets copies: 1 sent, 0 nobody listens, -errno. */
int notify_send(const char *text, const int *fds, unsigned n_fds);
/* Waits until the manager has read all that was sent so far: 1, 0 nobody listens, -ETIMEDOUT. */
int notify_barrier(int timeout_ms);
