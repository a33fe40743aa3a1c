/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only the caller of sparqctl doctor can see: its groups, the session
 * socket as it meets it, and what systemd says of the unit.
 */
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/ctl-doctor.h"
#include "client/sparq.h"
#include "shm/base.h"

#define UNIT "sparqd.service"
#define STORE_LEAST 2 /* one pool and the catalogue; one more for each further node */

/* ---- groups and the socket ------------------------------------------------------- */

static bool is_member(gid_t gid)
{
	FREE_MEMORY gid_t *groups = NULL;
	int n = getgroups(0, NULL);

	if (getegid() == gid)
		return true;
	groups = n > 0 ? calloc((size_t)n, sizeof(*groups)) : NULL;
	n = groups ? getgroups(n, groups) : 0;
	for (int i = 0; i < n; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

const char *ctl_caller_name(void)
{
	const struct passwd *me = getpwuid(geteuid());

	return me ? me->pw_name : "$USER";
}

static void check_groups(json_object *checks)
{
	const struct group *g = getgrnam("sparq");
	char remedy[128];

	if (!g) {
		ctl_check_add(checks, "groups", "warning",
			      "groupadd --system sparq; groupadd --system sparq-admin",
			      "there is no group sparq: a socket of the unit cannot be made");
	} else if (geteuid() == 0) {
		ctl_check_add(checks, "groups", "ok", NULL, "root may connect and control");
	} else if (is_member(g->gr_gid)) {
		ctl_check_add(checks, "groups", "ok", NULL, "the caller is in group sparq");
	} else {
		snprintf(remedy, sizeof(remedy), "usermod -aG sparq %s", ctl_caller_name());
		ctl_check_add(
			checks, "groups", "warning", remedy,
			"the caller is not in group sparq (as of its login): it may not connect");
	}
}

const char *ctl_start_command(void)
{
	return access("/run/systemd/system", F_OK) == 0 ? "systemctl enable --now sparqd.socket"
							: "sparqd --keeper";
}

static void check_socket(const struct ctl_options *o, json_object *checks)
{
	const char *path = ctl_text(o, OPT_SOCKET) ?: getenv("SPARQ_SOCKET") ?: SPARQ_SOCKET_PATH;
	struct stat st;

	if (stat(path, &st) < 0)
		ctl_check_add(checks, "socket", "warning", ctl_start_command(), "%s: %s", path,
			      strerror(errno));
	else if (!S_ISSOCK(st.st_mode))
		ctl_check_add(checks, "socket", "wrong", NULL, "%s is no socket", path);
	else if (access(path, W_OK) < 0)
		ctl_check_add(checks, "socket", "warning", NULL, "%s: %s: see groups", path,
			      strerror(errno));
	else
		ctl_check_add(checks, "socket", "ok", NULL, "%s", path);
}

/* ---- systemd ------------------------------------------------------------------------ */

/* The value of a "NAME=value" line, as a string of its own; NULL. */
static char *property(const char *text, const char *name)
{
	size_t n = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, name, n) && line[n] == '=')
			return strndup(line + n + 1, strcspn(line + n + 1, "\n"));
	}
	return NULL;
}

static void check_store(const char *text, json_object *checks)
{
	FREE_MEMORY char *most = property(text, "FileDescriptorStoreMax");
	FREE_MEMORY char *loaded = property(text, "LoadState");

	if (!loaded || strcmp(loaded, "loaded"))
		ctl_check_add(checks, "fd-store", "unknown", NULL, UNIT " is not installed (%s)",
			      loaded ? loaded : "no answer");
	else if (!most || strtoul(most, NULL, 10) < STORE_LEAST)
		ctl_check_add(checks, "fd-store", "wrong",
			      "mkdir -p /etc/systemd/system/" UNIT ".d && printf "
			      "'[Service]\\nFileDescriptorStoreMax=253\\n' > "
			      "/etc/systemd/system/" UNIT
			      ".d/store.conf && systemctl daemon-reload",
			      UNIT " has FileDescriptorStoreMax=%s: a restart would lose the KV",
			      most ? most : "0");
	else
		ctl_check_add(checks, "fd-store", "ok", NULL, "%s descriptors outlive the daemon",
			      most);
}

static void check_systemd(json_object *checks)
{
	const char *const manager[] = { "systemctl", "show", "-p", "Version", NULL };
	const char *const unit[] = {
		"systemctl", "show", UNIT, "-p", "LoadState", "-p", "FileDescriptorStoreMax", NULL
	};
	FREE_MEMORY char *version = NULL;
	FREE_MEMORY char *text = NULL;
	FREE_MEMORY char *number = NULL;
	int status = -1;

	version = ctl_output_of(manager, &status);
	number = version && status == 0 ? property(version, "Version") : NULL;
	if (!number) {
		ctl_check_add(checks, "systemd", "unknown", NULL,
			      "no systemd answers: sparqd --keeper keeps memory without it");
		return;
	}
	ctl_check_add(checks, "systemd", "ok", NULL, "version %s", number);
	text = ctl_output_of(unit, &status);
	if (text && status == 0)
		check_store(text, checks);
}

void ctl_check_caller(const struct ctl_options *o, json_object *checks)
{
	check_groups(checks);
	check_socket(o, checks);
	check_systemd(checks);
}
