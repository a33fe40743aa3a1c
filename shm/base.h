/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few words that every folder uses: cleanup attributes, container_of,
 * checked arithmetic. Header only.
 */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ALIGN_UP(n, to) (((n) + (to) - 1) / (to) * (to))
#define DIV_UP(n, by) (((n) + (by) - 1) / (by))

#define likely(c) __builtin_expect(!!(c), 1)
#define unlikely(c) __builtin_expect(!!(c), 0)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/* Runs `function` on the variable's address when it leaves scope. Destructors
 * accept a half-built object and NULL, and keep errno. */
#define CLEANUP(function) __attribute__((cleanup(function)))

/* Takes the value out of a variable under CLEANUP: what is left is `null`. */
#define STEAL(variable, null)                         \
	({                                            \
		__typeof__(variable) stolen_ = (variable); \
		(variable) = (null);                  \
		stolen_;                              \
	})
#define STEAL_PTR(variable) STEAL(variable, NULL)
#define STEAL_FD(variable) STEAL(variable, -1)

static inline void close_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}
#define CLOSE_FD CLEANUP(close_fd)

static inline void free_memory(void *pointer)
{
	void **p = pointer;
	int saved = errno;

	free(*p);
	*p = NULL;
	errno = saved;
}
#define FREE_MEMORY CLEANUP(free_memory)

static inline int checked_add(uint64_t a, uint64_t b, uint64_t *ret)
{
	return __builtin_add_overflow(a, b, ret) ? -EOVERFLOW : 0;
}

static inline int checked_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
	return __builtin_mul_overflow(a, b, ret) ? -EOVERFLOW : 0;
}
