/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests and answers, over libmicrohttpd in its mode without threads. A scrape asks the daemon to
 * bring the page up to date, and opens it again where another daemon serves by now.
 *
 * The library bounds how long a connection may be silent; the deadlines here bound how long it may
 * be at all, so that nobody holds one by a byte every second.
 */
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "client/exporter.h"
#include "shm/base.h"
#include "shm/clock.h"

#define SILENT_SECONDS 5u
#define MEMORY_BYTES (96 * KIB) /* of a connection: its headers, and what is sent at once */
#define PART_BYTES (64 * KIB)
#define NS_A_SECOND 1000000000ull
#define NS_A_MS 1000000ull

struct held { /* a connection; fd -1: none */
	int fd;
	uint64_t deadline_ns;
};

struct exporter_http {
	const struct exporter_options *options;
	struct MHD_Daemon *daemon[EXPORTER_SOCKETS];
	unsigned n;
	struct held held[EXPORTER_SOCKETS * EXPORTER_CONNECTIONS];
	struct exporter_ask *ask;
	bool asking;
	struct request *waiting;
	struct stats *stats; /* as of the last answer; NULL: the daemon is not there, or we may not
			      * see it (error) */
	int error;           /* what the last look at it gave: said when it changes */
	unsigned n_streams;
};

struct request { /* for the figures */
	struct MHD_Connection *connection;
	bool is_answered; /* the daemon has, or will not */
	struct request *next;
};

/* ---- the page ------------------------------------------------------------------------- */

/* A question that the daemon has not answered yet is everybody's who comes meanwhile: all of them
 * wait, but not the thread. */
static void wait_for_page(struct exporter_http *h, struct MHD_Connection *c, struct request *q)
{
	q->connection = c;
	q->next = h->waiting;
	h->waiting = q;
	if (!h->asking)
		exporter_ask_begin(h->ask);
	h->asking = true;
	MHD_suspend_connection(c);
}

/* The daemon has answered, or has not: those that waited are served from what is known now. */
static void hear(struct exporter_http *h)
{
	char why[SPARQ_ERROR_TEXT];
	int r;

	stats_close(h->stats);
	h->stats = exporter_ask_end(h->ask, &r, why);
	if (r < 0 && r != h->error)
		fprintf(stderr, "sparqd-exporter: %s\n", why[0] ? why : strerror(-r));
	else if (r == 0 && h->error < 0)
		fprintf(stderr, "sparqd-exporter: the figures are there again\n");
	h->error = r;
	h->asking = false;
	while (h->waiting) {
		struct request *q = h->waiting;

		h->waiting = q->next;
		q->is_answered = true;
		MHD_resume_connection(q->connection);
	}
}

/* ---- answers -------------------------------------------------------------------------- */

static enum MHD_Result answer_with(struct MHD_Connection *c, unsigned status,
				   struct MHD_Response *response, const char *type)
{
	enum MHD_Result r;

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, "Content-Type", type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	/* One request a connection: who comes every quarter of a minute opens another one. */
	MHD_add_response_header(response, "Connection", "close");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, "Allow", "GET, HEAD");
	r = MHD_queue_response(c, status, response);
	MHD_destroy_response(response);
	return r;
}

static enum MHD_Result answer_text(struct MHD_Connection *c, unsigned status, const char *text)
{
	return answer_with(c, status,
			   MHD_create_response_from_buffer(strlen(text), (void *)text,
							   MHD_RESPMEM_PERSISTENT),
			   "text/plain; charset=utf-8");
}

static const char *const metrics_types[] = {
	[METRICS_PLAIN] = "text/plain; version=0.0.4; charset=utf-8",
	[METRICS_OPENMETRICS] = "application/openmetrics-text; version=1.0.0; charset=utf-8",
};

static enum MHD_Result answer_page(struct exporter_http *h, struct MHD_Connection *c,
				   const struct metrics_options *o)
{
	CLEANUP(metrics_text_deinit) struct metrics_text text = METRICS_TEXT_NULL;
	struct MHD_Response *response;

	if (metrics_render(h->stats, o, &text) < 0)
		return answer_text(c, MHD_HTTP_SERVICE_UNAVAILABLE, "no figures: try again\n");
	response = MHD_create_response_from_buffer(text.n, text.data, MHD_RESPMEM_MUST_FREE);
	if (response)
		text.data = NULL; /* its to free */
	return answer_with(c, MHD_HTTP_OK, response, metrics_types[o->format]);
}

