/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies by name, and their parameters as text.
 *
 * A number whose preset lies outside its range is "auto": settle() or plan()
 * derives it, and it reads and prints as that word.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/policy.h"
#include "shm/base.h"

/* policies.def is generated from the list in meson.build. */
#define KV_POLICY(name) extern const struct kv_policy kv_policy_##name;
#include "kernels/policies.def"
#undef KV_POLICY

static const struct kv_policy *const policies[] = {
#define KV_POLICY(name) &kv_policy_##name,
#include "kernels/policies.def"
#undef KV_POLICY
};

const struct kv_policy *kv_policy_at(unsigned i, bool offered)
{
	for (unsigned p = 0; p < ARRAY_SIZE(policies); p++) {
		if (offered && !(policies[p]->flags & KV_POLICY_OFFERED))
			continue;
		if (i-- == 0)
			return policies[p];
	}
	return NULL;
}

const struct kv_policy *kv_policy_find(const char *name)
{
	const struct kv_policy *p;

	for (unsigned i = 0; (p = kv_policy_at(i, true)); i++)
		if (!strcmp(p->name, name))
			return p;
	return NULL;
}

/* ---- parameters ------------------------------------------------------------ */

static uint32_t *field(void *args, const struct kv_param *param)
{
	return (uint32_t *)((char *)args + param->at);
}

static bool has_auto(const struct kv_param *param)
{
	return param->type == KV_PARAM_U32 &&
	       (param->preset < param->least || param->preset > param->most);
}

void kv_policy_defaults(const struct kv_policy *p, void *args)
{
	memset(args, 0, p->args_bytes);
	for (unsigned i = 0; i < p->n_params; i++)
		*field(args, &p->params[i]) = p->params[i].preset;
}

static const struct kv_param *find_param(const struct kv_policy *p, const char *key)
{
	for (unsigned i = 0; i < p->n_params; i++)
		if (!strcmp(p->params[i].name, key))
			return &p->params[i];
	return NULL;
}

/* Appends to a text of KV_ERROR_TEXT bytes; what does not fit is cut. */
PRINTF_LIKE(2, 3) static void add(char *why, const char *format, ...)
{
	size_t used = strlen(why);
	va_list args;

	va_start(args, format);
	vsnprintf(why + used, KV_ERROR_TEXT - used, format, args);
	va_end(args);
}

static int refuse_key(const struct kv_policy *p, const char *key, char *why)
{
	why[0] = '\0';
	add(why, "%s has no parameter \"%.40s\"", p->name, key);
	if (!p->n_params)
		add(why, ": it has none");
	for (unsigned i = 0; i < p->n_params; i++)
		add(why, "%s%s", i ? ", " : "; allowed: ", p->params[i].name);
	return -ENOENT;
}

static int refuse_value(const struct kv_param *param, const char *value, char *why)
{
	why[0] = '\0';
	add(why, "%s=%.40s: allowed ", param->name, value);
	if (param->type == KV_PARAM_BOOL)
		add(why, "are yes, no");
	else if (param->type == KV_PARAM_U32)
		add(why, "is a number from %u to %u%s", param->least, param->most,
		    has_auto(param) ? ", or auto" : "");
	else
		for (unsigned i = 0; param->words[i]; i++)
			add(why, "%s%s", i ? ", " : "are ", param->words[i]);
	return -EINVAL;
}

/* Decimal digits only: strtoul takes blanks, signs and octal. */
static bool parse_number(const char *text, uint32_t *ret)
{
	uint64_t n = 0;

	if (!*text || strlen(text) > 10)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		n = n * 10 + (uint64_t)(*text - '0');
	}
	*ret = (uint32_t)n;
	return n <= UINT32_MAX;
}

static bool parse_u32(const struct kv_param *param, const char *text, uint32_t *ret)
{
	uint32_t n;

	if (has_auto(param) && !strcmp(text, "auto")) {
		*ret = param->preset;
		return true;
	}
	if (!parse_number(text, &n) || n < param->least || n > param->most)
		return false;
	*ret = n;
	return true;
}

static bool parse_word(const char *const words[], const char *text, uint32_t *ret)
{
	for (uint32_t i = 0; words[i]; i++)
		if (!strcmp(words[i], text)) {
			*ret = i;
			return true;
		}
	return false;
}

static bool parse_value(const struct kv_param *param, const char *text, uint32_t *ret)
{
	static const char *const spellings[] = { "no", "yes", "false", "true", "0", "1", NULL };

	switch (param->type) {
	case KV_PARAM_U32:
		return parse_u32(param, text, ret);
	case KV_PARAM_WORD:
		return parse_word(param->words, text, ret);
	case KV_PARAM_BOOL:
		if (!parse_word(spellings, text, ret))
			return false;
		*ret &= 1;
		return true;
	}
	return false;
}

int kv_policy_set(const struct kv_policy *p, void *args, const char *key, const char *value,
		  char *why)
{
	const struct kv_param *param = find_param(p, key);
	uint32_t parsed;

	if (!param)
		return refuse_key(p, key, why);
	if (!parse_value(param, value, &parsed))
		return refuse_value(param, value, why);
	*field(args, param) = parsed;
	return 0;
}

int kv_policy_get(const struct kv_policy *p, const void *args, const char *key, char *ret, size_t n)
{
	const struct kv_param *param = find_param(p, key);
	uint32_t value;

	if (!param)
		return -ENOENT;
	memcpy(&value, (const char *)args + param->at, sizeof(value));
	if (param->type == KV_PARAM_WORD)
		return snprintf(ret, n, "%s", param->words[value]);
	if (param->type == KV_PARAM_BOOL)
		return snprintf(ret, n, "%s", value ? "yes" : "no");
	if (has_auto(param) && value == param->preset)
		return snprintf(ret, n, "auto");
	return snprintf(ret, n, "%u", value);
}
