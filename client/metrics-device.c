/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of devices: the `show` functions of their rows of metrics.def. */
#include "client/metrics-private.h"
#include "shm/base.h"

#define SOURCE "nvml"

static const char *const state_names[] = {
	[STATS_DEVICE_CLOSED] = "closed", [STATS_DEVICE_OPENING] = "opening",
	[STATS_DEVICE_OPEN] = "open",     [STATS_DEVICE_FAILED] = "failed",
	[STATS_DEVICE_LOST] = "lost",
};
_Static_assert(ARRAY_SIZE(state_names) == STATS_DEVICE_STATES, "each state has its word");

static const char *state_of(const struct stats_device *d)
{
	return d->state < ARRAY_SIZE(state_names) ? state_names[d->state] : "unknown";
}

/* What is counted is counted of a device that was open once, and is not forgotten with it. */
static bool has_figures(const struct stats_device *d)
{
	return d->state == STATS_DEVICE_OPEN || d->state == STATS_DEVICE_LOST;
}

void metrics_show_devices(struct render *r)
{
	uint64_t n[STATS_DEVICE_STATES] = { 0 };

	for (uint32_t i = 0; i < r->figures->n_devices; i++)
		if (r->figures->device[i].state < STATS_DEVICE_STATES)
			n[r->figures->device[i].state]++;
	for (unsigned i = 0; i < STATS_DEVICE_STATES; i++)
		SAMPLE(r, n[i], { "state", state_names[i] });
}

void metrics_show_device(struct render *r)
{
	for (uint32_t i = 0; i < r->figures->n_devices; i++) {
		const struct stats_device *d = &r->figures->device[i];

		SAMPLE(r, 1, { "device", d->name }, { "product", d->product }, { "bus", d->bus_id },
		       { "driver", d->driver }, { "state", state_of(d) }, { "reason", d->why });
	}
}

/* ---- figures of each -------------------------------------------------------------------- */

typedef void device_show(struct render *r, const struct stats_device *d);

static void each_device(struct render *r, device_show *show)
{
	for (uint32_t i = 0; i < r->figures->n_devices; i++)
		if (has_figures(&r->figures->device[i]))
			show(r, &r->figures->device[i]);
}

static void show_figure(struct render *r, const struct stats_device *d)
{
	uint64_t value;

	memcpy(&value, (const char *)d + r->metric->at, sizeof(value));
	SAMPLE(r, value, { "device", d->name });
}

void metrics_show_device_figure(struct render *r)
{
	each_device(r, show_figure);
}

/* What others have is the rest, which two looks at different times may make a little less than 0.
 */
static void show_memory(struct render *r, const struct stats_device *d)
{
	uint64_t known = d->free_bytes + d->mapped_bytes;

	if (d->free_bytes == STATS_UNKNOWN)
		return;
	SAMPLE(r, d->mapped_bytes, { "device", d->name }, { "state", "copies" });
	SAMPLE(r, d->memory_bytes > known ? d->memory_bytes - known : 0, { "device", d->name },
	       { "state", "other" });
	SAMPLE(r, d->free_bytes, { "device", d->name }, { "state", "free" });
}

void metrics_show_device_memory(struct render *r)
{
	each_device(r, show_memory);
}

static void show_steps(struct render *r, const struct stats_device *d)
{
	SAMPLE(r, d->steps, { "device", d->name }, { "result", "done" });
	SAMPLE(r, d->failed, { "device", d->name }, { "result", "failed" });
}

void metrics_show_device_steps(struct render *r)
{
	each_device(r, show_steps);
}

static void show_nano(struct render *r, const struct label *labels, unsigned n, uint64_t value)
{
	sample_begin(r, "", labels, n);
	text_nano(r->text, value);
	text_put(r->text, "\n", 1);
}

static void show_time(struct render *r, const struct stats_device *d)
{
	const struct label labels[] = { { "device", d->name } };

	show_nano(r, labels, ARRAY_SIZE(labels), d->kernel_ns);
}

void metrics_show_device_time(struct render *r)
{
	each_device(r, show_time);
}

static void show_read(struct render *r, const struct stats_device *d)
{
	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		SAMPLE(r, d->read_bytes[p], { "device", d->name },
		       { "plane", metrics_plane_names[p] });
}

void metrics_show_device_read(struct render *r)
{
	each_device(r, show_read);
}

/* ---- what processors did in its place, whatever its state -------------------------------------
 */

void metrics_show_device_beside(struct render *r)
{
	static const char *const reasons[STATS_BESIDES] = {
		[STATS_BESIDE_KERNEL] = "kernel",
		[STATS_BESIDE_MEMORY] = "memory",
		[STATS_BESIDE_LOST] = "lost",
	};

	for (uint32_t i = 0; i < r->figures->n_devices; i++)
		for (unsigned k = 0; k < STATS_BESIDES; k++)
			SAMPLE(r, r->figures->device[i].beside_steps[k],
			       { "device", r->figures->device[i].name }, { "reason", reasons[k] });
}

void metrics_show_device_beside_read(struct render *r)
{
	for (uint32_t i = 0; i < r->figures->n_devices; i++)
		for (unsigned p = 0; p < SPARQ_PLANES; p++)
			SAMPLE(r, r->figures->device[i].beside_bytes[p],
			       { "device", r->figures->device[i].name },
			       { "plane", metrics_plane_names[p] });
}

/* ---- how busy its memory is --------------------------------------------------------------- */

static void show_dram(struct render *r, const struct stats_device *d)
{
	const struct label labels[] = { { "device", d->name }, { "source", SOURCE } };

	if (d->busy_parts != STATS_UNKNOWN)
		show_nano(r, labels, ARRAY_SIZE(labels), d->busy_parts);
}

void metrics_show_device_dram(struct render *r)
{
	each_device(r, show_dram);
}

static void show_source(struct render *r, const struct stats_device *d)
{
	SAMPLE(r, 1, { "device", d->name }, { "source", SOURCE },
	       { "state", d->busy_parts == STATS_UNKNOWN ? "absent" : "telling" },
	       { "reason", d->busy_why });
}

void metrics_show_device_source(struct render *r)
{
	each_device(r, show_source);
}