/* ---- an answer in parts ---------------------------------------------------------------- */

struct stream {
	struct exporter_http *http;
	struct stats *stats; /* its own: another daemon's page may come meanwhile */
	struct metrics_stream *metrics;
	struct metrics_text text; /* a part ... */
	size_t sent;              /* ... and how much of it is gone */
};

static ssize_t stream_read(void *arg, uint64_t at, char *to, size_t most)
{
	struct stream *s = arg;
	size_t done = 0;
	int r = 1;

	while (done < most) {
		size_t n = MIN(most - done, s->text.n - s->sent);

		if (n)
			memcpy(to + done, s->text.data + s->sent, n);
		s->sent += n;
		done += n;
		if (s->sent < s->text.n)
			break;
		s->text.n = s->sent = 0;
		r = metrics_stream_next(s->metrics, &s->text);
		if (r <= 0)
			break;
	}
	if (r < 0)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	return done ? (ssize_t)done : MHD_CONTENT_READER_END_OF_STREAM;
}

static void stream_free(void *arg)
{
	struct stream *s = arg;

	s->http->n_streams--;
	metrics_stream_close(s->metrics);
	metrics_text_deinit(&s->text);
	stats_close(s->stats);
	free(s);
}

static enum MHD_Result answer_stream(struct exporter_http *h, struct MHD_Connection *c,
				     const struct metrics_options *o)
{
	struct stream *s = calloc(1, sizeof(*s));
	struct MHD_Response *response;

	if (!s)
		return MHD_NO;
	h->n_streams++;
	s->http = h;
	s->stats = h->stats ? stats_share(h->stats) : NULL;
	if ((h->stats && !s->stats) || metrics_stream_open(s->stats, o, &s->metrics) < 0) {
		stream_free(s);
		return answer_text(c, MHD_HTTP_SERVICE_UNAVAILABLE, "no figures: try again\n");
	}
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, PART_BYTES, stream_read, s,
						     stream_free);
	if (!response)
		stream_free(s);
	return answer_with(c, MHD_HTTP_OK, response, metrics_types[o->format]);
}

static enum MHD_Result answer_metrics(struct exporter_http *h, struct MHD_Connection *c)
{
	const struct metrics_options o = {
		.format =
			exporter_format(MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Accept")),
		.sequences = h->options->sequences,
	};

	/* Not the daemon's absence, but our own fault. */
	if (h->error == -EACCES || h->error == -EPERM)
		return answer_text(c, MHD_HTTP_SERVICE_UNAVAILABLE,
				   "sparqd does not show its figures to this user, or its group "
				   "may not connect: see sparqd-exporter(8)\n");
	if (!o.sequences)
		return answer_page(h, c, &o);
	if (h->n_streams == EXPORTER_STREAMS)
		return answer_text(c, MHD_HTTP_SERVICE_UNAVAILABLE,
				   "eight scrapes with series of each sequence are under way: try "
				   "again\n");
	return answer_stream(h, c, &o);
}

/* ---- requests --------------------------------------------------------------------------- */

static enum MHD_Result begin_metrics(struct exporter_http *h, struct MHD_Connection *c,
				     void **state)
{
	struct request *q = *state;

	if (q && q->is_answered)
		return answer_metrics(h, c);
	if (!q)
		*state = q = calloc(1, sizeof(*q));
	if (!q)
		return MHD_NO;
	wait_for_page(h, c, q);
	return MHD_YES;
}

/* It was answered, or its client went away. */
static void on_completed(void *arg, struct MHD_Connection *c, void **state,
			 enum MHD_RequestTerminationCode how)
{
	struct exporter_http *h = arg;

	for (struct request **at = &h->waiting; *state && *at; at = &(*at)->next)
		if (*at == *state) {
			*at = (*at)->next;
			break;
		}
	free(*state);
	*state = NULL;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_bytes, void **state)
{
	struct exporter_http *h = arg;
	bool metrics = !strcmp(url, "/metrics");

	if (!metrics && strcmp(url, "/-/healthy") != 0)
		return answer_text(c, MHD_HTTP_NOT_FOUND, "there is /metrics, and /-/healthy\n");
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return answer_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET and HEAD only\n");
	return metrics ? begin_metrics(h, c, state) : answer_text(c, MHD_HTTP_OK, "healthy\n");
}

/* ---- how long a connection may last ----------------------------------------------------- */

static struct held *find(struct exporter_http *h, int fd)
{
	for (unsigned i = 0; i < ARRAY_SIZE(h->held); i++)
		if (h->held[i].fd == fd)
			return &h->held[i];
	return NULL;
}

static void on_connection(void *arg, struct MHD_Connection *c, void **state,
			  enum MHD_ConnectionNotificationCode what)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct held *held;

