/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A daemon that finds memory it must not touch - of a newer layout, damaged
 * where that cannot be told from everything - neither serves nor ends. To start
 * empty would lose what is kept, and so would to fail: a unit that has failed
 * loses its descriptor store. So it stays, says why to whoever asks, and leaves
 * the store alone until a person decides.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "daemon/server-private.h"
#include "daemon/server.h"

/* How a person gives it up, by who holds the memory. */
static const char *way_out(void)
{
	switch (keep_kind()) {
	case KEEP_SYSTEMD:
		return "systemctl stop sparqd";
	case KEEP_KEEPER:
		return "end sparqd --keeper";
	default:
		return "start sparqd without it";
	}
}

void server_refuse(struct server *s, int error, const char *format, ...)
{
	char why[KEEP_WHY_BYTES];
	/* Damage is the same to every version. */
	const char *other =
		error == -EPROTONOSUPPORT ? "; to use it, start the sparqd that left it" : "";
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	s->refused = error;
	/* The reason may be cut, the remedy may not. */
	snprintf(s->refusal, sizeof(s->refusal), "%.120s; all is kept%s; to drop it: %s", why,
		 other, way_out());
	log_event(EVENT_REFUSING, NULL, "serving nobody: %s; all is kept%s; to drop it: %s", why,
		  other, way_out());
}

int server_start_refusing(struct server *s)
{
	server_limit_users(s);
	return server_watch(s);
}
