/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Caches: what a client may ask for, what it is told when it may not, and what is charged. The
 * texts are tested because they are all that a user sees of a refusal.
 */
#include "daemon/cache.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/record.h"
#include "daemon/seq.h"
#include "shm/base.h"
#include "store-fixture.h"

static char why[SPARQ_ERROR_TEXT];

static int setup(void **state)
{
	struct store_fixture *f = calloc(1, sizeof(*f));

	fixture_open(f, 64 * MIB, 4 * MIB);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct store_fixture *f = *state;

	fixture_assert_empty(f);
	fixture_close(f);
	free(f);
	return 0;
}

static struct cache *make(struct store_fixture *f, const char *name, const char *options)
{
	struct sparq_msg_cache_create m = fixture_request(name, options);
	struct cache *c = NULL;
	int r = cache_create(&f->store, f->user, &m, &c, why);

	if (r < 0)
		fail_msg("%d: %s", r, why);
	return c;
}

static void assert_refused(struct store_fixture *f, const struct sparq_msg_cache_create *m,
			   int error, const char *text)
{
	struct cache *c = NULL;
	int r = cache_create(&f->store, f->user, m, &c, why);

	if (r != -error || !strstr(why, text))
		fail_msg("%d: \"%s\" instead of %d: \"%s\"", r, why, -error, text);
	assert_null(c);
}

static void created(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make(f, "a",
			       "sinks=3 rollback=7 outliers=5  on_disconnect=park "
			       "audit_max_error=0.0503 audit=100");

	assert_int_not_equal(c->id, 0);
	assert_int_equal(cache_shape(c)->sinks, 3);
	assert_int_equal(c->rollback, 7);
	assert_int_equal(cache_shape(c)->outliers, 5);
	assert_int_equal(c->on_disconnect, ON_DISCONNECT_PARK);
	assert_int_equal(c->record->audit_bound, 503);
	assert_int_equal(c->record->audit, 100);
	assert_int_equal(c->record->share, 1); /* of the same word once */
	assert_int_equal(c->record->state, RECORD_LIVE);
	assert_int_equal(c->record->uid, FIXTURE_UID);
	assert_ptr_equal(cache_shape(c)->args, c->args);
	assert_ptr_equal(cache_find(&f->store, f->user, c->id), c);
	assert_null(cache_find(&f->store, f->stranger, c->id));
	assert_null(cache_find(&f->store, f->user, c->id + 1));
	assert_int_equal(f->user->charged[USER_CACHES], 1);
	cache_unref(c);
}

static void presets(void **state)
{
	struct store_fixture *f = *state;
	struct sparq_msg_cache_create m = fixture_request("", "");
	struct cache *c;

	m.v_format[0] = '\0';
	m.policy[0] = '\0';
	assert_int_equal(cache_create(&f->store, f->user, &m, &c, why), 0);
	assert_int_equal(cache_shape(c)->sinks, 16);
	assert_int_equal(c->rollback, 16);
	assert_int_equal(c->on_disconnect, ON_DISCONNECT_DROP);
	assert_string_equal(c->record->v_format, "f32");
	assert_string_equal(c->record->policy, "sparq");
	assert_string_equal(c->record->device, "cpu");
	cache_unref(c);
}

/* ---- refusals ----------------------------------------------------------------------- */

static void refused_numbers(void **state)
{
	struct store_fixture *f = *state;
	struct sparq_msg_cache_create m;

#define REFUSED(field, value, error, text)                                                         \
	do {                                                                                       \
		m = fixture_request("n", "");                                                      \
		m.field = value;                                                                   \
		assert_refused(f, &m, error, text);                                                \
	} while (0)
	REFUSED(layers, 0, EINVAL, "layers 0: 1 to 256");
	REFUSED(layers, 257, EINVAL, "layers 257: 1 to 256");
	REFUSED(dtype, 3, EINVAL, "dtype 3");
	REFUSED(rsv, 1, EINVAL, "reserved");
	REFUSED(rsv2, 1, EINVAL, "reserved");
	REFUSED(heads, 0, EINVAL, "heads");
	REFUSED(heads, 5, EINVAL, "heads");
	REFUSED(kv_heads, 0, EINVAL, "kv_heads");
	REFUSED(kv_heads, UINT32_MAX, EINVAL, "kv_heads");
	REFUSED(scale, -1.0f, EINVAL, "scale");
	REFUSED(scale, __builtin_nanf(""), EINVAL, "scale");
	REFUSED(v_dim, 80, EOPNOTSUPP, "80");
	m = fixture_request("n", "");
	m.k_dim = m.v_dim = 72;
	assert_refused(f, &m, EINVAL, "72");
	assert_non_null(strstr(why, "64, 80, 96, 112, 128, 192, 256"));
	/* 2^31 bytes and more of one extent: nothing overflows on the way to the refusal. */
	m = fixture_request("n", "");
	m.heads = m.kv_heads = 65535;
	m.k_dim = m.v_dim = 256;
	assert_refused(f, &m, ENOSPC, "the pool has");
#undef REFUSED
}

