/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl drop, pin, unpin, loglevel, reload: what an administrator changes.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl-print.h"
#include "client/ctl.h"
#include "shm/base.h"

/* ---- sequences -------------------------------------------------------------------- */

/* A word is a name with --cache, an id without: both may look like the other. */
static json_object *question_about(const struct ctl_options *o, const char *word)
{
	const char *cache = ctl_text(o, OPT_CACHE), *user = ctl_text(o, OPT_USER);
	json_object *q;
	uid_t uid;

	if (!cache && strncmp(word, "0x", 2)) {
		fprintf(stderr,
			"sparqctl: %s: without --cache, an id such as 0x20000000f is expected\n",
			word);
		return NULL;
	}
	if (user && ctl_user_id(user, &uid) != CTL_OK)
		return NULL;
	q = json_object_new_object();
	json_object_object_add(q, cache ? "sequence" : "id", json_object_new_string(word));
	if (cache)
		json_object_object_add(q, "cache", json_object_new_string(cache));
	if (user)
		json_object_object_add(q, "uid", json_object_new_int64(uid));
	return q;
}

static bool is_agreed(const struct ctl_options *o)
{
	char answer[8];

	if (ctl_flag(o, OPT_YES) || !isatty(STDIN_FILENO))
		return true;
	fputs("drop", stderr);
	for (int i = 0; i < o->n_words; i++)
		fprintf(stderr, " %s", o->words[i]);
	fputs(" for good? [y/N] ", stderr);
	return fgets(answer, sizeof(answer), stdin) && (*answer == 'y' || *answer == 'Y');
}

static void say(const char *word, const char *did, json_object *answer)
{
	json_object *bytes = json_object_object_get(answer, "bytes");
	char size[32];

	printf("%s: %s", word, did);
	if (bytes)
		printf(", %s",
		       ctl_format_bytes((double)json_object_get_int64(bytes), size, sizeof(size)));
	putchar('\n');
}

/* Each word in turn: one that is refused is no reason to leave the others. */
static int for_each(const struct ctl_options *o, const char *method, const char *did, int pinned)
{
	CLEANUP(ctl_putp) json_object *answers = json_object_new_array();
	int status = CTL_OK;

	for (int i = 0; i < o->n_words; i++) {
		json_object *q = question_about(o, o->words[i]), *answer;

		if (!q)
			return CTL_USAGE;
		if (pinned >= 0)
			json_object_object_add(q, "pinned", json_object_new_boolean(pinned));
		answer = ctl_call(o, method, q);
		if (!answer)
			status = CTL_FAILED;
		else if (!ctl_flag(o, OPT_JSON))
			say(o->words[i], did, answer);
		if (answer)
			json_object_array_add(answers, answer);
	}
	if (ctl_flag(o, OPT_JSON))
		ctl_print_json(answers);
	return status;
}

int ctl_drop(const struct ctl_options *o)
{
	if (!is_agreed(o)) {
		fputs("sparqctl: nothing was dropped\n", stderr);
		return CTL_FAILED;
	}
	return for_each(o, "Drop", "dropped", -1);
}

int ctl_pin(const struct ctl_options *o)
{
	return for_each(o, "Pin", "pinned", true);
}

int ctl_unpin(const struct ctl_options *o)
{
	return for_each(o, "Pin", "unpinned", false);
}

/* ---- the daemon --------------------------------------------------------------------- */

int ctl_loglevel(const struct ctl_options *o)
{
	CLEANUP(ctl_putp) json_object *question = json_object_new_object(), *answer = NULL;

	json_object_object_add(question, "level", json_object_new_string(o->words[0]));
	answer = ctl_call(o, "SetLogLevel", STEAL_PTR(question));
	if (!answer)
		return CTL_FAILED;
	printf("%s, it was %s\n", o->words[0],
	       json_object_get_string(json_object_object_get(answer, "before")));
	return CTL_OK;
}

static const char *member(json_object *o, const char *key)
{
	const char *text = json_object_get_string(json_object_object_get(o, key));

	return text && *text ? text : "nothing";
}

int ctl_reload(const struct ctl_options *o)
{
	CLEANUP(ctl_putp) json_object *answer = ctl_call(o, "Reload", NULL);
	json_object *changed;

	if (!answer)
		return CTL_FAILED;
	if (ctl_flag(o, OPT_JSON)) {
		ctl_print_json(answer);
		return CTL_OK;
	}
	changed = json_object_object_get(answer, "changed");
	if (!changed || !json_object_array_length(changed))
		puts("reloaded: nothing has changed");
	for (size_t i = 0; changed && i < json_object_array_length(changed); i++) {
		json_object *one = json_object_array_get_idx(changed, i);

		printf("%s: %s, it was %s\n", member(one, "key"), member(one, "after"),
		       member(one, "before"));
	}
	return CTL_OK;
}
