/* SPDX-License-Identifier: Apache-2.0 */
/* Names that users give: see name.h. */
#include "daemon/name.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shm/sparq-abi.h"

int why_fail(char *why, int error, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(why, SPARQ_ERROR_TEXT, format, ap);
	va_end(ap);
	return -error;
}

static bool allowed(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

int name_check(const char *what, const char name[64], char *why)
{
	size_t n = strnlen(name, SPARQ_NAME_MAX + 1);

	if (n == 0 || n > SPARQ_NAME_MAX)
		return why_fail(why, EINVAL, "%s name of %zu characters: 1 to %u are allowed", what,
				n, SPARQ_NAME_MAX);
	/* The byte's number, not the byte: the text goes to logs and terminals. */
	for (size_t i = 0; i < n; i++)
		if (!allowed(name[i]))
			return why_fail(
				why, EINVAL,
				"%s name: byte 0x%02x at %zu; letters, digits, '.', '_' and '-' "
				"are allowed",
				what, (unsigned char)name[i], i);
	return 0;
}