static void refused_words(void **state)
{
	struct store_fixture *f = *state;
	struct sparq_msg_cache_create m;

#define REFUSED(field, value, error, text)                                                         \
	do {                                                                                       \
		m = fixture_request("w", "");                                                      \
		snprintf(m.field, sizeof(m.field), "%s", value);                                   \
		assert_refused(f, &m, error, text);                                                \
	} while (0)
	REFUSED(name, "a b", EINVAL, "0x20");
	REFUSED(name, "../x", EINVAL, "0x2f");
	REFUSED(device, "cuda:0", EOPNOTSUPP, "cuda:0");
	REFUSED(k_format, "f32,f16:2", EINVAL, "k_format \"f16:2\": layers are 0 to 1");
	REFUSED(v_format, "f32,f16", EINVAL, "v_format \"f16\": after the first word");
	REFUSED(k_format, "int3", EINVAL, "int3");
	REFUSED(v_format, "int3", EINVAL, "v_format");
	REFUSED(policy, "oracle", EOPNOTSUPP, "oracle");
	assert_non_null(strstr(why, "sparq"));
	/* No end inside the field: message_check refuses it, and nothing runs past it here. */
	m = fixture_request("w", "");
	memset(m.name, 'x', sizeof(m.name));
	assert_refused(f, &m, EINVAL, "64");
#undef REFUSED
}

static void refused_options(void **state)
{
	static const struct {
		const char *options, *text;
		int error;
	} wrong[] = {
		{ "sinks=17", "sinks=17: 0 to 16", EINVAL },
		{ "sinks=-1", "sinks=-1", EINVAL },
		{ "sinks=", "missing", EINVAL },
		{ "sinks=1x", "1x", EINVAL },
		{ "sinks=99999999999999999999999999", "0 to 16", EINVAL },
		{ "rollback=129", "0 to 128", EINVAL },
		{ "outliers=9", "outliers=9: 0 to 8", EINVAL },
		{ "on_disconnect=keep", "drop and park", EINVAL },
		{ "share=1", "share=1: off and on are allowed", EINVAL },
		{ "evict=fifo", "evict=fifo: none, lru and lfu are allowed", EINVAL },
		{ "sinks", "key=value", EINVAL },
		{ "=1", "key=value", EINVAL },
		{ "rr=3",
		  "unknown option \"rr\": cache options are sinks, rollback, outliers, "
		  "on_disconnect, evict, share, placement, audit, audit_max_error; "
		  "policy \"sparq\" takes r, k, l",
		  EINVAL },
		{ "r=0", "r", EINVAL },
		{ "r=4096", "r", EINVAL },
		{ "audit=0", "audit=0: off, or a number from 1 to 65534", EINVAL },
		{ "audit=65535", "a number from 1 to 65534", EINVAL },
		{ "audit=-1", "audit=-1", EINVAL },
		{ "audit=1.5", "audit=1.5", EINVAL },
		{ "audit=", "audit=:", EINVAL },
		{ "audit_max_error=", "audit_max_error=: 0 (no bound), or 0.0001 to 6.5", EINVAL },
		{ "audit_max_error=6.51", "0.0001 to 6.5", EINVAL },
		{ "audit_max_error=0.00001", "0.0001 to 6.5", EINVAL },
		{ "audit_max_error=-1", "audit_max_error=-1", EINVAL },
		{ "audit_max_error=1e-2", "audit_max_error=1e-2", EINVAL },
		{ "audit_max_error=nan", "audit_max_error=nan", EINVAL },
		{ "audit_max_error=1.2.3", "audit_max_error=1.2.3", EINVAL },
		{ "softcap=30", "softcap", EOPNOTSUPP },
		{ "window=4096", "window", EOPNOTSUPP },
	};
	struct store_fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct sparq_msg_cache_create m = fixture_request("o", wrong[i].options);

		snprintf(m.policy, sizeof(m.policy), "sparq");
		assert_refused(f, &m, wrong[i].error, wrong[i].text);
	}
}

static void refused_by_quota(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c[4];
	struct sparq_msg_cache_create m = fixture_request("", "");

	for (unsigned i = 0; i < 4; i++)
		c[i] = make(f, "", "");
	assert_refused(f, &m, EDQUOT, "limit of 4");
	for (unsigned i = 0; i < 4; i++)
		cache_unref(c[i]);
}

