/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A new session in the place of one that is over. The library has no thread: it
 * is made by whoever calls in first and needs one, while the others wait for
 * the outcome, each as long as it has time.
 *
 * Attempts are apart by a time that doubles up to a second, and of which up to
 * half is left to chance, so that the clients of a daemon that comes back do not come
 * at once.
 */
#include <fcntl.h>
#include <time.h>

#include "client/private.h"
#include "shm/atomic.h"
#include "shm/clock.h"

#define BACK_OFF_FIRST_NS (10 * NS_PER_MS)
#define BACK_OFF_MOST_NS NS_PER_S

/* Errors that no waiting mends: the other end is not a daemon, not ours, or not for us. */
static bool is_final(int error)
{
	switch (error) {
	case -EACCES:
	case -EPERM:
	case -EINVAL:
	case -E2BIG:
	case -ENAMETOOLONG:
	case -EBADMSG:
	case -EPROTO:
	case -EPROTONOSUPPORT:
		return true;
	default:
		return false;
	}
}

/* ---- one attempt ------------------------------------------------------------------ */

static void session_unrefp(struct session **s)
{
	session_unref(*s);
}

static int check_fits(const sparq *c, const struct session *s, char *why)
{
	if (s->told.arena_bytes >= c->hello.arena_bytes)
		return 0;
	return text_fail(why, -E2BIG, "the daemon's new arena has %llu bytes, the old one had %llu",
			 (unsigned long long)s->told.arena_bytes,
			 (unsigned long long)c->hello.arena_bytes);
}

/* From here on everybody finds it. Queues that have an owner wait for him to resume. */
static int publish(sparq *c, struct session *s, char *why)
{
	struct session *old = c->session;

	pthread_mutex_lock(&c->lock);
	if (c->closed) {
		pthread_mutex_unlock(&c->lock);
		return text_fail(why, -ESHUTDOWN, "the connection was closed");
	}
	c->session = session_ref(s);
	c->serial++;
	for (unsigned i = 0; i < ARRAY_SIZE(c->queue); i++)
		if (c->queue[i] && c->queue[i]->state != QUEUE_TAKEN)
			queue_reset(c->queue[i]);
	if (c->fd >= 0)
		(void)dup3(s->socket, c->fd, O_CLOEXEC);
	pthread_mutex_unlock(&c->lock);
	session_unref(old);
	return 0;
}

static int attempt(sparq *c, int64_t limit_ns, char *why)
{
	CLEANUP(session_unrefp) struct session *s = NULL;
	int r = session_open(c->path, &c->hello, MIN(limit_ns, OPEN_TIMEOUT_NS), why, &s);

	if (r == 0)
		r = check_fits(c, s, why);
	if (r < 0)
		return r;
	pthread_mutex_lock(&c->speak);
	r = again_all(c, s, why);
	if (r == 0)
		r = publish(c, s, why);
	pthread_mutex_unlock(&c->speak);
	return r;
}

/* ---- until it succeeds -------------------------------------------------------------- */

static uint64_t draw(uint64_t *state) /* splitmix64 */
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static void put_off(sparq *c)
{
	int64_t most =
		c->back_off_ns ? MIN(2 * c->back_off_ns, BACK_OFF_MOST_NS) : BACK_OFF_FIRST_NS;

	c->back_off_ns = most;
	c->next_try_ns =
		clock_now_ns() + most / 2 + (int64_t)(draw(&c->random) % (uint64_t)(most / 2));
}

/* Under lock: false when it is `until`. Spurious wakes are the caller's to expect. */
static bool wait_changed(sparq *c, int64_t until_ns)
{
	struct timespec t = { until_ns / NS_PER_S, until_ns % NS_PER_S };

	if (until_ns == REVIVE_FOREVER)
		return pthread_cond_wait(&c->changed, &c->lock) == 0;
	return pthread_cond_timedwait(&c->changed, &c->lock, &t) != ETIMEDOUT;
}

/* Sleeps, unless the connection is closed meanwhile. */
static int sleep_until(sparq *c, int64_t until_ns, char *why)
{
	bool closed;

	pthread_mutex_lock(&c->lock);
	while (!c->closed && clock_now_ns() < until_ns)
		(void)wait_changed(c, until_ns);
	closed = c->closed;
	pthread_mutex_unlock(&c->lock);
	return closed ? text_fail(why, -ENOTCONN, "the session is over") : 0;
}

static int late(char *why, const char *last)
{
	return text_fail(why, -ETIME,
			 "the daemon has gone, and no new session could be had: %.160s",
			 *last ? last : "it is not yet time for another try");
}

static int revive(sparq *c, int64_t deadline_ns, char *why)
{
	char last[SPARQ_ERROR_TEXT] = "";

	for (;;) {
		int64_t limit_ns;
		int r = sleep_until(c, MIN(c->next_try_ns, deadline_ns), why);

		if (r < 0)
			return r;
		if (c->next_try_ns > clock_now_ns())
			return late(why, last);
		limit_ns =
			deadline_ns == REVIVE_ONCE ? c->patience_ns : deadline_ns - clock_now_ns();
		r = attempt(c, limit_ns, last);
		if (r == 0) {
			c->next_try_ns = c->back_off_ns = 0;
			return 0;
		}
		put_off(c);
		if (is_final(r))
			return text_fail(why, r, "%s", last);
	}
}

/* 1: the session is over, and nobody else sees to it. 0: it is there. */
static int take_turn(sparq *c, int64_t deadline_ns, char *why)
{
	int r = 0;

	pthread_mutex_lock(&c->lock);
	for (;;) {
		if (c->closed || (c->patience_ns < 0 && !session_alive(c->session)))
			r = text_fail(why, -ENOTCONN, "the session is over");
		else if (session_alive(c->session))
			r = 0;
		else if (!c->reviving)
			r = 1;
		else if (wait_changed(c, deadline_ns))
			continue;
		else
			r = text_fail(why, -ETIME, "another thread still waits for the daemon");
		break;
	}
	c->reviving |= r > 0;
	pthread_mutex_unlock(&c->lock);
	return r;
}

int conn_revive(sparq *c, int64_t deadline_ns, char *why)
{
	int r = take_turn(c, deadline_ns, why);

	if (r <= 0)
		return r;
	r = revive(c, deadline_ns, why);
	pthread_mutex_lock(&c->lock);
	c->reviving = false;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	return r;
}
