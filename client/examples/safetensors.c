/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors container
 *
 *	u64 n (little endian) | n bytes of JSON | data
 *
 * The JSON is one object, name -> {dtype, shape, data_offsets: [begin, end)}
 * with offsets into the data, and "__metadata__", which is passed over. The
 * tensors must fill the data exactly, as the format demands: so a file that
 * lost its end, or whose header belongs to another file, is found on opening.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <json-c/json.h>

#include "client/examples/safetensors.h"
#include "client/examples/why.h"
#include "shm/base.h"

#define HEADER_LIMIT (100 * MIB) /* the format's own */
#define DIMENSIONS 4u

enum dtype { F32, BF16, F16 };
static const struct {
	const char *name;
	size_t bytes;
} dtypes[] = { [F32] = { "F32", 4 }, [BF16] = { "BF16", 2 }, [F16] = { "F16", 2 } };

struct tensor {
	char *name;
	enum dtype dtype;
	unsigned dimensions;
	uint64_t shape[DIMENSIONS];
	uint64_t begin, end; /* in the data */
};

struct safetensors {
	const uint8_t *map;
	size_t map_bytes;
	const uint8_t *data;
	uint64_t data_bytes;
	struct tensor *tensors;
	size_t n_tensors;
};

static int get_number(struct json_object *o, uint64_t *ret)
{
	if (!json_object_is_type(o, json_type_int) || json_object_get_int64(o) < 0)
		return -EINVAL;
	*ret = (uint64_t)json_object_get_int64(o);
	return 0;
}

static int parse_dtype(struct tensor *t, struct json_object *entry, char *why)
{
	struct json_object *o;
	const char *name;

	if (!json_object_object_get_ex(entry, "dtype", &o) ||
	    !json_object_is_type(o, json_type_string))
		return why_set(why, -EINVAL, "tensor %s: no dtype", t->name);
	name = json_object_get_string(o);
	for (unsigned i = 0; i < ARRAY_SIZE(dtypes); i++) {
		if (strcmp(name, dtypes[i].name) == 0) {
			t->dtype = i;
			return 0;
		}
	}
	return why_set(why, -EINVAL, "tensor %s: dtype %.16s; F32, BF16 and F16 are read", t->name,
		       name);
}

static int parse_shape(struct tensor *t, struct json_object *entry, uint64_t *ret_bytes, char *why)
{
	uint64_t bytes = dtypes[t->dtype].bytes;
	struct json_object *o;

	if (!json_object_object_get_ex(entry, "shape", &o) ||
	    !json_object_is_type(o, json_type_array))
		return why_set(why, -EINVAL, "tensor %s: no shape", t->name);
	if (json_object_array_length(o) > DIMENSIONS)
		return why_set(why, -EINVAL, "tensor %s: shape of more than %u dimensions", t->name,
			       DIMENSIONS);
	t->dimensions = (unsigned)json_object_array_length(o);
	for (unsigned i = 0; i < t->dimensions; i++) {
		if (get_number(json_object_array_get_idx(o, i), &t->shape[i]) < 0 ||
		    checked_mul(bytes, t->shape[i], &bytes) < 0)
			return why_set(why, -EINVAL, "tensor %s: dimension %u of shape is no size",
				       t->name, i);
	}
	*ret_bytes = bytes;
	return 0;
}

static int parse_offsets(struct tensor *t, struct json_object *entry, uint64_t bytes,
			 uint64_t data_bytes, char *why)
{
	struct json_object *o;

	if (!json_object_object_get_ex(entry, "data_offsets", &o) ||
	    !json_object_is_type(o, json_type_array) || json_object_array_length(o) != 2 ||
	    get_number(json_object_array_get_idx(o, 0), &t->begin) < 0 ||
	    get_number(json_object_array_get_idx(o, 1), &t->end) < 0)
		return why_set(why, -EINVAL, "tensor %s: data_offsets is not [begin, end]",
			       t->name);
	if (t->begin > t->end || t->end > data_bytes)
		return why_set(why, -EINVAL,
			       "tensor %s: data_offsets [%" PRIu64 ", %" PRIu64
			       "] outside the %" PRIu64 " bytes of data (truncated file?)",
			       t->name, t->begin, t->end, data_bytes);
	if (t->end - t->begin != bytes)
		return why_set(why, -EINVAL,
			       "tensor %s: data_offsets give %" PRIu64
			       " bytes, shape and dtype %" PRIu64,
			       t->name, t->end - t->begin, bytes);
	return 0;
}

