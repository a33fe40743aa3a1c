/* SPDX-License-Identifier: Apache-2.0 */
/* Why a socket could not be reached: shared by the library and sparqctl. */
#pragma once

#include <stddef.h>

/* The path, the error, a negative errno, and what can be done about it, as one sentence. */
void socket_why(const char *path, int error, char *ret, size_t n);
