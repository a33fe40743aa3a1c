/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why something failed: beside the negative errno, a sentence that names the
 * value and what is allowed, in a buffer of the caller's.
 */
#pragma once

#include "shm/base.h"

#define WHY_BYTES 240

/* Writes the sentence; returns `error`. */
int why_set(char *why, int error, const char *format, ...) PRINTF_LIKE(3, 4);
