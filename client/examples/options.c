/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparq-generate(1) lists every option; tests hold the two together
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/examples/options.h"
#include "config.h"
#include "shm/base.h"

static const char usage[] =
	"Usage: sparq-generate --model DIR [--prompt FILE] [--held-out FILE]... [OPTION]...\n"
	"Runs a Llama model whose attention is done by sparqd.\n"
	"\n"
	"  --model DIR        config.json and model.safetensors\n"
	"  --prompt FILE      continue this text\n"
	"  --tokens N         by so many bytes (256)\n"
	"  --temperature T    0: always the most probable byte (0.7)\n"
	"  --seed N           of the choice among bytes (1)\n"
	"  --held-out FILE    measure bits per byte on this text; up to 4 times\n"
	"  --context N        bytes of each window that are given first, dense (1024)\n"
	"  --count N          bytes of each window that are then predicted (all)\n"
	"  --windows N        windows of each text (0: all)\n"
	"  --policy P         dense, window or sparq (sparq)\n"
	"  --format F         f32, f16, int8, int4, hier4; by layer: hier4,f16:0-1 (hier4)\n"
	"  --r N              sparq: channels that score a row (16)\n"
	"  --k N              sparq: rows attended; window: newest rows (64)\n"
	"  --options WORDS    further \"key=value\" words for the cache\n"
	"  --compare          dense f16, SparQ over f16 and over --format, as one table\n"
	"  --grid             bits per byte for several r and k, over --format\n"
	"  --check FILE       compare dense f32 with this reference.json first\n"
	"  --short            64 bytes written, one window of 256 bytes of each text\n"
	"  --socket PATH      of the daemon ($SPARQ_SOCKET, then the default)\n"
	"  --wait SECONDS     for a daemon that went away to come back (60)\n"
	"  --json             one JSON object instead of text and tables\n"
	"  --help, --version\n";

enum {
	MODEL = 256,
	PROMPT,
	TOKENS,
	TEMPERATURE,
	SEED,
	HELD_OUT,
	CONTEXT,
	COUNT,
	WINDOWS,
	POLICY,
	FORMAT,
	R,
	K,
	OPTIONS,
	COMPARE,
	GRID,
	CHECK,
	SHORT,
	SOCKET,
	WAIT,
	JSON,
	HELP,
	VERSION
};

static const struct option long_options[] = {
	{ "model", required_argument, NULL, MODEL },
	{ "prompt", required_argument, NULL, PROMPT },
	{ "tokens", required_argument, NULL, TOKENS },
	{ "temperature", required_argument, NULL, TEMPERATURE },
	{ "seed", required_argument, NULL, SEED },
	{ "held-out", required_argument, NULL, HELD_OUT },
	{ "context", required_argument, NULL, CONTEXT },
	{ "count", required_argument, NULL, COUNT },
	{ "windows", required_argument, NULL, WINDOWS },
	{ "policy", required_argument, NULL, POLICY },
	{ "format", required_argument, NULL, FORMAT },
	{ "r", required_argument, NULL, R },
	{ "k", required_argument, NULL, K },
	{ "options", required_argument, NULL, OPTIONS },
	{ "compare", no_argument, NULL, COMPARE },
	{ "grid", no_argument, NULL, GRID },
	{ "check", required_argument, NULL, CHECK },
	{ "short", no_argument, NULL, SHORT },
	{ "socket", required_argument, NULL, SOCKET },
	{ "wait", required_argument, NULL, WAIT },
	{ "json", no_argument, NULL, JSON },
	{ "help", no_argument, NULL, HELP },
	{ "version", no_argument, NULL, VERSION },
	{ NULL, 0, NULL, 0 },
};

static int number(const char *name, const char *text, uint64_t least, uint64_t most, uint64_t *ret)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || n < least || n > most) {
		fprintf(stderr, "sparq-generate: --%s %s: a number from %llu to %llu\n", name, text,
			(unsigned long long)least, (unsigned long long)most);
		return -EINVAL;
	}
	*ret = n;
	return 0;
}

static int small(const char *name, const char *text, uint64_t least, uint32_t *ret)
{
	uint64_t n;
	int r = number(name, text, least, 1u << 20, &n);

	if (r == 0)
		*ret = (uint32_t)n;
	return r;
}

static int real(const char *name, const char *text, float *ret)
{
	char *end;
	float x = strtof(text, &end);

	if (end == text || *end || !(x >= 0) || x > 100) {
		fprintf(stderr, "sparq-generate: --%s %s: a number from 0 to 100\n", name, text);
		return -EINVAL;
	}
	*ret = x;
	return 0;
}

