/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl save and load: a client like any other, of the user who calls it. Where
 * somebody looks, a line says how far it is.
 */
#include <stdio.h>
#include <string.h>

#include "client/ctl.h"
#include "client/sparq.h"
#include "shm/base.h"
#include "shm/clock.h"

#define ARENA_BYTES (2 * MIB)
#define TELL_NS (NS_PER_S / 10)
#define LOOKS 200 /* for a session to end */
#define LOOK_US 10000

struct transfer {
	const struct ctl_options *o;
	const char *verb, *what;
	sparq *c;
	sparq_cache *cache;
	sparq_seq *seq;
	bool terminal;
	int64_t began_ns, told_ns;
	struct sparq_progress now;
};

static void transfer_deinit(struct transfer *t)
{
	t->seq = sparq_seq_unref(t->seq);
	t->cache = sparq_cache_unref(t->cache);
	t->c = sparq_close(t->c);
}

static double seconds(const struct transfer *t)
{
	return (double)(clock_now_ns() - t->began_ns) / (double)NS_PER_S;
}

static void tell(struct transfer *t)
{
	double s = seconds(t);

	fprintf(stderr, "\r%s %s: %3.0f %%, %.0f rows/s, %.2f GB/s ", t->verb, t->what,
		100.0 * (double)t->now.bytes / (double)t->now.bytes_total, (double)t->now.rows / s,
		(double)t->now.bytes / s / 1e9);
}

static int on_progress(void *arg, const struct sparq_progress *now)
{
	struct transfer *t = arg;
	int64_t ns = clock_now_ns();

	t->now = *now;
	if (t->terminal && (now->bytes == now->bytes_total || ns - t->told_ns >= TELL_NS)) {
		t->told_ns = ns;
		tell(t);
	}
	return 0;
}

/* A sentence on stderr; the daemon's, where it had one. */
static int fail(const struct transfer *t, int error)
{
	const char *text = t->c ? sparq_error(t->c) : "";

	if (t->terminal && t->now.bytes)
		fputc('\n', stderr);
	fprintf(stderr, "sparqctl: %s: %s\n", t->what, *text ? text : strerror(-error));
	return CTL_FAILED;
}

static int open_session(struct transfer *t)
{
	char why[SPARQ_ERROR_TEXT] = "";
	struct sparq_open_params params = { .size = sizeof(params),
					    .arena_bytes = ARENA_BYTES,
					    .why = why };
	int r = sparq_open(ctl_text(t->o, OPT_SOCKET), &params, &t->c);

	if (r < 0)
		fprintf(stderr, "sparqctl: %s\n", *why ? why : strerror(-r));
	return r;
}

static int begin(struct transfer *t)
{
	t->terminal = !ctl_flag(t->o, OPT_JSON) && isatty(STDERR_FILENO);
	t->began_ns = clock_now_ns();
	return open_session(t);
}

static int finish(struct transfer *t, const char *file)
{
	double s = seconds(t);

	if (t->terminal)
		fputc('\n', stderr);
	if (ctl_flag(t->o, OPT_JSON)) {
		CLEANUP(ctl_putp) json_object *result = json_object_new_object();

		json_object_object_add(result, "file", json_object_new_string(file));
		json_object_object_add(result, "rows",
				       json_object_new_int64((int64_t)t->now.rows_total));
		json_object_object_add(result, "bytes",
				       json_object_new_int64((int64_t)t->now.bytes_total));
		json_object_object_add(result, "seconds", json_object_new_double(s));
		ctl_print_json(result);
		return CTL_OK;
	}
	printf("%s: %llu rows, %llu bytes in %.2f s\n", t->what,
	       (unsigned long long)t->now.rows_total, (unsigned long long)t->now.bytes_total, s);
	return CTL_OK;
}

static struct sparq_file_params file_params(struct transfer *t, uint32_t flags)
{
	return (struct sparq_file_params){
		.size = sizeof(struct sparq_file_params),
		.flags = flags,
		.progress = on_progress,
		.arg = t,
	};
}

/* ---- save ------------------------------------------------------------------------- */

