/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl doctor: what is short, and the command that mends it.
 *
 * The daemon makes the checks, since its limits are what counts. Where none
 * answers, `sparqd --check` makes the same ones for a start that is still to
 * come; then limits are those of the caller, and the first line says so.
 */
#include "client/ctl-doctor.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "client/sparq.h"
#include "shm/base.h"

#define METHOD "io.sparqd.Control.Doctor"
#define OUTPUT_BYTES (256 * KIB)

extern char **environ;

void ctl_check_add(json_object *checks, const char *name, const char *verdict, const char *remedy,
		   const char *format, ...)
{
	json_object *o = json_object_new_object();
	char text[320];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	json_object_object_add(o, "name", json_object_new_string(name));
	json_object_object_add(o, "verdict", json_object_new_string(verdict));
	json_object_object_add(o, "text", json_object_new_string(text));
	if (remedy)
		json_object_object_add(o, "remedy", json_object_new_string(remedy));
	json_object_array_add(checks, o);
}

/* ---- another program's output ------------------------------------------------- */

static char *read_all(int fd)
{
	FREE_MEMORY char *text = malloc(OUTPUT_BYTES);
	size_t n = 0;

	while (text && n < OUTPUT_BYTES - 1) {
		ssize_t r = read(fd, text + n, OUTPUT_BYTES - 1 - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			break;
		n += (size_t)r;
	}
	if (!text)
		return NULL;
	while (n > 0 && text[n - 1] == '\n')
		n--;
	text[n] = '\0';
	return STEAL_PTR(text);
}

char *ctl_output_of(const char *const *argv, int *ret_status)
{
	posix_spawn_file_actions_t actions;
	FREE_MEMORY char *text = NULL;
	int end[2], status, r;
	pid_t child;

	if (pipe2(end, O_CLOEXEC) < 0)
		return NULL;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, end[1], STDOUT_FILENO);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	r = posix_spawnp(&child, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(end[1]);
	if (r == 0)
		text = read_all(end[0]);
	close(end[0]);
	if (r != 0 || waitpid(child, &status, 0) != child)
		return NULL;
	*ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	return STEAL_PTR(text);
}

/* ---- the list ------------------------------------------------------------------ */

/* Takes `checks` out of an object, as a reference of its own; NULL. */
static json_object *checks_in(json_object *o)
{
	json_object *checks = NULL;

	json_object_object_get_ex(o, "checks", &checks);
	return json_object_is_type(checks, json_type_array) ? json_object_get(checks) : NULL;
}

/* From the daemon; NULL with the reason in words. */
static json_object *ask_daemon(const char *path, char *why, size_t n)
{
	CLEANUP(ctl_putp) json_object *reply = NULL;
	FREE_MEMORY char *text = NULL;
	json_object *parameters = NULL, *checks;
	int r = sparq_control(path, METHOD, NULL, &text);

	if (r < 0) {
		snprintf(why, n, "%s", strerror(-r));
		return NULL;
	}
	reply = json_tokener_parse(text);
	json_object_object_get_ex(reply, "parameters", &parameters);
	checks = checks_in(parameters);
	if (!checks)
		snprintf(why, n, "it is of a version that knows no checks");
	return checks;
}

/* From the program; NULL after a sentence on stderr. */
static json_object *ask_program(void)
{
	const char *program = getenv("SPARQD_PROGRAM") ?: SPARQD_PROGRAM;
	const char *const argv[] = { program, "--check", NULL };
	CLEANUP(ctl_putp) json_object *out = NULL;
	FREE_MEMORY char *text = NULL;
	json_object *checks;
	int status = 0;

	text = ctl_output_of(argv, &status);
	out = text ? json_tokener_parse(text) : NULL;
	checks = checks_in(out);
	if (!text)
		fprintf(stderr, "sparqctl: %s cannot be run; $SPARQD_PROGRAM may name another\n",
			program);
	else if (!checks)
		fprintf(stderr,
			"sparqctl: %s --check ended with status %d and no list; run it to "
			"see why\n",
			program, status);
	return checks;
}

static const char *text_of(json_object *check, const char *key)
{
	json_object *value = NULL;

	return json_object_object_get_ex(check, key, &value) ? json_object_get_string(value) : "";
}

static size_t count(json_object *checks, const char *verdict)
{
	size_t n = 0;

	for (size_t i = 0; i < json_object_array_length(checks); i++)
		n += !strcmp(text_of(json_object_array_get_idx(checks, i), "verdict"), verdict);
	return n;
}

/* ---- what is printed ------------------------------------------------------------- */

static void print_list(const char *by, json_object *checks)
{
	printf("checked by %s\n", by);
	for (size_t i = 0; i < json_object_array_length(checks); i++) {
		json_object *check = json_object_array_get_idx(checks, i);
		const char *remedy = text_of(check, "remedy");

		printf("%-8s %-16s %s\n", text_of(check, "verdict"), text_of(check, "name"),
		       text_of(check, "text"));
		if (*remedy)
			printf("         %s\n", remedy);
	}
	printf("%zu wrong, %zu warnings, %zu unknown\n", count(checks, "wrong"),
	       count(checks, "warning"), count(checks, "unknown"));
}

static void print_json(const char *by, json_object *checks)
{
	CLEANUP(ctl_putp) json_object *out = json_object_new_object();

	json_object_object_add(out, "checked_by", json_object_new_string(by));
	json_object_object_add(out, "checks", json_object_get(checks));
	ctl_print_json(out);
}

/* Not there, or not for the caller: each has its command. */
static void tell_absence(const char *path, const char *why, json_object *checks)
{
	const char *remedy = ctl_start_command();
	char join[128];

	if (!strcmp(why, strerror(EACCES))) {
		snprintf(join, sizeof(join), "usermod -aG sparq-admin %s", ctl_caller_name());
		remedy = join;
	}
	ctl_check_add(checks, "daemon", "warning", remedy,
		      "no answer on %s: %s; limits are those of this shell", path, why);
}

int ctl_doctor(const struct ctl_options *o)
{
	const char *path = ctl_text(o, OPT_CONTROL) ?: getenv("SPARQ_CONTROL");
	const char *by = "the daemon";
	json_object *checks;
	char why[128] = "";
	bool wrong;

	path = path ?: SPARQ_CONTROL_PATH;
	checks = ask_daemon(path, why, sizeof(why));
	if (!checks) {
		by = "sparqd --check";
		checks = ask_program();
		if (!checks)
			return CTL_FAILED;
		tell_absence(path, why, checks);
	}
	ctl_check_caller(o, checks);
	if (ctl_flag(o, OPT_JSON))
		print_json(by, checks);
	else
		print_list(by, checks);
	wrong = count(checks, "wrong") > 0;
	json_object_put(checks);
	return wrong ? CTL_FAILED : CTL_OK;
}
