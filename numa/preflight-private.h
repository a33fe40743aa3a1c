/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of preflight.h, shared by its files. */
#pragma once

#include "numa/preflight.h"

/* Is there an NVIDIA device, with a driver, and may this process open it? */
void preflight_gpu(const struct preflight *p, int root, struct checks *c);
