/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formats by layer from a client's text: what each layer gets, and the sentence
 * for every way of writing it wrong. Caches are laid out by the answer, so a text
 * that is refused must say nothing and one that is taken must mean one thing.
 */
#include "daemon/format-list.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "shm/base.h"

static char why[KV_ERROR_TEXT];

static int parse(const char *text, uint32_t layers, struct format_list *ret)
{
	memset(why, 'w', sizeof(why));
	why[0] = '\0';
	return format_list_parse("k_format", text, layers, ret, why);
}

/* "hier4 f16 f16": of each layer. */
static void assert_list(const char *text, uint32_t layers, const char *expected)
{
	struct format_list list;
	char got[256] = "";

	if (parse(text, layers, &list) < 0)
		fail_msg("\"%s\": %s", text, why);
	for (uint32_t i = 0; i < layers; i++) {
		size_t at = strlen(got);

		snprintf(got + at, sizeof(got) - at, "%s%s", i ? " " : "",
			 kv_format_at(list.of_layer[i]));
	}
	assert_string_equal(got, expected);
	for (uint32_t i = layers; i < MAX_LAYERS; i++)
		assert_int_equal(list.of_layer[i], 0);
}

static void assert_refused(const char *text, uint32_t layers, const char *sentence)
{
	struct format_list list, untouched;

	memset(&list, 0x5a, sizeof(list));
	untouched = list;
	if (parse(text, layers, &list) != -EINVAL || !strstr(why, sentence))
		fail_msg("\"%s\": \"%s\" instead of \"%s\"", text, why, sentence);
	assert_non_null(memchr(why, '\0', sizeof(why)));
	assert_memory_equal(&list, &untouched, sizeof(list));
}

static void taken(void **state)
{
	assert_list("f16", 3, "f16 f16 f16");
	assert_list("hier4,f16:0-1", 4, "f16 f16 hier4 hier4");
	assert_list("hier4,f16:3", 4, "hier4 hier4 hier4 f16");
	assert_list("hier4,int4:3,f16:0,f32:1-2", 4, "f16 f32 f32 int4");
	assert_list("int8,bf16:002-0002", 4, "int8 int8 bf16 int8");
	assert_list("f32,f32:0", 1, "f32");
}

