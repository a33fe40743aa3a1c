/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA back end over the fake driver: what it says when something is
 * missing, what is left when something fails, and in which order things happen.
 *
 *   test-gpu-backend MODULE DRIVER
 *
 * The daemon relies on it for its promise that a device that fails takes nothing
 * along: not memory, not the CPU's caches.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/gpu.h"
#include "shm/base.h"
#include "tests/gpu/fake-driver.h"

#define ARENA_BYTES (8 * MIB)
#define LANE_BYTES (256 * KIB)

static const struct kv_gpu_backend *backend;
static fake_cuda_count_fn *live, *calls, *takes, *bytes;
static fake_cuda_range_fn *range;
static char why[KV_GPU_WHY];

static void knobs(const char *text)
{
	setenv("FAKE_CUDA", text, 1);
	memset(why, 0, sizeof(why));
}

/* ---- opening --------------------------------------------------------------------- */

static void test_what_is_missing(void **state)
{
	static const struct {
		const char *knobs;
		uint32_t index;
		int error;
		const char *says;
	} cases[] = {
		{ "devices=0", 0, -ENODEV, "CUDA_ERROR_NO_DEVICE" },
		{ "devices=2", 2, -ENODEV, "cuda:2: the driver finds 2 devices" },
		{ "version=11080", 0, -ENOTSUP, "the driver supports CUDA 11.8" },
		{ "capability=75", 0, -ENOTSUP, "compute capability 7.5" },
		{ "vmm=0", 0, -ENOTSUP, "no virtual memory management" },
		{ "oom_at=1", 0, -ENOMEM, "CUDA_ERROR_OUT_OF_MEMORY" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct kv_gpu *g = NULL;

		knobs(cases[i].knobs);
		assert_int_equal(backend->open(cases[i].index, &g, why), cases[i].error);
		assert_null(g);
		if (!strstr(why, cases[i].says))
			fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].knobs, why,
				 cases[i].says);
		assert_int_equal(live(), 0);
	}
}

/* Administrators ask on machines whose devices are at work: no call reaches one. */
static void test_a_probe_touches_nothing(void **state)
{
	char driver[KV_GPU_DRIVER] = "";
	uint64_t before = calls();

	knobs("devices=0");
	assert_int_equal(backend->probe(driver, why), 0);
	assert_int_equal(strncmp(driver, "CUDA 1", 6), 0);
	knobs("version=11080");
	assert_int_equal(backend->probe(driver, why), -ENOTSUP);
	assert_non_null(strstr(why, "the driver supports CUDA 11.8"));
	assert_int_equal(calls(), before);
	assert_int_equal(live(), 0);
}

static void test_what_it_is(void **state)
{
	struct kv_gpu_info info;
	struct kv_gpu *g;
	float busy;

	knobs("devices=3 memory=1073741824");
	setenv("FAKE_NVML", "42", 1);
	assert_int_equal(backend->open(2, &g, why), 0);
	backend->info(g, &info);
	assert_string_equal(info.name, "Fake 2");
	assert_string_equal(info.bus_id, "0000:a2:00.0");
	assert_int_equal(info.major, 9);
	assert_int_equal(info.minor, 0);
	assert_int_equal(info.memory_bytes, 1 * GIB);
	assert_int_equal(info.free_bytes, 1 * GIB);
	assert_string_equal(info.plain, "");
	assert_null(backend->lost(g));
	assert_int_equal(backend->dram_busy(g, &busy, why), 0);
	assert_true(busy > 0.41f && busy < 0.43f);
	setenv("FAKE_NVML", "fail", 1);
	assert_int_equal(backend->dram_busy(g, &busy, why), -EOPNOTSUPP);
	assert_non_null(strstr(why, "error 3"));
	backend->close(g);
	knobs("graphs=0");
	assert_int_equal(backend->open(0, &g, why), 0);
	backend->info(g, &info);
	assert_string_equal(info.plain, "cuGraphCreate: CUDA_ERROR_NOT_SUPPORTED");
	backend->close(g);
	assert_int_equal(live(), 0);
}

/* ---- a life of a device ------------------------------------------------------------ */

struct life {
	struct kv_gpu *g;
	struct kv_gpu_mirror *mirror[2];
	struct kv_gpu_lane *lane;
	char *arena[2], *session;
	bool pinned;
};

static int make(struct life *l)
{
	size_t granule;
	int r = backend->open(0, &l->g, why);

	for (unsigned i = 0; r == 0 && i < 2; i++) {
		r = backend->mirror(l->g, l->arena[i], ARENA_BYTES, &l->mirror[i]);
		granule = backend->granule(l->g);
		if (r == 0)
			r = backend->map(l->mirror[i], granule, 2 * granule);
	}
	if (r == 0)
		r = backend->pin(l->g, l->session, 64 * KIB);
	l->pinned = r == 0;
	if (r == 0)
		r = backend->lane_open(l->g, LANE_BYTES, &l->lane);
	return r;
}

