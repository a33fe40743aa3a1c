/* SPDX-License-Identifier: Apache-2.0 */
/* A page in memory: see metrics-page.h. Its figures are small and all different. */
#include "tests/unit/metrics-page.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"

const struct stats_header *stats_header(const struct stats *s)
{
	return &s->header;
}

uint32_t stats_count(const struct stats *s, enum stats_kind kind)
{
	return s->header.section[kind].n;
}

int stats_copy(const struct stats *s, enum stats_kind kind, uint32_t index, void *ret)
{
	const struct {
		const void *first;
		size_t bytes;
	} of[STATS_KINDS] = {
		[STATS_CONTROL] = { &s->control, sizeof(s->control) },
		[STATS_NODE] = { s->node, sizeof(s->node[0]) },
		[STATS_WORKER] = { s->worker, sizeof(s->worker[0]) },
		[STATS_USER] = { s->user, sizeof(s->user[0]) },
		[STATS_CACHE] = { s->cache, sizeof(s->cache[0]) },
		[STATS_SEQUENCE] = { s->sequence, sizeof(s->sequence[0]) },
		[STATS_DEVICE] = { s->device, sizeof(s->device[0]) },
	};

	if (index >= stats_count(s, kind))
		return -ENOENT;
	if (s->busy > 0) {
		((struct stats *)s)->busy--;
		return -EAGAIN;
	}
	memcpy(ret, (const char *)of[kind].first + index * of[kind].bytes, of[kind].bytes);
	return 0;
}

static void set(char *to, size_t n, const char *text)
{
	snprintf(to, n, "%s", text);
}
#define SET(field, text) set(field, sizeof(field), text)

void page_fresh(struct stats *s)
{
	*s = (struct stats){
		.header = { .generation = 7, .started_s = 1700000000 },
		.control = { .workers = 1 },
		.node[0] = { .pool_bytes = 1 << 30 },
	};
	SET(s->header.version, "0.1.0");
	SET(s->header.isa, "avx2");
	SET(s->header.policy[0], "dense");
	SET(s->header.policy[2], "sparq");
	SET(s->header.policy[STATS_POLICY_NONE], "none");
	SET(s->header.format[0], "f16");
	SET(s->header.format[1], "hier4");
	s->header.section[STATS_CONTROL].n = 1;
	s->header.section[STATS_NODE].n = 1;
	s->header.section[STATS_WORKER].n = 1;
	s->header.section[STATS_USER].n = ARRAY_SIZE(s->user);
	s->header.section[STATS_CACHE].n = ARRAY_SIZE(s->cache);
	s->header.section[STATS_DEVICE].n = ARRAY_SIZE(s->device);
	SET(s->node[0].pages, "hugetlb 2 MiB");
	SET(s->node[0].source[0].name, "resctrl");
	SET(s->node[0].source[0].why, "no \"resctrl\" in /proc/filesystems");
	s->worker[0].shares_far = STATS_UNKNOWN;
}

static void fill_workers(struct stats *s)
{
	for (unsigned i = 0; i < ARRAY_SIZE(s->worker); i++) {
		struct stats_worker *w = &s->worker[i];

		w->steps[SPARQ_OP_STEP][2] = (struct stats_steps){ 100, 1 };
		w->step_count[0] = 1;
		w->step_count[1] = 60;
		w->step_count[STATS_BUCKETS - 1] = 2;
		w->step_ns = 1500000250;
		w->read_node_bytes[1][SPARQ_PLANE_K] = 4096;
		w->op[SPARQ_OP_STEP].bytes[SPARQ_PLANE_K] = 4096;
		w->op[SPARQ_OP_STEP].dense_bytes = 65536;
		w->written_bytes[SPARQ_OP_STEP] = 640;
		w->refused[SPARQ_REASON_QUOTA] = 3;
		w->flush_read_bytes = 11;
		w->flush_written_bytes = 12;
		w->shares_far = 5;
		w->appended_rows = 101;
	}
}

