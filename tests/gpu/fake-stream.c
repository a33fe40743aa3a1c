/* SPDX-License-Identifier: Apache-2.0 */
/* Streams and events of the fake driver: a thread each, that does things in their order. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/gpu/fake-private.h"

struct CUstream_st {
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct fake_op *first, **last;
	bool busy, stopping;
};

struct CUevent_st {
	pthread_mutex_t mutex;
	uint64_t recorded, done;
	struct timespec at;
};

static void record(CUevent e)
{
	pthread_mutex_lock(&e->mutex);
	clock_gettime(CLOCK_MONOTONIC, &e->at);
	e->done++;
	pthread_mutex_unlock(&e->mutex);
}

/* What all streams have yet to do. A device that is lost does nothing more. */
static pthread_mutex_t todo_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t todo_changed = PTHREAD_COND_INITIALIZER;
static uint64_t todo;

static void count_todo(int n)
{
	pthread_mutex_lock(&todo_mutex);
	todo += (uint64_t)(int64_t)n;
	pthread_cond_broadcast(&todo_changed);
	pthread_mutex_unlock(&todo_mutex);
}

void fake_quiesce(void)
{
	pthread_mutex_lock(&todo_mutex);
	while (todo)
		pthread_cond_wait(&todo_changed, &todo_mutex);
	pthread_mutex_unlock(&todo_mutex);
}

static bool is_lost(void)
{
	bool lost;

	pthread_mutex_lock(&fake.mutex);
	lost = fake.lost;
	pthread_mutex_unlock(&fake.mutex);
	return lost;
}

static void run(const struct fake_op *op)
{
	if (is_lost())
		return;
	if (fake.knobs.slow_us)
		usleep((useconds_t)fake.knobs.slow_us);
	switch (op->kind) {
	case FAKE_COPY:
		memcpy(op->to, op->from, op->n);
		break;
	case FAKE_FILL:
		memset(op->to, op->value, op->n);
		break;
	case FAKE_LAUNCH:
		op->kernel(&op->launch);
		break;
	case FAKE_RECORD:
		record(op->event);
		break;
	}
}

static void *stream_thread(void *arg)
{
	CUstream s = arg;

	pthread_mutex_lock(&s->mutex);
	for (;;) {
		struct fake_op *op = s->first;

		if (!op && s->stopping)
			break;
		if (!op) {
			pthread_cond_wait(&s->changed, &s->mutex);
			continue;
		}
		s->first = op->next;
		if (!s->first)
			s->last = &s->first;
		s->busy = true;
		pthread_mutex_unlock(&s->mutex);
		run(op);
		free(op);
		count_todo(-1);
		pthread_mutex_lock(&s->mutex);
		s->busy = false;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->mutex);
	return NULL;
}

CUresult fake_enqueue(CUstream s, const struct fake_op *op)
{
	struct fake_op *copy = malloc(sizeof(*copy));

	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*copy = *op;
	copy->next = NULL;
	count_todo(1);
	pthread_mutex_lock(&s->mutex);
	*s->last = copy;
	s->last = &copy->next;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->mutex);
	return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *ret, unsigned int flags)
{
	CUresult r = fake_take(0);
	CUstream s;

	if (r != CUDA_SUCCESS)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->changed, NULL);
	s->last = &s->first;
	if (pthread_create(&s->thread, NULL, stream_thread, s)) {
		free(s);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	fake_live(1, 0);
	*ret = s;
	return CUDA_SUCCESS;
}

/* Also of a lost device: what is left to do is done, for nobody looks at it. */
CUresult cuStreamDestroy(CUstream s)
{
	CUresult r = fake_call();

	pthread_mutex_lock(&s->mutex);
	s->stopping = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->mutex);
	pthread_join(s->thread, NULL);
	pthread_mutex_destroy(&s->mutex);
	pthread_cond_destroy(&s->changed);
	free(s);
	fake_live(-1, 0);
	return r;
}

CUresult cuStreamSynchronize(CUstream s)
{
	CUresult r = fake_call();

	if (r != CUDA_SUCCESS)
		return r;
	pthread_mutex_lock(&s->mutex);
	while (s->first || s->busy)
		pthread_cond_wait(&s->changed, &s->mutex);
	pthread_mutex_unlock(&s->mutex);
	return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *ret, unsigned int flags)
{
	CUresult r = fake_take(0);
	CUevent e;

	if (r != CUDA_SUCCESS)
		return r;
	e = calloc(1, sizeof(*e));
	if (!e)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_init(&e->mutex, NULL);
	fake_live(1, 0);
	*ret = e;
	return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent e)
{
	CUresult r = fake_call();

	pthread_mutex_destroy(&e->mutex);
	free(e);
	fake_live(-1, 0);
	return r;
}

CUresult cuEventRecord(CUevent e, CUstream s)
{
	const struct fake_op op = { .kind = FAKE_RECORD, .event = e };
	CUresult r = fake_call();

	if (r != CUDA_SUCCESS)
		return r;
	pthread_mutex_lock(&e->mutex);
	e->recorded++;
	pthread_mutex_unlock(&e->mutex);
	return fake_enqueue(s, &op);
}

CUresult cuEventQuery(CUevent e)
{
	CUresult r = fake_call();

	if (r != CUDA_SUCCESS)
		return r;
	pthread_mutex_lock(&e->mutex);
	r = e->done == e->recorded ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
	pthread_mutex_unlock(&e->mutex);
	return r;
}

CUresult cuEventElapsedTime(float *ret, CUevent from, CUevent to)
{
	CUresult r = fake_call();

	if (r != CUDA_SUCCESS)
		return r;
	*ret = (float)(to->at.tv_sec - from->at.tv_sec) * 1e3f +
	       (float)(to->at.tv_nsec - from->at.tv_nsec) / 1e6f;
	return CUDA_SUCCESS;
}
