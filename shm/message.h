/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages, both directions, once for both sides: packets to structs.
 *
 * A packet is accepted only if its length is exactly what its type has, its
 * strings end inside their fields and it brings exactly the descriptors its
 * type brings. Surplus descriptors are closed, MSG_CTRUNC is fatal.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/sparq-abi.h"

#define MESSAGE_MAX_BYTES 4096
#define MESSAGE_MAX_FDS 3

union message { /* large enough for every message, head first */
	struct sparq_msg head;
	struct sparq_msg_error error;
	struct sparq_msg_hello hello;
	struct sparq_msg_hello_reply hello_reply;
	struct sparq_msg_name name;
	struct sparq_msg_info info;
	struct sparq_msg_queue queue;
	struct sparq_msg_stats stats;
	struct sparq_msg_cache_create cache_create;
	struct sparq_msg_cache cache;
	struct sparq_msg_cache_set cache_set;
	struct sparq_msg_cache_stat cache_stat;
	struct sparq_msg_cache_table cache_table;
	struct sparq_msg_cache_attach cache_attach;
	struct sparq_msg_cache_shape cache_shape;
	struct sparq_msg_seq_tokens seq_tokens;
	struct sparq_msg_seq_prefix seq_prefix;
	struct sparq_msg_seq_create seq_create;
	struct sparq_msg_seq seq;
	struct sparq_msg_seq_stat seq_stat;
	struct sparq_msg_seq_export seq_export;
	struct sparq_msg_seq_exported seq_exported;
	struct sparq_msg_seq_import seq_import;
	struct sparq_msg_seq_piece seq_piece;
	struct sparq_msg_seq_import_end seq_import_end;
	struct sparq_msg_seq_prefetch seq_prefetch;
	uint8_t bytes[MESSAGE_MAX_BYTES];
};

/* Size of a request or reply of `type`, 0 if there is no such type. */
size_t message_size(uint16_t type);
const char *message_name(uint16_t type); /* "HELLO"; "unknown" */
/* Checks a packet of `n` bytes as a request (or a reply): 0, or -EBADMSG with `why` naming
 * what is wrong: size, type, reserved field, unterminated string. Pure; fuzzed. */
int message_check(const union message *m, size_t n, bool reply, const char **why);

/* Starts a message: zeroes it, sets type and size. */
void message_init(union message *m, uint16_t type);
/* The reply or the error reply to a request, whose copy may be *m: its body is zero, type, size and
 * cookie are set. `error` is a negative errno. */
void message_reply(union message *m, const struct sparq_msg *request);
void message_fail(union message *m, const struct sparq_msg *request, int error, const char *format,
		  ...) __attribute__((format(printf, 4, 5)));

/* One packet, whole. `fds` are not consumed. -EAGAIN when the socket would block. */
int message_send(int socket, const union message *m, const int *fds, unsigned n_fds);
/* One packet, not checked yet. 1 received, 0 end of file, -EBADMSG, -EAGAIN, -errno. `*n_fds`
 * descriptors are allowed, and it is set to how many came; more: all closed, -EBADMSG. */
int message_receive(int socket, union message *ret, size_t *ret_bytes, int *fds, unsigned *n_fds);

/* The request and reply on a socket with a deadline (timeout_ns < 0: none). `m` is the request,
 * with a cookie of the caller's choice, and becomes the reply, which must bring exactly `n_fds`
 * descriptors. 0; the res of an error reply, with its text copied to `text` (may be NULL,
 * SPARQ_ERROR_TEXT bytes); -ETIMEDOUT, -ECONNRESET at the end of the stream, -EBADMSG, -errno. */
int message_call(int socket, union message *m, int *fds, unsigned n_fds, int64_t timeout_ns,
		 char *text);
