/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exponentials: the accurate one of the exact softmax, the fast one of the scores.
 */
#pragma once

#include "kernels/codec.h"

/* e^f for |f| <= ln2 / 2 by Taylor to the seventh power: below 1 ulp of f32. */
KV_FN vf exp_accurate(vf x)
{
	static const float c[] = { 1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
				   1.0f / 6,    0.5f,       1.0f,       1.0f };
	vf least = vf_set(-87.3f); /* from here down the result is 0 */
	vf t = vf_min(vf_max(x, least), vf_set(88.7f));
	vf n = vf_rint(vf_mul(t, vf_set(0x1.715476p+0f)));
	vf f = vf_fma(n, vf_set(-0x1.62e4p-1f), t);
	vf y = vf_set(c[0]);

	f = vf_fma(n, vf_set(-0x1.7f7d1cp-20f), f);
	KV_EACH (i, ARRAY_SIZE(c) - 1)
		y = vf_fma(y, f, vf_set(c[i + 1]));
	return vf_if_ge(x, least, vf_scale(y, n), vf_set(0)); /* NaN: 0 as well */
}

/* 2^t, with 2^f for |f| <= 1/2 by a minimax quartic: 2.6e-6 relative. NaN passes through. */
KV_FN vf exp2_fast(vf t)
{
	vf n = vf_rint(t);
	vf f = vf_sub(t, n);
	vf y = vf_fma(f, vf_set(0.00957010201f), vf_set(0.0559178603f));

	y = vf_fma(y, f, vf_set(0.240247448f));
	y = vf_fma(y, f, vf_set(0.693121815f));
	y = vf_fma(y, f, vf_set(0.999999261f));
	return vf_scale(y, n);
}

KV_FN vf exp_fast(vf x)
{
	return exp2_fast(vf_mul(vf_max(vf_set(-87), x), vf_set(0x1.715476p+0f)));
}

/* 2^t for one pass over scores: 0 from t = -127 down and for NaN, and so large from 127 up that a
 * sum of it says that the reference was far too low. */
KV_FN vf exp2_near(vf t)
{
	return exp2_fast(vf_min(vf_max(t, vf_set(-127)), vf_set(127)));
}

KV_FN vf exp_near(vf x, vf ref)
{
	return exp2_near(vf_mul(vf_sub(x, ref), vf_set(0x1.715476p+0f)));
}
