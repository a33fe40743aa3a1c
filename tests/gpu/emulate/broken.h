/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that break a rule each (broken.cu). */
#pragma once

#include <stdint.h>

#define BROKEN_THREADS 128u

struct broken {
	uint32_t *out;      /* [blocks] */
	const uint32_t *in; /* [BROKEN_THREADS / 32] */
};
