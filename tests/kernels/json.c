/* SPDX-License-Identifier: Apache-2.0 */
/* A recursive-descent reader. */
#include "tests/kernels/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { NOTHING, NUMBER, TEXT, ARRAY, OBJECT };

struct json {
	enum kind kind;
	char *name; /* of a member */
	double number;
	struct json **item;
	size_t n;
};

static _Noreturn void refuse(const char *what, const char *at)
{
	fprintf(stderr, "json: %s at \"%.40s\"\n", what, at);
	exit(2);
}

static const char *skip_blanks(const char *p)
{
	return p + strspn(p, " \t\r\n");
}

/* What `p` is at; returns what follows it. */
static const char *expect(const char *p, const char *word)
{
	p = skip_blanks(p);
	if (strncmp(p, word, strlen(word)))
		refuse(word, p);
	return skip_blanks(p + strlen(word));
}

/* Escapes stay as they are: names have none, and nobody reads the texts. */
static const char *read_text(const char *p, char **ret_text)
{
	const char *end = expect(p, "\"");

	p = strchr(p, '"') + 1;
	for (end = p; *end && *end != '"'; end++)
		end += end[0] == '\\' && end[1];
	if (!*end)
		refuse("a text without an end", p);
	*ret_text = strndup(p, (size_t)(end - p));
	return end + 1;
}

static const char *read_value(const char *p, struct json **ret);

static const char *read_items(const char *p, struct json *j, const char *end)
{
	p = skip_blanks(p + 1);
	while (*p != *end) {
		struct json *item;
		char *name = NULL;

		if (j->n)
			p = expect(p, ",");
		if (j->kind == OBJECT)
			p = expect(read_text(p, &name), ":");
		p = skip_blanks(read_value(p, &item));
		item->name = name;
		j->item = realloc(j->item, (j->n + 1) * sizeof(struct json *));
		j->item[j->n++] = item;
	}
	return p + 1;
}

static const char *read_number(const char *p, struct json *j)
{
	char *end;

	j->kind = NUMBER;
	j->number = strtod(p, &end);
	if (end == p)
		refuse("not a number", p);
	return end;
}

static const char *read_value(const char *p, struct json **ret)
{
	struct json *j = *ret = calloc(1, sizeof(*j));
	char *text;

	p = skip_blanks(p);
	switch (*p) {
	case '{':
		j->kind = OBJECT;
		return read_items(p, j, "}");
	case '[':
		j->kind = ARRAY;
		return read_items(p, j, "]");
	case '"':
		j->kind = TEXT;
		p = read_text(p, &text);
		free(text);
		return p;
	case 'n':
		j->number = -INFINITY;
		return expect(p, "null");
	case 't':
		j->number = 1;
		return expect(p, "true");
	case 'f':
		return expect(p, "false");
	default:
		return read_number(p, j);
	}
}

static char *whole_file(const char *file)
{
	FILE *f = fopen(file, "r");
	char *text = NULL;
	size_t n = 0;

	if (!f)
		return NULL;
	if (getdelim(&text, &n, '\0', f) < 0)
		refuse("nothing to read", file);
	fclose(f);
	return text;
}

struct json *json_read(const char *file)
{
	struct json *j = NULL;
	char *text = whole_file(file);

	if (!text)
		return NULL;
	if (*skip_blanks(read_value(text, &j)))
		refuse("something follows the end", file);
	free(text);
	return j;
}

void json_free(struct json *j)
{
	if (!j)
		return;
	for (size_t i = 0; i < j->n; i++)
		json_free(j->item[i]);
	free(j->item);
	free(j->name);
	free(j);
}

static const struct json *member(const struct json *o, const char *name, size_t length)
{
	for (size_t i = 0; o->kind == OBJECT && i < o->n; i++)
		if (!strncmp(o->item[i]->name, name, length) && !o->item[i]->name[length])
			return o->item[i];
	return NULL;
}

const struct json *json_get(const struct json *object, const char *path)
{
	for (const char *p = path; object && *p;) {
		size_t length = strcspn(p, "/");

		object = member(object, p, length);
		p += length + (p[length] == '/');
	}
	if (!object)
		refuse("not in the file", path);
	return object;
}

const struct json *json_at(const struct json *array, size_t i)
{
	if (array->kind != ARRAY || i >= array->n)
		refuse("no such element", array->name ? array->name : "");
	return array->item[i];
}

size_t json_length(const struct json *array)
{
	return array->n;
}

bool json_is_array(const struct json *j)
{
	return j->kind == ARRAY;
}

double json_number(const struct json *j)
{
	return j->number;
}

double json_number_at(const struct json *array, size_t i)
{
	return json_number(json_at(array, i));
}

double json_number_in(const struct json *object, const char *path)
{
	return json_number(json_get(object, path));
}