static int run_batch(struct life *l)
{
	int r = backend->submit(l->lane, NULL, 0);

	while (r == 0) {
		r = backend->poll(l->lane);
		if (r == 0)
			usleep(50);
	}
	return r == 1 ? 0 : r;
}

static int work(struct life *l)
{
	size_t granule = backend->granule(l->g);
	int r = backend->copy_in(l->lane, l->arena[0] + granule, 4096);

	if (r == 0)
		r = backend->copy_in(l->lane, l->arena[1] + granule + 64, 128);
	return r == 0 ? run_batch(l) : r;
}

static void end(struct life *l)
{
	l->lane = backend->lane_close(l->lane);
	if (l->pinned)
		backend->unpin(l->g, l->session);
	for (unsigned i = 0; i < 2; i++)
		l->mirror[i] = backend->unmirror(l->mirror[i]);
	l->g = backend->close(l->g);
}

static struct life born(void)
{
	struct life l = { .session = malloc(64 * KIB) };

	for (unsigned i = 0; i < 2; i++) {
		l.arena[i] = aligned_alloc(2 * MIB, ARENA_BYTES);
		assert_non_null(l.arena[i]);
		for (size_t k = 0; k < ARENA_BYTES; k++)
			l.arena[i][k] = (char)(k * 7 + k / 256 + i);
	}
	assert_non_null(l.session);
	return l;
}

static void buried(struct life *l)
{
	for (unsigned i = 0; i < 2; i++)
		free(l->arena[i]);
	free(l->session);
}

/* Every call that takes memory finds none once: all of what was taken before goes back, and the
 * device lives on. */
static void test_out_of_memory(void **state)
{
	struct life l = born();
	unsigned refused = 0;
	char text[64];
	int r = -1;

	for (unsigned n = 1; r != 0; n++) {
		snprintf(text, sizeof(text), "oom_at=%u", n);
		knobs(text);
		r = make(&l);
		if (r == 0)
			r = work(&l);
		if (r < 0)
			assert_int_equal(r, -ENOMEM);
		if (r < 0 && l.g)
			assert_null(backend->lost(l.g));
		refused += r < 0;
		end(&l);
		assert_int_equal(live(), 0);
		assert_int_equal(bytes(), 0);
		assert_true(n < 100);
	}
	/* Context, module, stream; two mirrors of two granules; the lane's nine; the pin. */
	assert_int_equal(refused, 3 + 2 + 4 + 9 + 1);
	buried(&l);
}

/* From each call on everything fails: no leak, no wait without end, and a sentence. */
static void test_lost(void **state)
{
	struct life l = born();
	unsigned sentences = 0, n;
	char text[64];
	int r = -1;

	for (n = 1; r != 0; n++) {
		snprintf(text, sizeof(text), "lost_at=%u", n);
		knobs(text);
		r = make(&l);
		if (r == 0)
			r = work(&l);
		if (r < 0)
			assert_true(r == -EIO || r == -ENODEV);
		if (r < 0 && l.g) {
			assert_int_equal(r, -EIO);
			assert_non_null(backend->lost(l.g));
			assert_non_null(strstr(backend->lost(l.g), "0000:a0:00.0"));
			assert_non_null(strstr(backend->lost(l.g), "CUDA_ERROR_LAUNCH_FAILED"));
			sentences++;
		} else if (r < 0) {
			assert_true(strlen(why) > 10);
		}
		end(&l);
		assert_int_equal(live(), 0);
		assert_true(n < 1000);
	}
	assert_true(sentences > 20);
	buried(&l);
}

/* ---- bytes --------------------------------------------------------------------------- */

/* What was taken is what the host had when it was taken, it is there once the batch is done, and
 * nothing else is. Streams are slow here: who does not wait sees garbage. */
