/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of attention, as one unit: each is a file of its own. */
#include "kernels/cuda/rows.cu"

#include "kernels/cuda/attend.cu"

#include "kernels/cuda/score.cu"

#include "kernels/cuda/flush.cu"
