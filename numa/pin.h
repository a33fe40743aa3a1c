/* SPDX-License-Identifier: Apache-2.0 */
/* Where a thread runs, on one CPU or on the CPUs of a node; and where what it allocates lies. */
#pragma once

#include "numa/topo.h"

int pin_to_cpu(int cpu);                       /* the calling thread */
int pin_to_node(const struct topo *t, unsigned node);
int pin_current_cpu(void);
/* Pages that the calling thread touches first come from this node (the kernel's number) while it
 * has any; -1: from where it runs. -ENOSYS without NUMA in the kernel. */
int pin_memory(int node);
