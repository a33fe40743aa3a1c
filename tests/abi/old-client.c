/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of release 1, in bytes. It includes none of our headers and never
 * will: a daemon that this program can no longer speak with has broken the
 * protocol, whatever the headers of the day say. Offsets and sizes are those of
 * sparq-protocol(7) when release 1 was made, and are not to be edited.
 *
 *   old-client SOCKET
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CHECK(c)                                                                                   \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			fprintf(stderr, "old-client: line %d: %s\n", __LINE__, #c);                \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

/* Values are little endian in memory, as on every machine that this is built for. */
#define GET(type, p, at) get_##type((const uint8_t *)(p) + (at))
#define DEFINE(type)                                                                               \
	static type##_t get_##type(const uint8_t *p)                                               \
	{                                                                                          \
		type##_t v;                                                                        \
		memcpy(&v, p, sizeof(v));                                                          \
		return v;                                                                          \
	}                                                                                          \
	static void put_##type(uint8_t *p, type##_t v)                                             \
	{                                                                                          \
		memcpy(p, &v, sizeof(v));                                                          \
	}
DEFINE(uint16)
DEFINE(uint32)
DEFINE(int32)
DEFINE(uint64)

static uint8_t packet[4096];
static int sock, fds[3];
static uint8_t *segment, *arena, *sq, *cq, *ctl;
static uint32_t position, sq_entries, cq_entries;

/* ---- control messages ------------------------------------------------------ */

static void begin(uint16_t type, uint16_t size)
{
	memset(packet, 0, sizeof(packet));
	put_uint16(packet, type);
	put_uint16(packet + 2, size);
	put_uint32(packet + 4, 77); /* cookie */
}

/* Sends what was begun and receives the reply over it; its result. */
static int32_t call(uint16_t reply_size, unsigned n_fds)
{
	uint16_t type = GET(uint16, packet, 0);
	char control[CMSG_SPACE(8 * sizeof(int))];
	struct iovec io = { packet, sizeof(packet) };
	struct msghdr h = { .msg_iov = &io, .msg_iovlen = 1 };
	struct cmsghdr *c;
	ssize_t n = GET(uint16, packet, 2);

	CHECK(send(sock, packet, (size_t)n, 0) == n);
	h.msg_control = control;
	h.msg_controllen = sizeof(control);
	n = recvmsg(sock, &h, 0);
	CHECK(n >= 16 && !(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)));
	CHECK(GET(uint16, packet, 0) == (type | 0x8000));
	CHECK(GET(uint16, packet, 2) == n);
	CHECK(GET(uint32, packet, 4) == 77);
	c = CMSG_FIRSTHDR(&h);
	if (GET(int32, packet, 8) < 0) { /* 256 bytes: head, and a text that ends */
		CHECK(n == 256 && packet[16] && memchr(packet + 16, 0, 240) && !c);
		return GET(int32, packet, 8);
	}
	CHECK(n == reply_size);
	CHECK(!c == !n_fds);
	if (c) {
		CHECK(c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS);
		CHECK(c->cmsg_len == CMSG_LEN(n_fds * sizeof(int)));
		memcpy(fds, CMSG_DATA(c), n_fds * sizeof(int));
	}
	return 0;
}

static void hello(void)
{
	uint64_t bytes;

	begin(1, 64);
	put_uint64(packet + 16, 0x5152415053); /* "SPARQ" */
	put_uint32(packet + 24, 1);            /* major version */
	put_uint32(packet + 28, 1);            /* queues */
	put_uint32(packet + 32, 16);           /* entries */
	put_int32(packet + 36, -1);             /* node: the caller's */
	put_uint64(packet + 40, 1 << 20);      /* arena */
	CHECK(call(1632, 3) == 0);
	CHECK(GET(uint32, packet, 16) == 1);
	CHECK(GET(uint64, packet, 32) == 0); /* nothing that a client must know */
	bytes = GET(uint64, packet, 40);
	CHECK(GET(uint32, packet, 64) == 1 && GET(uint32, packet, 68) == 16);
	sq_entries = 16;
	cq_entries = GET(uint32, packet, 72);
	CHECK(cq_entries >= sq_entries && GET(uint64, packet, 56) >= 1 << 20);
	segment = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	CHECK(segment != MAP_FAILED);
	arena = segment + GET(uint64, packet, 48);
	ctl = segment + GET(uint64, packet, 96);
	sq = segment + GET(uint64, packet, 104);
	cq = segment + GET(uint64, packet, 112);
	begin(2, 16); /* MAPPED */
	CHECK(call(16, 0) == 0);
}

/* 1 layer, 2 heads, 1 KV head, 64 channels, f32, held as f32, dense. */
static uint64_t cache_create(void)
{
	begin(16, 1600);
	put_uint32(packet + 16, 1);
	put_uint32(packet + 20, 2);
	put_uint32(packet + 24, 1);
	put_uint32(packet + 28, 64);
	put_uint32(packet + 32, 64);
	memcpy(packet + 128, "f32", 3);
	memcpy(packet + 256, "f32", 3);
	memcpy(packet + 384, "dense", 5);
	memcpy(packet + 416, "cpu", 3);
	CHECK(call(24, 0) == 0);
	return GET(uint64, packet, 16);
}

