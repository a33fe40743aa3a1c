/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: messages in any cut, errors by name, bounds, damage. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "daemon/aside.h"
#include "daemon/control.h"
#include "daemon/server.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define GET_INFO "{\"method\":\"org.varlink.service.GetInfo\"}"

/* ---- one message ------------------------------------------------------------ */

static int call_echo(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	json_object *text = json_object_object_get(in, "text");

	++*(unsigned *)arg;
	if (!json_object_is_type(text, json_type_string))
		return varlink_invalid(e, "text");
	if (!strcmp(json_object_get_string(text), "no"))
		return varlink_refuse(e, "io.test.Refused", "not \"%s\"", "no");
	json_object_object_add(out, "text", json_object_get(text));
	return 0;
}

static const struct varlink_method echo_methods[] = { { "Echo", call_echo }, { NULL, NULL } };
static const struct varlink_service echo = {
	.vendor = "v",
	.product = "p",
	.version = "1",
	.url = "u",
	.interface = "io.test",
	.description = "interface io.test",
	.method = echo_methods,
};

static void expect(const char *message, const char *reply)
{
	unsigned calls = 0;
	char *text = NULL;

	assert_int_equal(varlink_answer(&echo, &calls, message, strlen(message), &text), 0);
	if (reply)
		assert_string_equal(text, reply);
	else
		assert_null(text);
	free(text);
}

#define SERVICE_ERROR(name, key, value)                                                            \
	"{\"error\":\"org.varlink.service." name "\",\"parameters\":{\"" key "\":\"" value "\"}}"
#define INVALID(parameter) SERVICE_ERROR("InvalidParameter", "parameter", parameter)

static void test_methods(void **state)
{
	expect("{\"method\":\"io.test.Echo\",\"parameters\":{\"text\":\"a/b\"}}",
	       "{\"parameters\":{\"text\":\"a/b\"}}");
	expect("{\"method\":\"io.test.Echo\",\"parameters\":{\"text\":\"no\"}}",
	       "{\"error\":\"io.test.Refused\",\"parameters\":{\"reason\":\"not \\\"no\\\"\"}}");
	expect("{\"method\":\"io.test.Echo\"}", INVALID("text"));
	expect("{\"method\":\"io.test.Echo\",\"parameters\":null}", INVALID("text"));
	expect("{\"method\":\"io.test.Echo\",\"oneway\":true,\"parameters\":{\"text\":\"a\"}}",
	       NULL);
	expect(GET_INFO, "{\"parameters\":{\"vendor\":\"v\",\"product\":\"p\",\"version\":\"1\","
			 "\"url\":\"u\",\"interfaces\":[\"org.varlink.service\",\"io.test\"]}}");
	expect("{\"method\":\"org.varlink.service.GetInterfaceDescription\","
	       "\"parameters\":{\"interface\":\"io.test\"}}",
	       "{\"parameters\":{\"description\":\"interface io.test\"}}");
}

/* Whoever writes a client finds out from the answer alone what was wrong. */
static void test_errors(void **state)
{
	expect("{\"method\":\"io.test.Other\"}",
	       SERVICE_ERROR("MethodNotFound", "method", "io.test.Other"));
	expect("{\"method\":\"io.other.Echo\"}",
	       SERVICE_ERROR("InterfaceNotFound", "interface", "io.other"));
	expect("{\"method\":\"io.test.more.Echo\"}",
	       SERVICE_ERROR("InterfaceNotFound", "interface", "io.test.more"));
	expect("{\"method\":\"Echo\"}", SERVICE_ERROR("MethodNotFound", "method", "Echo"));
	expect("{\"method\":\"\"}", SERVICE_ERROR("MethodNotFound", "method", ""));
	expect("{\"method\":\"org.varlink.service.GetInterfaceDescription\","
	       "\"parameters\":{\"interface\":\"io.other\"}}",
	       SERVICE_ERROR("InterfaceNotFound", "interface", "io.other"));
	expect("{\"method\":\"io.test.Echo\",\"upgrade\":true}", INVALID("upgrade"));
	expect("{\"method\":\"io.test.Echo\",\"parameters\":[]}", INVALID("parameters"));
	expect("{\"method\":7}", INVALID("method"));
	expect("{}", INVALID("method"));
	expect("[]", INVALID("message"));
	expect("", INVALID("message"));
	expect("{\"method\":\"io.test.Echo\"} x", INVALID("message"));
	expect("{\"method\":\"io.test.Echo\"", INVALID("message"));
	expect("{\"method\":\"io.test.\xff\"}", INVALID("message"));
	expect("[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]", INVALID("message"));
}

