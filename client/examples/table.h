/* SPDX-License-Identifier: Apache-2.0 */
/* What sparq-generate prints at the end: a table, or JSON. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "client/examples/check.h"
#include "client/examples/sample.h"
#include "client/examples/score.h"

struct row {
	struct setting setting;
	bool scored, sampled;
	struct score score;
	struct sample sample;
};

void table_print(FILE *f, const struct row *rows, unsigned n, const struct text *texts,
		 unsigned n_texts);
void table_print_check(FILE *f, const struct check *c);
/* `check` may be NULL. */
void table_print_json(FILE *f, const struct check *check, const struct row *rows, unsigned n,
		      const struct text *texts, unsigned n_texts);
