/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl sequences, caches, users: the daemon tells them in pages, here they are one list,
 * in order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/ctl-print.h"
#include "client/ctl.h"
#include "shm/base.h"

struct list {
	const char *method, *key; /* "ListCaches", "caches" */
	const char *sort;         /* where nobody says */
	const char *name;         /* the member that --names prints */
	json_object *(*for_people)(json_object *row);
};

/* ---- asking --------------------------------------------------------------------- */

static int add_filters(const struct ctl_options *o, json_object *question)
{
	uid_t uid;

	if (ctl_text(o, OPT_CACHE))
		json_object_object_add(question, "cache",
				       json_object_new_string(ctl_text(o, OPT_CACHE)));
	if (ctl_flag(o, OPT_PARKED))
		json_object_object_add(question, "parked", json_object_new_boolean(true));
	if (!ctl_text(o, OPT_USER))
		return CTL_OK;
	if (ctl_user_id(ctl_text(o, OPT_USER), &uid) != CTL_OK)
		return CTL_USAGE;
	json_object_object_add(question, "uid", json_object_new_int64(uid));
	return CTL_OK;
}

/* One page is added to `all`; *next is the `after` of the one behind it, -1: there is none. */
static int get_page(const struct ctl_options *o, const struct list *l, json_object *all,
		    int64_t *next)
{
	CLEANUP(ctl_putp) json_object *question = json_object_new_object(), *answer = NULL;
	json_object *rows, *more;

	if (add_filters(o, question) != CTL_OK)
		return CTL_USAGE;
	json_object_object_add(question, "after", json_object_new_int64(*next));
	answer = ctl_call(o, l->method, STEAL_PTR(question));
	if (!answer)
		return CTL_FAILED;
	rows = json_object_object_get(answer, l->key);
	for (size_t i = 0; rows && i < json_object_array_length(rows); i++)
		json_object_array_add(all, json_object_get(json_object_array_get_idx(rows, i)));
	*next = -1;
	if (json_object_object_get_ex(answer, "next", &more))
		*next = json_object_get_int64(more);
	return CTL_OK;
}

static int get_all(const struct ctl_options *o, const struct list *l, json_object *all)
{
	int64_t next = 0;
	int r = CTL_OK;

	while (r == CTL_OK && next >= 0)
		r = get_page(o, l, all, &next);
	return r;
}

/* ---- order ------------------------------------------------------------------------ */

static const char *sort_key; /* qsort hands nothing through */

static json_object *value_of(const void *row)
{
	return json_object_object_get(*(json_object *const *)row, sort_key);
}

/* Texts from a to z, figures from the greatest down. */
static int compare(const void *a, const void *b)
{
	json_object *x = value_of(a), *y = value_of(b);

	if (json_object_is_type(x, json_type_string) && y)
		return strcmp(json_object_get_string(x), json_object_get_string(y));
	return (json_object_get_int64(x) < json_object_get_int64(y)) -
	       (json_object_get_int64(x) > json_object_get_int64(y));
}

static int sort(const struct ctl_options *o, const struct list *l, json_object *all)
{
	json_object *first = json_object_array_get_idx(all, 0);

	sort_key = ctl_text(o, OPT_SORT) ? ctl_text(o, OPT_SORT) : l->sort;
	if (first && !json_object_object_get_ex(first, sort_key, NULL)) {
		fprintf(stderr, "sparqctl: --sort %s: one of these is expected:", sort_key);
		json_object_object_foreach(first, key, value)
		{
			(void)value;
			fprintf(stderr, " %s", key);
		}
		fputc('\n', stderr);
		return CTL_USAGE;
	}
	json_object_array_sort(all, compare);
	return CTL_OK;
}

/* ---- printing ----------------------------------------------------------------------- */

static void copy(json_object *from, json_object *to, const char *key)
{
	json_object_object_add(to, key, json_object_get(json_object_object_get(from, key)));
}

