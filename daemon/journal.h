/* SPDX-License-Identifier: Apache-2.0 */
/* The journal's own way in; journal-none.c stands in where libsystemd is not built in. */
#pragma once

/* One line with its priority and n more fields, "NAME=value"; -errno: not sent. */
#define JOURNAL_FIELDS_MAX 5u
int journal_send(int level, const char *line, const char *const *fields, unsigned n);
