/* SPDX-License-Identifier: Apache-2.0 */
/* Progress lines on stderr: see progress.h. */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "client/examples/progress.h"

#define TICK_SECONDS 2.0

double progress_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

PRINTF_LIKE(1, 0) static void say(const char *format, va_list args)
{
	fputs("sparq-generate: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

void progress_say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(format, args);
	va_end(args);
}

void progress_tick(const char *format, ...)
{
	static double last;
	double now = progress_seconds();
	va_list args;

	if (last == 0)
		last = now; /* what ends at once needs no line */
	if (now - last < TICK_SECONDS)
		return;
	last = now;
	va_start(args, format);
	say(format, args);
	va_end(args);
}
