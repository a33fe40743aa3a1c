/* SPDX-License-Identifier: Apache-2.0 */
/* What SparQ costs for several r and k, beside dense and a window of the same k. */
#pragma once

#include <stdio.h>

#include "client/examples/options.h"

int grid_run(const struct llama *m, const struct options *o, const struct score_job *job, FILE *to,
	     char *why);