	if (!info)
		return;
	/* There is room: the library admits no more at a time. */
	held = find(arg, what == MHD_CONNECTION_NOTIFY_STARTED ? -1 : info->connect_fd);
	if (!held)
		return;
	held->fd = what == MHD_CONNECTION_NOTIFY_STARTED ? info->connect_fd : -1;
	held->deadline_ns = clock_now_ns() + EXPORTER_SECONDS * NS_A_SECOND;
}

/* Ends those whose time has come; until the next one's, UINT64_MAX: there is none. */
static uint64_t expire(struct exporter_http *h)
{
	uint64_t now = clock_now_ns(), next = UINT64_MAX;

	for (unsigned i = 0; i < ARRAY_SIZE(h->held); i++) {
		struct held *held = &h->held[i];

		if (held->fd < 0)
			continue;
		if (held->deadline_ns <= now)
			shutdown(held->fd, SHUT_RDWR); /* the library hears it and closes */
		else
			next = MIN(next, held->deadline_ns - now);
	}
	return next;
}

/* ---- the loop ------------------------------------------------------------------------- */

struct exporter_http *exporter_http_new(const struct exporter_options *options)
{
	struct exporter_http *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->options = options;
	h->ask = exporter_ask_new(options->socket);
	if (!h->ask) {
		free(h);
		return NULL;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(h->held); i++)
		h->held[i].fd = -1;
	return h;
}

int exporter_http_add(struct exporter_http *h, int listening)
{
	if (h->n == EXPORTER_SOCKETS)
		return -E2BIG;
	/* The library accepts until there is nobody left. */
	if (fcntl(listening, F_SETFL, fcntl(listening, F_GETFL) | O_NONBLOCK) < 0)
		return -errno;
	h->daemon[h->n] = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
					   on_request, h, MHD_OPTION_LISTEN_SOCKET, listening,
					   MHD_OPTION_CONNECTION_LIMIT, EXPORTER_CONNECTIONS,
					   MHD_OPTION_CONNECTION_TIMEOUT, SILENT_SECONDS,
					   MHD_OPTION_CONNECTION_MEMORY_LIMIT, MEMORY_BYTES,
					   MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
					   MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
					   MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
	if (!h->daemon[h->n])
		return -EIO;
	h->n++;
	return 0;
}

struct exporter_http *exporter_http_free(struct exporter_http *h)
{
	if (!h)
		return NULL;
	/* The library asks for this before it ends. */
	while (h->waiting) {
		MHD_resume_connection(h->waiting->connection);
		h->waiting = h->waiting->next;
	}
	for (unsigned i = 0; i < h->n; i++)
		MHD_stop_daemon(h->daemon[i]);
	exporter_ask_free(h->ask);
	stats_close(h->stats);
	free(h);
	return NULL;
}

/* Milliseconds that poll may wait, -1: for ever. */
static int patience(struct exporter_http *h)
{
	uint64_t ns = expire(h);

	for (unsigned i = 0; i < h->n; i++) {
		MHD_UNSIGNED_LONG_LONG ms;

		if (MHD_get_timeout(h->daemon[i], &ms) == MHD_YES)
			ns = MIN(ns, ms * NS_A_MS);
	}
	return ns == UINT64_MAX ? -1 : (int)MIN(DIV_UP(ns, NS_A_MS), 3600000ull);
}

int exporter_http_run(struct exporter_http *h, int signals)
{
	struct pollfd fd[EXPORTER_SOCKETS + 2] = {
		{ .fd = signals, .events = POLLIN },
		{ .fd = exporter_ask_fd(h->ask), .events = POLLIN },
	};

	for (unsigned i = 0; i < h->n; i++) {
		fd[i + 2].fd =
			MHD_get_daemon_info(h->daemon[i], MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
		fd[i + 2].events = POLLIN;
	}
	if (poll(fd, h->n + 2, patience(h)) < 0 && errno != EINTR)
		return -errno;
	if (fd[0].revents)
		return 0;
	if (fd[1].revents)
		hear(h);
	for (unsigned i = 0; i < h->n; i++)
		if (MHD_run(h->daemon[i]) != MHD_YES)
			return -EIO;
	return 1;
}
