/* SPDX-License-Identifier: Apache-2.0 */
/* The fake driver's calls that return at once: see fake-driver.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/gpu/fake-private.h"

#define GRANULE ((size_t)2 << 20)
#define GARBAGE 0xa5

struct fake fake = { .mutex = PTHREAD_MUTEX_INITIALIZER };

uint64_t fake_cuda_live(void);
uint64_t fake_cuda_calls(void);
uint64_t fake_cuda_takes(void);
uint64_t fake_cuda_bytes(void);
void *fake_cuda_range(void);

/* ---- counting and failing ----------------------------------------------------- */

static uint64_t read_count(const uint64_t *of)
{
	uint64_t n;

	pthread_mutex_lock(&fake.mutex);
	n = *of;
	pthread_mutex_unlock(&fake.mutex);
	return n;
}

uint64_t fake_cuda_live(void)
{
	return read_count(&fake.live);
}

uint64_t fake_cuda_calls(void)
{
	return read_count(&fake.calls);
}

uint64_t fake_cuda_takes(void)
{
	return read_count(&fake.takes);
}

uint64_t fake_cuda_bytes(void)
{
	return read_count(&fake.bytes);
}

static void *last_range;

void *fake_cuda_range(void)
{
	return last_range;
}

static CUresult count_call(void)
{
	const struct fake_knobs *k = &fake.knobs;

	fake.calls++;
	if (k->lost_at && fake.calls >= k->lost_at)
		fake.lost = true;
	if (k->lost_file[0] && access(k->lost_file, F_OK) == 0)
		fake.lost = true;
	return fake.lost ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}

CUresult fake_call(void)
{
	CUresult r;

	pthread_mutex_lock(&fake.mutex);
	r = count_call();
	pthread_mutex_unlock(&fake.mutex);
	return r;
}

CUresult fake_take(uint64_t bytes)
{
	CUresult r;

	pthread_mutex_lock(&fake.mutex);
	r = count_call();
	fake.takes++;
	if (r == CUDA_SUCCESS &&
	    (fake.takes == fake.knobs.oom_at || bytes > fake.knobs.memory - fake.bytes))
		r = CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_unlock(&fake.mutex);
	return r;
}

void fake_live(int n, int64_t bytes)
{
	pthread_mutex_lock(&fake.mutex);
	fake.live += (uint64_t)(int64_t)n;
	fake.bytes += (uint64_t)bytes;
	pthread_mutex_unlock(&fake.mutex);
}

static void read_knobs(struct fake_knobs *k)
{
	char text[1024], *rest = text, *word;

	*k = (struct fake_knobs){
		.devices = 1,
		.version = CUDA_VERSION,
		.memory = (uint64_t)1 << 30,
		.capability = 90,
		.vmm = 1,
		.graphs = 1,
	};
	snprintf(text, sizeof(text), "%s", getenv("FAKE_CUDA") ? getenv("FAKE_CUDA") : "");
	while ((word = strsep(&rest, " "))) {
		char *value = strchr(word, '=');
		unsigned long long n = value ? strtoull(value + 1, NULL, 10) : 0;

		if (!value)
			continue;
		*value++ = '\0';
		if (!strcmp(word, "devices"))
			k->devices = (int)n;
		else if (!strcmp(word, "version"))
			k->version = (int)n;
		else if (!strcmp(word, "capability"))
			k->capability = (int)n;
		else if (!strcmp(word, "vmm"))
			k->vmm = (int)n;
		else if (!strcmp(word, "graphs"))
			k->graphs = (int)n;
		else if (!strcmp(word, "memory"))
			k->memory = n;
		else if (!strcmp(word, "oom_at"))
			k->oom_at = n;
		else if (!strcmp(word, "lost_at"))
			k->lost_at = n;
		else if (!strcmp(word, "slow_us"))
			k->slow_us = n;
		else if (!strcmp(word, "lost_file"))
			snprintf(k->lost_file, sizeof(k->lost_file), "%s", value);
		else
			abort(); /* a test that asks for what does not exist */
	}
}

/* ---- driver and device ---------------------------------------------------------- */

CUresult cuDriverGetVersion(int *ret)
{
	struct fake_knobs k;

	read_knobs(&k);
	*ret = k.version;
	return CUDA_SUCCESS;
}

CUresult cuInit(unsigned int flags)
{
	CUresult r;

	pthread_mutex_lock(&fake.mutex);
	read_knobs(&fake.knobs);
	fake.calls = fake.takes = 0;
	fake.lost = false;
	r = count_call();
	if (r == CUDA_SUCCESS && fake.knobs.devices == 0)
		r = CUDA_ERROR_NO_DEVICE;
	pthread_mutex_unlock(&fake.mutex);
	return r;
}

