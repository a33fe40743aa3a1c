/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines to the journal or to stderr.
 *
 * A line is formatted once, freed of control characters (some of its words come
 * from clients: none of them may forge a second line or colour a terminal),
 * and handed over by one call, so lines of several threads do not mix.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "daemon/journal.h"
#include "daemon/log.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define LINE_BYTES 1024
#define FIELD_BYTES 96 /* a name and 63 characters */
#define LIMIT_BURST 5
#define LIMIT_INTERVAL_NS 10000000000ull

static int log_level = LOG_INFO;
static bool log_to_journal;

static const struct {
	const char *name;
	int level;
} log_names[] = {
	{ "error", LOG_ERR }, { "warning", LOG_WARNING }, { "notice", LOG_NOTICE },
	{ "info", LOG_INFO }, { "debug", LOG_DEBUG },
};

/* systemd says which stream is the journal's; a redirected stderr is another. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (stream == NULL || sscanf(stream, "%llu:%llu", &dev, &ino) != 2)
		return false;
	return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void log_open(int level)
{
	log_level_set(level);
	log_to_journal = stderr_is_journal();
}

void log_level_set(int level)
{
	store_relaxed(&log_level, level);
}

int log_level_parse(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(log_names); i++)
		if (strcmp(name, log_names[i].name) == 0)
			return log_names[i].level;
	return -EINVAL;
}

const char *log_level_name(int level)
{
	for (size_t i = 0; i < ARRAY_SIZE(log_names); i++)
		if (level <= log_names[i].level)
			return log_names[i].name;
	return "debug";
}

static void write_line(int level, char *line, size_t n)
{
	char head[32];
	struct iovec v[2] = { { head, 0 }, { line, n + 1 } };

	line[n] = '\n'; /* instead of the NUL: one call, one line */
	v[0].iov_len = (size_t)snprintf(head, sizeof(head), "sparqd: %s%s",
					level < LOG_NOTICE ? log_level_name(level) : "",
					level < LOG_NOTICE ? ": " : "");
	/* Nobody is left to hear that stderr is gone. */
	if (writev(STDERR_FILENO, v, ARRAY_SIZE(v)) < 0)
		return;
}

/* What came from a client: none of it may forge a line, nor a field. */
static void disarm(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

struct fields {
	char text[JOURNAL_FIELDS_MAX][FIELD_BYTES];
	const char *at[JOURNAL_FIELDS_MAX];
	unsigned n;
};

static void log_format(int level, const struct fields *f, const char *format, va_list args)
{
	char line[LINE_BYTES];
	int saved = errno;

	vsnprintf(line, sizeof(line), format, args);
	disarm(line);
	if (!log_to_journal || journal_send(level, line, f->at, f->n) < 0)
		write_line(level, line, strlen(line));
	errno = saved;
}

void log_line(int level, const char *format, ...)
{
	va_list args;

	if (level > load_relaxed(&log_level))
		return;
	va_start(args, format);
	log_format(level, &(const struct fields){ .n = 0 }, format, args);
	va_end(args);
}

/* ---- lines with fields ------------------------------------------------------------ */

static const struct {
	int level;
	const char *id;
} log_events[] = {
#define EVENT(name, level_, id_) [EVENT_##name] = { LOG_##level_, id_ },
#include "daemon/events.def"
#undef EVENT
};

static void PRINTF_LIKE(2, 3) add_field(struct fields *f, const char *format, ...)
{
	char *text = f->text[f->n];
	va_list args;

	va_start(args, format);
	vsnprintf(text, FIELD_BYTES, format, args);
	va_end(args);
	disarm(text);
	f->at[f->n++] = text;
}

static void add_fields(struct fields *f, const struct log_about *about)
{
	if (about->uid)
		add_field(f, "SPARQ_UID=%" PRIu32, *about->uid);
	if (about->session)
		add_field(f, "SPARQ_SESSION=%" PRIu64, about->session);
	if (about->sequence)
		add_field(f, "SPARQ_SEQUENCE=%" PRIu64, about->sequence);
	if (about->cache && about->cache[0])
		add_field(f, "SPARQ_CACHE=%.63s", about->cache);
}

void log_event(enum log_event event, const struct log_about *about, const char *format, ...)
{
	struct fields f = { .n = 0 };
	va_list args;

	if (log_events[event].level > load_relaxed(&log_level))
		return;
	add_field(&f, "MESSAGE_ID=%s", log_events[event].id);
	if (about)
		add_fields(&f, about);
	va_start(args, format);
	log_format(log_events[event].level, &f, format, args);
	va_end(args);
}

/* ---- lines of hostile clients ------------------------------------------------------ */

bool log_limited(struct log_limit *l)
{
	uint64_t ns = clock_now_ns();

	if (l->since_ns == 0 || ns - l->since_ns >= LIMIT_INTERVAL_NS) {
		if (l->dropped > 0)
			log_warning("%u lines like the next were left out", l->dropped);
		*l = (struct log_limit){ .since_ns = ns };
	}
	if (l->lines < LIMIT_BURST) {
		l->lines++;
		return false;
	}
	l->dropped++;
	return true;
}