static uint64_t seq_create(uint64_t cache)
{
	begin(32, 88);
	put_uint64(packet + 16, cache);
	CHECK(call(32, 0) == 0);
	return GET(uint64, packet, 16);
}

/* ---- ring --------------------------------------------------------------------- */

/* Publishes one entry, rings, and waits for its completion, which it returns. */
static const uint8_t *entry(const uint8_t *bytes)
{
	uint8_t *e = sq + (size_t)(position % sq_entries) * 64;
	const uint8_t *done = cq + (size_t)(position % cq_entries) * 32;
	uint64_t one = 1;

	memcpy(e, bytes, 60);
	__atomic_store_n((uint32_t *)(e + 60), position + 1, __ATOMIC_RELEASE);
	/* The simplest client there can be: it always rings, and looks ten thousand times a second.
	 */
	CHECK(write(fds[2], &one, sizeof(one)) == sizeof(one));
	for (unsigned i = 0; i < 50000; i++) {
		if (__atomic_load_n((const uint32_t *)(done + 28), __ATOMIC_ACQUIRE) ==
		    position + 1)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	}
	CHECK(GET(uint32, done, 28) == position + 1);
	position++;
	__atomic_store_n((uint32_t *)ctl, position, __ATOMIC_RELEASE); /* cq_head */
	return done;
}

/* STEP, row `row`: appends it and attends with one query to all rows so far. */
static const uint8_t *step(uint64_t sequence, uint32_t row)
{
	uint8_t e[64] = { 1 };

	put_uint64(e + 8, 1000 + row);
	put_uint64(e + 16, sequence);
	put_uint64(e + 24, 1024); /* q */
	put_uint64(e + 32, 2048); /* kv */
	put_uint64(e + 40, 3072); /* o */
	put_uint32(e + 48, row);
	put_uint16(e + 52, 1);
	put_uint16(e + 54, 1);
	return entry(e);
}

static void fill(float *q, float *kv, float v)
{
	for (unsigned i = 0; i < 128; i++)
		q[i] = 0.25f;
	for (unsigned i = 0; i < 64; i++) {
		kv[i] = 0.5f;
		kv[64 + i] = v + (float)i;
	}
}

static void use_ring(uint64_t sequence)
{
	float *q = (float *)(arena + 1024), *kv = (float *)(arena + 2048);
	const float *o = (const float *)(arena + 3072);
	const uint8_t *done;
	uint8_t truncate[64] = { 4 };

	for (uint32_t row = 0; row < 40; row++) { /* more than both rings have places */
		fill(q, kv, (float)row);
		memset(arena + 3072, 0xff, 512);
		done = step(sequence, row);
		CHECK(GET(uint64, done, 0) == 1000 + row);
		CHECK(GET(int32, done, 8) == 1);
		CHECK(GET(uint64, done, 16) > 0); /* bytes read */
		/* All keys are equal, so o is the mean of v: row / 2, plus the channel. */
		for (unsigned i = 0; i < 128; i++)
			CHECK(o[i] - ((float)row / 2 + (float)(i % 64)) < 1e-4f &&
			      (float)row / 2 + (float)(i % 64) - o[i] < 1e-4f);
	}
	done = step(sequence, 7); /* not the next row: -ESTALE, reason 14 */
	CHECK(GET(int32, done, 8) == -ESTALE && GET(uint32, done, 24) >> 16 == 14);
	put_uint64(truncate + 16, sequence);
	put_uint32(truncate + 48, 7);
	CHECK(GET(int32, entry(truncate), 8) == 1);
	CHECK(GET(int32, step(sequence, 7), 8) == 1);
}

int main(int argc, char **argv)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	uint64_t cache, sequence;

	CHECK(argc == 2 && strlen(argv[1]) < sizeof(a.sun_path));
	strcpy(a.sun_path, argv[1]);
	sock = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	CHECK(sock >= 0 && connect(sock, (const struct sockaddr *)&a, sizeof(a)) == 0);
	hello();
	cache = cache_create();
	sequence = seq_create(cache);
	use_ring(sequence);
	begin(37, 32); /* SEQ_STAT of layer 0 */
	put_uint64(packet + 16, sequence);
	CHECK(call(56, 0) == 0 && GET(uint64, packet, 24) == 8 && GET(uint64, packet, 32) == 8);
	begin(35, 32); /* SEQ_DROP */
	put_uint64(packet + 16, sequence);
	CHECK(call(32, 0) == 0);
	begin(35, 32); /* again: there is none, and the connection stays */
	put_uint64(packet + 16, sequence);
	CHECK(call(32, 0) == -ENOENT);
	begin(17, 24); /* CACHE_UNREF */
	put_uint64(packet + 16, cache);
	CHECK(call(24, 0) == 0);
	puts("old-client: release 1 is understood");
	return 0;
}
