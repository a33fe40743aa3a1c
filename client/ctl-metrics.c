/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl metrics: the figures of the daemon as text for a monitoring system, once.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/ctl.h"
#include "client/metrics.h"
#include "client/stats.h"
#include "shm/base.h"

static void stats_closep(struct stats **s)
{
	*s = stats_close(*s);
}

static int print(const struct stats *s, const struct ctl_options *o)
{
	CLEANUP(metrics_text_deinit) struct metrics_text text = METRICS_TEXT_NULL;
	const struct metrics_options options = {
		.format = ctl_flag(o, OPT_OPENMETRICS) ? METRICS_OPENMETRICS : METRICS_PLAIN,
		.sequences = ctl_flag(o, OPT_SEQUENCES),
	};
	int r = metrics_render(s, &options, &text);

	if (r < 0) {
		fprintf(stderr, "sparqctl: metrics: %s\n",
			r == -EAGAIN ? "the page is written all the time: try again"
				     : strerror(-r));
		return CTL_FAILED;
	}
	if (fwrite(text.data, 1, text.n, stdout) != text.n || fflush(stdout)) {
		fprintf(stderr, "sparqctl: metrics: standard output: %s\n", strerror(errno));
		return CTL_FAILED;
	}
	return CTL_OK;
}

int ctl_metrics(const struct ctl_options *o)
{
	CLEANUP(stats_closep) struct stats *s = NULL;
	char why[SPARQ_ERROR_TEXT] = "";
	int r = stats_open(ctl_text(o, OPT_SOCKET), &s, why);

	if (r == 0)
		return print(s, o);
	fprintf(stderr, "sparqctl: metrics: %s\n", why[0] ? why : strerror(-r));
	/* That the daemon is not there is a figure as well; that we may not see it is none. */
	if (r != -EACCES && r != -EPERM)
		print(NULL, o);
	return CTL_FAILED;
}
