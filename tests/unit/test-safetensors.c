/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model file comes from anywhere. Whoever runs sparq-generate on half a
 * download relies on being told which tensor is missing, not on a fault.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/examples/safetensors.h"
#include "client/examples/why.h"
#include "shm/base.h"

#define DATA_BYTES 28
/* 3 f32 in 2 dimensions, 4 bf16, 4 f16: 12 + 8 + 8 bytes. */
static const char good[] =
	"{\"__metadata__\":{\"format\":\"pt\"},"
	"\"a.weight\":{\"dtype\":\"F32\",\"shape\":[3,1],\"data_offsets\":[0,12]},"
	"\"b.weight\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[12,20]},"
	"\"c.weight\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[20,28]}}";

static const float a[3] = { 1.5f, -2.25f, 1e-30f };
static const uint8_t bc[16] = {
	0x80, 0x3f, 0x00, 0xc0, 0x49, 0x40, 0x80, 0x00, /* 1, -2, 3.140625, 2^-126 */
	0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00, 0xff, 0x7b, /* 1, -2, 2^-24, 65504 */
};

struct image {
	uint8_t bytes[1024];
	size_t n;
};

static struct image make_image(const char *header)
{
	struct image f = { .n = 8 + strlen(header) + DATA_BYTES };
	uint8_t *data = f.bytes + 8 + strlen(header);

	assert_true(f.n <= sizeof(f.bytes));
	f.bytes[0] = (uint8_t)strlen(header);
	f.bytes[1] = (uint8_t)(strlen(header) >> 8);
	memcpy(f.bytes + 8, header, strlen(header));
	memcpy(data, a, sizeof(a));
	memcpy(data + sizeof(a), bc, sizeof(bc));
	return f;
}

static int open_bytes(const void *bytes, size_t n, char *why, struct safetensors **ret)
{
	CLOSE_FD int fd = memfd_create("test", MFD_CLOEXEC);
	char path[64];

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	memset(why, 0, WHY_BYTES);
	return safetensors_open(path, why, ret);
}

static void test_values(void **state)
{
	const uint64_t of_a[] = { 3, 1 }, of_b[] = { 4 }, of_c[] = { 2, 2 };
	const float b[4] = { 1, -2, 3.140625f, 0x1p-126f }, c[4] = { 1, -2, 0x1p-24f, 65504 };
	struct image f = make_image(good);
	struct safetensors *s = NULL;
	char why[WHY_BYTES];
	float x[4];

	assert_int_equal(open_bytes(f.bytes, f.n, why, &s), 0);
	assert_int_equal(safetensors_read(s, "a.weight", of_a, 2, why, x), 0);
	assert_memory_equal(x, a, sizeof(a));
	assert_int_equal(safetensors_read(s, "b.weight", of_b, 1, why, x), 0);
	assert_memory_equal(x, b, sizeof(b));
	assert_int_equal(safetensors_read(s, "c.weight", of_c, 2, why, x), 0);
	assert_memory_equal(x, c, sizeof(c));
	safetensors_close(s);
}

static void test_wrong_shape(void **state)
{
	const uint64_t flat[] = { 3 }, turned[] = { 1, 3 };
	struct image f = make_image(good);
	struct safetensors *s = NULL;
	char why[WHY_BYTES];
	float x[4] = { 7 };

	assert_int_equal(open_bytes(f.bytes, f.n, why, &s), 0);
	assert_int_equal(safetensors_read(s, "a.weight", flat, 1, why, x), -EINVAL);
	assert_non_null(strstr(why, "a.weight"));
	assert_int_equal(safetensors_read(s, "a.weight", turned, 2, why, x), -EINVAL);
	assert_non_null(strstr(why, "3 x 1"));
	assert_int_equal(safetensors_read(s, "d.weight", flat, 1, why, x), -ENOENT);
	assert_non_null(strstr(why, "d.weight"));
	assert_true(x[0] == 7);
	safetensors_close(s);
}

