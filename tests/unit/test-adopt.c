/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking over what another session left. A client that comes back relies on its
 * ids; every other user on theirs being nobody else's, with no word that tells
 * "exists" from "does not".
 */
#include "daemon/record.h"
#include "daemon/seq.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shm/atomic.h"
#include "store-fixture.h"

#define LATER 43 /* a session */

static char why[SPARQ_ERROR_TEXT];

struct setup {
	struct store_fixture f;
	struct cache *c;
	struct seq *named, *unnamed;
};

static void open_setup(struct setup *t)
{
	struct sparq_msg_cache_create m = fixture_request("chat", "on_disconnect=park");

	fixture_open(&t->f, 8 << 20, 1 << 20);
	assert_int_equal(cache_create(&t->f.store, t->f.user, &m, &t->c, why), 0);
	assert_int_equal(seq_create(t->c, "turn", FIXTURE_SESSION, &t->named, why), 0);
	assert_int_equal(seq_create(t->c, "", FIXTURE_SESSION, &t->unnamed, why), 0);
}

static void close_setup(struct setup *t)
{
	assert_int_equal(seq_drop(t->named, why), 0);
	assert_int_equal(seq_drop(t->unnamed, why), 0);
	while (t->f.store.caches) /* a reference for each attach */
		cache_unref(t->c);
	fixture_assert_empty(&t->f);
	fixture_close(&t->f);
}

static void test_cache(void **state)
{
	struct cache *c = NULL;
	struct setup t;

	open_setup(&t);
	assert_int_equal(cache_attach(&t.f.store, t.f.user, t.c->id, "", &c, why), 0);
	assert_ptr_equal(c, t.c);
	c = NULL;
	assert_int_equal(cache_attach(&t.f.store, t.f.user, 0, "chat", &c, why), 0);
	assert_ptr_equal(c, t.c);
	assert_int_equal(t.c->n_sessions, 3);
	c = NULL;
	assert_int_equal(cache_attach(&t.f.store, t.f.user, t.c->id, "chat", &c, why), -EINVAL);
	assert_int_equal(cache_attach(&t.f.store, t.f.user, 0, "", &c, why), -EINVAL);
	assert_int_equal(cache_attach(&t.f.store, t.f.user, 0, "a b", &c, why), -EINVAL);
	assert_int_equal(cache_attach(&t.f.store, t.f.user, 0, "chat2", &c, why), -ENOENT);
	assert_int_equal(cache_attach(&t.f.store, t.f.user, t.c->id + 1, "", &c, why), -ENOENT);
	assert_int_equal(cache_attach(&t.f.store, t.f.user, t.c->id + (1ull << 32), "", &c, why),
			 -ENOENT);
	assert_null(c);
	assert_int_equal(t.c->n_sessions, 3);
	close_setup(&t);
}

static void test_sequence(void **state)
{
	uint64_t id, none;
	struct seq *s = NULL;
	struct setup t;

	open_setup(&t);
	id = t.unnamed->id;
	assert_int_equal(seq_adopt(&t.f.store, t.f.user, id, LATER, &s, why), -EBUSY);
	assert_non_null(strstr(why, "another session"));
	assert_int_equal(seq_adopt(&t.f.store, t.f.user, id, FIXTURE_SESSION, &s, why), -EBUSY);
	assert_non_null(strstr(why, "this session"));
	seq_release_session(&t.f.store, FIXTURE_SESSION);
	assert_int_equal(seq_adopt(&t.f.store, t.f.user, id, LATER, &s, why), 0);
	assert_ptr_equal(s, t.unnamed);
	assert_int_equal(load_relaxed(&s->session), LATER);
	/* A restart must know that somebody is about to come back. */
	assert_true(((struct sequence_record *)s->record)->flags & SEQUENCE_IN_USE);
	assert_int_equal(seq_adopt(&t.f.store, t.f.user, t.named->id, LATER, &s, why), 0);
	s = NULL;
	none = (uint64_t)t.f.store.max_sequences | id >> 32 << 32;
	assert_int_equal(seq_adopt(&t.f.store, t.f.user, 0, LATER, &s, why), -ENOENT);
	assert_int_equal(seq_adopt(&t.f.store, t.f.user, none, LATER, &s, why), -ENOENT);
	assert_int_equal(seq_adopt(&t.f.store, t.f.user, UINT64_MAX, LATER, &s, why), -ENOENT);
	assert_int_equal(seq_adopt(&t.f.store, t.f.user, id + (1ull << 32), LATER, &s, why),
			 -ENOENT);
	assert_null(s);
	close_setup(&t);
}

/* To somebody else it is as if it had never been, to the letter; nor did asking change anything. */
static void test_stranger(void **state)
{
	char never[SPARQ_ERROR_TEXT];
	uint64_t id, dropped;
	struct cache *c = NULL;
	struct seq *s = NULL;
	struct setup t;

	open_setup(&t);
	assert_int_equal(cache_attach(&t.f.store, t.f.stranger, 0, "chat", &c, why), -ENOENT);
	assert_int_equal(cache_attach(&t.f.store, t.f.stranger, t.c->id, "", &c, why), -ENOENT);
	seq_release_session(&t.f.store, FIXTURE_SESSION);
	id = t.named->id;
	assert_int_equal(seq_adopt(&t.f.store, t.f.stranger, id, LATER, &s, why), -ENOENT);
	assert_int_equal(load_relaxed(&t.named->session), 0);
	assert_int_equal(seq_adopt(&t.f.store, t.f.user, id, LATER, &s, why), 0);
	assert_int_equal(seq_adopt(&t.f.store, t.f.stranger, id, LATER + 1, &s, why), -ENOENT);
	strcpy(never, why);
	assert_int_equal(seq_drop(t.named, why), 0);
	assert_int_equal(seq_adopt(&t.f.store, t.f.user, id, LATER, &s, why), -ENOENT);
	assert_string_equal(why, never);
	dropped = id;
	assert_int_equal(seq_create(t.c, "turn", FIXTURE_SESSION, &t.named, why), 0);
	assert_int_not_equal(t.named->id, dropped); /* same slot, another life */
	assert_int_equal(seq_adopt(&t.f.store, t.f.user, dropped, LATER, &s, why), -ENOENT);
	close_setup(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_sequence),
		cmocka_unit_test(test_stranger),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