static void add_text(json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static const char *text_of(json_object *o, const char *key)
{
	const char *text = json_object_get_string(json_object_object_get(o, key));

	return text ? text : "";
}

static void add_user(json_object *from, json_object *to)
{
	int64_t uid = json_object_get_int64(json_object_object_get(from, "uid"));
	char name[64];

	add_text(to, "user", ctl_user_name((uid_t)uid, name, sizeof(name)));
}

static void add_age(json_object *from, json_object *to)
{
	static const struct {
		const char *name;
		int64_t seconds;
	} units[] = { { "d", 86400 }, { "h", 3600 }, { "min", 60 }, { "s", 1 } };
	int64_t age = time(NULL) - json_object_get_int64(json_object_object_get(from, "used_s"));
	unsigned i = 0;
	char text[32];

	age = MAX(age, 0);
	while (age < units[i].seconds && i + 1 < ARRAY_SIZE(units))
		i++;
	snprintf(text, sizeof(text), "%lld %s ago", (long long)(age / units[i].seconds),
		 units[i].name);
	add_text(to, "used", text);
}

static json_object *sequence_for_people(json_object *row)
{
	bool pinned = json_object_get_boolean(json_object_object_get(row, "pinned"));
	const char *name = text_of(row, "name");
	json_object *o = json_object_new_object();
	char state[48];

	snprintf(state, sizeof(state), "%.32s%s", text_of(row, "state"), pinned ? ", pinned" : "");
	add_text(o, "cache", text_of(row, "cache"));
	add_text(o, "sequence", *name ? name : text_of(row, "id"));
	add_user(row, o);
	copy(row, o, "rows");
	copy(row, o, "bytes");
	add_text(o, "state", state);
	add_age(row, o);
	return o;
}

static json_object *cache_for_people(json_object *row)
{
	json_object *o = json_object_new_object();
	char formats[72];

	snprintf(formats, sizeof(formats), "%.32s %.32s", text_of(row, "k_format"),
		 text_of(row, "v_format"));
	add_text(o, "cache", text_of(row, "name"));
	add_user(row, o);
	copy(row, o, "policy");
	add_text(o, "formats", formats);
	copy(row, o, "sequences");
	copy(row, o, "rows");
	copy(row, o, "bytes");
	return o;
}

static json_object *user_for_people(json_object *row)
{
	static const char *const keys[] = { "sessions",      "caches",      "sequences",
					    "charged_bytes", "quota_bytes", "read_bytes" };
	json_object *o = json_object_new_object();

	add_user(row, o);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		copy(row, o, keys[i]);
	return o;
}

static void print_names(const struct list *l, json_object *all)
{
	char name[64];

	for (size_t i = 0; i < json_object_array_length(all); i++) {
		json_object *row = json_object_array_get_idx(all, i);

		if (!strcmp(l->name, "uid"))
			puts(ctl_user_name((uid_t)json_object_get_int64(
						   json_object_object_get(row, "uid")),
					   name, sizeof(name)));
		else if (*text_of(row, l->name))
			puts(text_of(row, l->name));
	}
}

static void print_table(const struct list *l, json_object *all)
{
	CLEANUP(ctl_putp) json_object *rows = json_object_new_array();

	for (size_t i = 0; i < json_object_array_length(all); i++)
		json_object_array_add(rows, l->for_people(json_object_array_get_idx(all, i)));
	if (json_object_array_length(rows))
		ctl_print_table(NULL, rows);
	else
		printf("no %s\n", l->key);
}

static int run(const struct ctl_options *o, const struct list *l)
{
	CLEANUP(ctl_putp) json_object *all = json_object_new_array();
	int r = get_all(o, l, all);

	if (r == CTL_OK)
		r = sort(o, l, all);
	if (r != CTL_OK)
		return r;
	if (ctl_flag(o, OPT_JSON))
		ctl_print_json(all);
	else if (ctl_flag(o, OPT_NAMES))
		print_names(l, all);
	else
		print_table(l, all);
	return CTL_OK;
}

int ctl_sequences(const struct ctl_options *o)
{
	/* What other commands take: a name, with its cache, or an id. */
	const char *name = ctl_text(o, OPT_CACHE) ? "name" : "id";
	const struct list l = { "ListSequences", "sequences", "cache", name, sequence_for_people };

	return run(o, &l);
}

int ctl_caches(const struct ctl_options *o)
{
	const struct list l = { "ListCaches", "caches", "name", "name", cache_for_people };

	return run(o, &l);
}

int ctl_users(const struct ctl_options *o)
{
	const struct list l = { "ListUsers", "users", "charged_bytes", "uid", user_for_people };

	return run(o, &l);
}
