/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments. The daemon relies on it that no client can make a page of a sealed
 * segment go away (a SIGBUS in the daemon) or map the daemon page writable;
 * workers rely on the plan keeping rings apart and in different cache sets.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/base.h"
#include "shm/segment.h"

#define BYTES (64 * KIB)

static void test_create(void **state)
{
	struct segment s = SEGMENT_NULL;
	struct stat st;

	assert_int_equal(segment_create("test", BYTES, &s), 0);
	assert_int_equal(fstat(s.fd, &st), 0);
	assert_int_equal(st.st_size, BYTES);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_blocks * 512, BYTES); /* reserved, not sparse */
	assert_int_equal(fcntl(s.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	for (size_t i = 0; i < BYTES; i++)
		assert_int_equal(((char *)s.base)[i], 0);
	segment_deinit(&s);
	assert_null(s.base);
	assert_int_equal(s.fd, -1);
	segment_deinit(&s);
	segment_deinit(NULL);
}

static void test_create_refuses(void **state)
{
	struct segment s = SEGMENT_NULL;

	assert_int_equal(segment_create("test", 0, &s), -EINVAL);
	assert_int_equal(segment_create("test", SIZE_MAX, &s), -EINVAL);
	/* More than any machine has: an error, not a visit of the OOM killer (main's limit on file
	 * sizes keeps it away if this fails). */
	assert_int_equal(segment_create("test", (size_t)1 << 47, &s), -ENOMEM);
	assert_null(s.base);
	assert_int_equal(s.fd, -1);
}

static void test_map_checks_size(void **state)
{
	struct segment s = SEGMENT_NULL, m = SEGMENT_NULL;
	int ends[2], fd;

	assert_int_equal(segment_create("test", BYTES, &s), 0);
	fd = dup(s.fd);
	assert_int_equal(segment_map(fd, BYTES - 4096, true, &m), -EPROTO);
	assert_int_equal(segment_map(fd, BYTES + 4096, true, &m), -EPROTO);
	assert_int_equal(segment_map(fd, 0, true, &m), -EINVAL);
	assert_int_equal(segment_map(-1, BYTES, true, &m), -EBADF);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(segment_map(ends[0], BYTES, true, &m), -EPROTO);
	close(ends[0]);
	close(ends[1]);
	assert_true(fcntl(fd, F_GETFD) >= 0); /* a refused descriptor stays the caller's */

	assert_int_equal(segment_map(fd, BYTES, true, &m), 0);
	assert_int_equal(m.fd, -1);
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* a mapped one is closed */
	memcpy(m.base, "hello", 6);
	assert_string_equal(s.base, "hello");
	segment_deinit(&m);
	segment_deinit(&s);
}

/* What a client may try on a sealed segment: all refused, mappings made before keep working. */
static void test_sealed_cannot_be_cut(void **state)
{
	struct segment s = SEGMENT_NULL, m = SEGMENT_NULL;
	void *read_only, *writable;
	int fd;

	assert_int_equal(segment_create("test", BYTES, &s), 0);
	assert_int_equal(segment_map(dup(s.fd), BYTES, true, &m), 0);
	assert_int_equal(segment_seal(&s), 0);
	fd = s.fd;

	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(madvise(m.base, 4096, MADV_REMOVE), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 2 * BYTES), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_int_equal(errno, EPERM);
	writable = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_equal(writable, MAP_FAILED);
	assert_int_equal(errno, EPERM);
	read_only = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(read_only, MAP_FAILED);
	assert_int_equal(mprotect(read_only, BYTES, PROT_READ | PROT_WRITE), -1);
	assert_int_equal(errno, EACCES);

	memset(m.base, 0x5a, BYTES);
	assert_memory_equal(s.base, m.base, BYTES);
	assert_memory_equal(read_only, m.base, BYTES);
	munmap(read_only, BYTES);
	segment_deinit(&m);
	segment_deinit(&s);
}

/* The positive control of the test above: unsealed, the same client does cut it. */
static void test_unsealed_can_be_cut(void **state)
{
	struct segment s = SEGMENT_NULL;

	assert_int_equal(segment_create("test", BYTES, &s), 0);
	memset(s.base, 0x5a, BYTES);
	assert_int_equal(fallocate(s.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
	assert_int_equal(*(char *)s.base, 0);
	segment_deinit(&s);
}

/* What was cut before the seals is found by them: sealing does not bring a page back. */
static void test_cut_before_the_seals(void **state)
{
	struct segment s = SEGMENT_NULL;

	for (unsigned how = 0; how < 3; how++) {
		assert_int_equal(segment_create("test", BYTES, &s), 0);
		if (how == 0)
			assert_int_equal(ftruncate(s.fd, 4096), 0);
		else if (how == 1)
			assert_int_equal(ftruncate(s.fd, 2 * BYTES), 0);
		else
			assert_int_equal(fallocate(s.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
						   0, 4096),
					 0);
		assert_int_equal(segment_seal(&s), -EPROTO);
		segment_deinit(&s);
	}
}

/* A page that others only read, like the daemon page: no way to a writable mapping, not even by
 * opening the descriptor again. */
static void test_read_only_map(void **state)
{
	struct segment s = SEGMENT_NULL, m = SEGMENT_NULL;
	char path[64];
	void *writable;
	int fd;

	assert_int_equal(segment_create("test", BYTES, &s), 0);
	assert_int_equal(segment_seal(&s), 0);
	fd = dup(s.fd);
	assert_int_equal(segment_map(dup(s.fd), BYTES, true, &m), -EPERM);
	assert_int_equal(segment_map(fd, BYTES, false, &m), 0);
	assert_int_equal(mprotect(m.base, BYTES, PROT_READ | PROT_WRITE), -1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s.fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	writable = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_equal(writable, MAP_FAILED);
	close(fd);
	strcpy(s.base, "seen");
	assert_string_equal(m.base, "seen");
	segment_deinit(&m);
	segment_deinit(&s);
}

static void test_seal_reports(void **state)
{
	struct segment s = SEGMENT_NULL;
	int ends[2];

	assert_int_equal(segment_seal(&s), -EBADF);
	assert_int_equal(pipe(ends), 0);
	s.fd = ends[1];
	assert_int_equal(segment_seal(&s), -EINVAL);
	close(ends[0]);
	close(ends[1]);
}

/* ---- the plan ----------------------------------------------------------- */

static void check_plan(const struct segment_layout *l)
{
	uint64_t end = 0;

	for (unsigned k = 0; k < l->n_queues; k++) {
		const struct sparq_ring_place *p = &l->ring[k];

		assert_true(p->sq >= end);
		assert_true(p->cq >= p->sq + l->sq_entries * 64);
		assert_true(p->ctl >= p->cq + l->cq_entries * 32);
		assert_int_equal((p->sq | p->cq | p->ctl) % SPARQ_LINE_BYTES, 0);
		end = p->ctl + sizeof(struct sparq_ring_ctl);
	}
	assert_true(l->arena_offset >= end);
	assert_int_equal(l->arena_offset % 4096, 0);
	assert_int_equal(l->arena_bytes % 4096, 0);
	assert_int_equal(l->bytes, l->arena_offset + l->arena_bytes);
}

static void test_plan(void **state)
{
	struct segment_layout l;

	for (unsigned session = 0; session < 70; session++)
		for (uint32_t queues = 1; queues <= SPARQ_MAX_QUEUES; queues += 9)
			for (uint32_t entries = 2; entries <= SPARQ_MAX_SQ_ENTRIES; entries *= 4) {
				assert_int_equal(segment_plan(session, queues, entries, 5000, &l),
						 0);
				assert_int_equal(l.n_queues, queues);
				assert_int_equal(l.cq_entries, 2 * entries);
				assert_true(l.arena_bytes >= 5000);
				check_plan(&l);
				for (unsigned k = 0; k < queues; k++)
					assert_int_equal(l.ring[k].sq % 4096,
							 (session * 7 + k * 13) % 32 * 128);
			}
	assert_int_equal(segment_plan(UINT32_MAX, 1, 256, 16 * MIB, &l), 0);
	check_plan(&l);
}

/* 64 sessions with one ring each poll words in all 32 pairs of sets, two in each. */
static void test_plan_colours(void **state)
{
	unsigned seen[32] = { 0 };
	struct segment_layout l;

	for (unsigned session = 0; session < 64; session++) {
		assert_int_equal(segment_plan(session, 1, 256, MIB, &l), 0);
		seen[l.ring[0].sq % 4096 / 128]++;
	}
	for (unsigned colour = 0; colour < 32; colour++)
		assert_int_equal(seen[colour], 2);
}

static void test_plan_refuses(void **state)
{
	struct segment_layout l = { .bytes = 77 };

	assert_int_equal(segment_plan(0, 0, 256, MIB, &l), -EINVAL);
	assert_int_equal(segment_plan(0, SPARQ_MAX_QUEUES + 1, 256, MIB, &l), -EINVAL);
	assert_int_equal(segment_plan(0, 1, 0, MIB, &l), -EINVAL);
	assert_int_equal(segment_plan(0, 1, 1, MIB, &l), -EINVAL);
	assert_int_equal(segment_plan(0, 1, 255, MIB, &l), -EINVAL);
	assert_int_equal(segment_plan(0, 1, 2 * SPARQ_MAX_SQ_ENTRIES, MIB, &l), -EINVAL);
	assert_int_equal(segment_plan(0, 1, 0x80000000u, MIB, &l), -EINVAL);
	assert_int_equal(segment_plan(0, 1, 256, 0, &l), -EINVAL);
	assert_int_equal(segment_plan(0, 1, 256, (size_t)1 << 48, &l), -EINVAL);
	assert_int_equal(segment_plan(0, 1, 256, SIZE_MAX, &l), -EINVAL);
	assert_int_equal(l.bytes, 77);
}

static void test_ring_maps(void **state)
{
	struct segment s = SEGMENT_NULL;
	struct segment_layout l;
	struct ring_map map;

	assert_int_equal(segment_plan(3, 4, 16, MIB, &l), 0);
	assert_int_equal(segment_create("test", l.bytes, &s), 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(segment_ring(&s, &l, i, &map), 0);
		assert_ptr_equal(map.ctl, (char *)s.base + l.ring[i].ctl);
		assert_ptr_equal(map.sq, (char *)s.base + l.ring[i].sq);
		assert_ptr_equal(map.cq, (char *)s.base + l.ring[i].cq);
		assert_int_equal(map.sq_entries, 16);
		assert_int_equal(map.cq_entries, 32);
	}
	segment_deinit(&s);
}

/* What a client is told must lie inside what it mapped, whatever the daemon's version is. */
static void test_ring_refuses_offsets(void **state)
{
	static const uint64_t bad[] = {
		1, 64, 1ull << 20, 1ull << 63, UINT64_MAX, UINT64_MAX - 127
	};
	struct segment_layout good, l;
	struct segment s = { .base = (void *)4096, .fd = -1 };
	struct ring_map map;

	assert_int_equal(segment_plan(0, 2, 16, 4096, &good), 0);
	s.bytes = good.bytes;
	assert_int_equal(segment_ring(&s, &good, 1, &map), 0);
	assert_int_equal(segment_ring(&s, &good, 2, &map), -EPROTO);
	assert_int_equal(segment_ring(&s, &good, UINT32_MAX, &map), -EPROTO);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		l = good;
		l.ring[1].ctl = bad[i];
		assert_int_equal(segment_ring(&s, &l, 1, &map), -EPROTO);
		l = good;
		l.ring[1].sq = bad[i];
		assert_int_equal(segment_ring(&s, &l, 1, &map), -EPROTO);
		l = good;
		l.ring[1].cq = bad[i];
		assert_int_equal(segment_ring(&s, &l, 1, &map), -EPROTO);
	}
	/* The last line that fits, and one line too far. */
	l = good;
	l.ring[1].ctl = s.bytes - sizeof(struct sparq_ring_ctl);
	assert_int_equal(segment_ring(&s, &l, 1, &map), 0);
	l.ring[1].ctl += SPARQ_LINE_BYTES;
	assert_int_equal(segment_ring(&s, &l, 1, &map), -EPROTO);
	l = good;
	l.sq_entries = 15;
	assert_int_equal(segment_ring(&s, &l, 1, &map), -EPROTO);
	l = good;
	l.cq_entries = 16;
	assert_int_equal(segment_ring(&s, &l, 1, &map), -EPROTO);
	l = good;
	l.n_queues = 100;
	assert_int_equal(segment_ring(&s, &l, 1, &map), -EPROTO);
}

/* What a daemon does beside others' requests. */
static void test_in_parts(void **state)
{
	struct segment s = SEGMENT_NULL;
	const size_t bytes = 40 << 10, part = 16 << 10;
	struct stat st;
	size_t at = 0;

	assert_int_equal(segment_begin("test", 0, &s), -EINVAL);
	assert_int_equal(segment_begin("test", (size_t)1 << 47, &s), -ENOMEM);
	assert_int_equal(segment_begin("test", bytes, &s), 0);
	assert_int_equal(fstat(s.fd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(segment_fill(&s, part, &at), 1);
	assert_int_equal(at, part);
	assert_int_equal(fstat(s.fd, &st), 0);
	assert_int_equal(st.st_size, part);
	memset(s.base, 7, part);
	assert_int_equal(segment_fill(&s, part, &at), 1);
	assert_int_equal(segment_fill(&s, part, &at), 0);
	assert_int_equal(at, bytes);
	assert_int_equal(segment_fill(&s, part, &at), 0);
	assert_int_equal(fstat(s.fd, &st), 0);
	assert_int_equal(st.st_size, bytes);
	assert_int_equal(st.st_blocks, bytes / 512);
	/* What lies in the first part stayed, and all of it can be written. */
	assert_int_equal(((uint8_t *)s.base)[part - 1], 7);
	assert_int_equal(((uint8_t *)s.base)[part], 0);
	memset(s.base, 8, bytes);
	assert_int_equal(segment_seal(&s), 0);
	segment_deinit(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_parts),
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_create_refuses),
		cmocka_unit_test(test_map_checks_size),
		cmocka_unit_test(test_sealed_cannot_be_cut),
		cmocka_unit_test(test_unsealed_can_be_cut),
		cmocka_unit_test(test_cut_before_the_seals),
		cmocka_unit_test(test_read_only_map),
		cmocka_unit_test(test_seal_reports),
		cmocka_unit_test(test_plan),
		cmocka_unit_test(test_plan_colours),
		cmocka_unit_test(test_plan_refuses),
		cmocka_unit_test(test_ring_maps),
		cmocka_unit_test(test_ring_refuses_offsets),
	};

	struct rlimit limit = { GIB, GIB };

	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &limit);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
