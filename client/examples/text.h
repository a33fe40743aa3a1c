/* SPDX-License-Identifier: Apache-2.0 */
/* A text read from a file, whole. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct text {
	char *name;     /* without its folder */
	uint8_t *bytes; /* followed by a 0 that does not count */
	size_t n;
};

int text_read(const char *path, char *why, struct text *ret);
void text_deinit(struct text *t);
