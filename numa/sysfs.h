/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few shapes that sysfs and procfs answer in: a number, a list of ranges,
 * lines of "key: value". Paths are relative to a directory descriptor, so that
 * a recorded tree reads like a live one.
 */
#pragma once

#include <sched.h>
#include <stddef.h>
#include <stdint.h>

/* The whole file as a string, cut at `n` - 1 bytes. -errno. */
int sysfs_text(int dir, const char *path, char *ret, size_t n);
int sysfs_number(int dir, const char *path, uint64_t *ret);
/* "0-3,8" as a set of CPUs or of nodes: neither has more than CPU_SETSIZE. -EINVAL. */
int sysfs_list(int dir, const char *path, cpu_set_t *ret);
int sysfs_parse_list(const char *text, cpu_set_t *ret);
/* What follows `key` ("MemFree:") in a text of lines, blanks passed over; NULL. */
const char *sysfs_field(const char *text, const char *key);
/* The same as kilobytes, in bytes; 0 where the key is missing. */
uint64_t sysfs_kilobytes(const char *text, const char *key);
/* What "MemFree:" says plus the page cache, which the kernel drops when asked for memory. */
uint64_t sysfs_available(const char *meminfo);
