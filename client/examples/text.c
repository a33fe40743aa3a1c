/* SPDX-License-Identifier: Apache-2.0 */
/* Texts of bytes: see text.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/examples/text.h"
#include "client/examples/why.h"

#define TEXT_LIMIT (64 * MIB)

static void close_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

int text_read(const char *path, char *why, struct text *ret)
{
	CLEANUP(close_file) FILE *f = fopen(path, "re");
	FREE_MEMORY uint8_t *bytes = NULL;
	size_t n = 0, room = 0;

	if (!f)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	do {
		uint8_t *more;

		room = room ? 2 * room : 64 * KIB;
		more = room <= TEXT_LIMIT ? realloc(bytes, room + 1) : NULL;
		if (!more)
			return why_set(why, -EFBIG, "%s: longer than %zu bytes", path, room / 2);
		bytes = more;
		n += fread(bytes + n, 1, room - n, f);
	} while (n == room);
	if (ferror(f))
		return why_set(why, -EIO, "%s: %s", path, strerror(EIO));
	bytes[n] = 0;
	ret->name = strdup(strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
	if (!ret->name)
		return why_set(why, -ENOMEM, "%s: no memory", path);
	ret->bytes = STEAL_PTR(bytes);
	ret->n = n;
	return 0;
}

void text_deinit(struct text *t)
{
	free(t->name);
	free(t->bytes);
	*t = (struct text){ 0 };
}
