/* SPDX-License-Identifier: Apache-2.0 */
/* commands.def as tables and as text. */
#include "client/ctl-table.h"

#include <string.h>

#include "shm/base.h"

#define COLUMNS 80

const struct ctl_option_row ctl_option[] = {
#define OPTION(id, ...) [OPT_##id] = { __VA_ARGS__ },
#include "client/commands.def"
};

enum {
#define OPTION(id, ...) id = 1u << OPT_##id,
#include "client/commands.def"
};
_Static_assert(CTL_OPTIONS <= 31, "a bit of an enumeration each");

const struct ctl_command ctl_command[] = {
#define COMMAND(name, ...) { #name, __VA_ARGS__ },
#include "client/commands.def"
};
const size_t ctl_commands = ARRAY_SIZE(ctl_command);

const struct ctl_command *ctl_find(const char *name)
{
	for (size_t i = 0; i < ctl_commands; i++)
		if (!strcmp(ctl_command[i].name, name))
			return &ctl_command[i];
	return NULL;
}

void ctl_count_words(const struct ctl_command *c, size_t *ret_least, size_t *ret_most)
{
	size_t least = 0, most = 0;
	unsigned depth = 0;

	for (const char *p = c->words; *p; p += strcspn(p, " ")) {
		p += strspn(p, " ");
		depth += *p == '[';
		if (!strncmp(p, "...", 3)) {
			most = SIZE_MAX;
		} else if (most != SIZE_MAX) {
			most++;
			least += !depth;
		}
		depth -= depth && p[strcspn(p, " ") - 1] == ']';
	}
	*ret_least = least;
	*ret_most = most;
}

/* A piece of text that is not broken, after a blank or on a line of its own. */
static void put(FILE *to, size_t *column, size_t n, const char *piece)
{
	if (*column + 1 + n > COLUMNS) {
		fputs("\n       ", to);
		*column = 7;
	}
	fprintf(to, " %.*s", (int)n, piece);
	*column += 1 + n;
}

static void put_option(FILE *to, size_t *column, const struct ctl_option_row *o, bool needed)
{
	char piece[COLUMNS];
	int n = snprintf(piece, sizeof(piece), "%s--%s%s%s%s", needed ? "" : "[", o->name,
			 *o->argument ? " " : "", o->argument, needed ? "" : "]");

	put(to, column, (size_t)n, piece);
}

/* Up to the blank that is in no bracket. */
static size_t piece_length(const char *text)
{
	unsigned depth = 0;
	size_t n;

	for (n = 0; text[n] && (depth || text[n] != ' '); n++)
		depth += (text[n] == '[') - (text[n] == ']');
	return n;
}

void ctl_print_synopsis(const struct ctl_command *c, FILE *to)
{
	size_t column = (size_t)fprintf(to, "sparqctl %s", c->name);

	for (unsigned needed = 0; needed < 2; needed++)
		for (unsigned i = 0; i < CTL_OPTIONS; i++)
			if (ctl_takes(c, i) && (c->needs >> i & 1) == needed)
				put_option(to, &column, &ctl_option[i], needed);
	for (const char *p = c->words; *p; p += strspn(p, " ")) {
		size_t n = piece_length(p);

		put(to, &column, n, p);
		p += n;
	}
	fputc('\n', to);
}

void ctl_print_usage(FILE *to)
{
	for (size_t i = 0; i < ctl_commands; i++)
		ctl_print_synopsis(&ctl_command[i], to);
	fputs("sparqctl --help | --version\n", to);
}
