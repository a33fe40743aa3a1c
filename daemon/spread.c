/* SPDX-License-Identifier: Apache-2.0 */
/* Which rows lie on which node: see spread.h. */
#include "daemon/spread.h"

#include "daemon/seq.h"

unsigned seq_row_node(const struct seq *s, uint32_t head, uint32_t row)
{
	(void)head;
	(void)row;
	return s->node;
}
