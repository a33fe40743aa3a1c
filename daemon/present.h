/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device has of an arena: a bit for every 64 bytes, which is what pages are
 * multiples of. It is set by the device's thread before it takes the bytes, and cleared by
 * whoever writes them, after that; so a bit that is set at rest means that the copy is good.
 * Nothing is set at first.
 *
 *   fine:   a word for each 4 KiB
 *   coarse: a bit for each word, set if all of it is, so that a page that has not changed costs
 *           a look at one word in 256 KiB
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PRESENT_BLOCK 64u

struct present {
	size_t bytes;
	uint64_t *fine, *coarse; /* atomic words; memory as they are touched */
};
#define PRESENT_NULL ((struct present){ 0 })

/* -ENOMEM. */
int present_init(struct present *p, size_t bytes);
void present_deinit(struct present *p);

/* Any thread: [at, at + n) was written. */
void present_forget(struct present *p, size_t at, size_t n);
/* The device's thread: [at, at + n) is about to be copied; whole blocks. */
void present_note(struct present *p, size_t at, size_t n);
/* The device's thread: the next run of bytes in [at, end) that it has to copy; whole blocks. False:
 * there is none. */
bool present_missing(const struct present *p, size_t at, size_t end, size_t *ret_at, size_t *ret_n);