static int parse_tensor(struct tensor *t, struct json_object *entry, uint64_t data_bytes, char *why)
{
	uint64_t bytes = 0;
	int r;

	if (!json_object_is_type(entry, json_type_object))
		return why_set(why, -EINVAL, "tensor %s: its entry is no object", t->name);
	r = parse_dtype(t, entry, why);
	if (r == 0)
		r = parse_shape(t, entry, &bytes, why);
	if (r == 0)
		r = parse_offsets(t, entry, bytes, data_bytes, why);
	return r;
}

static int by_place(const void *a, const void *b)
{
	const struct tensor *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return (x->end > y->end) - (x->end < y->end);
}

/* Neither gaps nor overlaps: else the header is not this file's. */
static int check_filled(struct safetensors *s, char *why)
{
	uint64_t at = 0;

	if (s->n_tensors)
		qsort(s->tensors, s->n_tensors, sizeof(*s->tensors), by_place);
	for (size_t i = 0; i < s->n_tensors; i++) {
		if (s->tensors[i].begin != at)
			return why_set(why, -EINVAL,
				       "tensor %s: data_offsets begin at %" PRIu64
				       ", the tensor before ends at %" PRIu64,
				       s->tensors[i].name, s->tensors[i].begin, at);
		at = s->tensors[i].end;
	}
	if (at != s->data_bytes)
		return why_set(why, -EINVAL, "header: %" PRIu64 " bytes of data are of no tensor",
			       s->data_bytes - at);
	return 0;
}

static int parse_tensors(struct safetensors *s, struct json_object *header, char *why)
{
	s->tensors = calloc((size_t)json_object_object_length(header) + 1, sizeof(*s->tensors));
	if (!s->tensors)
		return why_set(why, -ENOMEM, "header: no memory");

	json_object_object_foreach(header, name, entry)
	{
		struct tensor *t = &s->tensors[s->n_tensors];
		int r;

		if (strcmp(name, "__metadata__") == 0)
			continue;
		t->name = strdup(name);
		if (!t->name)
			return why_set(why, -ENOMEM, "header: no memory");
		s->n_tensors++;
		r = parse_tensor(t, entry, s->data_bytes, why);
		if (r < 0)
			return r;
	}
	return check_filled(s, why);
}

/* The JSON must be one value and nothing else but the spaces that pad it. */
static int parse_json(const char *text, size_t n, struct json_object **ret, char *why)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *o;
	size_t used;

	if (!tokener)
		return why_set(why, -ENOMEM, "header: no memory");
	o = json_tokener_parse_ex(tokener, text, (int)n);
	used = json_tokener_get_parse_end(tokener);
	while (used < n && text[used] == ' ')
		used++;
	if (!o || !json_object_is_type(o, json_type_object) || used != n) {
		why_set(why, -EINVAL, "header: not a JSON object (at byte %zu of %zu: %s)", used, n,
			json_tokener_error_desc(json_tokener_get_error(tokener)));
		json_object_put(o);
		json_tokener_free(tokener);
		return -EINVAL;
	}
	json_tokener_free(tokener);
	*ret = o;
	return 0;
}

