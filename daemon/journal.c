/* SPDX-License-Identifier: Apache-2.0 */
/* Lines to the journal through libsystemd. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <stdio.h>
#include <string.h>
#include <systemd/sd-journal.h>

#include "daemon/journal.h"

#define NAME "SYSLOG_IDENTIFIER=sparqd"
#define MESSAGE "MESSAGE="
#define MESSAGE_BYTES 1100 /* a line of log.c is shorter */

int journal_send(int level, const char *line, const char *const *fields, unsigned n)
{
	char message[MESSAGE_BYTES], priority[16];
	struct iovec v[3 + JOURNAL_FIELDS_MAX];

	snprintf(message, sizeof(message), MESSAGE "%s", line);
	snprintf(priority, sizeof(priority), "PRIORITY=%d", level);
	v[0] = (struct iovec){ message, strlen(message) };
	v[1] = (struct iovec){ priority, strlen(priority) };
	v[2] = (struct iovec){ (void *)NAME, strlen(NAME) };
	for (unsigned i = 0; i < n; i++)
		v[3 + i] = (struct iovec){ (void *)fields[i], strlen(fields[i]) };
	return sd_journal_sendv(v, (int)(3 + n));
}
