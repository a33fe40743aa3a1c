/* SPDX-License-Identifier: Apache-2.0 */
/* Which instruction sets an ARM CPU has. */
#include <string.h>
#include <sys/auxv.h>

#include "kernels/cpu.h"
#include "kernels/kernels.h"

#define HWCAP_ASIMD_BIT (1ul << 1)

bool kv_cpu_has(const char *isa)
{
	if (!strcmp(isa, "neon"))
		return getauxval(AT_HWCAP) & HWCAP_ASIMD_BIT;
	return !strcmp(isa, "scalar");
}

void kv_thread_init(void)
{
	unsigned long fpcr, flush = 1ul << 24;

	__asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
	__asm__ volatile("msr fpcr, %0" : : "r"(fpcr | flush));
}
