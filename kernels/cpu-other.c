/* SPDX-License-Identifier: Apache-2.0 */
/* CPUs that only the scalar rows serve. */
#include <string.h>

#include "kernels/cpu.h"
#include "kernels/kernels.h"

bool kv_cpu_has(const char *isa)
{
	return !strcmp(isa, "scalar");
}

void kv_thread_init(void) {}
