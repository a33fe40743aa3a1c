/* SPDX-License-Identifier: Apache-2.0 */
/* Devices as the others see them: see device.h. */
#include "daemon/device.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "daemon/device-private.h"
#include "daemon/log.h"
#include "daemon/name.h"
#include "numa/arena.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "shm/sparq-abi.h"

/* So long a failure is the answer to whoever asks. */
#define FAILED_NS 1000000000ull
#define END_S 5 /* a thread that is well ends with its batch */

const char *const device_state_names[5] = {
	[DEVICE_CLOSED] = "closed", [DEVICE_OPENING] = "opening", [DEVICE_OPEN] = "open",
	[DEVICE_FAILED] = "failed", [DEVICE_LOST] = "lost",
};

/* ---- all of them ------------------------------------------------------------------ */

int devices_new(const struct devices_params *p, struct devices **ret)
{
	struct devices *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->params = *p;
	pthread_mutex_init(&d->mutex, NULL);
	*ret = d;
	return 0;
}

/* False: it is stuck in the driver, and so it stays, with all it may look at. */
static bool end_thread(struct device *d)
{
	struct timespec until;
	uint64_t one = 1;

	store_relaxed(&d->stopping, 1);
	if (!d->started)
		return true;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += END_S;
	return write(d->wake, &one, sizeof(one)) == sizeof(one) &&
	       pthread_timedjoin_np(d->thread, NULL, &until) == 0;
}

static struct device *free_device(struct device *d)
{
	if (!d)
		return NULL;
	if (!end_thread(d)) {
		d->all->is_stuck = true;
		return NULL;
	}
	for (unsigned i = 0; i < d->all->params.n_arenas; i++)
		present_deinit(&d->arena[i].present);
	close_fd(&d->wake);
	pthread_mutex_destroy(&d->look_mutex);
	free(d);
	return NULL;
}

struct devices *devices_free(struct devices *d)
{
	for (unsigned i = 0; d && i < DEVICES_MAX; i++)
		d->device[i] = free_device(d->device[i]);
	if (d && !d->is_stuck)
		free(d);
	return NULL;
}

int devices_enroll(struct devices *d, struct device_request *r)
{
	int error = -ENOSPC;

	store_relaxed(&r->state, REQUEST_FREE);
	pthread_mutex_lock(&d->mutex);
	if (d->n_requests < DEVICE_REQUESTS) {
		d->request[d->n_requests++] = r;
		error = 0;
	}
	pthread_mutex_unlock(&d->mutex);
	return error;
}

void devices_withdraw(struct devices *d, struct device_request *r)
{
	int64_t until = clock_now_ns() + END_S * NS_PER_S;

	/* One that was left is a thread's until it has looked at it: who waits for a silent device
	 * does so no longer. One that is stuck in its driver does not, and neither does it look at
	 * anything else. */
	for (unsigned i = 0; load_acquire(&r->state) != REQUEST_FREE && i < DEVICES_MAX; i++)
		if (d->device[i])
			store_relaxed(&d->device[i]->stopping, 1);
	while (load_acquire(&r->state) != REQUEST_FREE && clock_now_ns() < until)
		sched_yield();
	pthread_mutex_lock(&d->mutex);
	for (uint32_t i = 0; i < d->n_requests; i++)
		if (d->request[i] == r)
			d->request[i--] = d->request[--d->n_requests];
	pthread_mutex_unlock(&d->mutex);
}

/* ---- one ----------------------------------------------------------------------------- */

static int make(struct devices *all, uint32_t index, struct device **ret)
{
	struct device *d = calloc(1, sizeof(*d));
	int r = 0;

	if (!d)
		return -ENOMEM;
	d->all = all;
	d->index = index;
	snprintf(d->name, sizeof(d->name), "cuda:%" PRIu32, index);
	pthread_mutex_init(&d->look_mutex, NULL);
	d->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned i = 0; r == 0 && i < all->params.n_arenas; i++) {
		d->arena[i].base = all->params.arena[i].base;
		d->arena[i].bytes = all->params.arena[i].bytes;
		r = present_init(&d->arena[i].present, d->arena[i].bytes);
	}
	if (r < 0 || d->wake < 0) {
		free_device(d);
		return -ENOMEM;
	}
	*ret = d;
	return 0;
}

