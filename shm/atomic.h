/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The six orderings that this project uses, by name, on plain integers.
 *
 * The wire header holds plain uint32_t (it must compile as C99 and C++11), so
 * the compiler's __atomic builtins are used instead of _Atomic types. Each use
 * says what must be visible before what, and to whom.
 */
#pragma once

#include <stdint.h>

/* What the writer stored before its store_release is visible after this. */
#define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
/* All stores above are visible to whoever reads this value with load_acquire. */
#define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
/* One untorn read or write; orders nothing. */
#define load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
/* Between a store and a later load: the store-buffer test (ring.c, doorbell.c). */
static inline void fence_seq_cst(void)
{
#if defined(__SANITIZE_THREAD__)
	/* TSan has no model of fences; a locked operation is as strong. */
	uint32_t full = 0;
	__atomic_fetch_add(&full, 1, __ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* Read-modify-write: acquire what the last one released, and release. */
#define fetch_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
#define fetch_sub(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_ACQ_REL)
#define fetch_or(p, v) __atomic_fetch_or((p), (v), __ATOMIC_ACQ_REL)
#define fetch_and(p, v) __atomic_fetch_and((p), (v), __ATOMIC_ACQ_REL)
#define exchange(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
#define compare_exchange(p, expected, v) \
	__atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)

static inline void cpu_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory");
#endif
}
