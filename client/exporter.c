/* SPDX-License-Identifier: Apache-2.0 */
/* sparqd-exporter: options, sockets, signals. */
#include "client/exporter.h"

#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>

#include "config.h"
#include "shm/base.h"

#define USAGE_STATUS 2
#define KEPT_BYTES (16 * 1024 * 1024)

static const char usage[] =
#include "client/exporter.inc"
	;

/* 0: go on; else the program's status is `ret_status`. */
static int parse(int argc, char **argv, struct exporter_options *o, int *ret_status)
{
	static const struct option options[] = {
		{ "listen", required_argument, NULL, 'l' },
		{ "public", no_argument, NULL, 'p' },
		{ "sequences", no_argument, NULL, 'q' },
		{ "socket", required_argument, NULL, 's' },
		{ "version", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{},
	};
	int which;

	*ret_status = 0;
	while ((which = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (which) {
		case 'l':
			o->listen = optarg;
			break;
		case 'p':
			o->public = true;
			break;
		case 'q':
			o->sequences = true;
			break;
		case 's':
			o->socket = optarg;
			break;
		case 'v':
			puts("sparqd-exporter " SPARQ_VERSION);
			return 1;
		case 'h':
			fputs(usage, stdout);
			return 1;
		default:
			*ret_status = USAGE_STATUS;
			return 1;
		}
	}
	if (optind < argc)
		fprintf(stderr, "sparqd-exporter: unexpected \"%s\"\n", argv[optind]);
	*ret_status = optind < argc ? USAGE_STATUS : 0;
	return optind < argc;
}

static int say(int error, const char *what)
{
	if (what[0])
		fprintf(stderr, "sparqd-exporter: %s\n", what);
	return error;
}

static int add(struct exporter_http *h, int fd)
{
	int r = exporter_http_add(h, fd);

	return r < 0 ? say(r, "the HTTP library does not take the socket") : 0;
}

static int add_passed(struct exporter_http *h, const struct exporter_options *o, unsigned n)
{
	char why[EXPORTER_WHY_BYTES];
	int r = 0;

	if (o->listen)
		return say(-EINVAL, "--listen, and sockets passed in (LISTEN_FDS): one of the two");
	if (n > EXPORTER_SOCKETS)
		return say(-E2BIG, "more than four sockets are passed in (LISTEN_FDS)");
	for (unsigned i = 0; i < n && r == 0; i++) {
		r = exporter_check(SD_LISTEN_FDS_START + (int)i, o->public, why);
		say(r, why);
		if (r == 0)
			r = add(h, SD_LISTEN_FDS_START + (int)i);
	}
	return r;
}

static int add_own(struct exporter_http *h, const struct exporter_options *o)
{
	char why[EXPORTER_WHY_BYTES] = "";
	int fd = -1, r;

	if (!o->listen)
		return say(-EINVAL, "nowhere to listen: --listen, or a socket unit");
	r = exporter_listen(o->listen, o->public, &fd, why);
	say(r, why);
	return r < 0 ? r : add(h, fd);
}

static int open_signals(void)
{
	sigset_t ending;

	sigemptyset(&ending);
	sigaddset(&ending, SIGTERM);
	sigaddset(&ending, SIGINT);
	sigprocmask(SIG_BLOCK, &ending, NULL);
	/* A client that goes away in the middle of its answer is none of ours. */
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &ending, SFD_CLOEXEC);
}

static void http_freep(struct exporter_http **h)
{
	*h = exporter_http_free(*h);
}

static int serve(const struct exporter_options *o)
{
	CLEANUP(http_freep) struct exporter_http *h = exporter_http_new(o);
	CLOSE_FD int signals = open_signals();
	int n = sd_listen_fds(1), r;

	if (!h || signals < 0 || n < 0)
		return say(-ENOMEM, "no memory, or no descriptors");
	r = n > 0 ? add_passed(h, o, (unsigned)n) : add_own(h, o);
	if (r < 0)
		return r;
	sd_notify(0, "READY=1\nSTATUS=serving /metrics");
	do
		r = exporter_http_run(h, signals);
	while (r > 0);
	sd_notify(0, "STOPPING=1");
	exporter_unlisten(o->listen);
	return r < 0 ? say(r, strerror(-r)) : 0;
}

int main(int argc, char **argv)
{
	struct exporter_options o = { .listen = NULL };
	int status;

	if (parse(argc, argv, &o, &status))
		return status;
	/* What one scrape took is for the next: taking it anew is a fault for each page. */
	mallopt(M_MMAP_THRESHOLD, KEPT_BYTES);
	mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
	return serve(&o) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