static void refused(void **state)
{
	static const struct {
		const char *text, *sentence;
	} wrong[] = {
		{ "", "k_format \"\": formats are f32, f16, bf16, int8, int4, hier4" },
		{ "f17", "k_format \"f17\": formats are f32" },
		{ "F16", "\"F16\": formats are" },
		{ " f16", "\" f16\": formats are" },
		{ "hier", "\"hier\": formats are" },
		{ "hier44", "\"hier44\": formats are" },
		{ ",f16:0", "\"\": formats are" },
		{ "f16:0-1", "\"f16:0-1\": the first word is the format of all other layers" },
		{ "f16:", "\"f16:\": the first word" },
		{ "hier4,", "\"\": after the first word, FORMAT:LAYER" },
		{ "hier4,f16", "\"f16\": after the first word, FORMAT:LAYER" },
		{ "hier4,,f16:0", "\"\": after the first word" },
		{ "hier4,f16:0,", "\"\": after the first word" },
		{ "hier4,f17:0", "k_format \"f17:0\": formats are f32" },
		{ "hier4,:0", "\":0\": formats are" },
		{ "hier4,f16:", "\"f16:\": FORMAT:LAYER or FORMAT:FIRST-LAST is expected" },
		{ "hier4,f16:-", "is expected" },
		{ "hier4,f16:-1", "is expected" },
		{ "hier4,f16:1-", "is expected" },
		{ "hier4,f16:0-1-2", "is expected" },
		{ "hier4,f16:0 ", "is expected" },
		{ "hier4,f16: 0", "is expected" },
		{ "hier4,f16:+0", "is expected" },
		{ "hier4,f16:0x1", "is expected" },
		{ "hier4,f16:one", "is expected" },
		{ "hier4,f16:0:1", "is expected" },
		{ "hier4,f16:0;f32:1", "is expected" },
		{ "hier4,f16:4", "\"f16:4\": layers are 0 to 3" },
		{ "hier4,f16:0-4", "\"f16:0-4\": layers are 0 to 3" },
		{ "hier4,f16:4294967296", "layers are 0 to 3" },
		{ "hier4,f16:0-18446744073709551616", "layers are 0 to 3" },
		{ "hier4,f16:99999999999999999999999999999999999999999999999999999",
		  "\"f16:999999999999999999999999999999999999\": layers are 0 to 3" },
		{ "hier4,f16:2-1", "\"f16:2-1\": the first layer is above the last" },
		{ "hier4,f16:0-1,f32:1", "\"f32:1\": layer 1 is named before" },
		{ "hier4,f16:3,f16:0-3", "\"f16:0-3\": layer 3 is named before" },
		{ "hier4,f16:2,hier4:2", "\"hier4:2\": layer 2 is named before" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_refused(wrong[i].text, 4, wrong[i].sentence);
}

/* A message bounds a list to 127 characters, but nothing here may count on that. */
static void long_texts(void **state)
{
	enum { RANGES = 5000, WORD = 16 };
	char *text = calloc(RANGES, WORD), *at = text + sprintf(text, "f32");
	struct format_list list;

	for (unsigned i = 0; i < MAX_LAYERS; i++)
		at += sprintf(at, ",%s:%u", i & 1 ? "f16" : "int4", i);
	assert_int_equal(parse(text, MAX_LAYERS, &list), 0);
	for (unsigned i = 0; i < MAX_LAYERS; i++)
		assert_string_equal(kv_format_at(list.of_layer[i]), i & 1 ? "f16" : "int4");
	for (unsigned i = 0; i < RANGES - 2 * MAX_LAYERS; i++)
		at += sprintf(at, ",f16:%u", i % MAX_LAYERS);
	assert_refused(text, MAX_LAYERS, "\"f16:0\": layer 0 is named before");
	memset(text, 'x', RANGES * WORD - 1);
	assert_refused(text, 1, "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\": formats are");
	memset(text, ',', RANGES * WORD - 1);
	assert_refused(text, 1, "\"\": formats are");
	free(text);
}

/* Pieces of the grammar in any order: either refused, or every layer has a format that exists. */
static void any_text(void **state)
{
	static const char *const piece[] = { "f32", "hier4", "f16", "int4", ":",  "-",  ",",
					     "0",   "1",     "7",   "12",   "3-", ":2", "x" };
	unsigned n_formats = 0, n_taken = 0;

	while (kv_format_at(n_formats))
		n_formats++;
	srandom(1);
	for (unsigned round = 0; round < 200000; round++) {
		struct format_list list;
		char text[64] = "";

		strcat(text, "f32");
		for (unsigned n = (unsigned)random() % 10; n; n--)
			strcat(text, piece[(unsigned)random() % ARRAY_SIZE(piece)]);
		if (parse(text, 8, &list) < 0) {
			assert_true(why[0] != '\0');
			continue;
		}
		n_taken++;
		for (unsigned i = 0; i < 8; i++)
			assert_true(list.of_layer[i] < n_formats);
	}
	assert_true(n_taken > 1000);
}

/* An attach with another spelling of the same finds the same cache. */
static void equal(void **state)
{
	assert_true(format_list_equal("hier4,f16:0-1", "hier4,f16:1,f16:0", 4));
	assert_true(format_list_equal("hier4,f16:0-1", "f16,hier4:2-3", 4));
	assert_true(format_list_equal("f16", "hier4,f16:0-3", 4));
	assert_false(format_list_equal("hier4,f16:0-1", "hier4,f16:0-2", 4));
	assert_false(format_list_equal("hier4,f16:0-1", "hier4", 4));
	assert_false(format_list_equal("hier4", "nonsense", 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(taken),    cmocka_unit_test(refused), cmocka_unit_test(long_texts),
		cmocka_unit_test(any_text), cmocka_unit_test(equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
