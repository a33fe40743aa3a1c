/* SPDX-License-Identifier: Apache-2.0 */
/* Which ISAs this CPU has: one file a family of CPUs (cpu-x86.c, cpu-aarch64.c, cpu-other.c). */
#pragma once

#include <stdbool.h>

/* `isa` as in kernels/meson.build; "scalar" always. */
bool kv_cpu_has(const char *isa);