/* Behind `word`, a number below `end` without zeros before it. False: something else. */
static bool take_number(const char **at, const char *word, uint32_t end, uint32_t *ret)
{
	size_t length = strlen(word);
	const char *c = *at + length;
	uint64_t n = 0;

	if (strncmp(*at, word, length) || *c < '0' || *c > '9' || (c[0] == '0' && c[1] >= '0'))
		return false;
	for (; *c >= '0' && *c <= '9'; c++) {
		n = n * 10 + (uint32_t)(*c - '0');
		if (n >= end)
			return false;
	}
	*at = c;
	*ret = (uint32_t)n;
	return true;
}

static bool parse_use(const char *name, uint32_t *ret_index, uint32_t *ret_rows)
{
	uint32_t rows = DEVICE_ROWS_ALL;

	if (!take_number(&name, "cuda:", DEVICES_MAX, ret_index))
		return false;
	if (!strncmp(name, ",host", 5)) {
		name += 5;
		rows = DEVICE_ROWS_ROOM;
		if (*name && (!take_number(&name, ",rows=", SPARQ_ROW_LIMIT, &rows) || !rows))
			return false;
	}
	*ret_rows = rows;
	return !*name;
}

int devices_find(struct devices *d, const char *name, struct device_use *ret, char *why)
{
	struct device_use use;
	uint32_t index;

	if (!strcmp(name, "cpu")) {
		*ret = (struct device_use){ .rows = DEVICE_ROWS_ALL };
		return 0;
	}
	if (!parse_use(name, &index, &use.rows))
		return why_fail(why, EINVAL,
				"device \"%.32s\": cpu and cuda:0 to cuda:%u are allowed, behind "
				"which \",host\" and \",host,rows=N\" leave older rows to the host",
				name, DEVICES_MAX - 1);
	if (!d)
		return why_fail(why, EOPNOTSUPP, "device \"%.32s\": this daemon has cpu", name);
	if (!d->device[index] && make(d, index, &d->device[index]) < 0)
		return why_fail(why, ENOMEM, "out of memory");
	use.device = d->device[index];
	*ret = use;
	return 0;
}

static int start(struct device *d, char *why)
{
	if (d->started)
		pthread_join(d->thread, NULL);
	d->started = false;
	store_relaxed(&d->state, DEVICE_OPENING);
	if (pthread_create(&d->thread, NULL, device_thread, d)) {
		store_relaxed(&d->state, DEVICE_CLOSED);
		return why_fail(why, EAGAIN, "device \"%s\": no thread for it", d->name);
	}
	d->started = true;
	return DEVICE_LATER;
}

int device_open(struct device *d, char *why)
{
	switch ((enum device_state)load_acquire(&d->state)) {
	case DEVICE_OPEN:
		return 0;
	case DEVICE_OPENING:
		return DEVICE_LATER;
	case DEVICE_LOST:
		return why_fail(why, EIO,
				"device \"%s\" is lost until the daemon is restarted: %.150s",
				d->name, d->why);
	case DEVICE_FAILED:
		if ((uint64_t)clock_now_ns() - d->failed_ns < FAILED_NS)
			return why_fail(why, -d->error, "device \"%s\": %.200s", d->name, d->why);
		return start(d, why);
	case DEVICE_CLOSED:
		return start(d, why);
	}
	return -EINVAL;
}

int device_serves(const struct device *d, const struct kv_space *s, char *why)
{
	char reason[KV_GPU_WHY] = "";
	int r;

	if (s->kv_heads > DEVICE_HEADS)
		return why_fail(why, EOPNOTSUPP, "device \"%s\": kv_heads %u: at most %u", d->name,
				s->kv_heads, DEVICE_HEADS);
	r = d->backend->serves(d->gpu, s, reason);
	return r < 0 ? why_fail(why, -r, "device \"%s\": %.200s", d->name, reason) : 0;
}

/* Once: what is too large for it stays so. */
static void tell_full(struct device *d)
{
	if (d->told_full || !load_relaxed(&d->sums.beside_items[DEVICE_BESIDE_MEMORY]))
		return;
	d->told_full = true;
	log_event(EVENT_DEVICE_FULL, NULL,
		  "%s: rows of a step do not fit into its memory, %.1f GiB (device_bytes): "
		  "processors compute such steps",
		  d->name, (double)d->limit_bytes / (double)GIB);
}

