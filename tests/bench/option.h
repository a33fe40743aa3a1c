/* SPDX-License-Identifier: Apache-2.0 */
/* Options of a command: one table says their names, values and help. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_LIST 16

struct bench_words {
	const char *word[BENCH_LIST];
	unsigned n;
};
struct bench_numbers {
	uint32_t value[BENCH_LIST];
	unsigned n;
};

enum bench_kind {
	BENCH_SWITCH,  /* bool */
	BENCH_TEXT,    /* const char * */
	BENCH_WORDS,   /* struct bench_words: cut at commas */
	BENCH_NUMBER,  /* uint32_t, within least and most */
	BENCH_NUMBERS, /* struct bench_numbers */
	BENCH_SECONDS, /* double, above 0 */
};

struct bench_option {
	const char *name;
	enum bench_kind kind;
	size_t at; /* of the field, in the command's struct */
	uint32_t least, most;
	const char *value, *help; /* as --help shows them */
};

/* Fills `into`; words point into argv. 0; 1: --help was answered; 2: said on stderr what is wrong
 * and what is allowed. */
int bench_options(const struct bench_option *table, size_t n, const char *summary, void *into,
		  int argc, char **argv);
