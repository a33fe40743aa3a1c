/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON for people: members a line, arrays of objects as tables. Columns are what the first row
 * has: a daemon that tells more needs no new sparqctl.
 */
#include "client/ctl-print.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl.h"
#include "shm/base.h"

#define COLUMNS_MAX 16
#define CELL_MAX 128

/* ---- values ------------------------------------------------------------------- */

static bool is_bytes(const char *key)
{
	size_t n = strlen(key);

	return n >= 5 && !strcmp(key + n - 5, "bytes");
}

char *ctl_format_bytes(double bytes, char *ret, size_t n)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	unsigned unit = 0;

	while (bytes >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		bytes /= 1024;
		unit++;
	}
	snprintf(ret, n, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
	return ret;
}

void ctl_format(const char *key, json_object *value, char *ret, size_t n)
{
	if (json_object_is_type(value, json_type_int) && is_bytes(key))
		ctl_format_bytes((double)json_object_get_int64(value), ret, n);
	else if (json_object_is_type(value, json_type_double))
		snprintf(ret, n, "%.4g", json_object_get_double(value));
	else if (json_object_is_type(value, json_type_boolean))
		snprintf(ret, n, "%s", json_object_get_boolean(value) ? "yes" : "no");
	else
		snprintf(ret, n, "%s", value ? json_object_get_string(value) : "-");
}

char *ctl_user_name(uid_t uid, char *ret, size_t n)
{
	struct passwd *p = getpwuid(uid);

	if (p)
		snprintf(ret, n, "%s", p->pw_name);
	else
		snprintf(ret, n, "%u", uid);
	return ret;
}

int ctl_user_id(const char *name, uid_t *ret)
{
	struct passwd *p = getpwnam(name);
	unsigned long uid;
	char *end;

	if (p) {
		*ret = p->pw_uid;
		return CTL_OK;
	}
	uid = strtoul(name, &end, 10);
	if (!*name || *end || uid >= UINT32_MAX) {
		fprintf(stderr, "sparqctl: --user %s: there is no such user\n", name);
		return CTL_USAGE;
	}
	*ret = (uid_t)uid;
	return CTL_OK;
}

/* ---- members ------------------------------------------------------------------ */

static const char *heading(const char *key, char *ret, size_t n)
{
	snprintf(ret, n, "%s", key);
	for (char *c = ret; *c; c++)
		if (*c == '_')
			*c = ' ';
	return ret;
}

void ctl_print_members(json_object *object, const char *const *without)
{
	char name[CELL_MAX], cell[CELL_MAX];

	json_object_object_foreach(object, key, value)
	{
		size_t i = 0;

		while (without && without[i] && strcmp(without[i], key))
			i++;
		if ((without && without[i]) || json_object_is_type(value, json_type_array) ||
		    json_object_is_type(value, json_type_object))
			continue;
		ctl_format(key, value, cell, sizeof(cell));
		printf("  %-26s %s\n", heading(key, name, sizeof(name)), cell);
	}
}

/* ---- tables --------------------------------------------------------------------- */

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

static bool is_text(json_object *rows, const char *key)
{
	json_object *first = json_object_array_get_idx(rows, 0);

	return json_object_is_type(json_object_object_get(first, key), json_type_string);
}

/* Texts to the left, figures to the right; nothing behind the last. */
static void print_cell(const struct table *t, unsigned c, bool left, const char *cell)
{
	if (c + 1 == t->n && left)
		printf("  %s", cell);
	else
		printf(left ? "  %-*s" : "  %*s", t->width[c], cell);
}

static void print_row(json_object *rows, size_t i, const struct table *t)
{
	json_object *row = json_object_array_get_idx(rows, i);
	char cell[CELL_MAX];

	for (unsigned c = 0; c < t->n; c++) {
		ctl_format(t->key[c], json_object_object_get(row, t->key[c]), cell, sizeof(cell));
		print_cell(t, c, is_text(rows, t->key[c]), cell);
	}
	putchar('\n');
}

void ctl_print_table(const char *title, json_object *rows)
{
	char name[CELL_MAX];
	struct table t;

	if (json_object_array_length(rows) == 0 ||
	    !json_object_is_type(json_object_array_get_idx(rows, 0), json_type_object))
		return;
	measure(rows, &t);
	if (title)
		printf("\n%s\n", heading(title, name, sizeof(name)));
	for (unsigned c = 0; c < t.n; c++)
		print_cell(&t, c, is_text(rows, t.key[c]), heading(t.key[c], name, sizeof(name)));
	putchar('\n');
	for (size_t i = 0; i < json_object_array_length(rows); i++)
		print_row(rows, i, &t);
}
