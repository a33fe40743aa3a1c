/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The completion of sparqctl for a shell, made of commands.def while sparqd is
 * built: `completion bash` or `completion zsh` on stdout.
 *
 * Both scripts ask the daemon for names (sparqctl caches --names), by the program and the control
 * socket that stand on the line. Who may not ask gets none offered.
 */
#include <stdio.h>
#include <string.h>

#include "client/ctl-table.h"

#define TITLE "Completion for sparqctl(1), made when sparqd was built of the table of its commands."

static bool takes_value(unsigned which)
{
	return ctl_option[which].kind != FLAG;
}

/* ---- bash ------------------------------------------------------------------- */

static const char bash_head[] =
	"# " TITLE "\n"
	"\n"
	"# Lines of stdin that begin with the current word.\n"
	"_sparqctl_offer()\n"
	"{\n"
	"	local line\n"
	"	while IFS= read -r line; do\n"
	"		[[ $line != \"$current\"* ]] || COMPREPLY+=(\"$(printf %q \"$line\")\")\n"
	"	done\n"
	"}\n"
	"\n"
	"_sparqctl_names() { \"${COMP_WORDS[0]}\" \"$@\" --names \"${control[@]}\" 2>/dev/null; }\n"
	"\n"
	"_sparqctl_kind()\n"
	"{\n"
	"	case $1 in\n"
	"	@file)\n"
	"		mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
	"		compopt -o filenames 2>/dev/null ;;\n"
	"	@cache) _sparqctl_offer < <(_sparqctl_names caches) ;;\n"
	"	@sequence) _sparqctl_offer < <(_sparqctl_names sequences \"${cache[@]}\") ;;\n"
	"	@user) _sparqctl_offer < <(_sparqctl_names users) ;;\n"
	"	@command) _sparqctl_offer <<<\"$commands\" ;;\n"
	"	?*) _sparqctl_offer <<<\"${1//|/$'\\n'}\" ;;\n"
	"	esac\n"
	"}\n"
	"\n";

static const char bash_begin[] =
	"_sparqctl()\n"
	"{\n"
	"	local current=${COMP_WORDS[COMP_CWORD]} options='' kinds=() n=0 i\n"
	"	local control=() cache=() commands value=''\n"
	"	[ \"$current\" != = ] || current='' # bash splits --option=value in three\n";

static const char bash_tail[] =
	"	# Which word it is, of those that are no option and no option's value.\n"
	"	for ((i = 2; i < COMP_CWORD; i++)); do\n"
	"		value=''\n"
	"		if ! _sparqctl_takes_value \"${COMP_WORDS[i]}\"; then\n"
	"			[[ ${COMP_WORDS[i]} == -* ]] || n=$((n + 1))\n"
	"			continue\n"
	"		fi\n"
	"		value=${COMP_WORDS[i]} i=$((i + 1))\n"
	"		[ \"${COMP_WORDS[i]}\" != = ] || [ \"$i\" = \"$COMP_CWORD\" ] || i=$((i + "
	"1))\n"
	"		case $value in\n"
	"		--control) control=(--control \"${COMP_WORDS[i]}\") ;;\n"
	"		--cache) cache=(--cache \"${COMP_WORDS[i]}\") ;;\n"
	"		esac\n"
	"	done\n"
	"	if [ \"$i\" -gt \"$COMP_CWORD\" ]; then\n"
	"		_sparqctl_value \"$value\"\n"
	"	elif [[ $current == -* ]]; then\n"
	"		_sparqctl_offer <<<\"$options\"\n"
	"	elif [ \"${#kinds[@]}\" -gt 0 ]; then\n"
	"		[ \"$n\" -lt \"${#kinds[@]}\" ] || n=$((${#kinds[@]} - 1))\n"
	"		_sparqctl_kind \"${kinds[n]}\"\n"
	"	fi\n"
	"}\n"
	"\n"
	"complete -F _sparqctl sparqctl\n";

static void bash_values(void)
{
	fputs("_sparqctl_takes_value()\n{\n\tcase $1 in\n\t", stdout);
	for (unsigned i = 0, n = 0; i < CTL_OPTIONS; i++)
		if (takes_value(i))
			printf("%s--%s", n++ ? " | " : "", ctl_option[i].name);
	fputs(") return 0 ;;\n\tesac\n\treturn 1\n}\n\n", stdout);
	fputs("_sparqctl_value()\n{\n\tcase $1 in\n", stdout);
	for (unsigned i = 0; i < CTL_OPTIONS; i++)
		if (*ctl_option[i].completes)
			printf("\t--%s) _sparqctl_kind '%s' ;;\n", ctl_option[i].name,
			       ctl_option[i].completes);
	fputs("\tesac\n}\n\n", stdout);
}

static void bash_command(const struct ctl_command *c)
{
	printf("\t%s)\n\t\toptions=$'", c->name);
	for (unsigned i = 0; i < CTL_OPTIONS; i++)
		if (ctl_takes(c, i))
			printf("--%s\\n", ctl_option[i].name);
	fputs("--help'\n\t\tkinds=(", stdout);
	for (const char *p = c->completes; *p; p += strspn(p, " ")) {
		size_t n = strcspn(p, " ");

		printf("%s'%.*s'", p == c->completes ? "" : " ", (int)n, p);
		p += n;
	}
	fputs(") ;;\n", stdout);
}

