/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of JSON as golden.json is made of: a library for it is not there for
 * every processor that these tests are cross-compiled for.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct json;

/* NULL if the file cannot be read; ends the program if it is not JSON: it is ours. */
struct json *json_read(const char *file);
void json_free(struct json *j);

/* A member, or with a path "a/b" a member's member; ends the program if there is none. */
const struct json *json_get(const struct json *object, const char *path);
const struct json *json_at(const struct json *array, size_t i);
size_t json_length(const struct json *array);
bool json_is_array(const struct json *j);
/* null is the logarithm of nothing: -inf. */
double json_number(const struct json *j);
double json_number_at(const struct json *array, size_t i);
double json_number_in(const struct json *object, const char *path);
