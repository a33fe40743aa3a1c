/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines to the journal or to stderr.
 *
 * A line is formatted once, freed of control characters (some of its words come
 * from clients: none of them may forge a second line or colour a terminal),
 * and handed over by one call, so lines of several threads do not mix.
 */
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

static void log_format(int level, const char *format, va_list args)
{
	char line[LINE_BYTES];
	int saved = errno;
	size_t n;

	vsnprintf(line, sizeof(line), format, args);
	n = strlen(line);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	if (!log_to_journal || journal_send(level, line) < 0)
		write_line(level, line, n);
	errno = saved;
}

void log_line(int level, const char *format, ...)
{
	va_list args;

	if (level > load_relaxed(&log_level))
		return;
	va_start(args, format);
	log_format(level, format, args);
	va_end(args);
}

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
