/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A text that grows. It remembers that memory ran out instead of saying so at each word; numbers
 * are written without printf, for there may be tens of thousands.
 */
#include <errno.h>

#include "client/metrics-private.h"
#include "shm/base.h"

#define TEXT_FIRST (64 * KIB)

void metrics_text_deinit(struct metrics_text *t)
{
	free(t->data);
	*t = (struct metrics_text)METRICS_TEXT_NULL;
}

static bool text_reserve(struct metrics_text *t, size_t n)
{
	size_t wanted = MAX(t->allocated, TEXT_FIRST);
	char *data;

	if (likely(t->allocated - t->n >= n))
		return true;
	while (wanted - t->n < n)
		wanted *= 2;
	data = t->failed ? NULL : realloc(t->data, wanted);
	if (!data) {
		t->failed = true;
		return false;
	}
	t->data = data;
	t->allocated = wanted;
	return true;
}

void text_put(struct metrics_text *t, const char *bytes, size_t n)
{
	if (!text_reserve(t, n))
		return;
	memcpy(t->data + t->n, bytes, n);
	t->n += n;
}

/* Its digits, at the end of `ret`; where they begin. */
static size_t digits_of(uint64_t value, char ret[20])
{
	size_t at = 20;

	do {
		ret[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	return at;
}

void text_number(struct metrics_text *t, uint64_t value)
{
	char digits[20];
	size_t at = digits_of(value, digits);

	text_put(t, digits + at, sizeof(digits) - at);
}

void text_sample(struct metrics_text *t, const char *name, size_t name_bytes, const char *labels,
		 size_t labels_bytes, uint64_t value)
{
	char digits[20], *to;
	size_t at = digits_of(value, digits), n = name_bytes + labels_bytes + sizeof(digits) - at;

	if (!text_reserve(t, n + 1))
		return;
	to = t->data + t->n;
	memcpy(to, name, name_bytes);
	memcpy(to + name_bytes, labels, labels_bytes);
	memcpy(to + name_bytes + labels_bytes, digits + at, sizeof(digits) - at);
	to[n] = '\n';
	t->n += n + 1;
}

void text_nano(struct metrics_text *t, uint64_t value)
{
	uint64_t rest = value % 1000000000;
	char digits[10] = ".000000000";
	size_t n = sizeof(digits);

	text_number(t, value / 1000000000);
	if (!rest)
		return;
	for (size_t i = n - 1; i > 0; i--, rest /= 10)
		digits[i] = (char)('0' + rest % 10);
	while (digits[n - 1] == '0')
		n--;
	text_put(t, digits, n);
}

/* Of the beginning that stands for itself. */
static size_t plain_length(const char *text, size_t n)
{
	size_t i = 0;

	while (i < n && text[i] >= ' ' && text[i] <= '~' && text[i] != '\\' && text[i] != '"')
		i++;
	return i;
}

static void put_odd(struct metrics_text *t, char c)
{
	if (c == '\\' || c == '"')
		text_put(t, "\\", 1);
	/* Both formats are UTF-8; what is not ASCII came from no name of ours. */
	text_put(t, c < ' ' || c > '~' ? "?" : &c, 1);
}

void text_quoted(struct metrics_text *t, const char *text, size_t n)
{
	text_put(t, "\"", 1);
	for (size_t i = 0; i < n && text[i];) {
		size_t plain = plain_length(text + i, n - i);

		text_put(t, text + i, plain);
		i += plain;
		if (i < n && text[i])
			put_odd(t, text[i++]);
	}
	text_put(t, "\"", 1);
}

void sample_begin(struct render *r, const char *suffix, const struct label *labels, unsigned n)
{
	struct metrics_text *t = r->text;

	text_string(t, r->metric->name);
	text_string(t, suffix);
	for (unsigned i = 0; i < n; i++) {
		text_put(t, i ? "," : "{", 1);
		text_string(t, labels[i].name);
		text_put(t, "=", 1);
		text_quoted(t, labels[i].value, SIZE_MAX);
	}
	text_string(t, n ? "} " : " ");
}

void sample_number(struct render *r, uint64_t value)
{
	text_number(r->text, value);
	text_put(r->text, "\n", 1);
}
