/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of the control socket. Whoever cleans up by them relies on each sequence being told once,
 * whatever comes and goes between two pages; the clients, on no question keeping the daemon busy.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/control.h"
#include "daemon/record.h"
#include "daemon/seq.h"
#include "daemon/server.h"
#include "shm/base.h"
#include "store-fixture.h"

#define N 20

static char why[SPARQ_ERROR_TEXT];

struct world {
	struct store_fixture f;
	struct server server;
	struct cache *c, *other;
	struct seq *seq[N];
};

static int setup(void **state)
{
	struct sparq_msg_cache_create m = fixture_request("chat", "on_disconnect=park");
	struct world *w = calloc(1, sizeof(*w));
	char name[16];

	assert_non_null(w);
	fixture_open(&w->f, 8 << 20, 1 << 20);
	assert_int_equal(cache_create(&w->f.store, w->f.user, &m, &w->c, why), 0);
	m = fixture_request("chat", "on_disconnect=park");
	assert_int_equal(cache_create(&w->f.store, w->f.stranger, &m, &w->other, why), 0);
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		assert_int_equal(seq_create(i % 4 ? w->c : w->other, name,
					    i < N / 2 ? FIXTURE_SESSION : 0, &w->seq[i], why),
				 0);
	}
	/* What the methods look at, without a daemon around it. */
	w->server.store = w->f.store;
	w->server.users = w->f.users;
	w->server.topo.n_nodes = 1;
	w->server.evictor.store = &w->f.store;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	for (unsigned i = 0; i < N; i++)
		if (w->seq[i])
			assert_int_equal(seq_drop(w->seq[i], why), 0);
	cache_unref(w->c);
	cache_unref(w->other);
	fixture_assert_empty(&w->f);
	fixture_close(&w->f);
	free(w);
	return 0;
}

/* The reply as it is sent; to be put. */
static json_object *ask(struct world *w, const char *method, const char *parameters)
{
	char message[256], *text = NULL;
	json_object *reply;
	int n = snprintf(message, sizeof(message),
			 "{\"method\":\"io.sparqd.Control.%s\",\"parameters\":%s}", method,
			 parameters);

	assert_int_equal(varlink_answer(&control_service, &w->server, message, (size_t)n, &text),
			 0);
	reply = json_tokener_parse(text);
	assert_non_null(reply);
	free(text);
	return reply;
}

static json_object *member(json_object *reply, const char *key)
{
	return json_object_object_get(json_object_object_get(reply, "parameters"), key);
}

static unsigned number_of(json_object *sequence)
{
	return (unsigned)atoi(json_object_get_string(json_object_object_get(sequence, "name")) + 1);
}

/* Page after page, `between` before each but the first; counts how often each was told. */
static void walk(struct world *w, const char *filter, unsigned limit, unsigned told[N],
		 void (*between)(struct world *w, unsigned page))
{
	int64_t next = 0;

	memset(told, 0, N * sizeof(told[0]));
	for (unsigned page = 0; next >= 0; page++) {
		char parameters[128];
		json_object *reply, *list;

		if (page && between)
			between(w, page);
		snprintf(parameters, sizeof(parameters), "{\"after\":%" PRId64 ",\"limit\":%u%s}",
			 next, limit, filter);
		reply = ask(w, "ListSequences", parameters);
		list = member(reply, "sequences");
		assert_true(json_object_array_length(list) <= limit);
		for (size_t i = 0; i < json_object_array_length(list); i++)
			told[number_of(json_object_array_get_idx(list, i))]++;
		next = member(reply, "next") ? json_object_get_int64(member(reply, "next")) : -1;
		json_object_put(reply);
		assert_true(page < 100);
	}
}

static void test_pages(void **state)
{
	struct world *w = *state;
	unsigned told[N];

	for (unsigned limit = 1; limit <= N + 1; limit++) {
		walk(w, "", limit, told, NULL);
		for (unsigned i = 0; i < N; i++)
			assert_int_equal(told[i], 1);
	}
}

static void test_filters(void **state)
{
	struct world *w = *state;
	unsigned told[N];

	walk(w, ",\"uid\":1000", 3, told, NULL);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(told[i], i % 4 != 0);
	walk(w, ",\"parked\":true", 3, told, NULL);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(told[i], i >= N / 2);
	walk(w, ",\"parked\":false,\"cache\":\"chat\"", 3, told, NULL);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(told[i], i < N / 2);
	walk(w, ",\"cache\":\"cha\"", 3, told, NULL);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(told[i], 0);
}

