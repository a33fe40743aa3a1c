/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bf16: 2 bytes an element, the upper half of an f32, nearest even; the layout
 * is plain.h's. Error at most 2^-9 of the element.
 */
#include "kernels/codec.h"

#define FMT bf16
#define ELEMENT uint16_t
#define WIDTH bf16
#define FMT_K_MAX_REL 0x1p-8f
#define FMT_V_MAX_REL 0x1p-8f
#define FMT_SCORE_REL 0x1p-8f

#include "kernels/format/plain.h"
#include "kernels/stamp.h"