/* Any bytes get an answer; none reaches a method by accident of damage to another's name. */
static void test_damage(void **state)
{
	char text[] = "{\"method\":\"io.test.Echo\",\"parameters\":{\"text\":\"\\u0041b\"},"
		      "\"more\":false}";
	size_t n = strlen(text);
	unsigned calls = 0;
	char *reply;

	for (size_t cut = 0; cut < n; cut++) {
		assert_int_equal(varlink_answer(&echo, &calls, text, cut, &reply), 0);
		assert_non_null(strstr(reply, "InvalidParameter"));
		free(reply);
	}
	assert_int_equal(calls, 0);
	for (size_t at = 0; at < n; at++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			text[at] ^= (char)(1u << bit);
			reply = NULL;
			assert_int_equal(varlink_answer(&echo, &calls, text, n, &reply), 0);
			assert_non_null(reply);
			free(reply);
			text[at] ^= (char)(1u << bit);
		}
	}
}

/* ---- connections ------------------------------------------------------------ */

struct bench {
	struct server server;
	int client;
};

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	int pair[2];

	assert_non_null(b);
	assert_int_equal(loop_new(LOOP_BEST, &b->server.loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			 0);
	b->client = pair[0];
	control_accept(&b->server, pair[1]);
	assert_int_equal(b->server.n_controls, 1);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	control_close_all(&b->server);
	assert_int_equal(b->server.n_controls, 0);
	loop_free(b->server.loop);
	close_fd(&b->client);
	free(b);
	return 0;
}

static void turn(struct bench *b)
{
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(loop_step(b->server.loop, 1000000), 0);
}

static void put(struct bench *b, const char *bytes, size_t n)
{
	assert_int_equal(send(b->client, bytes, n, MSG_NOSIGNAL), n);
	turn(b);
}

/* Replies that have come, with their NUL bytes. */
static size_t count_replies(struct bench *b)
{
	char text[8192];
	ssize_t n = recv(b->client, text, sizeof(text), 0);
	size_t replies = 0;

	for (ssize_t i = 0; i < n; i++)
		replies += text[i] == '\0';
	return replies;
}

/* A stream has no message boundaries: one may come byte by byte, three in one piece. */
static void test_stream(void **state)
{
	static const char three[] = GET_INFO "\0" GET_INFO "\0" GET_INFO;
	struct bench *b = *state;

	for (const char *c = GET_INFO; *c; c++)
		put(b, c, 1);
	assert_int_equal(count_replies(b), 0);
	put(b, "", 1);
	assert_int_equal(count_replies(b), 1);
	put(b, three, sizeof(three));
	assert_int_equal(count_replies(b), 3);
}

/* Each may take milliseconds, and clients of the session socket wait meanwhile. */
static void test_one_at_a_time(void **state)
{
	static const char ten[] =
		GET_INFO "\0" GET_INFO "\0" GET_INFO "\0" GET_INFO "\0" GET_INFO "\0" GET_INFO
			 "\0" GET_INFO "\0" GET_INFO "\0" GET_INFO "\0" GET_INFO;
	struct bench *b = *state;
	size_t replies = 0;

	assert_int_equal(send(b->client, ten, sizeof(ten), MSG_NOSIGNAL), sizeof(ten));
	for (unsigned i = 0; i < 100 && replies < 10; i++) {
		size_t n;

		assert_int_equal(loop_step(b->server.loop, 1000000), 0);
		n = count_replies(b);
		assert_true(n <= 1);
		replies += n;
	}
	assert_int_equal(replies, 10);
}

#define SET_LEVEL(level)                                                                           \
	"{\"method\":\"io.sparqd.Control.SetLogLevel\",\"oneway\":true,\"parameters\":{\"level\":" \
	"\"" level "\"}}"