void devices_tell(struct devices *all)
{
	for (unsigned i = 0; i < DEVICES_MAX; i++) {
		struct device *d = all->device[i];
		enum device_state state = d ? load_acquire(&d->state) : DEVICE_CLOSED;

		if (d)
			tell_full(d);
		if (!d || state == d->told)
			continue;
		d->told = state;
		if (state == DEVICE_OPEN)
			log_event(EVENT_DEVICE_OPEN, NULL,
				  "%s is open: %s (%s), %.1f of %.1f GiB for copies of rows%s%s",
				  d->name, d->info.name, d->info.bus_id,
				  (double)d->limit_bytes / (double)GIB,
				  (double)d->info.memory_bytes / (double)GIB,
				  d->info.plain[0] ? "; kernels are launched one by one: " : "",
				  d->info.plain);
		else if (state == DEVICE_FAILED)
			log_event(EVENT_DEVICE_FAILED, NULL,
				  "%s cannot be used: %s; processors compute steps of caches "
				  "that are on it",
				  d->name, d->why);
		else if (state == DEVICE_LOST)
			log_event(EVENT_DEVICE_LOST, NULL,
				  "%s is lost: %s; processors compute the steps of its caches, "
				  "whose rows are safe",
				  d->name, d->why);
	}
}

/* ---- names ------------------------------------------------------------------------------ */

static bool is_there(const struct devices *d, unsigned index)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/nvidia%u", index);
	return (d && d->device[index] && device_is_open(d->device[index])) ||
	       access(path, F_OK) == 0;
}

const char *devices_name(const struct devices *d, unsigned i)
{
	static const char *const names[DEVICES_MAX] = {
		"cuda:0",  "cuda:1",  "cuda:2",  "cuda:3",  "cuda:4",  "cuda:5",
		"cuda:6",  "cuda:7",  "cuda:8",  "cuda:9",  "cuda:10", "cuda:11",
		"cuda:12", "cuda:13", "cuda:14", "cuda:15",
	};

	if (i == 0)
		return "cpu";
	for (unsigned k = 0; k < DEVICES_MAX; k++)
		if (is_there(d, k) && --i == 0)
			return names[k];
	return NULL;
}

/* ---- requests ---------------------------------------------------------------------------- */

bool device_is_open(const struct device *d)
{
	return load_acquire(&d->state) == DEVICE_OPEN;
}

void device_charge(struct device *d, int64_t bytes)
{
	fetch_add(&d->charged_bytes, (uint64_t)bytes);
}

uint32_t device_rows(const struct device *d, uint32_t rows)
{
	/* Rows of one age lie together, but not so that granules have nothing else. */
	uint64_t room = d->limit_bytes - d->limit_bytes / 8;
	uint64_t charged = load_relaxed(&d->charged_bytes);

	return charged <= room ? rows : (uint32_t)((double)rows * (double)room / (double)charged);
}

enum device_beside device_runs(const struct device *d, const struct kv_gpu_item *item)
{
	if (!device_is_open(d))
		return DEVICE_BESIDE_LOST;
	return d->backend->runs(item) ? DEVICE_BESIDE_NONE : DEVICE_BESIDE_KERNEL;
}

void device_beside(struct device *d, enum device_beside why, const uint64_t bytes[KV_PLANES])
{
	for (unsigned p = 0; p < KV_PLANES; p++)
		if (bytes[p])
			fetch_add(&d->sums.beside_bytes[p], bytes[p]);
	/* The first of its kind is worth a line. */
	if (fetch_add(&d->sums.beside_items[why], 1) == 0 && why == DEVICE_BESIDE_MEMORY)
		device_tell(d);
}

bool device_post(struct device *d, struct device_request *r)
{
	uint64_t one = 1;

	if (!device_is_open(d))
		return false;
	r->first = 0;
	for (uint32_t i = 0; i < r->n; i++)
		r->error[i] = -EIO; /* until it has an answer */
	/* What it points at is there before the thread sees it. */
	store_release(&r->state, request_queued(d));
	fence_seq_cst();
	if (load_relaxed(&d->asleep) && write(d->wake, &one, sizeof(one)) < 0)
		return true; /* a counter that is full wakes as well */
	return true;
}

bool device_done(struct device_request *r)
{
	if (load_acquire(&r->state) != REQUEST_DONE)
		return false;
	store_relaxed(&r->state, REQUEST_FREE);
	return true;
}

bool device_leave(struct device_request *r)
{
	uint32_t state = load_relaxed(&r->state);

	if ((state & 0xff) == REQUEST_QUEUED)
		return compare_exchange(&r->state, &state, REQUEST_FREE);
	return state == REQUEST_SUBMITTED && compare_exchange(&r->state, &state, REQUEST_LEFT);
}