static void make_bash(void)
{
	fputs(bash_head, stdout);
	bash_values();
	fputs(bash_begin, stdout);
	fputs("	commands=$'", stdout);
	for (size_t i = 0; i < ctl_commands; i++)
		printf("%s%s", i ? "\\n" : "", ctl_command[i].name);
	fputs("'\n"
	      "	COMPREPLY=()\n"
	      "	if [ \"$COMP_CWORD\" -le 1 ]; then\n"
	      "		_sparqctl_offer <<<\"$commands\"$'\\n--help\\n--version'\n"
	      "		return\n"
	      "	fi\n"
	      "	case ${COMP_WORDS[1]} in\n",
	      stdout);
	for (size_t i = 0; i < ctl_commands; i++)
		bash_command(&ctl_command[i]);
	fputs("	*) return ;;\n	esac\n", stdout);
	fputs(bash_tail, stdout);
}

/* ---- zsh -------------------------------------------------------------------- */

static const char zsh_head[] =
	"#compdef sparqctl\n"
	"# " TITLE "\n"
	"\n"
	"_sparqctl_names()\n"
	"{\n"
	"	local -a names control cache\n"
	"	(( ${+opt_args[--control]} )) && control=(--control ${(Q)opt_args[--control]})\n"
	"	[[ $1 == sequences && -n ${opt_args[--cache]} ]] && "
	"cache=(--cache ${(Q)opt_args[--cache]})\n"
	"	names=(${(f)\"$($program $1 --names $control $cache 2>/dev/null)\"})\n"
	"	compadd -a names\n"
	"}\n"
	"\n"
	"_sparqctl_commands() { _describe command commands; }\n"
	"\n"
	"_sparqctl()\n"
	"{\n"
	"	local curcontext=$curcontext program=${(Q)~words[1]} command=$words[2]\n"
	"	local -a commands line state\n"
	"	local -A opt_args\n"
	"	commands=(\n";

/* In single quotes, with a backslash before what has a meaning to _describe and _arguments. */
static void zsh_text(const char *text)
{
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\'", stdout);
		else if (strchr("[]:\\", *text))
			putchar('\\');
		putchar(*text);
	}
}

static const char *zsh_action(const char *kind, size_t n)
{
	/* With a blank in front it is called as it stands. */
	static const struct {
		const char *kind, *action;
	} actions[] = {
		{ "@file", "_files" },
		{ "@cache", " _sparqctl_names caches" },
		{ "@sequence", " _sparqctl_names sequences" },
		{ "@user", " _sparqctl_names users" },
		{ "@command", "_sparqctl_commands" },
	};

	for (unsigned i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
		if (strlen(actions[i].kind) == n && !strncmp(actions[i].kind, kind, n))
			return actions[i].action;
	return NULL;
}

/* ":what:action"; what stands in no word of the tables needs no quoting but colons. */
static void zsh_argument(const char *what, size_t n_what, const char *kind, size_t n)
{
	const char *action = zsh_action(kind, n);

	printf(":%.*s:", (int)n_what, what);
	if (action) {
		fputs(action, stdout);
	} else if (n) {
		putchar('(');
		for (size_t i = 0; i < n; i++)
			putchar(kind[i] == '|' ? ' ' : kind[i]);
		putchar(')');
	} else {
		putchar(' ');
	}
}

static void zsh_words(const struct ctl_command *c)
{
	const char *word = c->words, *kind = c->completes;

	while (*kind) {
		size_t n_word, n_kind = strcspn(kind, " ");

		word += strspn(word, " [");
		n_word = strcspn(word, " ]");
		fputs(" \\\n\t\t\t'", stdout);
		if (strstr(word + n_word, "...") == word + n_word + 1)
			putchar('*');
		zsh_argument(word, n_word, kind, n_kind);
		putchar('\'');
		word += n_word + strspn(word + n_word, " ].");
		kind += n_kind + strspn(kind + n_kind, " ");
	}
}

static void zsh_command(const struct ctl_command *c)
{
	printf("\t(%s)\n\t\t_arguments", c->name);
	for (unsigned i = 0; i < CTL_OPTIONS; i++) {
		const struct ctl_option_row *o = &ctl_option[i];

		if (!ctl_takes(c, i))
			continue;
		printf(" \\\n\t\t\t'--%s%s[", o->name, takes_value(i) ? "=" : "");
		zsh_text(o->help);
		putchar(']');
		if (takes_value(i))
			zsh_argument(o->argument, strlen(o->argument), o->completes,
				     strlen(o->completes));
		putchar('\'');
	}
	zsh_words(c);
	fputs(" \\\n\t\t\t'(- *)--help[what the command takes]' ;;\n", stdout);
}

static void make_zsh(void)
{
	fputs(zsh_head, stdout);
	for (size_t i = 0; i < ctl_commands; i++) {
		printf("\t\t'%s:", ctl_command[i].name);
		zsh_text(ctl_command[i].help);
		puts("'");
	}
	fputs("	)\n"
	      "	if (( CURRENT == 2 )); then\n"
	      "		_sparqctl_commands\n"
	      "		return\n"
	      "	fi\n"
	      "	shift words\n"
	      "	(( CURRENT-- ))\n"
	      "	case $command in\n",
	      stdout);
	for (size_t i = 0; i < ctl_commands; i++)
		zsh_command(&ctl_command[i]);
	fputs("	esac\n"
	      "}\n"
	      "\n"
	      "_sparqctl \"$@\"\n",
	      stdout);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "bash"))
		make_bash();
	else if (argc == 2 && !strcmp(argv[1], "zsh"))
		make_zsh();
	else
		return 2;
	return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