static void fill_users(struct stats *s)
{
	s->user[0] = (struct stats_user){
		.used = STATS_USED, .uid = 1000, .sessions = 2, .charged_bytes = 5000
	};
	s->user[0].read.bytes[SPARQ_PLANE_K] = 40;
	s->user[0].read.bytes[SPARQ_PLANE_SCORE] = 2;
	s->user[0].quota_bytes = STATS_UNKNOWN; /* none */
	s->user[2] = (struct stats_user){ .used = STATS_GONE, .uid = 1001, .steps = 9 };
	s->cache[1] = (struct stats_cache){ .id = 1 | 4ull << 32, .uid = 1000 };
	SET(s->cache[1].name, "chat");
	for (uint32_t i = 0; i < s->n_sequences; i++) {
		struct stats_sequence *q = &s->sequence[i];

		*q = (struct stats_sequence){
			.id = i | 3ull << 32, .uid = 1000, .cache = s->cache[1].id, .rows = i + 1
		};
		q->read.bytes[SPARQ_PLANE_V_UPPER] = 1000 + i;
		q->steps = 10 + i;
		q->bytes = 100000 + i;
		snprintf(q->name, sizeof(q->name), "turn-%u", i);
	}
}

/* One that is open and tells all, one that is lost, one that never opened; nobody asked for cuda:2.
 */
static void fill_devices(struct stats *s)
{
	struct stats_device *d = s->device;

	d[0] = (struct stats_device){
		.used = STATS_USED,
		.state = STATS_DEVICE_OPEN,
		.memory_bytes = 1000,
		.free_bytes = 500,
		.mapped_bytes = 300,
		.limit_bytes = 600,
		.busy_parts = 625000000,
		.batches = 21,
		.steps = 42,
		.failed = 1,
		.copied_bytes = 310,
		.evicted_bytes = 10,
		.kernel_ns = 1750000000,
	};
	d[0].read_bytes[SPARQ_PLANE_SCORE] = 8000;
	d[0].beside_steps[STATS_BESIDE_KERNEL] = 3;
	d[0].beside_bytes[SPARQ_PLANE_RECENT] = 77;
	SET(d[0].name, "cuda:0");
	SET(d[0].product, "NVIDIA H200");
	SET(d[0].bus_id, "0000:65:00.0");
	SET(d[0].driver, "13.0");
	d[1] = (struct stats_device){
		.used = STATS_USED,
		.state = STATS_DEVICE_LOST,
		.memory_bytes = 1000,
		.free_bytes = STATS_UNKNOWN,
		.busy_parts = STATS_UNKNOWN,
		.steps = 7,
	};
	SET(d[1].name, "cuda:1");
	SET(d[1].why, "it fell off the bus");
	SET(d[1].busy_why, "the device is not open");
	d[3] = (struct stats_device){ .used = STATS_USED, .state = STATS_DEVICE_FAILED };
	d[3].beside_steps[STATS_BESIDE_LOST] = 5;
	SET(d[3].name, "cuda:3");
	SET(d[3].why, "no driver");
}

void page_busy(struct stats *s, uint32_t n_sequences)
{
	page_fresh(s);
	s->header.section[STATS_NODE].n = ARRAY_SIZE(s->node);
	s->header.section[STATS_WORKER].n = ARRAY_SIZE(s->worker);
	/* One slot more than sequences: a free one. */
	s->header.section[STATS_SEQUENCE].n = n_sequences + 1;
	s->n_sequences = n_sequences;
	s->sequence = calloc(n_sequences + 1, sizeof(*s->sequence));
	if (!s->sequence)
		abort();
	s->node[0].pool_used_bytes = 1 << 20;
	s->node[1] = (struct stats_node){
		.node = 1, .pool_bytes = 1 << 30, .misplaced_pages = 4, .strayed_pages = 13
	};
	s->node[1].roofline_bytes_s = 60000000000;
	s->node[1].calibrated_s = 1700000100;
	SET(s->node[1].source[0].name, "imc");
	s->node[1].source[0].read_bytes = 123;
	s->node[1].source[0].write_bytes = STATS_UNKNOWN;
	s->control.sessions = 2;
	s->control.recovery_ns = 2500000;
	s->control.faults[STATS_FAULT_RING] = 6;
	s->control.evicted[2] = (struct stats_sum){ 8, 800 };
	s->control.spilled_out = (struct stats_sum){ 4, 400 };
	s->control.rows[1] = 77;
	s->control.audit[2] =
		(struct stats_audit){ .count = 4, .error_n = 1520000000, .most_n = 1500000000 };
	s->control.audit[2].error_count[4] = 3;
	s->control.audit[2].error_count[STATS_ERRORS - 1] = 1;
	s->control.audits_beyond = 9;
	s->control.unstriped_pages = 14;
	s->control.audits_left_out[STATS_AUDIT_DROPPED] = 2;
	fill_workers(s);
	fill_users(s);
	fill_devices(s);
}

void page_deinit(struct stats *s)
{
	free(s->sequence);
	s->sequence = NULL;
}
