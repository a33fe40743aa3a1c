/* SPDX-License-Identifier: Apache-2.0 */
/* Names of caches and sequences: 1-63 of [A-Za-z0-9._-]. */
#pragma once

#include <stdbool.h>

/* -EINVAL with `why` (SPARQ_ERROR_TEXT bytes); `what` is "cache" or "sequence". */
int name_check(const char *what, const char name[64], char *why);
/* -errno, with a formatted text in `why`: return why_fail(why, EINVAL, ...). */
int why_fail(char *why, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
