/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stats page for those who may see it. Whoever asks first of all becomes a watcher: no session,
 * no segment, no part of a user's quota, so that the figures can be had when sessions cannot. Each
 * further request has the page brought up to date.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/peer.h"
#include "shm/base.h"

#define WATCHERS_MAX 64u
#define WATCHERS_PER_USER 16u /* so that no administrator keeps the exporter out */

static unsigned watchers_of(const struct server *s, const struct user *u)
{
	unsigned n = 0;

	for (const struct peer *p = s->peers; p; p = p->next)
		n += p->state == PEER_WATCHING && p->user == u;
	return n;
}

static int check_watcher(const struct peer *p, char *why)
{
	const struct server *s = p->server;
	int r;

	if (p->state != PEER_NEW)
		return PEER_REFUSE(-EPROTO, "STATS comes first, on a connection of its own");
	r = stats_readers_check(&s->stats_readers, p->fd);
	if (r == -EACCES)
		return PEER_REFUSE(r,
				   "uid %u may not see the figures of all users: root, members of "
				   "sparq-admin and the user sparqd-exporter may",
				   p->cred.uid);
	if (r < 0)
		return PEER_REFUSE(r, "cannot tell the groups of uid %u: %s", p->cred.uid,
				   strerror(-r));
	if (s->refused)
		return PEER_REFUSE(s->refused, "%s", s->refusal);
	if (s->n_watchers >= WATCHERS_MAX)
		return PEER_REFUSE(-EMFILE, "%u programs watch the figures already: end one",
				   WATCHERS_MAX);
	if (watchers_of(s, p->user) >= WATCHERS_PER_USER)
		return PEER_REFUSE(-EMFILE,
				   "%u programs of uid %u watch the figures already: end one",
				   WATCHERS_PER_USER, p->cred.uid);
	return 0;
}

/* It was counted as a session, or as one to be refused. */
static void become_watcher(struct peer *p)
{
	struct server *s = p->server;

	if (p->charged_session) {
		user_refund(p->user, USER_SESSIONS, 1);
		s->n_sessions--;
	}
	s->n_refused -= p->refused != 0;
	p->charged_session = false;
	p->refused = 0;
	p->state = PEER_WATCHING;
	s->n_watchers++;
}

int peer_stats(struct peer *p, union message *m, char *why)
{
	const struct server *s = p->server;
	struct sparq_msg head = m->head;
	int r = p->state == PEER_WATCHING ? 0 : check_watcher(p, why);

	if (r < 0)
		return r;
	if (p->state != PEER_WATCHING)
		become_watcher(p);
	server_refresh_stats(p->server);
	message_reply(m, &head);
	m->stats.bytes = s->stats.header->bytes;
	m->stats.generation = s->generation;
	p->out_fds[0] = s->stats.fd;
	p->n_out_fds = 1;
	return 0;
}