int ctl_save(const struct ctl_options *o)
{
	CLEANUP(transfer_deinit) struct transfer t = { .o = o, .verb = "saving" };
	struct sparq_file_params params =
		file_params(&t, ctl_flag(o, OPT_REPLACE) ? SPARQ_FILE_REPLACE : 0);
	int r;

	t.what = o->words[0];
	if (begin(&t) < 0)
		return CTL_FAILED;
	r = sparq_cache_attach(t.c, ctl_text(o, OPT_CACHE), NULL, &t.cache);
	if (r == 0)
		r = sparq_seq_attach(t.cache, o->words[0], &t.seq);
	if (r == 0)
		r = sparq_seq_save(t.seq, o->words[1], &params);
	return r < 0 ? fail(&t, r) : finish(&t, o->words[1]);
}

/* ---- load ------------------------------------------------------------------------- */

/* What they are to be called: as asked, or as in the file. */
struct names {
	const char *cache, *sequence;
};

static int choose_names(struct transfer *t, struct sparq_file_info *info, struct names *ret)
{
	int r;

	info->size = sizeof(*info);
	r = sparq_file_info_get(t->c, t->what, info);
	if (r < 0)
		return fail(t, r);
	ret->cache = ctl_text(t->o, OPT_CACHE) ? ctl_text(t->o, OPT_CACHE) : info->cache;
	ret->sequence = ctl_text(t->o, OPT_NAME) ? ctl_text(t->o, OPT_NAME) : info->name;
	if (*ret->cache && *ret->sequence)
		return CTL_OK;
	fprintf(stderr, "sparqctl: %s: the %s it was saved from had no name: say one with --%s\n",
		t->what, *ret->cache ? "sequence" : "cache", *ret->cache ? "name" : "cache");
	return CTL_FAILED;
}

/* The cache of that name, or one made of what the file says; it keeps what nobody is attached to,
 * or the sequence would end with this program. */
static int find_cache(struct transfer *t, const char *name)
{
	int r = sparq_cache_attach(t->c, name, NULL, &t->cache);

	if (r != -ENOENT)
		return r;
	r = sparq_cache_from_file(t->c, t->what, name, "on_disconnect=park", &t->cache);
	if (r == 0 && !ctl_flag(t->o, OPT_JSON))
		printf("cache %s: made as the file says\n", name);
	return r;
}

static int look_again(struct transfer *t, const struct names *names)
{
	int r = sparq_cache_attach(t->c, names->cache, NULL, &t->cache);

	/* The session before ends in its own time. */
	for (unsigned i = 0; r == 0; i++) {
		r = sparq_seq_attach(t->cache, names->sequence, &t->seq);
		if (r != -EBUSY || i == LOOKS)
			return r;
		usleep(LOOK_US);
		r = 0;
	}
	return r;
}

/* A cache may drop what a session leaves: then it is not loaded for anybody. */
static int check_kept(struct transfer *t, const struct names *names)
{
	int r;

	transfer_deinit(t);
	r = open_session(t);
	if (r < 0)
		return CTL_FAILED;
	r = look_again(t, names);
	if (r != -ENOENT)
		return r < 0 ? fail(t, r) : CTL_OK;
	fprintf(stderr,
		"sparqctl: %s: cache %s drops what a session leaves (on_disconnect=drop), so "
		"nothing was kept: load it with the program that uses it, or into another cache\n",
		t->what, names->cache);
	return CTL_FAILED;
}

int ctl_load(const struct ctl_options *o)
{
	CLEANUP(transfer_deinit) struct transfer t = { .o = o, .verb = "loading" };
	struct sparq_file_params params = file_params(&t, 0);
	struct sparq_file_info info;
	struct names names = { NULL, NULL };
	int r;

	t.what = o->words[0];
	if (begin(&t) < 0 || choose_names(&t, &info, &names) != CTL_OK)
		return CTL_FAILED;
	r = find_cache(&t, names.cache);
	if (r == 0)
		r = sparq_seq_load(t.cache, t.what, names.sequence, &params, &t.seq);
	if (r < 0)
		return fail(&t, r);
	r = finish(&t, t.what);
	return r == CTL_OK ? check_kept(&t, &names) : r;
}
