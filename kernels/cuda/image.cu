/* SPDX-License-Identifier: Apache-2.0 */
/* All kernels, as one unit: each is a file of its own. */
#include "kernels/cuda/device.cu"

#include "kernels/cuda/kernels.cu"

#include "kernels/cuda/scatter.cu"