/* ---- attaching ------------------------------------------------------------------------ */

static void attached(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make(f, "a", "rollback=7"), *again = make(f, "a", "rollback=7"), *other;
	struct sparq_msg_cache_create m = fixture_request("a", "rollback=7");

	assert_ptr_equal(c, again);
	assert_int_equal(c->n_sessions, 2);
	assert_int_equal(f->user->charged[USER_CACHES], 1);
	/* A name is its user's: a stranger's is another cache. */
	assert_int_equal(cache_create(&f->store, f->stranger, &m, &other, why), 0);
	assert_ptr_not_equal(other, c);
	cache_unref(other);
	/* And no name is no name. */
	other = make(f, "", "");
	again = make(f, "", "");
	assert_ptr_not_equal(other, again);
	cache_unref(other);
	cache_unref(again);
	cache_unref(c);
	assert_ptr_equal(f->store.caches, c);
	cache_unref(c);
}

static void differing(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c;
	struct sparq_msg_cache_create m = fixture_request("a", "r=16");

#define DIFFERS(change, text)                                                                      \
	do {                                                                                       \
		m = fixture_request("a", "r=16");                                                  \
		snprintf(m.policy, sizeof(m.policy), "sparq");                                     \
		change;                                                                            \
		assert_refused(f, &m, EEXIST, text);                                               \
	} while (0)
	snprintf(m.policy, sizeof(m.policy), "sparq");
	assert_int_equal(cache_create(&f->store, f->user, &m, &c, why), 0);
	DIFFERS(m.layers = 3, "cache \"a\" exists with layers 2, not 3");
	DIFFERS(m.heads = 8, "heads 4, not 8");
	DIFFERS(m.dtype = 1, "dtype f32, not f16");
	DIFFERS(m.budget_bytes = 1 << 20, "budget_bytes 0, not 1048576");
	DIFFERS(m.timeout_us = 9, "timeout_us 0, not 9");
	DIFFERS(strcpy(m.model, "x"), "model , not x");
	DIFFERS(strcpy(m.v_format, "f16"), "v_format f32, not f16");
	DIFFERS(strcpy(m.k_format, "f32,f16:1"), "k_format f32, not f32,f16:1");
	DIFFERS(strcpy(m.policy, "dense"); m.options[0] = 0, "policy sparq, not dense");
	DIFFERS(strcpy(m.options, "r=17"), "r 16, not 17");
	DIFFERS(strcpy(m.options, "r=16 sinks=0"), "sinks 16, not 0");
	DIFFERS(strcpy(m.options, "r=16 outliers=1"), "outliers 0, not 1");
	DIFFERS(strcpy(m.options, "r=16 audit_max_error=0.25"), "audit_max_error 0, not 0.25");
	DIFFERS(strcpy(m.options, "r=16 audit=7"), "audit as the daemon says, not 7");
	DIFFERS(strcpy(m.options, "r=16 audit=off"), "audit as the daemon says, not off");
	DIFFERS(strcpy(m.options, "r=16 on_disconnect=park"), "on_disconnect drop, not park");
	DIFFERS(strcpy(m.options, "r=16 evict=lfu"), "evict none, not lfu");
	DIFFERS(strcpy(m.options, "r=16 share=off"), "share on, not off");
#undef DIFFERS
	assert_int_equal(c->n_sessions, 1);
	cache_unref(c);
}

/* Formats by layer: one space for each pair, and rows that cost what each layer's pair does. */
static void formats_by_layer(void **state)
{
	static const char *const pairs[5][2] = { { "f16", "f32" },
						 { "f16", "int4" },
						 { "int8", "int4" },
						 { "f32", "f32" },
						 { "f32", "f32" } };
	struct store_fixture *f = *state;
	struct sparq_msg_cache_create m = fixture_request("mixed", "");
	struct sparq_msg_cache_stat stat, of_one;
	struct cache *c, *one, *again = NULL;
	uint64_t sum = 0;

	m.layers = 5;
	strcpy(m.k_format, "f32,f16:0-1,int8:2");
	strcpy(m.v_format, "f32,int4:1-2");
	if (cache_create(&f->store, f->user, &m, &c, why) < 0)
		fail_msg("%s", why);
	assert_int_equal(c->spaces.n, 4);
	assert_string_equal(c->record->k_format, m.k_format);
	assert_ptr_equal(cache_layer(c, 3), cache_layer(c, 4));
	for (uint32_t i = 0; i < m.layers; i++) {
		struct sparq_msg_cache_create single = fixture_request("", "");

		single.layers = 1;
		strcpy(single.k_format, pairs[i][0]);
		strcpy(single.v_format, pairs[i][1]);
		assert_int_equal(cache_create(&f->store, f->user, &single, &one, why), 0);
		cache_stat(one, &of_one);
		assert_ptr_equal(cache_layer(c, i)->k, cache_layer(one, 0)->k);
		assert_ptr_equal(cache_layer(c, i)->v, cache_layer(one, 0)->v);
		assert_ptr_equal(cache_layer(c, i)->args, c->args);
		sum += of_one.row_bytes;
		cache_unref(one);
	}
	cache_stat(c, &stat);
	assert_int_equal(stat.row_bytes, sum);
	/* The same in other words is the same cache. */
	strcpy(m.k_format, "f32,int8:2,f16:1,f16:0");
	assert_int_equal(cache_create(&f->store, f->user, &m, &again, why), 0);
	assert_ptr_equal(again, c);
	cache_unref(again);
	cache_unref(c);
}

