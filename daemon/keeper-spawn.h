/* SPDX-License-Identifier: Apache-2.0 */
/* A child of the keeper: what a service manager would start it with. */
#pragma once

#include <sys/types.h>

#include "daemon/keeper.h"
#include "daemon/stash.h"

/* Starts it with the sockets and what is kept at descriptors from 3 on (LISTEN_FDS). 0 as soon as
 * it exists; one that cannot run its program ends with status 127. -errno. */
int keeper_spawn(const struct keeper_params *p, const struct stash *s, pid_t *ret);
