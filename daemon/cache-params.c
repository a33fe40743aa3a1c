/* SPDX-License-Identifier: Apache-2.0 */
/* What a cache is asked to be, checked: see cache-params.h. */
#include "daemon/cache-params.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cache.h"
#include "daemon/format-list.h"
#include "daemon/name.h"
#include "daemon/record.h"
#include "shm/base.h"

_Static_assert(KV_F32 == SPARQ_DTYPE_F32 && KV_F16 == SPARQ_DTYPE_F16 &&
		       KV_BF16 == SPARQ_DTYPE_BF16,
	       "dtypes");
_Static_assert(KV_ERROR_TEXT == SPARQ_ERROR_TEXT, "error text");

static const char *const dtype_names[] = { "f32", "f16", "bf16" };
static const char *const on_disconnect_names[] = {
	[ON_DISCONNECT_DROP] = "drop",
	[ON_DISCONNECT_PARK] = "park",
};

const char *const evict_names[3] = {
	[EVICT_NONE] = "none",
	[EVICT_LRU] = "lru",
	[EVICT_LFU] = "lfu",
};

static const char *const share_names[] = { "off", "on" };

/* Parts of the design that this build does not have: ignored, they would change results. */
static const char *const unsupported[] = {
	"window", "softcap", "alibi", "sink_logits", "v_in_k", "volatile",
};

#define AUDIT_BOUND_MOST 6.5

/* ---- options ------------------------------------------------------------------- */

static int parse_number(const char *key, const char *value, uint32_t most, uint32_t *ret, char *why)
{
	uint64_t n = 0;

	for (const char *c = value; *c; c++) {
		n = n * 10 + (uint64_t)(*c - '0');
		if (*c < '0' || *c > '9' || n > most)
			return why_fail(why, EINVAL, "%s=%.40s: 0 to %u are allowed", key, value,
					most);
	}
	if (!*value)
		return why_fail(why, EINVAL, "%s=: a number from 0 to %u is missing", key, most);
	*ret = (uint32_t)n;
	return 0;
}

/* "0.05", in the steps that a record counts. */
static int parse_bound(const char *key, const char *value, uint16_t *ret, char *why)
{
	char *end = NULL;
	double bound = strtod(value, &end), steps = round(bound * AUDIT_BOUND_STEPS);

	if (!*value || *end || value[strspn(value, "0123456789.")] ||
	    steps > AUDIT_BOUND_MOST * AUDIT_BOUND_STEPS || (bound > 0 && steps < 1))
		return why_fail(why, EINVAL, "%s=%.40s: 0 (no bound), or 0.0001 to %g, is allowed",
				key, value, AUDIT_BOUND_MOST);
	*ret = (uint16_t)steps;
	return 0;
}

/* "off", or one step in so many. */
static int parse_audit(const char *key, const char *value, uint16_t *ret, char *why)
{
	char *end = NULL;
	unsigned long n = strtoul(value, &end, 10);

	if (!strcmp(value, "off")) {
		*ret = AUDIT_OFF;
		return 0;
	}
	if (!*value || *end || value[strspn(value, "0123456789")] || n < 1 || n >= AUDIT_OFF)
		return why_fail(why, EINVAL, "%s=%.40s: off, or a number from 1 to %u, is allowed",
				key, value, AUDIT_OFF - 1);
	*ret = (uint16_t)n;
	return 0;
}

static const char *audit_text(uint16_t audit, char ret[24])
{
	snprintf(ret, 24, audit == AUDIT_OFF ? "off" : audit ? "%u" : "as the daemon says", audit);
	return ret;
}

/* Which of the words of a table; the message lists them: "a, b and c". */
static int parse_word(const char *key, const char *const *words, uint32_t n, const char *value,
		      char *why)
{
	char list[80] = "";

	for (uint32_t i = 0; i < n; i++) {
		size_t at = strlen(list);

		if (!strcmp(value, words[i]))
			return (int)i;
		snprintf(list + at, sizeof(list) - at, "%s%s",
			 i == 0      ? ""
			 : i + 1 < n ? ", "
				     : " and ",
			 words[i]);
	}
	return why_fail(why, EINVAL, "%s=%.40s: %s are allowed", key, value, list);
}

/* A list of names for a message: "a, b, c". */
static void append(char *list, size_t n, const char *word)
{
	size_t at = strlen(list);

	snprintf(list + at, n - at, "%s%s", at ? ", " : "", word);
}