/* Every layer another pair: refused before there are more spaces than a cache has room for. */
static void too_many_pairs(void **state)
{
	struct store_fixture *f = *state;
	struct sparq_msg_cache_create m = fixture_request("", "");
	struct cache *c;

	m.layers = 25;
	strcpy(m.k_format, "f32,f16:5-9,bf16:10-14,int8:15-19");
	strcpy(m.v_format, "f32,f16:1,f16:6,f16:11,f16:16,bf16:2,bf16:7,bf16:12,bf16:17,"
			   "int8:3,int8:8,int8:13,int8:18");
	assert_int_equal(cache_create(&f->store, f->user, &m, &c, why), 0);
	assert_int_equal(c->spaces.n, 16);
	cache_unref(c);
	strcat(m.v_format, ",int4:4");
	c = NULL;
	assert_refused(f, &m, EINVAL, "more than 16 pairs of formats");
}

static void set_parameter(void **state)
{
	struct store_fixture *f = *state;
	struct sparq_msg_cache_create m = fixture_request("a", "");
	struct seq *s;
	struct cache *c;
	char value[32];

	snprintf(m.policy, sizeof(m.policy), "sparq");
	assert_int_equal(cache_create(&f->store, f->user, &m, &c, why), 0);
	assert_int_equal(cache_set(c, "k", "256", why), 0);
	kv_policy_get(cache_shape(c)->policy, c->args, "k", value, sizeof(value));
	assert_string_equal(value, "256");
	/* Defaults that follow from others follow from the new ones. */
	kv_policy_get(cache_shape(c)->policy, c->args, "l", value, sizeof(value));
	assert_string_equal(value, "64");
	assert_int_equal(c->record->state, RECORD_LIVE);
	assert_int_equal(cache_set(c, "r", "65", why), -EINVAL); /* more than k_dim */
	assert_int_equal(cache_set(c, "k", "x", why), -EINVAL);
	assert_int_equal(cache_set(c, "sinks", "4", why), -EINVAL);
	assert_non_null(strstr(why, "sinks"));
	assert_int_equal(seq_create(c, "", FIXTURE_SESSION, &s, why), 0);
	assert_int_equal(cache_set(c, "k", "128", why), -EBUSY);
	assert_int_equal(seq_drop(s, why), 0);
	assert_int_equal(cache_set(c, "k", "128", why), 0);
	cache_unref(c);
}

/* ---- charging --------------------------------------------------------------------------- */

static void charging(void **state)
{
	struct store_fixture *f = *state;
	struct sparq_msg_cache_create m = fixture_request("a", "");
	uint64_t limit[USER_WHATS];
	struct cache *c;

	m.budget_bytes = 1000;
	assert_int_equal(cache_create(&f->store, f->user, &m, &c, why), 0);
	assert_int_equal(cache_charge(c, 1001), -ENOSPC);
	assert_int_equal(cache_charge(c, 900), 0);
	assert_int_equal(cache_charge(c, UINT64_MAX), -ENOSPC);
	assert_int_equal(c->charged_bytes, 900);
	/* The user's quota is asked second, and what it refuses is not left on the budget. */
	memcpy(limit, f->users.limit, sizeof(limit));
	limit[USER_BYTES] = 950;
	users_limit(&f->users, limit);
	assert_int_equal(cache_charge(c, 60), -EDQUOT);
	assert_int_equal(c->charged_bytes, 900);
	assert_int_equal(cache_charge(c, 50), 0);
	cache_refund(c, 950);
	assert_int_equal(c->charged_bytes, 0);
	cache_unref(c);
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(created),       ONE(presets),          ONE(refused_numbers),
		ONE(refused_words), ONE(refused_options),  ONE(refused_by_quota),
		ONE(attached),      ONE(differing),        ONE(set_parameter),
		ONE(charging),      ONE(formats_by_layer), ONE(too_many_pairs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
