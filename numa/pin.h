/* SPDX-License-Identifier: Apache-2.0 */
/* Where a thread runs: on one CPU, or on the CPUs of a node. */
#pragma once

#include "numa/topo.h"

int pin_to_cpu(int cpu);                       /* the calling thread */
int pin_to_node(const struct topo *t, unsigned node);
int pin_current_cpu(void);
