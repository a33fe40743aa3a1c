/* SPDX-License-Identifier: Apache-2.0 */
/*
 * many SOCKET N: a client with N sequences. Says "ready", and holds them until its input ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/sparq.h"

static int fail(sparq *c, const char *what, int error)
{
	fprintf(stderr, "many: %s: %s: %s\n", what, strerror(-error), c ? sparq_error(c) : "");
	return 1;
}

int main(int argc, char **argv)
{
	const struct sparq_cache_params params = { .size = sizeof(params),
						   .name = "many",
						   .layers = 1,
						   .heads = 2,
						   .kv_heads = 1,
						   .k_dim = 64,
						   .v_dim = 64 };
	unsigned n = argc == 3 ? (unsigned)atoi(argv[2]) : 0;
	sparq_cache *cache;
	sparq *c;
	int r;

	if (n == 0)
		return 64;
	r = sparq_open(argv[1], NULL, &c);
	if (r < 0)
		return fail(NULL, "open", r);
	r = sparq_cache_create(c, &params, &cache);
	if (r < 0)
		return fail(c, "cache", r);
	for (unsigned i = 0; i < n; i++) {
		char name[32];
		sparq_seq *s;

		snprintf(name, sizeof(name), "sequence-%u", i);
		r = sparq_seq_create(cache, name, &s);
		if (r < 0)
			return fail(c, name, r);
	}
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, &n, sizeof(n)) > 0)
		;
	sparq_close(c);
	return 0;
}
