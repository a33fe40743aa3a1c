/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles of what the daemon holds: an id, and the connection it is spoken of on.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/sparq.h"

struct sparq_cache {
	sparq *c;
	uint64_t id;
};

struct sparq_seq {
	sparq *c;
	uint64_t id;
	bool named; /* may be attached again: letting go of the handle does not drop it */
};
