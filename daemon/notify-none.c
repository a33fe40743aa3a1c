/* SPDX-License-Identifier: Apache-2.0 */
/* No libsystemd: as if there were no service manager. */
#include <errno.h>

#include "daemon/notify.h"

void notify_ready(void) {}
void notify_reloading(void) {}
void notify_stopping(void) {}
void notify_status(const char *format, ...) {}
void notify_extend(uint64_t usec) {}
void notify_watchdog(void) {}

uint64_t notify_watchdog_ns(void)
{
	return 0;
}

int notify_sockets(int *ret_session, int *ret_control)
{
	*ret_session = *ret_control = -1;
	return 0;
}

int notify_journal(int level, const char *line)
{
	return -EOPNOTSUPP;
}
