/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqd-exporter: the figures of the daemon over HTTP, for whoever asks.
 *
 * One thread serves HTTP, another one asks the daemon; both are asleep between requests. It reads
 * the stats page and controls nothing; what a client can make it hold is bounded:
 * EXPORTER_CONNECTIONS at a time, each for EXPORTER_SECONDS, one request each, and of answers that
 * have series of each sequence EXPORTER_STREAMS.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/metrics.h"
#include "client/stats.h"

#define EXPORTER_SOCKETS 4u /* that it may listen on, passed in by the service manager */
#define EXPORTER_CONNECTIONS 16u
#define EXPORTER_SECONDS 10u
#define EXPORTER_STREAMS 8u /* each some MiB, whatever the daemon has */
#define EXPORTER_WHY_BYTES 256u

struct exporter_options {
	const char *listen; /* NULL: what is passed in */
	const char *socket; /* of the daemon; NULL: the usual one */
	bool public, sequences;
};

/* ---- exporter-listen.c ------------------------------------------------------------------- */

/* A listening socket for "unix:PATH" or "ADDRESS:PORT", the address in numbers. -errno, `why` says
 * what is wrong with the words, or with the socket. */
int exporter_listen(const char *where, bool public, int *ret, char *why);
/* -EPERM: it can be reached from other machines, and `public` does not allow that. `why` is a
 * warning if it does. */
int exporter_check(int fd, bool public, char *why);
void exporter_unlisten(
	const char *where); /* removes what exporter_listen has made in a directory */

/* ---- exporter-accept.c ------------------------------------------------------------------- */

/* What the header Accept asks for; NULL: there is none. */
enum metrics_format exporter_format(const char *accept);

/* ---- exporter-ask.c ---------------------------------------------------------------------- */

/* Who asks the daemon, for it may be slow to answer, and others have other questions. */
struct exporter_ask;
struct exporter_ask *exporter_ask_new(const char *socket); /* NULL */
/* Waits for an answer that is under way: 5 s at most. NULL. */
struct exporter_ask *exporter_ask_free(struct exporter_ask *a);
int exporter_ask_fd(const struct exporter_ask *a); /* readable when there is an answer */
/* Has the page brought up to date; one question at a time. */
void exporter_ask_begin(struct exporter_ask *a);
/* The page, the caller's; NULL: *ret_error and `why` (SPARQ_ERROR_TEXT bytes) say why not. */
struct stats *exporter_ask_end(struct exporter_ask *a, int *ret_error, char *why);

/* ---- exporter-http.c --------------------------------------------------------------------- */

struct exporter_http;
/* Serves a listening socket; `options` stay. NULL: no memory, or the library refused. */
struct exporter_http *exporter_http_new(const struct exporter_options *options);
int exporter_http_add(struct exporter_http *h, int listening); /* takes it */
struct exporter_http *exporter_http_free(struct exporter_http *h);
/* Sleeps until there is work or `signals` is readable, and does the work; false: it is. -errno. */
int exporter_http_run(struct exporter_http *h, int signals);