static int add_held_out(struct options *o, const char *path)
{
	if (o->n_held_out == SCORE_TEXTS) {
		fprintf(stderr, "sparq-generate: --held-out: at most %u texts\n", SCORE_TEXTS);
		return -EINVAL;
	}
	o->held_out[o->n_held_out++] = path;
	return 0;
}

static int set_number(struct options *o, int key, const char *arg)
{
	switch (key) {
	case TOKENS:
		return small("tokens", arg, 1, &o->tokens);
	case TEMPERATURE:
		return real("temperature", arg, &o->temperature);
	case SEED:
		return number("seed", arg, 0, UINT64_MAX, &o->seed);
	case CONTEXT:
		return small("context", arg, 1, &o->context);
	case COUNT:
		return small("count", arg, 1, &o->count);
	case WINDOWS:
		return small("windows", arg, 0, &o->windows);
	case R:
		return small("r", arg, 1, &o->r);
	case WAIT:
		return small("wait", arg, 0, &o->daemon.wait_s);
	case K:
		return small("k", arg, 1, &o->k);
	default:
		return -EINVAL; /* getopt has said it */
	}
}

static int set_option(struct options *o, int key, const char *arg)
{
	const struct {
		int key;
		const char **to;
	} texts[] = {
		{ MODEL, &o->model },   { PROMPT, &o->prompt }, { POLICY, &o->policy },
		{ FORMAT, &o->format }, { OPTIONS, &o->extra }, { CHECK, &o->check },
		{ SOCKET, &o->daemon.socket },
	};
	const struct {
		int key;
		bool *to;
	} flags[] = { { COMPARE, &o->compare }, { GRID, &o->grid }, { JSON, &o->json } };

	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
		if (texts[i].key == key) {
			*texts[i].to = arg;
			return 0;
		}
	}
	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
		if (flags[i].key == key) {
			*flags[i].to = true;
			return 0;
		}
	}
	if (key == HELD_OUT)
		return add_held_out(o, arg);
	if (key == SHORT) {
		o->tokens = 64;
		o->windows = 1;
		o->count = 256;
		return 0;
	}
	return set_number(o, key, arg);
}

static int complain(const char *text)
{
	fprintf(stderr, "sparq-generate: %s\n", text);
	return -EINVAL;
}

static int check(const struct options *o)
{
	if (!o->model)
		return complain("--model is missing");
	if (!o->prompt && !o->n_held_out && !o->check)
		return complain("nothing to do: --prompt, --held-out or --check");
	if ((o->grid || o->compare) && !o->n_held_out)
		return complain("--compare and --grid need --held-out");
	if (o->grid && o->compare)
		return complain("--compare or --grid, not both");
	if (o->grid && o->json)
		return complain("--grid prints tables, no JSON");
	return 0;
}

int options_parse(struct options *ret, int argc, char **argv)
{
	struct options o = {
		.policy = "sparq",
		.format = "hier4",
		.extra = "",
		.r = 16,
		.k = 64,
		.tokens = 256,
		.context = 1024,
		.seed = 1,
		.temperature = 0.7f,
		.daemon.wait_s = 60,
	};
	int key, r;

	while ((key = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
		if (key == HELP || key == VERSION) {
			fputs(key == HELP ? usage : "sparq-generate " SPARQ_VERSION "\n", stdout);
			return OPTIONS_DONE;
		}
		r = set_option(&o, key, optarg);
		if (r < 0)
			return r;
	}
	if (optind < argc)
		return complain("there are no arguments but options");
	r = check(&o);
	if (r == 0)
		*ret = o;
	return r;
}

/* ---- words for the cache ------------------------------------------------------ */

static bool has_key(const char *words, const char *key)
{
	const size_t n = strlen(key);

	for (const char *p = words; (p = strstr(p, key)); p += n)
		if ((p == words || p[-1] == ' ') && p[n] == '=')
			return true;
	return false;
}

void options_words(const char *policy, uint32_t r, uint32_t k, const char *extra, char *ret)
{
	const struct {
		const char *policy, *key;
		uint32_t value;
	} words[] = {
		{ "sparq", "r", r },           { "sparq", "k", k },
		{ "sparq", "dense_below", 0 }, /* else a short text would only measure dense */
		{ "window", "first", 16 },     { "window", "recent", k },
	};
	size_t at = 0;

	ret[0] = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(policy, words[i].policy) != 0 || has_key(extra, words[i].key))
			continue;
		at += (size_t)snprintf(ret + at, OPTIONS_TEXT - at, "%s%s=%u", at ? " " : "",
				       words[i].key, words[i].value);
	}
	if (*extra)
		snprintf(ret + at, OPTIONS_TEXT - at, "%s%s", at ? " " : "", extra);
}
