/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The points of daemon/point.h as sparqd-points has them, told by its environment:
 *
 *   SPARQD_POINT=list      prints the name of every point, and exits
 *   SPARQD_POINT=NAME:N,.. SIGKILL of the process at the N-th arrival at NAME; *: at every one
 *   SPARQD_POINT_FILE=PATH the arrivals are counted in this file (8 bytes each, in the order of the
 *                          names), so that they go on over restarts, and a daemon that has
 *                          died once at N does not die again
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

#define ARMED_MOST 4
#define EVERY UINT64_MAX

static struct point {
	point_name name;
	uint64_t last; /* arrival */
} armed[ARMED_MOST];
static unsigned n_armed;
static uint64_t own[ARMED_MOST], *arrivals = own;

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

	if (fd < 0 || ftruncate(fd, sizeof(own)) < 0)
		refuse("SPARQD_POINT_FILE=%s: %s\n", path, strerror(errno));
	arrivals = mmap(NULL, sizeof(own), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (arrivals == MAP_FAILED)
		refuse("SPARQD_POINT_FILE=%s: %s\n", path, strerror(errno));
	close(fd);
}

/* NAME:N or NAME:* */
static void arm_one(const char *told)
{
	const char *colon = strchr(told, ':');
	size_t n = colon ? (size_t)(colon - told) : 0;
	struct point *p = &armed[n_armed];
	char *end = NULL;

	if (n == 0 || n >= sizeof(p->name) || n_armed == ARMED_MOST)
		refuse("SPARQD_POINT=%s: NAME:N,... or \"list\"\n", told);
	memcpy(p->name, told, n);
	p->last = strcmp(colon, ":*") ? strtoull(colon + 1, &end, 10) : EVERY;
	/* A point that cannot be reached would look like a daemon that survives it. */
	if (!exists(p->name) || p->last == 0 || (end && *end))
		refuse("SPARQD_POINT=%s: no such point, or a count that is none\n", told);
	n_armed++;
}

/* Before main(): a daemon need not know that it is told. */
__attribute__((constructor)) static void arm(void)
{
	const char *told = getenv("SPARQD_POINT"), *path = getenv("SPARQD_POINT_FILE");
	char *copy, *save, *one;

	if (!told)
		return;
	if (!strcmp(told, "list"))
		list();
	copy = strdup(told);
	for (one = copy ? strtok_r(copy, ",", &save) : NULL; one; one = strtok_r(NULL, ",", &save))
		arm_one(one);
	free(copy);
	if (path)
		count_in(path);
}

static bool is_last(unsigned i, const char *name)
{
	if (strcmp(name, armed[i].name))
		return false;
	return fetch_add(&arrivals[i], 1ull) + 1 == armed[i].last || armed[i].last == EVERY;
}

void point_reached(const char *name)
{
	for (unsigned i = 0; i < n_armed; i++) {
		if (!is_last(i, name))
			continue;
		kill(getpid(), SIGKILL);
		for (;;)
			pause();
	}
}
