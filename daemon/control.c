/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: connections, and the table of methods. */
#include "daemon/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/aside.h"
#include "daemon/control-aside.h"
#include "daemon/server.h"
#include "shm/base.h"

#define CONNECTIONS_MAX 32

struct control {
	struct server *server;
	struct control *next, *previous;
	struct loop_source source;
	int fd;
	uid_t uid;
	char *in; /* VARLINK_MAX_BYTES; what came of the next message */
	size_t n_in;
	struct control_job *job; /* that answers its last message; NULL: none */
	char *out; /* NULL: nothing to send */
	size_t n_out, sent;
};

static const char description[] =
#include "daemon/io.sparqd.Control.inc"
	;

static const struct varlink_method methods[] = {
	{ "Status", control_status },
	{ "GetConfig", control_config },
	{ "Explain", control_explain },
	{ "SelfTest", control_selftest },
	{ "ListSequences", control_list_sequences },
	{ "ListCaches", control_list_caches },
	{ "ListUsers", control_list_users },
	{ "Drop", control_drop },
	{ "Pin", control_pin },
	{ "SetLogLevel", control_set_log_level },
	{ "Reload", control_reload },
	{ "Calibrate", control_calibrate },
	{ "GetCalibration", control_calibration },
	{ "GetNuma", control_numa },
	{ "Doctor", control_doctor },
	{ "ListDevices", control_list_devices },
	{ NULL, NULL },
};

const struct varlink_service control_service = {
	.vendor = "sparqd",
	.product = "sparqd",
	.version = SPARQ_VERSION,
	.url = "man:sparqd(8)",
	.interface = "io.sparqd.Control",
	.description = description,
	.method = methods,
};

static void on_answered(void *arg, int error, char *reply);

static void control_free(struct control *c)
{
	struct server *s = c->server;

	if (c->job)
		control_cancel(s, c->job);
	loop_remove(s->loop, &c->source);
	close_fd(&c->fd);
	if (c->next)
		c->next->previous = c->previous;
	if (c->previous)
		c->previous->next = c->next;
	else
		s->controls = c->next;
	s->n_controls--;
	free(c->in);
	free(c->out);
	free(c);
}

/* Sends what is left of a reply: 0 all sent, 1 no room yet, -errno. */
static int flush(struct control *c)
{
	while (c->sent < c->n_out) {
		ssize_t n = send(c->fd, c->out + c->sent, c->n_out - c->sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return 1;
		if (n < 0)
			return -errno;
		c->sent += (size_t)n;
	}
	free(STEAL_PTR(c->out));
	return 0;
}

static void take_reply(struct control *c, char *reply)
{
	c->out = reply;
	c->sent = 0;
	c->n_out = reply ? strlen(reply) + 1 : 0;
}

/* Answers the first whole message: 1 answered, or begun to; 0 there is none, -errno. */
static int answer_next(struct control *c)
{
	char *end = memchr(c->in, '\0', c->n_in), *reply = NULL;
	size_t n;
	int r;

	if (!end)
		return c->n_in == VARLINK_MAX_BYTES ? -EMSGSIZE : 0;
	n = (size_t)(end - c->in);
	c->server->asking_uid = c->uid;
	if (control_is_long(c->in, n))
		r = control_begin(c->server, c->in, n, on_answered, c, &c->job, &reply);
	else
		r = varlink_answer(&control_service, c->server, c->in, n, &reply);
	if (r < 0)
		return r;
	c->n_in -= n + 1;
	memmove(c->in, end + 1, c->n_in);
	take_reply(c, reply);
	return 1;
}

static bool has_message(const struct control *c)
{
	return memchr(c->in, '\0', c->n_in);
}

/* One message, whether its reply is waited for or not: who sends a thousand at once keeps nobody
 * else waiting for more than one of them. */
static int answer_one(struct control *c)
{
	int r = c->out ? flush(c) : 0;

	if (r == 0) {
		r = answer_next(c);
		if (r > 0)
			r = c->out ? flush(c) : 0;
	}
	if (r < 0)
		return r;
	/* While it is answered aside, nothing but the client's end is of interest. A message that
	 * is here already makes nothing readable. */
	return loop_change(c->server->loop, &c->source,
			   c->job                     ? 0
			   : c->out || has_message(c) ? POLLOUT
						      : POLLIN);
}

static void on_answered(void *arg, int error, char *reply)
{
	struct control *c = arg;

	c->job = NULL;
	take_reply(c, reply);
	if (error < 0 || answer_one(c) < 0)
		control_free(c);
}

static int read_more(struct control *c)
{
	ssize_t n = recv(c->fd, c->in + c->n_in, VARLINK_MAX_BYTES - c->n_in, 0);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	c->n_in += (size_t)n;
	return n == 0 ? -ECONNRESET : 0;
}

static void on_control(void *arg, uint32_t events)
{
	struct control *c = arg;
	int r = 0;

	if ((c->out || c->job) && events & (POLLERR | POLLHUP))
		r = -ECONNRESET;
	else if (c->job)
		return;
	else if (!c->out && !has_message(c))
		r = read_more(c);
	if (r == 0)
		r = answer_one(c);
	if (r < 0)
		control_free(c);
}

void control_accept(struct server *s, int fd)
{
	struct ucred cred = { .uid = (uid_t)-1 };
	socklen_t cred_bytes = sizeof(cred);
	struct control *c = NULL;

	if (s->n_controls < CONNECTIONS_MAX)
		c = calloc(1, sizeof(*c));
	if (!c) {
		log_warning("control connection closed: there are %u", s->n_controls);
		close(fd);
		return;
	}
	c->server = s;
	c->fd = fd;
	/* For the log: who may connect is the socket's affair. */
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_bytes);
	c->uid = cred.uid;
	c->source = LOOP_SOURCE_NULL;
	c->next = s->controls;
	if (c->next)
		c->next->previous = c;
	s->controls = c;
	s->n_controls++;
	c->in = malloc(VARLINK_MAX_BYTES);
	if (!c->in || loop_add(s->loop, &c->source, fd, POLLIN, on_control, c) < 0)
		control_free(c);
}

void control_close_all(struct server *s)
{
	while (s->controls)
		control_free(s->controls);
	s->aside = aside_free(s->aside);
}