static void drop_one(struct world *w, unsigned page)
{
	struct seq **s = &w->seq[2 * page];

	if (2 * page < N && *s)
		assert_int_equal(seq_drop(STEAL_PTR(*s), why), 0);
}

static void test_changes_between_pages(void **state)
{
	struct world *w = *state;
	unsigned told[N];

	walk(w, "", 1, told, drop_one);
	for (unsigned i = 0; i < N; i++)
		assert_true(w->seq[i] ? told[i] == 1 : told[i] <= 1);
}

static void assert_error(struct world *w, const char *method, const char *parameters,
			 const char *error, const char *words)
{
	json_object *reply = ask(w, method, parameters);

	assert_string_equal(json_object_get_string(json_object_object_get(reply, "error")), error);
	assert_non_null(strstr(json_object_to_json_string(reply), words));
	json_object_put(reply);
}

#define INVALID "org.varlink.service.InvalidParameter"

static void test_refused(void **state)
{
	static const struct {
		const char *method, *parameters, *words;
	} bad[] = {
		{ "ListSequences", "{\"limit\":0}", "limit" },
		{ "ListSequences", "{\"limit\":-1}", "limit" },
		{ "ListSequences", "{\"after\":-1}", "after" },
		{ "ListSequences", "{\"after\":\"0\"}", "after" },
		{ "ListSequences", "{\"after\":1.5}", "after" },
		{ "ListSequences", "{\"uid\":4294967296}", "uid" },
		{ "ListSequences", "{\"cache\":7}", "cache" },
		{ "ListSequences", "{\"cache\":\"chat\\u0000x\"}", "cache" },
		{ "ListSequences", "{\"parked\":\"yes\"}", "parked" },
		{ "ListSequences", "{\"nosuch\":1}", "nosuch" },
		{ "ListCaches", "{\"parked\":true}", "parked" },
		{ "ListUsers", "{\"cache\":\"chat\"}", "cache" },
		{ "Drop", "{}", "sequence" },
		{ "Drop", "{\"sequence\":\"s1\"}", "cache" },
		{ "Drop", "{\"id\":\"1\"}", "id" },
		{ "Drop", "{\"id\":\"0x\"}", "id" },
		{ "Drop", "{\"id\":\"0x1ffffffffffffffff\"}", "id" },
		{ "Drop", "{\"id\":4294967297}", "id" },
		{ "Pin", "{\"id\":\"0x100000001\",\"pinned\":1}", "pinned" },
		{ "SetLogLevel", "{}", "level" },
		{ "SetLogLevel", "{\"level\":\"loud\"}", "level" },
		{ "SetLogLevel", "{\"level\":7}", "level" },
		{ "Reload", "{\"now\":true}", "now" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_error(*state, bad[i].method, bad[i].parameters, INVALID, bad[i].words);
}

/* Far beyond what there is: an end, not a wrap. */
static void test_far(void **state)
{
	json_object *reply = ask(*state, "ListSequences",
				 "{\"after\":9223372036854775807,\"limit\":9223372036854775807}");

	assert_int_equal(json_object_array_length(member(reply, "sequences")), 0);
	assert_null(member(reply, "next"));
	json_object_put(reply);
	assert_error(*state, "Drop", "{\"id\":\"0x1ffffffff\"}", CONTROL_REFUSED,
		     "there is no sequence");
	assert_error(*state, "Drop", "{\"id\":\"0x7ffffffff00000001\"}", INVALID, "id");
}

static void test_drop(void **state)
{
	struct world *w = *state;
	char parameters[64];
	json_object *reply;

	/* Two users have a cache of that name, but only one of them this sequence. */
	assert_error(w, "Drop", "{\"cache\":\"chat\",\"sequence\":\"s1\"}", CONTROL_REFUSED,
		     "attached to a session");
	reply = ask(w, "Drop", "{\"cache\":\"chat\",\"sequence\":\"s19\"}");
	assert_null(json_object_object_get(reply, "error"));
	assert_int_equal(json_object_get_int64(member(reply, "uid")), FIXTURE_UID);
	json_object_put(reply);
	w->seq[19] = NULL;
	snprintf(parameters, sizeof(parameters), "{\"id\":\"%#" PRIx64 "\"}", w->seq[18]->id);
	json_object_put(ask(w, "Drop", parameters));
	w->seq[18] = NULL;
	assert_error(w, "Drop", parameters, CONTROL_REFUSED, "there is no sequence");
	/* One whose entries are in flight is not torn out of a worker's hands. */
	assert_true(seq_try_control(w->seq[17]));
	assert_error(w, "Drop", "{\"cache\":\"chat\",\"sequence\":\"s17\"}", CONTROL_REFUSED,
		     "in flight");
	seq_end_control(w->seq[17]);
}

static void test_ambiguous(void **state)
{
	struct world *w = *state;
	struct seq *same;

	assert_int_equal(seq_create(w->other, "s19", 0, &same, why), 0);
	assert_error(w, "Drop", "{\"cache\":\"chat\",\"sequence\":\"s19\"}", CONTROL_REFUSED,
		     "say whose");
	json_object_put(ask(w, "Drop", "{\"cache\":\"chat\",\"sequence\":\"s19\",\"uid\":1001}"));
	assert_int_equal(seq_find_named(w->other, "s19", &same, why), -ENOENT);
	assert_int_equal(seq_find_named(w->c, "s19", &same, why), 0);
}

static void test_pin(void **state)
{
	struct world *w = *state;

	json_object_put(ask(w, "Pin", "{\"cache\":\"chat\",\"sequence\":\"s1\"}"));
	assert_true(evict_is_pinned(w->seq[1]));
	json_object_put(ask(w, "Pin", "{\"cache\":\"chat\",\"sequence\":\"s1\",\"pinned\":false}"));
	assert_false(evict_is_pinned(w->seq[1]));
}

static void test_caches_and_users(void **state)
{
	struct world *w = *state;
	json_object *reply = ask(w, "ListCaches", "{\"limit\":1}");

	assert_int_equal(json_object_array_length(member(reply, "caches")), 1);
	assert_int_equal(json_object_get_int64(member(reply, "next")), 1);
	json_object_put(reply);
	reply = ask(w, "ListCaches", "{\"after\":1}");
	assert_int_equal(json_object_array_length(member(reply, "caches")), 1);
	assert_null(member(reply, "next"));
	json_object_put(reply);
	reply = ask(w, "ListUsers", "{\"limit\":1}");
	assert_int_equal(json_object_get_int64(member(reply, "next")), FIXTURE_UID + 1);
	json_object_put(reply);
}

/* A message that was damaged under way gets an answer, and whom it did not name keeps what he has.
 */
static void test_damage(void **state)
{
	static const char *const messages[] = {
		"{\"method\":\"io.sparqd.Control.ListSequences\",\"parameters\":{\"uid\":1000,"
		"\"cache\":\"chat\",\"parked\":true,\"after\":3,\"limit\":2}}",
		"{\"method\":\"io.sparqd.Control.Drop\",\"parameters\":{\"id\":\"0x1ffffffff\"}}",
		"{\"method\":\"io.sparqd.Control.Pin\",\"parameters\":{\"cache\":\"chat\","
		"\"sequence\":\"absent\",\"uid\":1001}}",
	};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
		size_t n = strlen(messages[i]);

		for (size_t bit = 0; bit < 8 * n; bit++) {
			char message[256], *text = NULL;

			memcpy(message, messages[i], n);
			message[bit / 8] ^= (char)(1u << bit % 8);
			assert_int_equal(varlink_answer(&control_service, &w->server, message, n,
							&text),
					 0);
			assert_non_null(text);
			free(text);
		}
	}
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(w->seq[i]->cache == w->c || w->seq[i]->cache == w->other, 1);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_WORLD(test_pages),
		IN_WORLD(test_filters),
		IN_WORLD(test_changes_between_pages),
		IN_WORLD(test_refused),
		IN_WORLD(test_far),
		IN_WORLD(test_drop),
		IN_WORLD(test_ambiguous),
		IN_WORLD(test_pin),
		IN_WORLD(test_caches_and_users),
		IN_WORLD(test_damage),
	};

	log_open(LOG_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