/* Who wants no reply need not stay for one. */
static void test_all_before_the_end(void **state)
{
	static const char three[] =
		SET_LEVEL("debug") "\0" SET_LEVEL("info") "\0" SET_LEVEL("error");
	struct bench *b = *state;

	assert_int_equal(send(b->client, three, sizeof(three), MSG_NOSIGNAL), sizeof(three));
	close(b->client);
	b->client = -1;
	b->server.config.log_level = LOG_WARNING;
	turn(b);
	turn(b);
	assert_int_equal(b->server.n_controls, 0);
	assert_int_equal(b->server.config.log_level, LOG_ERR);
}

/* Somebody who never ends a message, or never reads, holds a bounded buffer. */
static void test_too_long(void **state)
{
	static char zeros[VARLINK_MAX_BYTES];
	struct bench *b = *state;

	memset(zeros, ' ', sizeof(zeros));
	put(b, zeros, sizeof(zeros) - 1);
	assert_int_equal(b->server.n_controls, 1);
	put(b, zeros, 1);
	assert_int_equal(b->server.n_controls, 0);
	assert_int_equal(recv(b->client, zeros, 1, 0), 0);
}

static void test_slow_reader(void **state)
{
	struct bench *b = *state;
	unsigned sent = 0, replies = 0;

	while (send(b->client, GET_INFO, sizeof(GET_INFO), MSG_NOSIGNAL) > 0) {
		sent++;
		turn(b);
		assert_true(sent < 100000); /* the daemon stops reading */
	}
	assert_int_equal(errno, EAGAIN);
	for (unsigned i = 0; replies < sent && i < 100000; i++) {
		replies += count_replies(b);
		turn(b);
	}
	assert_int_equal(replies, sent);
}

static void test_hang_up(void **state)
{
	struct bench *b = *state;

	put(b, GET_INFO, 5);
	shutdown(b->client, SHUT_RDWR);
	turn(b);
	assert_int_equal(b->server.n_controls, 0);
}

static void test_count(void **state)
{
	struct bench *b = *state;
	int pair[40][2];

	for (unsigned i = 0; i < ARRAY_SIZE(pair); i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
					    pair[i]),
				 0);
		control_accept(&b->server, pair[i][1]);
	}
	assert_int_equal(b->server.n_controls, 32);
	for (unsigned i = 0; i < ARRAY_SIZE(pair); i++)
		close(pair[i][0]);
	for (unsigned i = 0; i < 40; i++)
		turn(b);
	assert_int_equal(b->server.n_controls, 1);
}

/* ---- what takes long ---------------------------------------------------------- */

#define SELF_TEST "{\"method\":\"io.sparqd.Control.SelfTest\"}"

/* Stands in front of all other jobs until it is let go. */
struct gate {
	struct aside_job job;
	uint32_t open, began; /* atomic */
	unsigned ended;
};

static void hold_gate(struct aside_job *j)
{
	struct gate *g = container_of(j, struct gate, job);

	store_release(&g->began, 1);
	while (!load_acquire(&g->open))
		sched_yield();
}

static void end_gate(struct aside_job *j)
{
	container_of(j, struct gate, job)->ended++;
}

static void shut_gate(struct bench *b, struct gate *g)
{
	*g = (struct gate){ .job = { .run = hold_gate, .done = end_gate, .drop = end_gate } };
	assert_int_equal(aside_new(b->server.loop, &b->server.aside), 0);
	assert_int_equal(aside_put(b->server.aside, &g->job), 0);
	while (!load_acquire(&g->began))
		sched_yield();
}

static int connect_more(struct bench *b)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			 0);
	control_accept(&b->server, pair[1]);
	return pair[0];
}

/* The next reply there, or "" while there is none. */
static const char *reply_of(struct bench *b, int fd)
{
	static char text[8192];
	size_t n = 0;

	turn(b);
	while (n < sizeof(text) - 1 && recv(fd, text + n, 1, 0) == 1 && text[n])
		n++;
	text[n] = '\0';
	return text;
}