static int fail_unknown(const struct kv_policy *policy, const char *key, char *why)
{
	char takes[160] = "";

	for (size_t i = 0; i < ARRAY_SIZE(unsupported); i++)
		if (!strcmp(key, unsupported[i]))
			return why_fail(why, EOPNOTSUPP,
					"option \"%s\" is not supported by this build", key);
	for (unsigned i = 0; i < policy->n_params; i++)
		append(takes, sizeof(takes), policy->params[i].name);
	return why_fail(why, EINVAL,
			"unknown option \"%.32s\": cache options are sinks, rollback, outliers, "
			"on_disconnect, evict, share, placement, audit, audit_max_error; policy "
			"\"%s\" takes %s",
			key, policy->name, *takes ? takes : "none");
}

int cache_params_set(struct cache_record *r, const char *key, const char *value, char *why)
{
	const struct kv_policy *policy = kv_policy_find(r->policy);
	int error;

	error = kv_policy_set(policy, r->args, key, value, why);
	return error == -ENOENT ? fail_unknown(policy, key, why) : error;
}

/* The field gets the word's number. */
#define PARSE_WORD(of)                                                                             \
	({                                                                                         \
		int word = parse_word(#of, of##_names, ARRAY_SIZE(of##_names), value, why);        \
		if (word >= 0)                                                                     \
			r->of = (typeof(r->of))word;                                               \
		MIN(word, 0);                                                                      \
	})

static int set_option(struct cache_record *r, const char *key, const char *value, char *why)
{
	if (!strcmp(key, "sinks"))
		return parse_number(key, value, KV_MAX_SINKS, &r->sinks, why);
	if (!strcmp(key, "rollback"))
		return parse_number(key, value, KV_MAX_ROLLBACK, &r->rollback, why);
	if (!strcmp(key, "outliers"))
		return parse_number(key, value, KV_MAX_OUTLIERS, &r->outliers, why);
	if (!strcmp(key, "on_disconnect"))
		return PARSE_WORD(on_disconnect);
	if (!strcmp(key, "evict"))
		return PARSE_WORD(evict);
	if (!strcmp(key, "share"))
		return PARSE_WORD(share);
	if (!strcmp(key, "placement"))
		return PARSE_WORD(placement);
	if (!strcmp(key, "audit"))
		return parse_audit(key, value, &r->audit, why);
	if (!strcmp(key, "audit_max_error"))
		return parse_bound(key, value, &r->audit_bound, why);
	return cache_params_set(r, key, value, why);
}

static int parse_options(struct cache_record *r, const char *options, char *why)
{
	char text[sizeof(((struct sparq_msg_cache_create *)0)->options)], *rest = text, *word;
	int error;

	snprintf(text, sizeof(text), "%s", options);
	while ((word = strsep(&rest, " ")) != NULL) {
		char *value = strchr(word, '=');

		if (!*word)
			continue;
		if (!value || value == word)
			return why_fail(why, EINVAL, "option \"%.64s\": \"key=value\" is expected",
					word);
		*value++ = '\0';
		error = set_option(r, word, value, why);
		if (error < 0)
			return error;
	}
	return 0;
}

/* ---- geometry -------------------------------------------------------------------- */

/* What kernels cannot know; kv_space_init checks the rest. */
static int check_layers(const struct sparq_msg_cache_create *m, char *why)
{
	if (m->rsv || m->rsv2)
		return why_fail(why, EINVAL, "a reserved field of the request is not 0");
	if (m->layers < 1 || m->layers > MAX_LAYERS)
		return why_fail(why, EINVAL, "layers %u: 1 to %u are allowed", m->layers,
				MAX_LAYERS);
	if (m->dtype >= ARRAY_SIZE(dtype_names))
		return why_fail(why, EINVAL, "dtype %u: 0 (f32), 1 (f16) and 2 (bf16) are allowed",
				m->dtype);
	return 0;
}

static int check_policy(const char *name, char *why)
{
	char known[160] = "";

	if (kv_policy_find(name))
		return 0;
	for (unsigned i = 0; kv_policy_at(i, true); i++)
		append(known, sizeof(known), kv_policy_at(i, true)->name);
	return why_fail(why, EOPNOTSUPP, "policy \"%.32s\": this build has %s", name, known);
}

static int check_words(const struct cache_record *r, char *why)
{
	struct format_list formats;
	int error;

	error = format_list_parse("k_format", r->k_format, r->layers, &formats, why);
	if (error == 0)
		error = format_list_parse("v_format", r->v_format, r->layers, &formats, why);
	return error ? error : check_policy(r->policy, why);
}

static void copy_words(const struct sparq_msg_cache_create *m, struct cache_record *r)
{
	const char *k = *m->k_format ? m->k_format : "hier4";
	const char *v = *m->v_format ? m->v_format : k;

	snprintf(r->name, sizeof(r->name), "%s", m->name);
	snprintf(r->k_format, sizeof(r->k_format), "%s", k);
	snprintf(r->v_format, sizeof(r->v_format), "%s", v);
	snprintf(r->policy, sizeof(r->policy), "%s", *m->policy ? m->policy : "sparq");
	snprintf(r->device, sizeof(r->device), "%s", *m->device ? m->device : "cpu");
	snprintf(r->model, sizeof(r->model), "%s", m->model);
}

int cache_params_parse(const struct sparq_msg_cache_create *m, struct cache_record *ret, char *why)
{
	struct cache_record r = {
		.layers = m->layers,
		.heads = m->heads,
		.kv_heads = m->kv_heads,
		.k_dim = m->k_dim,
		.v_dim = m->v_dim,
		.dtype = m->dtype,
		.scale = m->scale,
		.sinks = KV_MAX_SINKS,
		.rollback = 16,
		.timeout_us = m->timeout_us,
		.on_disconnect = ON_DISCONNECT_DROP,
		.evict = EVICT_NONE,
		.placement = SPREAD_UNASKED,
		.share = 1,
		.budget_bytes = m->budget_bytes,
	};
	int error;

	error = *m->name ? name_check("cache", m->name, why) : 0;
	if (error == 0)
		error = check_layers(m, why);
	if (error < 0)
		return error;
	copy_words(m, &r);
	error = check_words(&r, why);
	if (error < 0)
		return error;
	kv_policy_defaults(kv_policy_find(r.policy), r.args);
	error = parse_options(&r, m->options, why);
	if (error < 0)
		return error;
	*ret = r;
	return 0;
}

/* ---- spaces ---------------------------------------------------------------------- */

/* The space of a pair of formats: one of before, or a new one. */
static int find_space(struct spaces *s, const struct kv_space_params *p, const uint8_t pair[2],
		      uint8_t known[MAX_SPACES][2], uint8_t *ret, char *why)
{
	int r;

	for (uint32_t i = 0; i < s->n; i++)
		if (memcmp(known[i], pair, 2) == 0) {
			*ret = (uint8_t)i;
			return 0;
		}
	if (s->n == MAX_SPACES)
		return why_fail(why, EINVAL,
				"k_format and v_format make more than %u pairs of formats",
				MAX_SPACES);
	r = kv_space_init(&s->space[s->n], p, why);
	if (r < 0)
		return r;
	memcpy(known[s->n], pair, 2);
	*ret = (uint8_t)s->n++;
	return 0;
}

static int find_spaces(const struct cache_record *r, struct kv_space_params *p, struct spaces *s,
		       char *why)
{
	uint8_t known[MAX_SPACES][2];
	struct format_list k, v;
	int error = format_list_parse("k_format", r->k_format, r->layers, &k, why);

	if (error == 0)
		error = format_list_parse("v_format", r->v_format, r->layers, &v, why);
	for (uint32_t i = 0; error == 0 && i < r->layers; i++) {
		const uint8_t pair[2] = { k.of_layer[i], v.of_layer[i] };

		p->k_format = kv_format_at(pair[0]);
		p->v_format = kv_format_at(pair[1]);
		error = find_space(s, p, pair, known, &s->of_layer[i], why);
	}
	return error;
}

int cache_params_settle(const struct cache_record *r, uint8_t ret_args[KV_POLICY_ARGS_BYTES],
			struct spaces *ret_spaces, char *why)
{
	const struct kv_policy *policy = kv_policy_find(r->policy);
	_Alignas(8) uint8_t args[KV_POLICY_ARGS_BYTES];
	struct kv_space_params p = {
		.heads = r->heads,
		.kv_heads = r->kv_heads,
		.k_dim = r->k_dim,
		.v_dim = r->v_dim,
		.dtype = (enum kv_dtype)r->dtype,
		.scale = r->scale,
		.policy = policy,
		.args = args,
		.sinks = r->sinks,
		.outliers = r->outliers,
	};
	struct spaces spaces = { 0 };
	int error;

	memcpy(args, r->args, sizeof(args));
	if (policy->settle && r->kv_heads)
		policy->settle(args, r->k_dim, r->heads / r->kv_heads);
	error = find_spaces(r, &p, &spaces, why);
	if (error < 0)
		return error;
	memcpy(ret_args, args, sizeof(args));
	for (uint32_t i = 0; i < spaces.n; i++)
		spaces.space[i].args = ret_args;
	*ret_spaces = spaces;
	return 0;
}

/* ---- comparison ------------------------------------------------------------------- */

static int differ(char *why, const struct cache_record *have, const char *what, const char *has,
		  const char *wanted)
{
	return why_fail(why, EEXIST, "cache \"%s\" exists with %s %.48s, not %.48s", have->name,
			what, has, wanted);
}

static int compare_numbers(const struct cache_record *a, const struct cache_record *b, char *why)
{
	const struct {
		const char *what;
		double a, b;
	} number[] = {
		{ "layers", a->layers, b->layers },
		{ "heads", a->heads, b->heads },
		{ "kv_heads", a->kv_heads, b->kv_heads },
		{ "k_dim", a->k_dim, b->k_dim },
		{ "v_dim", a->v_dim, b->v_dim },
		{ "scale", (double)a->scale, (double)b->scale },
		{ "budget_bytes", (double)a->budget_bytes, (double)b->budget_bytes },
		{ "timeout_us", a->timeout_us, b->timeout_us },
		{ "sinks", a->sinks, b->sinks },
		{ "rollback", a->rollback, b->rollback },
		{ "outliers", a->outliers, b->outliers },
		{ "audit_max_error", a->audit_bound / AUDIT_BOUND_STEPS,
		  b->audit_bound / AUDIT_BOUND_STEPS },
	};
	char has[32], wanted[32];

	for (size_t i = 0; i < ARRAY_SIZE(number); i++) {
		if (number[i].a == number[i].b)
			continue;
		snprintf(has, sizeof(has), "%.9g", number[i].a);
		snprintf(wanted, sizeof(wanted), "%.9g", number[i].b);
		return differ(why, a, number[i].what, has, wanted);
	}
	return 0;
}

/* By what they say of each layer. */
static int compare_formats(const struct cache_record *a, const struct cache_record *b, char *why)
{
	if (!format_list_equal(a->k_format, b->k_format, a->layers))
		return differ(why, a, "k_format", a->k_format, b->k_format);
	if (!format_list_equal(a->v_format, b->v_format, a->layers))
		return differ(why, a, "v_format", a->v_format, b->v_format);
	return 0;
}

static int compare_words(const struct cache_record *a, const struct cache_record *b, char *why)
{
	char has[24], wanted[24];
	const struct {
		const char *what, *a, *b;
	} word[] = {
		{ "dtype", dtype_names[a->dtype], dtype_names[b->dtype] },
		{ "device", a->device, b->device },
		{ "model", a->model, b->model },
		{ "on_disconnect", on_disconnect_names[a->on_disconnect],
		  on_disconnect_names[b->on_disconnect] },
		{ "evict", evict_names[a->evict], evict_names[b->evict] },
		{ "share", share_names[a->share], share_names[b->share] },
		/* Whoever does not ask is content with what it has. */
		{ "audit", audit_text(a->audit, has),
		  audit_text(b->audit ? b->audit : a->audit, wanted) },
		{ "placement", placement_names[a->placement],
		  placement_names[b->placement == SPREAD_UNASKED ? a->placement : b->placement] },
		{ "policy", a->policy, b->policy },
	};

	for (size_t i = 0; i < ARRAY_SIZE(word); i++)
		if (strcmp(word[i].a, word[i].b))
			return differ(why, a, word[i].what, word[i].a, word[i].b);
	return 0;
}

int cache_params_compare(const struct cache_record *have, const struct cache_record *want,
			 char *why)
{
	const struct kv_policy *policy = kv_policy_find(have->policy);
	char has[64], wanted[64];
	int error;

	error = compare_numbers(have, want, why);
	if (error == 0)
		error = compare_formats(have, want, why);
	if (error == 0)
		error = compare_words(have, want, why);
	for (unsigned i = 0; error == 0 && i < policy->n_params; i++) {
		const char *key = policy->params[i].name;

		kv_policy_get(policy, have->args, key, has, sizeof(has));
		kv_policy_get(policy, want->args, key, wanted, sizeof(wanted));
		if (strcmp(has, wanted))
			error = differ(why, have, key, has, wanted);
	}
	return error;
}
