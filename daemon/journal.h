/* SPDX-License-Identifier: Apache-2.0 */
/* The journal's own way in; journal-none.c stands in where libsystemd is not built in. */
#pragma once

/* One line with its priority; -errno: not sent. */
int journal_send(int level, const char *line);
