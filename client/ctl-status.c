/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl status: the sentence first, then everything else that the daemon
 * told, as tables. Columns are what the answer has: a daemon that tells more
 * needs no new sparqctl.
 */
#include <stdio.h>
#include <string.h>

#include "client/ctl.h"
#include "shm/base.h"

#define COLUMNS_MAX 16
#define CELL_MAX 128

static const char *heading(const char *key, char *ret, size_t n)
{
	snprintf(ret, n, "%s", key);
	for (char *c = ret; *c; c++)
		if (*c == '_')
			*c = ' ';
	return ret;
}

/* The plain members of an object, one a line. */
static void print_members(json_object *object)
{
	char name[CELL_MAX], cell[CELL_MAX];

	json_object_object_foreach(object, key, value)
	{
		if (!strcmp(key, "sentence") || !strcmp(key, "refusal") ||
		    json_object_is_type(value, json_type_array) ||
		    json_object_is_type(value, json_type_object))
			continue;
		ctl_format(key, value, cell, sizeof(cell));
		printf("  %-26s %s\n", heading(key, name, sizeof(name)), cell);
	}
}

struct table {
	const char *key[COLUMNS_MAX];
	int width[COLUMNS_MAX];
	unsigned n;
};

/* Its columns are the members of the first row. */
static void measure(json_object *rows, struct table *t)
{
	char cell[CELL_MAX];

	*t = (struct table){};
	json_object_object_foreach(json_object_array_get_idx(rows, 0), key, value)
	{
		(void)value;
		if (t->n < COLUMNS_MAX) {
			t->width[t->n] = (int)strlen(key);
			t->key[t->n++] = key;
		}
	}
	for (size_t i = 0; i < json_object_array_length(rows); i++)
		for (unsigned c = 0; c < t->n; c++) {
			json_object *row = json_object_array_get_idx(rows, i);

			ctl_format(t->key[c], json_object_object_get(row, t->key[c]), cell,
				   sizeof(cell));
			t->width[c] = MAX(t->width[c], (int)strlen(cell));
		}
}

static void print_rows(json_object *rows, const struct table *t)
{
	char cell[CELL_MAX];

	for (size_t i = 0; i < json_object_array_length(rows); i++) {
		json_object *row = json_object_array_get_idx(rows, i);

		for (unsigned c = 0; c < t->n; c++) {
			json_object *value = json_object_object_get(row, t->key[c]);
			bool text = json_object_is_type(value, json_type_string);

			ctl_format(t->key[c], value, cell, sizeof(cell));
			printf(text ? "  %-*s" : "  %*s", t->width[c], cell);
		}
		putchar('\n');
	}
}

static void print_table(const char *title, json_object *rows)
{
	char name[CELL_MAX];
	struct table t;

	if (json_object_array_length(rows) == 0 ||
	    !json_object_is_type(json_object_array_get_idx(rows, 0), json_type_object))
		return;
	measure(rows, &t);
	printf("\n%s\n", heading(title, name, sizeof(name)));
	for (unsigned c = 0; c < t.n; c++) {
		json_object *first = json_object_array_get_idx(rows, 0);
		bool text = json_object_is_type(json_object_object_get(first, t.key[c]),
						json_type_string);

		printf(text ? "  %-*s" : "  %*s", t.width[c],
		       heading(t.key[c], name, sizeof(name)));
	}
	putchar('\n');
	print_rows(rows, &t);
}

static void print_status(json_object *status)
{
	json_object *sentence = json_object_object_get(status, "sentence");
	char name[CELL_MAX];

	if (sentence)
		printf("%s\n\n", json_object_get_string(sentence));
	print_members(status);
	json_object_object_foreach(status, key, value)
	{
		if (json_object_is_type(value, json_type_object)) {
			printf("\n%s\n", heading(key, name, sizeof(name)));
			print_members(value);
		} else if (json_object_is_type(value, json_type_array)) {
			print_table(key, value);
		}
	}
}

int ctl_status(const struct ctl_options *o)
{
	CLEANUP(ctl_putp) json_object *status = ctl_call(o, "Status", NULL);

	if (!status)
		return CTL_FAILED;
	if (ctl_flag(o, OPT_JSON))
		ctl_print_json(status);
	else
		print_status(status);
	return CTL_OK;
}
