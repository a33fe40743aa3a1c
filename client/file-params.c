/* SPDX-License-Identifier: Apache-2.0 */
/* What save and load have in common: see file.h. */
#include "client/file.h"

#define CARRIER_LEAST (16 * KIB)

int file_params(sparq *c, const struct sparq_file_params *given, uint32_t flags,
		struct sparq_file_params *ret)
{
	struct sparq_file_params p = { .size = sizeof(p) };
	int r = given ? struct_take(&p, sizeof(p), given) : 0;

	if (r < 0)
		return conn_fail(c, r, "the parameters are of a later release than this library");
	if (p.flags & ~flags)
		return conn_fail(c, -EINVAL, "flags=%#x: %#x are known here", p.flags, flags);
	*ret = p;
	return 0;
}

int file_progress(sparq *c, const struct sparq_file_params *p, const struct sequence_image *m,
		  uint64_t bytes)
{
	struct sparq_progress now = {
		.size = sizeof(now),
		.rows_total = m->rows_least,
		.bytes = bytes,
		.bytes_total = m->bytes,
	};

	if (!p->progress)
		return 0;
	/* Layer by layer, a row is nowhere whole until the end: its share of the bytes. */
	now.rows = (uint64_t)((double)m->rows_least * (double)bytes / (double)m->bytes);
	if (p->progress(p->arg, &now))
		return conn_fail(c, -ECANCELED, "given up after %llu of %llu bytes",
				 (unsigned long long)bytes, (unsigned long long)m->bytes);
	return 0;
}

int file_carrier(sparq *c, sparq_buf **ret)
{
	size_t n = SEQUENCE_PIECE_BYTES;
	int r;

	while ((r = sparq_buf_alloc(c, n, ret)) == -ENOMEM && n > CARRIER_LEAST)
		n /= 2;
	return r;
}

uint8_t *file_blocks(uint64_t bytes)
{
	bytes = ALIGN_UP(bytes, (uint64_t)SEQUENCE_BLOCK);
	return bytes > SIZE_MAX ? NULL : aligned_alloc(SEQUENCE_BLOCK, (size_t)bytes);
}
