/* SPDX-License-Identifier: Apache-2.0 */
/* A list of checks. */
#include "numa/preflight.h"

#include <assert.h>
#include <linux/io_uring.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "shm/base.h"

const char *check_verdict_name(enum verdict v)
{
	static const char *const names[] = { "ok", "warning", "wrong", "unknown" };

	return names[v];
}

struct check *checks_add(struct checks *c, const char *name, enum verdict v, const char *format,
			 ...)
{
	struct check *one = &c->item[c->n];
	va_list args;

	assert(c->n < CHECKS_MOST); /* three a node, and a dozen */
	*one = (struct check){ .name = name, .verdict = v };
	va_start(args, format);
	vsnprintf(one->text, sizeof(one->text), format, args);
	va_end(args);
	c->n++;
	return one;
}

void check_mend(struct check *c, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(c->remedy, sizeof(c->remedy), format, args);
	va_end(args);
}

unsigned checks_count(const struct checks *c, enum verdict v)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += c->item[i].verdict == v;
	return n;
}

int preflight_try_uring(void)
{
	struct io_uring_params params = { .flags = 0 };
	long fd = syscall(__NR_io_uring_setup, 1, &params);

	if (fd < 0)
		return -errno;
	close((int)fd);
	return 0;
}
