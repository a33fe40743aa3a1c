/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: varlink messages, each ended by a NUL byte, for
 * administrators. Who may connect is said by the socket's mode and group; what
 * there is to ask, by daemon/io.sparqd.Control.varlink.
 *
 * A connection holds at most one message in and one reply out; while a reply
 * waits for room, or is computed aside (control-aside.h), nothing is read.
 */
#pragma once

#include <stdbool.h>

#include "daemon/varlink.h"

struct server;

void control_accept(struct server *s, int fd);
void control_close_all(struct server *s);

extern const struct varlink_service control_service; /* its calls take a struct server */

varlink_call control_status, control_config; /* control-status.c */
varlink_call control_doctor;                 /* control-doctor.c */
varlink_call control_explain;                /* control-explain.c */
varlink_call control_selftest;               /* control-selftest.c */
varlink_call control_list_sequences, control_list_caches, control_list_users;  /* control-list.c */
varlink_call control_drop, control_pin, control_set_log_level, control_reload; /* -change.c */
varlink_call control_calibrate, control_calibration; /* control-calibrate.c */
varlink_call control_numa;                           /* control-numa.c */
varlink_call control_list_devices;                   /* control-device.c */

#define CONTROL_REFUSED "io.sparqd.Control.Refused"
