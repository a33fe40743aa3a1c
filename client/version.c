/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lets programs and libraries of different age work together: the version,
 * and structs that begin with the size that the caller's compiler gave them.
 */
#include "client/private.h"

unsigned sparq_version(void)
{
	return SPARQ_VERSION_MAJOR << 16 | SPARQ_VERSION_MINOR << 8 | SPARQ_VERSION_PATCH;
}

#define STRUCT_BYTES_MAX 4096u /* a size above is a mistake, not a later release */

static uint32_t size_of(const void *given)
{
	uint32_t size;

	memcpy(&size, given, sizeof(size));
	return size;
}

int struct_take(void *ours, size_t n, const void *given)
{
	const uint8_t *bytes = given;
	uint32_t size = size_of(given);
	uint32_t own = n;

	if (size < sizeof(size))
		return -EINVAL;
	if (size > STRUCT_BYTES_MAX)
		return -E2BIG;
	for (size_t i = n; i < size; i++)
		if (bytes[i])
			return -E2BIG;
	memset(ours, 0, n);
	memcpy(ours, given, MIN(n, size));
	memcpy(ours, &own, sizeof(own));
	return 0;
}

int struct_give(void *ret, const void *ours, size_t n)
{
	uint32_t size = size_of(ret);

	if (size < sizeof(size))
		return -EINVAL;
	if (size > STRUCT_BYTES_MAX)
		return -E2BIG;
	memset(ret, 0, size);
	memcpy(ret, ours, MIN(n, size));
	memcpy(ret, &size, sizeof(size));
	return 0;
}
