/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only place that prints: journal fields when stderr is the journal
 * (JOURNAL_STREAM), lines on stderr otherwise. A function logs or returns an
 * error, not both; nothing on the token path logs.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

void log_open(int level); /* LOG_ERR .. LOG_DEBUG; decides where to */
void log_level_set(int level);
int log_level_parse(const char *name); /* "error" "warning" "notice" "info" "debug"; -EINVAL */
const char *log_level_name(int level);
void log_line(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_line(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_notice(...) log_line(LOG_NOTICE, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

/* A line that an administrator may act on: one of events.def, which has its level. In the journal
 * it has MESSAGE_ID=, which the catalogue explains, and the fields of what it is about. */
enum log_event {
#define EVENT(name, level, id) EVENT_##name,
#include "daemon/events.def"
#undef EVENT
	LOG_EVENTS
};
struct log_about { /* 0 and NULL: of none */
	const uint32_t *uid;
	uint64_t session, sequence;
	const char *cache; /* its name */
};
#define ABOUT(...) (&(const struct log_about){ __VA_ARGS__ })
/* `about` may be NULL. */
void log_event(enum log_event event, const struct log_about *about, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* A source of repeated lines (a hostile client): five per ten seconds, then silence; the first line
 * of the next ten seconds is preceded by one that says how many were left out. True: leave this one
 * out. One thread. */
struct log_limit {
	uint64_t since_ns;
	uint32_t lines, dropped;
};
bool log_limited(struct log_limit *l);
