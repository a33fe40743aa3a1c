/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of the two formats a client wants: RFC 9110, 12.5.1. Media ranges with their weights; the
 * more exact range counts, and with equal weights the newer format.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "client/exporter.h"

static double weight(const char *parameters, size_t n)
{
	char text[128];
	const char *q;
	double value;

	snprintf(text, sizeof(text), "%.*s", (int)n, parameters);
	q = strcasestr(text, "q=");
	if (!q || (q > text && q[-1] != ';' && q[-1] != ' '))
		return 1;
	return sscanf(q + 2, "%lf", &value) == 1 && value >= 0 && value <= 1 ? value : 0;
}

struct range {
	const char *name;
	unsigned exactness;
};

/* The better of what was known and this range says. */
static void consider(const char *range, size_t n, const struct range *names, double *ret,
		     unsigned *exactness)
{
	size_t length = strcspn(range, ";, \t");

	for (; names->name; names++)
		if (strlen(names->name) == length && !strncasecmp(range, names->name, length) &&
		    names->exactness >= *exactness) {
			double q = weight(range + length, n - length);

			/* Of two versions of one type, the one that is wanted more. */
			*ret = names->exactness == *exactness && *ret > q ? *ret : q;
			*exactness = names->exactness;
		}
}

enum metrics_format exporter_format(const char *accept)
{
	static const struct range plain[] = {
		{ "text/plain", 3 }, { "text/*", 2 }, { "*/*", 1 }, {}
	};
	static const struct range open[] = { { "application/openmetrics-text", 3 }, {} };
	unsigned plain_exact = 0, open_exact = 0;
	double q_plain = 0, q_open = 0;

	while (accept && *accept) {
		size_t n;

		accept += strspn(accept, " \t,");
		n = strcspn(accept, ",");
		consider(accept, n, plain, &q_plain, &plain_exact);
		consider(accept, n, open, &q_open, &open_exact);
		accept += n;
	}
	return q_open > 0 && q_open >= q_plain ? METRICS_OPENMETRICS : METRICS_PLAIN;
}
