/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary of neon.h, on processors that also multiply bytes (SDOT): kernels/fast/. */
#pragma once

#include "kernels/vec/neon.h"
