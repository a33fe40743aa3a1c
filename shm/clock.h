/* SPDX-License-Identifier: Apache-2.0 */
/* The one clock: monotonic, the same in all processes of a machine. Header only. */
#pragma once

#include <stdint.h>
#include <time.h>

#define NS_PER_S 1000000000ll

static inline int64_t clock_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}
