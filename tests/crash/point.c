/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The points of daemon/point.h as sparqd-points has them, told by its environment:
 *
 *   SPARQD_POINT=list      prints the name of every point, and exits
 *   SPARQD_POINT=NAME:N    SIGKILL of the process at the N-th arrival at NAME
 *   SPARQD_POINT_FILE=PATH the arrivals are counted in this file (8 bytes, little endian), so that
 *                          they go on over restarts, and a daemon that has died once at N
 *                          does not die again
 */
#include "daemon/point.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/base.h"

enum { EXIT_USAGE = 2 };

typedef char point_name[POINT_NAME_BYTES];

/* Made by the linker: the ends of the section. */
extern const point_name __start_sparqd_points[], __stop_sparqd_points[];

static struct {
	point_name name; /* empty: none is armed */
	uint64_t last;
	uint64_t *arrivals, own;
} armed = { .arrivals = &armed.own };

__attribute__((noreturn, format(printf, 1, 2))) static void refuse(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	exit(EXIT_USAGE);
}

static bool exists(const char *name)
{
	for (const point_name *p = __start_sparqd_points; p < __stop_sparqd_points; p++)
		if (!strcmp(*p, name))
			return true;
	return false;
}

static void list(void)
{
	for (const point_name *p = __start_sparqd_points; p < __stop_sparqd_points; p++)
		puts(*p);
	exit(fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS);
}

static void count_in(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, sizeof(uint64_t)) < 0)
		refuse("SPARQD_POINT_FILE=%s: %s\n", path, strerror(errno));
	armed.arrivals = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (armed.arrivals == MAP_FAILED)
		refuse("SPARQD_POINT_FILE=%s: %s\n", path, strerror(errno));
	close(fd);
}

/* Before main(): a daemon need not know that it is told. */
__attribute__((constructor)) static void arm(void)
{
	const char *told = getenv("SPARQD_POINT"), *path = getenv("SPARQD_POINT_FILE");
	const char *colon = told ? strchr(told, ':') : NULL;
	size_t n = colon ? (size_t)(colon - told) : 0;
	char *end = NULL;

	if (!told)
		return;
	if (!strcmp(told, "list"))
		list();
	if (n == 0 || n >= sizeof(armed.name))
		refuse("SPARQD_POINT=%s: NAME:N or \"list\"\n", told);
	memcpy(armed.name, told, n);
	armed.last = strtoull(colon + 1, &end, 10);
	/* A point that cannot be reached would look like a daemon that survives it. */
	if (!exists(armed.name) || armed.last == 0 || *end)
		refuse("SPARQD_POINT=%s: no such point, or a count that is none\n", told);
	if (path)
		count_in(path);
}

void point_reached(const char *name)
{
	if (!armed.last || strcmp(name, armed.name))
		return;
	if (fetch_add(armed.arrivals, 1ull) + 1 != armed.last)
		return;
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}
