/* SPDX-License-Identifier: Apache-2.0 */
/* Why something failed, in words: see why.h. */
#include <stdarg.h>
#include <stdio.h>

#include "client/examples/why.h"

int why_set(char *why, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, WHY_BYTES, format, args);
	va_end(args);
	return error;
}
