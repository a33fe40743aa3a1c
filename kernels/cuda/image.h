/* SPDX-License-Identifier: Apache-2.0 */
/* The compiled kernels, as nvcc leaves them: one image for all processors of the build. */
#pragma once

extern const unsigned long long int cuda_image[];