static void test_order(void **state)
{
	struct life l = born();
	size_t granule;
	char *device, *from, before[4096];

	knobs("slow_us=2000");
	assert_int_equal(make(&l), 0);
	granule = backend->granule(l.g);
	device = range();
	from = l.arena[1] + granule;
	/* Fresh memory is nobody's. */
	for (size_t i = granule; i < 3 * granule; i++)
		assert_int_equal(device[i], 0);
	memcpy(before, from, sizeof(before));
	assert_int_equal(backend->copy_in(l.lane, from, sizeof(before)), 0);
	memset(from, 1, sizeof(before));
	assert_int_equal(backend->submit(l.lane, NULL, 0), 0);
	/* Its memory is the device's now. */
	assert_int_equal(backend->copy_in(l.lane, from, 64), -ENOSPC);
	while (backend->poll(l.lane) == 0)
		;
	assert_memory_equal(device + granule, before, sizeof(before));
	assert_int_equal(device[granule + sizeof(before)], 0);
	assert_true(backend->milliseconds(l.lane) > 1);
	/* The next batch begins with nothing. */
	assert_int_equal(backend->copy_in(l.lane, from + 64, 64), 0);
	assert_int_equal(run_batch(&l), 0);
	assert_memory_equal(device + granule, before, 64);
	assert_memory_equal(device + granule + 64, from + 64, 64);
	assert_memory_equal(device + granule + 128, before + 128, sizeof(before) - 128);
	end(&l);
	assert_int_equal(live(), 0);
	buried(&l);
}

/* More than a lane holds is refused whole, and fits in the next batch. */
static void test_full_lane(void **state)
{
	struct life l = born();
	size_t granule, n = 0;
	char *from;

	knobs("");
	assert_int_equal(make(&l), 0);
	granule = backend->granule(l.g);
	from = l.arena[1] + granule;
	while (backend->copy_in(l.lane, from + n, 100 * 1024) == 0)
		n += 100 * 1024;
	assert_int_equal(n, LANE_BYTES / (100 * 1024) * (100 * 1024));
	assert_int_equal(run_batch(&l), 0);
	assert_memory_equal((char *)range() + granule, from, n);
	assert_int_equal(backend->copy_in(l.lane, from + n, 100 * 1024), 0);
	assert_int_equal(run_batch(&l), 0);
	assert_memory_equal((char *)range() + granule, from, n + 100 * 1024);
	/* Runs are counted as well. */
	for (n = 0; backend->copy_in(l.lane, from, 16) == 0; n++)
		;
	assert_int_equal(n, 16384);
	assert_int_equal(run_batch(&l), 0);
	end(&l);
	buried(&l);
}

/* Memory that was given back is gone, and is zero when it comes again: it may be another user's. */
static void test_map_again(void **state)
{
	struct life l = born();
	size_t granule;
	uint64_t had;
	char *device;

	knobs("");
	assert_int_equal(make(&l), 0);
	assert_int_equal(work(&l), 0);
	granule = backend->granule(l.g);
	device = range();
	had = bytes();
	assert_int_equal(device[granule + 64], l.arena[1][granule + 64]);
	backend->unmap(l.mirror[1], granule, granule);
	assert_int_equal(bytes(), had - granule);
	assert_int_equal(backend->map(l.mirror[1], granule, granule), 0);
	assert_int_equal(device[granule + 64], 0);
	end(&l);
	assert_int_equal(bytes(), 0);
	buried(&l);
}

/* A driver without what we ask of it is no crash. */
static void test_old_driver(void **state)
{
	struct kv_gpu *g = NULL;

	memset(why, 0, sizeof(why));
	assert_int_equal(backend->open(0, &g, why), -ENOTSUP);
	assert_null(g);
	assert_non_null(strstr(why, "libcuda.so.1 has no cuDriverGetVersion: install"));
}

static void *find(void *library, const char *symbol)
{
	void *at = dlsym(library, symbol);

	if (!at)
		fprintf(stderr, "%s: %s\n", symbol, dlerror());
	return at;
}

static int load(char **argv)
{
	void *module = dlopen(argv[1], RTLD_NOW), *driver = dlopen(argv[2], RTLD_NOW);

	if (!module || !driver) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	backend = find(module, KV_GPU_SYMBOL);
	if (!backend || backend->version != KV_GPU_VERSION)
		return 1;
	*(void **)&live = dlsym(driver, FAKE_CUDA_LIVE);
	if (!live)
		return 0;
	*(void **)&calls = find(driver, FAKE_CUDA_CALLS);
	*(void **)&takes = find(driver, FAKE_CUDA_TAKES);
	*(void **)&bytes = find(driver, FAKE_CUDA_BYTES);
	*(void **)&range = find(driver, FAKE_CUDA_RANGE);
	return !calls || !takes || !bytes || !range;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest old[] = { cmocka_unit_test(test_old_driver) };
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_missing),
		cmocka_unit_test(test_what_it_is),
		cmocka_unit_test(test_out_of_memory),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_full_lane),
		cmocka_unit_test(test_map_again),
		cmocka_unit_test(test_a_probe_touches_nothing),
	};

	if (argc < 3 || load(argv))
		return 1;
	return live ? cmocka_run_group_tests(tests, NULL, NULL)
		    : cmocka_run_group_tests(old, NULL, NULL);
}