static int parse_file(struct safetensors *s, char *why)
{
	struct json_object *header;
	uint64_t n = 0;
	int r;

	if (s->map_bytes < sizeof(n))
		return why_set(why, -EINVAL, "header: the file has %zu bytes, no header length",
			       s->map_bytes);
	for (unsigned i = 0; i < sizeof(n); i++)
		n |= (uint64_t)s->map[i] << (8 * i);
	if (n > HEADER_LIMIT || n > s->map_bytes - sizeof(n))
		return why_set(why, -EINVAL,
			       "header: length %" PRIu64
			       ", but the file has %zu bytes (truncated file?)",
			       n, s->map_bytes);
	s->data = s->map + sizeof(n) + n;
	s->data_bytes = s->map_bytes - sizeof(n) - n;
	r = parse_json((const char *)s->map + sizeof(n), n, &header, why);
	if (r < 0)
		return r;
	r = parse_tensors(s, header, why);
	json_object_put(header);
	return r;
}

static int map_file(struct safetensors *s, const char *path, char *why)
{
	CLOSE_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *map;

	if (fd < 0 || fstat(fd, &st) < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size == 0)
		return why_set(why, -EINVAL, "%s: empty, or no regular file", path);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	s->map = map;
	s->map_bytes = (size_t)st.st_size;
	return 0;
}

struct safetensors *safetensors_close(struct safetensors *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->n_tensors; i++)
		free(s->tensors[i].name);
	free(s->tensors);
	if (s->map)
		munmap((void *)s->map, s->map_bytes);
	free(s);
	return NULL;
}

int safetensors_open(const char *path, char *why, struct safetensors **ret)
{
	struct safetensors *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return why_set(why, -ENOMEM, "%s: no memory", path);
	r = map_file(s, path, why);
	if (r == 0)
		r = parse_file(s, why);
	if (r < 0) {
		safetensors_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

/* Elements of the file may lie at odd addresses: the header has any length. */
static void widen_f32(const uint8_t *from, uint64_t n, float *to)
{
	memcpy(to, from, n * sizeof(*to));
}

static void widen_bf16(const uint8_t *from, uint64_t n, float *to)
{
	for (uint64_t i = 0; i < n; i++) {
		uint32_t bits = (uint32_t)from[2 * i] << 16 | (uint32_t)from[2 * i + 1] << 24;

		memcpy(&to[i], &bits, sizeof(bits));
	}
}

static void widen_f16(const uint8_t *from, uint64_t n, float *to)
{
	for (uint64_t i = 0; i < n; i++) {
		_Float16 x;

		memcpy(&x, from + 2 * i, sizeof(x));
		to[i] = (float)x;
	}
}

static const struct tensor *find(const struct safetensors *s, const char *name)
{
	for (size_t i = 0; i < s->n_tensors; i++)
		if (strcmp(s->tensors[i].name, name) == 0)
			return &s->tensors[i];
	return NULL;
}

static void print_shape(const uint64_t *shape, unsigned n, char *ret, size_t bytes)
{
	size_t at = 0;

	ret[0] = 0;
	for (unsigned i = 0; i < n && at < bytes; i++)
		at += (size_t)snprintf(ret + at, bytes - at, "%s%" PRIu64, i ? " x " : "",
				       shape[i]);
}

int safetensors_read(struct safetensors *s, const char *name, const uint64_t *shape,
		     unsigned dimensions, char *why, float *ret)
{
	static void (*const widen[])(const uint8_t *, uint64_t, float *) = {
		[F32] = widen_f32, [BF16] = widen_bf16, [F16] = widen_f16
	};
	const struct tensor *t = find(s, name);
	char is[96], wanted[96];

	if (!t)
		return why_set(why, -ENOENT, "tensor %s: not in the file", name);
	if (t->dimensions != dimensions ||
	    memcmp(t->shape, shape, dimensions * sizeof(*shape)) != 0) {
		print_shape(t->shape, t->dimensions, is, sizeof(is));
		print_shape(shape, dimensions, wanted, sizeof(wanted));
		return why_set(why, -EINVAL, "tensor %s: shape %s, config.json makes it %s", name,
			       is, wanted);
	}
	widen[t->dtype](s->data + t->begin, (t->end - t->begin) / dtypes[t->dtype].bytes, ret);
	return 0;
}
