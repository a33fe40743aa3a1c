/* SPDX-License-Identifier: Apache-2.0 */
/* Which instruction sets an x86 CPU has. */
#include <string.h>
#include <xmmintrin.h>

#include "kernels/cpu.h"
#include "kernels/kernels.h"

/* The compiler's test reads CPUID and what the kernel saves on a switch (XGETBV). Each ISA asks
 * for all that its library is compiled with. */
bool kv_cpu_has(const char *isa)
{
	__builtin_cpu_init();
	if (!strcmp(isa, "avx2"))
		return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
		       __builtin_cpu_supports("f16c");
	if (!strcmp(isa, "avx512"))
		return kv_cpu_has("avx2") && __builtin_cpu_supports("avx512f") &&
		       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
		       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
	return !strcmp(isa, "scalar");
}

void kv_thread_init(void)
{
	const unsigned flush = 1u << 15, denormals_are_zero = 1u << 6;

	_mm_setcsr(_mm_getcsr() | flush | denormals_are_zero);
}
