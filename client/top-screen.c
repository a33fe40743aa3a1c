/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The screen of sparqctl top: curses. A look each interval, or when a key asks for one; between
 * them the program sleeps in getch.
 */
#include <curses.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl.h"
#include "client/top.h"
#include "shm/base.h"
#include "shm/clock.h"

#define MS_NS 1000000

enum { COLOUR_BAR = 1, COLOUR_ERROR };

struct screen {
	struct top *top;
	enum top_order order;
	bool paused, help, over;
	int row;
	char why[SPARQ_ERROR_TEXT]; /* "": the last look went well */
};

static const char *const help_text[] = {
	"q        end",
	"p, space pause, and go on",
	"b        by bytes read in a second",
	"s        by steps in a second",
	"v        by bytes saved against dense attention",
	"m        by memory",
	"n        by name",
	"h, ?     this, and back",
	"",
	"READ is what attention has read of the pool, as the daemon counted it.",
	"SAVED is against dense attention over f16 rows.",
	"A ! behind a state: pinned, so it is not evicted.",
	"% of the roofline: of what sparqctl calibrate measured on that node.",
	NULL,
};

static void put_line(void *arg, enum top_style style, const char *text)
{
	static const attr_t attributes[] = {
		[TOP_PLAIN] = A_NORMAL,
		[TOP_TITLE] = A_BOLD,
		[TOP_HEADING] = A_REVERSE,
		[TOP_BAR] = A_NORMAL,
	};
	attr_t a = attributes[style];
	struct screen *s = arg;

	if (style == TOP_BAR && has_colors())
		a = (attr_t)COLOR_PAIR(COLOUR_BAR);
	attrset(a);
	if (style == TOP_HEADING)
		mvprintw(s->row, 0, "%-*s", COLS, text);
	else
		mvaddstr(s->row, 0, text);
	s->row++;
	attrset(A_NORMAL);
}

static void draw_foot(const struct screen *s)
{
	char text[TOP_TEXT];

	if (s->why[0])
		snprintf(text, sizeof(text), "trying again: %s", s->why);
	else
		snprintf(text, sizeof(text), "q end  p %s  h help  order: %s%s",
			 s->paused ? "go on" : "pause", top_order_name[s->order],
			 s->top->whole ? "" : "  (rates come with the second look)");
	if (s->why[0])
		attrset(has_colors() ? (attr_t)COLOR_PAIR(COLOUR_ERROR) : A_BOLD);
	mvaddnstr(LINES - 1, 0, text, COLS - 1);
	attrset(A_NORMAL);
}

static void draw(struct screen *s)
{
	erase();
	s->row = 0;
	if (s->help)
		for (unsigned i = 0; help_text[i] && (int)i < LINES - 1; i++)
			mvaddnstr((int)i, 0, help_text[i], COLS);
	else if (LINES > 1)
		top_text(s->top, (unsigned)COLS, (unsigned)LINES - 1, put_line, s);
	draw_foot(s);
	refresh();
}

static void look(struct screen *s)
{
	s->why[0] = '\0';
	if (top_look(s->top, s->why) == 0)
		top_sort(s->top, s->order);
}

static void set_order(struct screen *s, enum top_order order)
{
	s->order = order;
	top_sort(s->top, order);
}

static void on_key(struct screen *s, int key)
{
	static const char orders[TOP_ORDERS] = { 'b', 's', 'v', 'm', 'n' };

	for (unsigned i = 0; i < TOP_ORDERS; i++)
		if (key == orders[i])
			set_order(s, i);
	if (key == 'q')
		s->over = true;
	else if (key == 'p' || key == ' ')
		s->paused = !s->paused;
	else if (key == 'h' || key == '?')
		s->help = !s->help;
	draw(s);
}

static void run(struct screen *s, int64_t interval_ns)
{
	int64_t next = 0;

	while (!s->over) {
		int64_t now = clock_now_ns();
		int key;

		if (now >= next) {
			if (!s->paused)
				look(s);
			draw(s);
			next = clock_now_ns() + interval_ns;
			continue;
		}
		timeout((int)MIN((next - now) / MS_NS + 1, 1000000));
		key = getch();
		if (key != ERR)
			on_key(s, key);
	}
}

int top_screen(struct top *t, double interval, enum top_order order)
{
	struct screen s = { .top = t, .order = order };
	const char *term = getenv("TERM");

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
		fputs("sparqctl: top: this is no terminal; --once prints one sample\n", stderr);
		return CTL_FAILED;
	}
	/* Not initscr, which ends the program in its own words. */
	if (!newterm(NULL, stdout, stdin)) {
		fprintf(stderr,
			"sparqctl: top: nothing is known of the terminal TERM=%s; "
			"--once prints one sample\n",
			term ? term : "");
		return CTL_FAILED;
	}
	cbreak();
	noecho();
	curs_set(0);
	keypad(stdscr, TRUE);
	if (has_colors()) {
		start_color();
		use_default_colors();
		init_pair(COLOUR_BAR, COLOR_GREEN, -1);
		init_pair(COLOUR_ERROR, COLOR_RED, -1);
	}
	run(&s, (int64_t)(interval * (double)NS_PER_S));
	endwin();
	return CTL_OK;
}