/* Whatever the length at which a download stopped, it is refused and something is named. */
static void test_truncated(void **state)
{
	struct image f = make_image(good);
	const size_t header = 8 + strlen(good);

	for (size_t n = 0; n < f.n; n++) {
		struct safetensors *s = NULL;
		char why[WHY_BYTES];

		assert_true(open_bytes(f.bytes, n, why, &s) < 0);
		assert_null(s);
		if (n >= header)
			assert_non_null(strstr(why, ".weight"));
		else if (n > 0)
			assert_non_null(strstr(why, "header"));
		else
			assert_non_null(strstr(why, "empty"));
	}
}

static void test_surplus(void **state)
{
	struct image f = make_image(good);
	struct safetensors *s = NULL;
	char why[WHY_BYTES];

	assert_int_equal(open_bytes(f.bytes, f.n + 1, why, &s), -EINVAL);
	assert_non_null(strstr(why, "1 bytes of data are of no tensor"));
}

static void test_header_fields(void **state)
{
	static const struct {
		const char *header, *named;
	} cases[] = {
		{ "[1]", "header" },
		{ "{\"a\":1}", "tensor a" },
		{ "{\"a\":{}}", "tensor a: no dtype" },
		{ "{\"a\":{\"dtype\":5}}", "tensor a: no dtype" },
		{ "{\"a\":{\"dtype\":\"I8\",\"shape\":[28],\"data_offsets\":[0,28]}}", "dtype I8" },
		{ "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,28]}}", "tensor a: no shape" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":7,\"data_offsets\":[0,28]}}", "no shape" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[-7],\"data_offsets\":[0,28]}}",
		  "dimension 0" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,7.5],\"data_offsets\":[0,28]}}",
		  "dimension 1" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],"
		  "\"data_offsets\":[0,28]}}",
		  "dimension 1" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,7],\"data_offsets\":[0,28]}}",
		  "more than 4" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[7]}}", "tensor a: data_offsets" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[7],\"data_offsets\":[0]}}",
		  "data_offsets" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[7],\"data_offsets\":[-1,27]}}",
		  "data_offsets" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[7],\"data_offsets\":[28,0]}}", "outside" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[7],\"data_offsets\":[4,32]}}", "outside" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,28]}}",
		  "give 28 bytes, shape and dtype 24" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
		  "\"b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[12,28]}}",
		  "tensor b: data_offsets begin at 12" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},"
		  "\"b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[16,28]}}",
		  "tensor b: data_offsets begin at 16" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[7],\"data_offsets\":[0,28]}} x", "header" },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[7],\"data_offsets\":[0,28]", "header" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct image f = make_image(cases[i].header);
		struct safetensors *s = NULL;
		char why[WHY_BYTES];

		assert_true(open_bytes(f.bytes, f.n, why, &s) < 0);
		if (!strstr(why, cases[i].named))
			fail_msg("%s\nsays: %s\nnot: %s", cases[i].header, why, cases[i].named);
	}
}

/* What a flipped bit leaves readable must still lie inside the file (run under ASan). */
static void test_flipped_bits(void **state)
{
	struct image f = make_image(good);
	unsigned refused = 0;

	for (size_t bit = 0; bit < 8 * (8 + strlen(good)); bit++) {
		const uint64_t shape[] = { 3, 1 };
		struct safetensors *s = NULL;
		char why[WHY_BYTES];
		float x[3];

		f.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (open_bytes(f.bytes, f.n, why, &s) < 0)
			refused++;
		else
			safetensors_read(s, "a.weight", shape, 2, why, x);
		safetensors_close(s);
		f.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_true(refused > 8 * strlen(good) / 2);
}

static void test_no_file(void **state)
{
	struct safetensors *s = NULL;
	char why[WHY_BYTES];

	assert_int_equal(safetensors_open("/nonexistent/model", why, &s), -ENOENT);
	assert_non_null(strstr(why, "/nonexistent/model"));
	assert_int_equal(safetensors_open("/", why, &s), -EINVAL);
	assert_null(safetensors_close(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),        cmocka_unit_test(test_wrong_shape),
		cmocka_unit_test(test_truncated),     cmocka_unit_test(test_surplus),
		cmocka_unit_test(test_header_fields), cmocka_unit_test(test_flipped_bits),
		cmocka_unit_test(test_no_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
