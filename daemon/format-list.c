/* SPDX-License-Identifier: Apache-2.0 */
/* Formats by layer, from text: see format-list.h. */
#include "daemon/format-list.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/name.h"
#include "kernels/kernels.h"
#include "shm/base.h"

#define UNNAMED UINT8_MAX

/* One word of the list: what it begins with, and how long it is. */
struct word {
	const char *what;
	const char *text;
	size_t n;
};

/* A piece of the client's text as it goes into a message. */
static int shown(size_t n)
{
	return (int)MIN(n, (size_t)40);
}

static int fail_format(struct word w, char *why)
{
	size_t at;

	snprintf(why, KV_ERROR_TEXT, "%s \"%.*s\": formats are ", w.what, shown(w.n), w.text);
	for (unsigned i = 0; kv_format_at(i); i++) {
		at = strlen(why);
		snprintf(why + at, KV_ERROR_TEXT - at, "%s%s", i ? ", " : "", kv_format_at(i));
	}
	return -EINVAL;
}

static int find_format(struct word w, size_t n, uint8_t *ret, char *why)
{
	for (unsigned i = 0; kv_format_at(i); i++) {
		if (strlen(kv_format_at(i)) != n || memcmp(kv_format_at(i), w.text, n) != 0)
			continue;
		assert(i < UNNAMED);
		*ret = (uint8_t)i;
		return 0;
	}
	return fail_format(w, why);
}

/* Digits up to `end`; a number of any length that is no layer is `layers`. */
static const char *read_layer(const char *at, const char *end, uint32_t layers, uint32_t *ret)
{
	uint32_t n = 0;

	for (; at < end && *at >= '0' && *at <= '9'; at++)
		n = MIN(n * 10 + (uint32_t)(*at - '0'), layers);
	*ret = n;
	return at;
}

/* "LAYER" or "FIRST-LAST" from `at` to the word's end. */
static int read_range(struct word w, const char *at, uint32_t layers, uint32_t *ret_first,
		      uint32_t *ret_last, char *why)
{
	const char *end = w.text + w.n, *after = read_layer(at, end, layers, ret_first);
	bool numbers = after > at;

	*ret_last = *ret_first;
	if (numbers && after < end && *after == '-') {
		at = after + 1;
		after = read_layer(at, end, layers, ret_last);
		numbers = after > at;
	}
	if (!numbers || after != end)
		return why_fail(why, EINVAL,
				"%s \"%.*s\": FORMAT:LAYER or FORMAT:FIRST-LAST is expected",
				w.what, shown(w.n), w.text);
	if (*ret_first >= layers || *ret_last >= layers)
		return why_fail(why, EINVAL, "%s \"%.*s\": layers are 0 to %u", w.what, shown(w.n),
				w.text, layers - 1);
	if (*ret_first > *ret_last)
		return why_fail(why, EINVAL, "%s \"%.*s\": the first layer is above the last",
				w.what, shown(w.n), w.text);
	return 0;
}

static int read_default(struct word w, uint8_t *ret, char *why)
{
	if (memchr(w.text, ':', w.n))
		return why_fail(why, EINVAL,
				"%s \"%.*s\": the first word is the format of all other layers, "
				"without numbers",
				w.what, shown(w.n), w.text);
	return find_format(w, w.n, ret, why);
}

static int read_word(struct word w, uint32_t layers, struct format_list *list, char *why)
{
	const char *colon = memchr(w.text, ':', w.n);
	uint32_t first = 0, last = 0;
	uint8_t format;
	int r;

	if (!colon)
		return why_fail(why, EINVAL,
				"%s \"%.*s\": after the first word, FORMAT:LAYER or "
				"FORMAT:FIRST-LAST is expected",
				w.what, shown(w.n), w.text);
	r = find_format(w, (size_t)(colon - w.text), &format, why);
	if (r == 0)
		r = read_range(w, colon + 1, layers, &first, &last, why);
	if (r < 0)
		return r;
	for (uint32_t i = first; i <= last; i++) {
		if (list->of_layer[i] != UNNAMED)
			return why_fail(why, EINVAL, "%s \"%.*s\": layer %u is named before",
					w.what, shown(w.n), w.text, i);
		list->of_layer[i] = format;
	}
	return 0;
}

int format_list_parse(const char *what, const char *text, uint32_t layers, struct format_list *ret,
		      char *why)
{
	struct word w = { what, text, strcspn(text, ",") };
	struct format_list list = { { 0 } };
	uint8_t rest;
	int r;

	assert(layers > 0 && layers <= MAX_LAYERS);
	r = read_default(w, &rest, why);
	memset(list.of_layer, UNNAMED, layers);
	while (r == 0 && w.text[w.n]) {
		w.text += w.n + 1;
		w.n = strcspn(w.text, ",");
		r = read_word(w, layers, &list, why);
	}
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < layers; i++)
		if (list.of_layer[i] == UNNAMED)
			list.of_layer[i] = rest;
	*ret = list;
	return 0;
}

bool format_list_equal(const char *a, const char *b, uint32_t layers)
{
	struct format_list of_a, of_b;
	char why[KV_ERROR_TEXT];

	return format_list_parse("", a, layers, &of_a, why) == 0 &&
	       format_list_parse("", b, layers, &of_b, why) == 0 &&
	       memcmp(&of_a, &of_b, sizeof(of_a)) == 0;
}
