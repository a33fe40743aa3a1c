/* SPDX-License-Identifier: Apache-2.0 */
/*
 * f16: 2 bytes an element, IEEE binary16, nearest even; the layout is plain.h's.
 *
 * Error at most 2^-11 of the element (below 2^-14: 2^-25), so at most 2^-11 of
 * the largest magnitude in its group.
 */
#include "kernels/codec.h"

#define FMT f16
#define ELEMENT uint16_t
#define WIDTH f16
#define FMT_K_MAX_REL 0x1p-11f
#define FMT_V_MAX_REL 0x1p-11f
#define FMT_SCORE_REL 0x1p-11f

#include "kernels/format/plain.h"
#include "kernels/stamp.h"
