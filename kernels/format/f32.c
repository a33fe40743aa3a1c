/* SPDX-License-Identifier: Apache-2.0 */
/*
 * f32: 4 bytes an element, exact. The layout is plain.h's.
 */
#include "kernels/codec.h"

#define FMT f32
#define ELEMENT float
#define WIDTH f32
#define FMT_K_MAX_REL 0.0f
#define FMT_V_MAX_REL 0.0f
#define FMT_SCORE_REL 0.0f

#include "kernels/format/plain.h"
#include "kernels/stamp.h"