static const char *await_reply(struct bench *b, int fd)
{
	const char *text = "";

	for (unsigned i = 0; !*text && i < 20000; i++)
		text = reply_of(b, fd);
	return text;
}

/* A self-test is a fifth of a second: whoever asks for a status meanwhile, and clients of the
 * session socket, must not wait for it. Its own connection waits, and keeps its order. */
static void test_long_calls(void **state)
{
	static const char two[] = SELF_TEST "\0" GET_INFO;
	struct bench *b = *state;
	int other = connect_more(b);
	struct gate g;

	shut_gate(b, &g);
	put(b, two, sizeof(two));
	assert_int_equal(send(other, GET_INFO, sizeof(GET_INFO), MSG_NOSIGNAL), sizeof(GET_INFO));
	assert_non_null(strstr(await_reply(b, other), "\"vendor\""));
	assert_string_equal(reply_of(b, b->client), "");
	store_release(&g.open, 1);
	assert_non_null(strstr(await_reply(b, b->client), "\"passed\":true}}"));
	assert_non_null(strstr(await_reply(b, b->client), "\"vendor\""));
	assert_int_equal(g.ended, 1);
	close(other);
	turn(b);
}

/* What is wrong is said, as by any other call. */
static void test_long_call_refused(void **state)
{
	static const char odd[] = "{\"method\":\"io.sparqd.Control.Explain\",\"parameters\":"
				  "{\"rows\":-1}}";
	static const char oneway[] =
		"{\"method\":\"io.sparqd.Control.Explain\",\"oneway\":true}\0" GET_INFO;
	struct bench *b = *state;

	put(b, odd, sizeof(odd));
	assert_string_equal(await_reply(b, b->client), INVALID("rows"));
	put(b, oneway, sizeof(oneway));
	assert_non_null(strstr(await_reply(b, b->client), "\"vendor\""));
}

/* Nobody can have more of them computed than there is room for; the next one is told at once. */
static void test_long_calls_are_bounded(void **state)
{
	struct bench *b = *state;
	int fd[ASIDE_QUEUED];
	struct gate g;

	shut_gate(b, &g);
	for (unsigned i = 0; i < ASIDE_QUEUED; i++) {
		fd[i] = connect_more(b);
		send(fd[i], SELF_TEST, sizeof(SELF_TEST), MSG_NOSIGNAL);
		assert_string_equal(reply_of(b, fd[i]), "");
	}
	put(b, SELF_TEST, sizeof(SELF_TEST));
	assert_non_null(strstr(await_reply(b, b->client), "8 such calls wait already"));
	/* Who has gone makes room, and is not computed for. */
	close(fd[0]);
	turn(b);
	assert_int_equal(b->server.n_controls, ASIDE_QUEUED);
	put(b, SELF_TEST, sizeof(SELF_TEST));
	assert_string_equal(reply_of(b, b->client), "");
	/* They are ended without an answer: that the gate's job is, too, lets this test end soon.
	 */
	for (unsigned i = 1; i < ASIDE_QUEUED; i++)
		close(fd[i]);
	turn(b);
	turn(b);
	turn(b);
	assert_int_equal(b->server.n_controls, 1);
	store_release(&g.open, 1);
	assert_non_null(strstr(await_reply(b, b->client), "\"passed\":true}}"));
}

/* What the description promises and what the table has are the same methods. */
static void test_description(void **state)
{
	for (const struct varlink_method *m = control_service.method; m->name; m++) {
		char line[80];

		snprintf(line, sizeof(line), "\nmethod %s(", m->name);
		assert_non_null(strstr(control_service.description, line));
	}
	assert_non_null(strstr(control_service.description, "interface io.sparqd.Control\n"));
}

#define ON_SOCKET(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_methods),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_description),
		ON_SOCKET(test_stream),
		ON_SOCKET(test_too_long),
		ON_SOCKET(test_slow_reader),
		ON_SOCKET(test_hang_up),
		ON_SOCKET(test_count),
		ON_SOCKET(test_one_at_a_time),
		ON_SOCKET(test_all_before_the_end),
		ON_SOCKET(test_long_calls),
		ON_SOCKET(test_long_call_refused),
		ON_SOCKET(test_long_calls_are_bounded),
	};

	log_open(LOG_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
