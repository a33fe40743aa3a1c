/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses and memory: a mirror is a range of addresses for a whole arena, of
 * which granules have memory behind them or not.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/backend.h"

size_t cuda_granule(const struct kv_gpu *g)
{
	return g->granule;
}

/* ---- mirrors ---------------------------------------------------------------------- */

/* Those that look meanwhile see all of it or nothing. */
static int enlist(struct kv_gpu *g, struct kv_gpu_mirror *m)
{
	uint32_t i = 0, n;
	int r = 0;

	pthread_mutex_lock(&g->mutex);
	n = atomic_load(&g->n_mirrors);
	while (i < n && atomic_load(&g->mirror[i]))
		i++;
	if (i == CUDA_MAX_MIRRORS) {
		r = -ENOMEM;
	} else {
		atomic_store(&g->mirror[i], m);
		if (i == n)
			atomic_store(&g->n_mirrors, n + 1);
	}
	pthread_mutex_unlock(&g->mutex);
	return r;
}

static void delist(struct kv_gpu_mirror *m)
{
	struct kv_gpu *g = m->gpu;

	pthread_mutex_lock(&g->mutex);
	for (uint32_t i = 0; i < atomic_load(&g->n_mirrors); i++)
		if (atomic_load(&g->mirror[i]) == m)
			atomic_store(&g->mirror[i], NULL);
	pthread_mutex_unlock(&g->mutex);
}

int cuda_mirror(struct kv_gpu *g, const void *host, size_t bytes, struct kv_gpu_mirror **ret)
{
	FREE_MEMORY struct kv_gpu_mirror *m = calloc(1, sizeof(*m));
	FREE_MEMORY uint8_t *mapped = NULL;
	int r = cuda_enter(g);

	if (r < 0)
		return r;
	if (!m)
		return -ENOMEM;
	*m = (struct kv_gpu_mirror){ .gpu = g, .host = host, .bytes = bytes };
	m->reserved = ALIGN_UP(bytes, g->granule);
	mapped = calloc(m->reserved / g->granule, 1);
	if (!mapped)
		return -ENOMEM;
	r = CUDA_TRY(g, address_reserve, &m->device, m->reserved, 0, 0, 0);
	if (r < 0)
		return r;
	r = enlist(g, m);
	if (r < 0) {
		g->driver.address_free(m->device, m->reserved);
		return r;
	}
	m->mapped = STEAL_PTR(mapped);
	*ret = STEAL_PTR(m);
	return 0;
}

struct kv_gpu_mirror *cuda_unmirror(struct kv_gpu_mirror *m)
{
	if (!m)
		return NULL;
	delist(m);
	m->gpu->driver.context_set(m->gpu->context);
	for (size_t i = 0; i < m->reserved / m->gpu->granule; i++)
		if (m->mapped[i])
			cuda_unmap(m, i * m->gpu->granule, m->gpu->granule);
	m->gpu->driver.address_free(m->device, m->reserved);
	free(m->mapped);
	free(m);
	return NULL;
}

CUdeviceptr cuda_address(const struct kv_gpu *g, const void *host)
{
	for (uint32_t i = 0; i < atomic_load(&g->n_mirrors); i++) {
		const struct kv_gpu_mirror *m = atomic_load(&g->mirror[i]);

		if (m && (const char *)host >= m->host && (const char *)host < m->host + m->bytes)
			return m->device + (size_t)((const char *)host - m->host);
	}
	return 0;
}

/* ---- granules ---------------------------------------------------------------------- */

/* The mapping holds the memory: it goes when it is unmapped. */
static int map_one(struct kv_gpu_mirror *m, size_t at)
{
	struct kv_gpu *g = m->gpu;
	const CUmemAccessDesc access = { g->memory.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUmemGenericAllocationHandle handle;
	int r;

	assert(!m->mapped[at / g->granule]);
	r = CUDA_TRY(g, create, &handle, g->granule, &g->memory, 0);
	if (r < 0)
		return r;
	r = CUDA_TRY(g, map, m->device + at, g->granule, 0, handle, 0);
	g->driver.release(handle);
	if (r < 0)
		return r;
	m->mapped[at / g->granule] = 1;
	r = CUDA_TRY(g, set_access, m->device + at, g->granule, &access, 1);
	/* It may have been another user's. */
	if (r == 0)
		r = CUDA_TRY(g, fill, m->device + at, 0, g->granule, g->stream);
	if (r == 0)
		r = CUDA_TRY(g, stream_wait, g->stream);
	if (r < 0)
		cuda_unmap(m, at, g->granule);
	return r;
}

int cuda_map(struct kv_gpu_mirror *m, size_t at, size_t bytes)
{
	size_t granule = m->gpu->granule;
	int r = cuda_enter(m->gpu);

	assert(at % granule == 0 && bytes % granule == 0 && at + bytes <= m->reserved);
	for (size_t i = 0; r == 0 && i < bytes; i += granule) {
		r = map_one(m, at + i);
		if (r < 0)
			cuda_unmap(m, at, i);
	}
	return r;
}

void cuda_unmap(struct kv_gpu_mirror *m, size_t at, size_t bytes)
{
	struct kv_gpu *g = m->gpu;

	g->driver.context_set(g->context);
	for (size_t end = at + bytes; at < end; at += g->granule) {
		g->driver.unmap(m->device + at, g->granule);
		m->mapped[at / g->granule] = 0;
	}
}

/* ---- the host's ---------------------------------------------------------------------- */

/* Memory that cannot be pinned, a file's for one, is no fault of the device. */
static bool is_of_the_memory(CUresult r)
{
	return r == CUDA_ERROR_INVALID_VALUE || r == CUDA_ERROR_NOT_SUPPORTED ||
	       r == CUDA_ERROR_NOT_PERMITTED || r == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

int cuda_pin(struct kv_gpu *g, void *host, size_t bytes)
{
	int r = cuda_enter(g);
	CUresult error;

	if (r < 0)
		return r;
	error = g->driver.host_register(host, bytes, CU_MEMHOSTREGISTER_PORTABLE);
	return is_of_the_memory(error) ? -EINVAL : cuda_check(g, error, "host_register");
}

void cuda_unpin(struct kv_gpu *g, void *host)
{
	g->driver.context_set(g->context);
	g->driver.host_unregister(host);
}
