/* SPDX-License-Identifier: Apache-2.0 */
/* Between ctl-doctor.c and ctl-doctor-caller.c. */
#pragma once

#include "client/ctl.h"

/* Adds a check to the list, as a daemon makes them; `remedy` may be NULL. */
void ctl_check_add(json_object *checks, const char *name, const char *verdict, const char *remedy,
		   const char *format, ...) __attribute__((format(printf, 5, 6)));
/* What a program prints, without the last newline; NULL if it cannot be run. Its exit status. */
char *ctl_output_of(const char *const *argv, int *ret_status);

/* The checks that only the caller can make: who it is, and what its service manager says. */
void ctl_check_caller(const struct ctl_options *o, json_object *checks);
/* What starts a daemon here. */
const char *ctl_start_command(void);
/* Who asks, as a word for a command. */
const char *ctl_caller_name(void);
