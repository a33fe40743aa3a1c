/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers as two signed bytes, for attention over codes with SDOT of ARM: what
 * k_dot multiplies codes of K with (coefficients) and v_axpy those of V (weights).
 *
 * x = step * (256 high + low), with the step such that the largest of those
 * rounded together is 32639, all that two signed bytes hold. So each is off by
 * at most largest / 65278. SDOT takes signed codes: code - 128, whose middle is
 * -1/2, and a min that is 128 steps higher. What rounding loses times the middle
 * goes into the bias, exactly, and an element of range R adds at most
 * (R / 2) largest / 65278 to the error: below 2^-17 of the largest coefficient
 * times range.
 *
 * Four bytes side by side are an element of a vector, and a vector has those of
 * two heads, high and low: one load for four products, each of which names its
 * element. Sums are exact: 256 codes times 32639 are below 2^31.
 */
#pragma once

#include "kernels/codec.h"

#define SDENSE_TWO 32639.0f /* 127 * 256 + 127 */
#define SDENSE_ONE 127.0f
#define SDENSE_SIGNED 128.0f /* what codes are lowered by */

/* Of two heads: high, low, high, low; or of four, one byte each. */
struct sdense_four {
	int32_t of[4];
};

/* Magnitudes as integers, which order as they do, with NaN above all. */
KV_FN uint32x4_t sdense_larger(uint32x4_t top, vf x)
{
	return vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(x)));
}

struct sdense_step {
	float step, per; /* its reciprocal; both 0 if all numbers are */
};

/* False where numbers cannot be rounded together: one is not finite, or the reciprocal of the
 * step would not be. */
KV_FN bool sdense_step(uint32x4_t top, float most, struct sdense_step *ret)
{
	uint32_t bits = vmaxvq_u32(top);
	float largest = kv_float(bits);
	bool rounds = bits < 0x7f800000 && largest >= 0x1p-100f;

	ret->step = rounds ? largest / most : 0;
	ret->per = rounds ? most / largest : 0;
	return rounds || bits == 0;
}

/* 16 numbers as four elements, high then low, or low alone. What is lost of them is added to
 * *lost. */
KV_FN void sdense_round(const vf x[4], struct sdense_step s, unsigned parts, vf *lost,
			int32x4_t *ret)
{
	int16x8_t low[2], high[2];
	int32x4_t i[4];

	KV_EACH (k, 4) {
		i[k] = vcvtnq_s32_f32(vf_mul(x[k], vf_set(s.per)));
		*lost = vf_add(*lost, vfmsq_f32(x[k], vcvtq_f32_s32(i[k]), vf_set(s.step)));
	}
	KV_EACH (k, 2) {
		low[k] = vuzp1q_s16(vreinterpretq_s16_s32(i[2 * k]),
				    vreinterpretq_s16_s32(i[2 * k + 1]));
		high[k] = vrshrq_n_s16(low[k], 8);
	}
	ret[parts - 1] = vreinterpretq_s32_s8(
		vuzp1q_s8(vreinterpretq_s8_s16(low[0]), vreinterpretq_s8_s16(low[1])));
	if (parts > 1)
		ret[0] = vreinterpretq_s32_s8(
			vuzp1q_s8(vreinterpretq_s8_s16(high[0]), vreinterpretq_s8_s16(high[1])));
}

/* Four products, of which some may not be wanted. */
KV_FN void sdense_add(int8x16_t x, const struct sdense_four *by, unsigned n, int32x4_t sum[4])
{
	int8x16_t four = vreinterpretq_s8_s32(vld1q_s32(by->of));

	sum[0] = vdotq_laneq_s32(sum[0], x, four, 0);
	if (n > 1)
		sum[1] = vdotq_laneq_s32(sum[1], x, four, 1);
	if (n > 2) {
		sum[2] = vdotq_laneq_s32(sum[2], x, four, 2);
		sum[3] = vdotq_laneq_s32(sum[3], x, four, 3);
	}
}
