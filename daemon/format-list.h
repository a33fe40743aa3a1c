/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The formats of a cache's layers, as a client names them:
 *
 *   FORMAT[,FORMAT:LAYER | ,FORMAT:FIRST-LAST]...
 *
 * The first word is of all layers that no later word names; no layer is named
 * twice, so that the order of the others does not matter. A text is what the
 * catalogue keeps: names mean the same in a later build, numbers would not.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/record.h"

struct format_list {
	uint8_t of_layer[MAX_LAYERS]; /* kv_format_at(); 0 beyond the layers */
};

/* `what` names the list in messages. 0 < layers <= MAX_LAYERS. -EINVAL with `why` (KV_ERROR_TEXT
 * bytes) naming the word that is wrong and what is allowed. */
int format_list_parse(const char *what, const char *text, uint32_t layers, struct format_list *ret,
		      char *why);
/* Two texts that were parsed before say the same of each layer. */
bool format_list_equal(const char *a, const char *b, uint32_t layers);
