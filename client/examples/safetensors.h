/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a safetensors file: named tensors of plain numbers.
 *
 * The file is input from outside: every entry of its header is checked when it
 * is opened, so that a tensor which is found lies inside the file. Errors are
 * negative errno, with `why` (why.h) naming the tensor or the key that is wrong.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct safetensors;

int safetensors_open(const char *path, char *why, struct safetensors **ret);
struct safetensors *safetensors_close(struct safetensors *s);

/* Copies a tensor of exactly this shape, widened to f32 (from F32, BF16 or F16).
 * -ENOENT: there is none of this name; -EINVAL: another shape or type. */
int safetensors_read(struct safetensors *s, const char *name, const uint64_t *shape,
		     unsigned dimensions, char *why, float *ret);