CUresult cuGetErrorName(CUresult error, const char **ret)
{
	switch (error) {
	case CUDA_ERROR_LAUNCH_FAILED:
		*ret = "CUDA_ERROR_LAUNCH_FAILED";
		return CUDA_SUCCESS;
	case CUDA_ERROR_OUT_OF_MEMORY:
		*ret = "CUDA_ERROR_OUT_OF_MEMORY";
		return CUDA_SUCCESS;
	case CUDA_ERROR_NOT_SUPPORTED:
		*ret = "CUDA_ERROR_NOT_SUPPORTED";
		return CUDA_SUCCESS;
	case CUDA_ERROR_NO_DEVICE:
		*ret = "CUDA_ERROR_NO_DEVICE";
		return CUDA_SUCCESS;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

CUresult cuGetErrorString(CUresult error, const char **ret)
{
	return cuGetErrorName(error, ret);
}

CUresult cuDeviceGetCount(int *ret)
{
	*ret = fake.knobs.devices;
	return fake_call();
}

CUresult cuDeviceGet(CUdevice *ret, int index)
{
	*ret = index;
	return fake_call();
}

CUresult cuDeviceGetName(char *ret, int n, CUdevice d)
{
	snprintf(ret, (size_t)n, "Fake %d", d);
	return fake_call();
}

CUresult cuDeviceGetPCIBusId(char *ret, int n, CUdevice d)
{
	snprintf(ret, (size_t)n, "0000:A%d:00.0", d);
	return fake_call();
}

CUresult cuDeviceGetAttribute(int *ret, CUdevice_attribute what, CUdevice d)
{
	switch ((int)what) {
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
		*ret = fake.knobs.capability / 10;
		break;
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
		*ret = fake.knobs.capability % 10;
		break;
	case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
		*ret = fake.knobs.vmm;
		break;
	case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
		*ret = 4;
		break;
	case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
		*ret = 1 << 20;
		break;
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
		*ret = 232448;
		break;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
	return fake_call();
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *ret, CUdevice d)
{
	CUresult r = fake_take(0);

	if (r != CUDA_SUCCESS)
		return r;
	fake_live(1, 0);
	*ret = (CUcontext)&fake;
	return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice d)
{
	fake_live(-1, 0);
	return fake_call();
}

CUresult cuCtxSetCurrent(CUcontext c)
{
	return fake_call();
}

/* ---- kernels ---------------------------------------------------------------------- */

CUresult cuModuleLoadData(CUmodule *ret, const void *image)
{
	CUresult r = fake_take(0);

	if (r == CUDA_SUCCESS && fake.knobs.capability < 80)
		r = CUDA_ERROR_NO_BINARY_FOR_GPU;
	if (r != CUDA_SUCCESS)
		return r;
	fake_live(1, 0);
	*ret = (CUmodule)&fake;
	return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule m)
{
	fake_live(-1, 0);
	return fake_call();
}

CUresult cuModuleGetFunction(CUfunction *ret, CUmodule m, const char *name)
{
	const struct fake_kernel *k = fake_kernel_find(name);
	CUresult r = fake_call();

	if (r != CUDA_SUCCESS)
		return r;
	if (!k)
		return CUDA_ERROR_NOT_FOUND;
	*ret = (CUfunction)(uintptr_t)k;
	return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute what, int value)
{
	return fake_call();
}

CUresult cuLaunchKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz,
			unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared,
			CUstream s, void **arguments, void **extra)
{
	const struct fake_kernel *k = (const struct fake_kernel *)(uintptr_t)f;
	const struct fake_op op = {
		.kind = FAKE_LAUNCH,
		.kernel = k->run,
		.launch = { k, { gx, gy, gz }, { bx, by, bz }, shared, *(void **)arguments[0] },
	};
	CUresult r = fake_call();

	if (r != CUDA_SUCCESS)
		return r;
	if (!gx || !gy || !gz || !bx || !by || !bz || bx * by * bz > 1024 || gy > 65535 ||
	    gz > 65535)
		return CUDA_ERROR_INVALID_VALUE;
	return fake_enqueue(s, &op);
}

/* ---- memory ----------------------------------------------------------------------- */

CUresult cuMemGetInfo(size_t *ret_free, size_t *ret_all)
{
	*ret_all = fake.knobs.memory;
	*ret_free = fake.knobs.memory - fake_cuda_bytes();
	return fake_call();
}

CUresult cuMemGetAllocationGranularity(size_t *ret, const CUmemAllocationProp *p,
				       CUmemAllocationGranularity_flags flags)
{
	*ret = GRANULE;
	return fake_call();
}

CUresult cuMemAddressReserve(CUdeviceptr *ret, size_t n, size_t align, CUdeviceptr at,
			     unsigned long long flags)
{
	CUresult r = fake_take(0);
	void *p;

	if (r != CUDA_SUCCESS)
		return r;
	p = mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return CUDA_ERROR_OUT_OF_MEMORY;
	fake_live(1, 0);
	last_range = p;
	*ret = (CUdeviceptr)(uintptr_t)p;
	return CUDA_SUCCESS;
}

CUresult cuMemAddressFree(CUdeviceptr at, size_t n)
{
	munmap((void *)(uintptr_t)at, n);
	fake_live(-1, 0);
	return fake_call();
}

/* Of memory that is neither mapped nor held nothing is left: a handle is a count of both. */
struct handle {
	size_t bytes;
};

CUresult cuMemCreate(CUmemGenericAllocationHandle *ret, size_t n, const CUmemAllocationProp *p,
		     unsigned long long flags)
{
	CUresult r = fake_take(n);
	struct handle *h;

	if (r != CUDA_SUCCESS)
		return r;
	h = malloc(sizeof(*h));
	if (!h)
		return CUDA_ERROR_OUT_OF_MEMORY;
	h->bytes = n;
	fake_live(1, 0);
	*ret = (CUmemGenericAllocationHandle)(uintptr_t)h;
	return CUDA_SUCCESS;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
	free((void *)(uintptr_t)handle);
	fake_live(-1, 0);
	return fake_call();
}

CUresult cuMemMap(CUdeviceptr at, size_t n, size_t offset, CUmemGenericAllocationHandle handle,
		  unsigned long long flags)
{
	CUresult r = fake_call();

	if (r != CUDA_SUCCESS)
		return r;
	fake_live(1, (int64_t)n);
	return CUDA_SUCCESS;
}

CUresult cuMemSetAccess(CUdeviceptr at, size_t n, const CUmemAccessDesc *access, size_t count)
{
	CUresult r = fake_call();

	if (r != CUDA_SUCCESS)
		return r;
	if (mprotect((void *)(uintptr_t)at, n, PROT_READ | PROT_WRITE) < 0)
		return CUDA_ERROR_INVALID_VALUE;
	memset((void *)(uintptr_t)at, GARBAGE, n);
	return CUDA_SUCCESS;
}

CUresult cuMemUnmap(CUdeviceptr at, size_t n)
{
	fake_quiesce();
	mmap((void *)(uintptr_t)at, n, PROT_NONE,
	     MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	fake_live(-1, -(int64_t)n);
	return fake_call();
}

/* Its length stands before what is given out. */
static void *take_block(size_t n, int64_t device)
{
	size_t *p = aligned_alloc(256, (n + 511) / 256 * 256);

	if (!p)
		return NULL;
	*p = (size_t)device;
	memset((char *)p + 256, GARBAGE, n);
	fake_live(1, device);
	return (char *)p + 256;
}

static void give_block(void *p)
{
	size_t *block = (size_t *)((char *)p - 256);

	fake_quiesce();
	fake_live(-1, -(int64_t)*block);
	free(block);
}

CUresult cuMemAlloc(CUdeviceptr *ret, size_t n)
{
	CUresult r = fake_take(n);
	void *p;

	if (r != CUDA_SUCCESS)
		return r;
	p = take_block(n, (int64_t)n);
	*ret = (CUdeviceptr)(uintptr_t)p;
	return p ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemFree(CUdeviceptr p)
{
	give_block((void *)(uintptr_t)p);
	return fake_call();
}

CUresult cuMemHostAlloc(void **ret, size_t n, unsigned int flags)
{
	CUresult r = fake_take(0);

	if (r != CUDA_SUCCESS)
		return r;
	*ret = take_block(n, 0);
	return *ret ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemFreeHost(void *p)
{
	give_block(p);
	return fake_call();
}

CUresult cuMemHostRegister(void *p, size_t n, unsigned int flags)
{
	CUresult r = fake_take(0);

	if (r == CUDA_SUCCESS)
		fake_live(1, 0);
	return r;
}

CUresult cuMemHostUnregister(void *p)
{
	fake_live(-1, 0);
	return fake_call();
}

static CUresult copy(void *to, const void *from, size_t n, CUstream s)
{
	const struct fake_op op = { .kind = FAKE_COPY, .to = to, .from = from, .n = n };
	CUresult r = fake_call();

	return r == CUDA_SUCCESS ? fake_enqueue(s, &op) : r;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t n, CUstream s)
{
	return copy((void *)(uintptr_t)to, from, n, s);
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t n, CUstream s)
{
	return copy(to, (const void *)(uintptr_t)from, n, s);
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s)
{
	return copy((void *)(uintptr_t)to, (const void *)(uintptr_t)from, n, s);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n, CUstream s)
{
	const struct fake_op op = {
		.kind = FAKE_FILL,
		.to = (void *)(uintptr_t)to,
		.n = n,
		.value = value,
	};
	CUresult r = fake_call();

	return r == CUDA_SUCCESS ? fake_enqueue(s, &op) : r;
}
