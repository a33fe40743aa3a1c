/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the control socket that take a fraction of a second: answered aside (aside.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct control_job;
struct server;

/* Does the message ask for one of those? */
bool control_is_long(const char *text, size_t n);
/* Has it answered: `answered` gets the reply, which is its to free, from the control loop; NULL:
 * none is wanted. Where that cannot be, 0 with *ret NULL and the reply that says why. -ENOMEM. */
int control_begin(struct server *s, const char *text, size_t n,
		  void (*answered)(void *arg, int error, char *reply), void *arg,
		  struct control_job **ret, char **ret_reply);
/* Its client has gone: `answered` is not called. */
void control_cancel(struct server *s, struct control_job *j);
