/* SPDX-License-Identifier: Apache-2.0 */
/* Options of a command: see option.h. */
#include "tests/bench/option.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"

struct parse {
	const char *command;
	const struct bench_option *option;
	char *text;
};

PRINTF_LIKE(2, 3) static int refuse(const struct parse *p, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "sparq-bench: %s: --%s \"%s\": ", p->command, p->option->name, p->text);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return 2;
}

static int take_number(const struct parse *p, const char *text, uint32_t *ret)
{
	const struct bench_option *o = p->option;
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (end == text || *end || errno || *text == '-' || n < o->least || n > o->most)
		return refuse(p, "allowed is a number from %u to %u", o->least, o->most);
	*ret = (uint32_t)n;
	return 0;
}

static int take_words(const struct parse *p, struct bench_words *ret)
{
	char *save = NULL;

	ret->n = 0;
	for (char *w = strtok_r(p->text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		if (ret->n == BENCH_LIST)
			return refuse(p, "allowed are %u at most", BENCH_LIST);
		ret->word[ret->n++] = w;
	}
	return ret->n ? 0 : refuse(p, "a list, separated by commas, is needed");
}

static int take_numbers(const struct parse *p, struct bench_numbers *ret)
{
	struct bench_words words;
	int r = take_words(p, &words);

	ret->n = words.n;
	for (unsigned i = 0; i < words.n && !r; i++)
		r = take_number(p, words.word[i], &ret->value[i]);
	return r;
}

static int take_seconds(const struct parse *p, double *ret)
{
	char *end;
	double x = strtod(p->text, &end);

	if (end == p->text || *end || !(x > 0) || x > 3600)
		return refuse(p, "allowed are seconds, above 0 to 3600");
	*ret = x;
	return 0;
}

static int take_value(const struct parse *p, void *into)
{
	void *field = (char *)into + p->option->at;

	switch (p->option->kind) {
	case BENCH_TEXT:
		*(const char **)field = p->text;
		return 0;
	case BENCH_WORDS:
		return take_words(p, field);
	case BENCH_NUMBER:
		return take_number(p, p->text, field);
	case BENCH_NUMBERS:
		return take_numbers(p, field);
	case BENCH_SECONDS:
		return take_seconds(p, field);
	case BENCH_SWITCH:
		break;
	}
	*(bool *)field = true;
	return 0;
}

static void help(const struct bench_option *table, size_t n, const char *command,
		 const char *summary)
{
	printf("usage: sparq-bench %s [OPTION]...\n%s\n\n", command, summary);
	for (size_t i = 0; i < n; i++) {
		char left[40];

		snprintf(left, sizeof(left), "--%s%s%s", table[i].name, table[i].value ? " " : "",
			 table[i].value ? table[i].value : "");
		printf("  %-23s %s\n", left, table[i].help);
	}
}

/* The option that `word` names, up to its '=' if it has one. */
static const struct bench_option *find(const struct bench_option *table, size_t n, const char *word)
{
	size_t length = strcspn(word, "=");

	for (size_t i = 0; i < n; i++)
		if (strlen(table[i].name) == length && !strncmp(table[i].name, word, length))
			return &table[i];
	return NULL;
}

int bench_options(const struct bench_option *table, size_t n, const char *summary, void *into,
		  int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		struct parse p = { .command = argv[0] };
		char *equals = strchr(argv[i], '=');
		int r;

		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			help(table, n, argv[0], summary);
			return 1;
		}
		p.option = strncmp(argv[i], "--", 2) ? NULL : find(table, n, argv[i] + 2);
		if (!p.option) {
			fprintf(stderr, "sparq-bench: %s: no option \"%s\"; --help lists them\n",
				argv[0], argv[i]);
			return 2;
		}
		p.text = equals ? equals + 1 : argv[i];
		if (p.option->kind != BENCH_SWITCH && !equals)
			p.text = i + 1 < argc ? argv[++i] : NULL;
		if (!p.text || (p.option->kind == BENCH_SWITCH && equals)) {
			fprintf(stderr, "sparq-bench: %s: --%s takes %s\n", argv[0], p.option->name,
				p.text ? "no value" : "a value");
			return 2;
		}
		r = take_value(&p, into);
		if (r)
			return r;
	}
	return 0;
}
