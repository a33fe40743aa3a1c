/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a socket could not be reached, with the remedy. Who is outside of its group has no other way
 * to learn which group that is.
 */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/socket-why.h"

/* The group's name, or its number where it has none here. */
static void name_group(gid_t gid, char *ret, size_t n)
{
	char buffer[1024];
	struct group g, *found = NULL;

	if (getgrgid_r(gid, &g, buffer, sizeof(buffer), &found) == 0 && found)
		snprintf(ret, n, "%s", g.gr_name);
	else
		snprintf(ret, n, "%u", gid);
}

static void say_closed(const char *path, char *ret, size_t n)
{
	struct stat at;
	char group[40];

	if (stat(path, &at) < 0) {
		snprintf(ret, n, "a directory on the way to it is closed to uid %u", geteuid());
		return;
	}
	if (!(at.st_mode & S_IWGRP)) {
		snprintf(ret, n, "it is for uid %u alone, and this is uid %u", at.st_uid,
			 geteuid());
		return;
	}
	name_group(at.st_gid, group, sizeof(group));
	snprintf(ret, n,
		 "it is for group %s, of which uid %u is no member "
		 "(usermod -aG %s USER, then log in anew)",
		 group, geteuid(), group);
}

void socket_why(const char *path, int error, char *ret, size_t n)
{
	char remedy[192] = "";

	if (error == -EACCES)
		say_closed(path, remedy, sizeof(remedy));
	else if (error == -ENOENT || error == -ECONNREFUSED)
		snprintf(remedy, sizeof(remedy),
			 "no daemon listens there (systemctl enable --now sparqd.socket)");
	snprintf(ret, n, "%.100s: %s%s%s", path, strerror(-error), *remedy ? ": " : "", remedy);
}
