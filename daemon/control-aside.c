/* SPDX-License-Identifier: Apache-2.0 */
/* Long calls of the control socket: see control-aside.h. */
#include "daemon/control-aside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/aside.h"
#include "daemon/control.h"
#include "daemon/server.h"
#include "shm/base.h"

struct control_job {
	struct aside_job job;
	struct server *server;
	void (*answered)(void *arg, int error, char *reply);
	void *arg;
	char *text, *reply;
	size_t n;
	int error;
};

/* What these read of the daemon never changes: its kernels, formats and policies. */
static const struct varlink_method long_methods[] = {
	{ "Explain", control_explain },
	{ "SelfTest", control_selftest },
	{ NULL, NULL },
};

static const struct varlink_service long_calls = {
	.interface = "io.sparqd.Control",
	.method = long_methods,
};

bool control_is_long(const char *text, size_t n)
{
	return varlink_asks(&long_calls, text, n);
}

/* ---- where it cannot be ------------------------------------------------------------ */

/* `arg`: why aside_put did not take it. */
static int refuse(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	int error = *(const int *)arg;

	if (error == -EAGAIN)
		return varlink_refuse(e, CONTROL_REFUSED,
				      "%u such calls wait already: ask again in a moment",
				      ASIDE_QUEUED);
	return varlink_refuse(e, CONTROL_REFUSED, "there is no thread for it: %s",
			      strerror(-error));
}

static int refuse_now(int error, const char *text, size_t n, char **ret_reply)
{
	static const struct varlink_method methods[] = {
		{ "Explain", refuse },
		{ "SelfTest", refuse },
		{ NULL, NULL },
	};
	static const struct varlink_service service = {
		.interface = "io.sparqd.Control",
		.method = methods,
	};

	return varlink_answer(&service, &error, text, n, ret_reply);
}

/* ---- a job --------------------------------------------------------------------------- */

static struct control_job *control_job_free(struct control_job *j)
{
	if (j) {
		free(j->text);
		free(j->reply);
		free(j);
	}
	return NULL;
}

static void run(struct aside_job *job)
{
	struct control_job *j = container_of(job, struct control_job, job);

	j->error = varlink_answer(&long_calls, j->server, j->text, j->n, &j->reply);
}

static void done(struct aside_job *job)
{
	struct control_job *j = container_of(job, struct control_job, job);

	j->answered(j->arg, j->error, STEAL_PTR(j->reply));
	control_job_free(j);
}

static void drop(struct aside_job *job)
{
	control_job_free(container_of(job, struct control_job, job));
}

static struct control_job *control_job_new(struct server *s, const char *text, size_t n)
{
	struct control_job *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->job = (struct aside_job){ .run = run, .done = done, .drop = drop };
	j->server = s;
	j->n = n;
	j->text = malloc(n);
	if (!j->text)
		return control_job_free(j);
	memcpy(j->text, text, n);
	return j;
}

int control_begin(struct server *s, const char *text, size_t n,
		  void (*answered)(void *arg, int error, char *reply), void *arg,
		  struct control_job **ret, char **ret_reply)
{
	struct control_job *j = control_job_new(s, text, n);
	int r = 0;

	if (!j)
		return -ENOMEM;
	j->answered = answered;
	j->arg = arg;
	if (!s->aside)
		r = aside_new(s->loop, &s->aside);
	if (r == 0)
		r = aside_put(s->aside, &j->job);
	if (r < 0) {
		control_job_free(j);
		*ret = NULL;
		return refuse_now(r, text, n, ret_reply);
	}
	*ret = j;
	return 0;
}

void control_cancel(struct server *s, struct control_job *j)
{
	aside_cancel(s->aside, &j->job);
}
