/* SPDX-License-Identifier: Apache-2.0 */
/* Which instruction sets an ARM CPU has. */
#include <string.h>
#include <sys/auxv.h>

#include "kernels/cpu.h"
#include "kernels/kernels.h"

/* Not the names of <asm/hwcap.h>: older systems lack the later ones. */
#define HWCAP_ASIMD_BIT (1ul << 1)
#define HWCAP_CRC32_BIT (1ul << 7)
#define HWCAP_ATOMICS_BIT (1ul << 8)
#define HWCAP_ASIMDRDM_BIT (1ul << 12)
#define HWCAP_ASIMDDP_BIT (1ul << 20)
/* What the compiler may use for armv8.2-a+dotprod and not for armv8-a. */
#define DOTPROD_BITS (HWCAP_CRC32_BIT | HWCAP_ATOMICS_BIT | HWCAP_ASIMDRDM_BIT | HWCAP_ASIMDDP_BIT)

static bool has(unsigned long bits)
{
	return (getauxval(AT_HWCAP) & bits) == bits;
}

/* Each ISA asks for all that its library is compiled with. */
bool kv_cpu_has(const char *isa)
{
	if (!strcmp(isa, "neon"))
		return has(HWCAP_ASIMD_BIT);
	if (!strcmp(isa, "dotprod"))
		return has(HWCAP_ASIMD_BIT | DOTPROD_BITS);
	return !strcmp(isa, "scalar");
}

void kv_thread_init(void)
{
	unsigned long fpcr, flush = 1ul << 24;

	__asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
	__asm__ volatile("msr fpcr, %0" : : "r"(fpcr | flush));
}
