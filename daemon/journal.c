/* SPDX-License-Identifier: Apache-2.0 */
/* Lines to the journal through libsystemd. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "daemon/journal.h"

int journal_send(int level, const char *line)
{
	return sd_journal_send("MESSAGE=%s", line, "PRIORITY=%i", level, "SYSLOG_IDENTIFIER=sparqd",
			       NULL);
}
