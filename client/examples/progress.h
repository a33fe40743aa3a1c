/* SPDX-License-Identifier: Apache-2.0 */
/* What a person who waits sees: lines on stderr; ticks, at most one every two seconds. */
#pragma once

#include "shm/base.h"

double progress_seconds(void); /* monotonic */
void progress_say(const char *format, ...) PRINTF_LIKE(1, 2);
void progress_tick(const char *format, ...) PRINTF_LIKE(1, 2);
