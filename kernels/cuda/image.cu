/* SPDX-License-Identifier: Apache-2.0 */
/* All kernels, as one unit: each is a file of its own. */
#include "kernels/cuda/scatter.cu"
