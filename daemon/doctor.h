/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine lacks for this daemon. One list of checks for three who ask:
 * the log of a start, a running daemon's control socket, and `sparqd --check`
 * where none runs. Those of the machine are in numa/preflight.h.
 */
#pragma once

#include <json-c/json.h>

#include "daemon/config.h"
#include "numa/preflight.h"

struct server;

/* What a start with this configuration, which `path` has, would meet here and now. -errno: the
 * machine cannot be looked at. */
int doctor_foresee(const struct config *c, const char *path, struct checks *ret);
/* How it is with a daemon that has its memory. */
void doctor_look(const struct server *s, struct checks *ret);
/* Adds what a cache would meet that asks for a device. It loads the module and the driver's library
 * for a moment: for who asks, not for each start. `s` NULL: there is no daemon yet. */
void doctor_devices(const struct config *c, const struct server *s, struct checks *ret);
/* Logs what is not as it should be, once, and was not said by whoever met it. */
void doctor_tell(const struct server *s);
/* As the reply of io.sparqd.Control.Doctor. -ENOMEM. */
int doctor_put(const struct checks *c, json_object *out);
