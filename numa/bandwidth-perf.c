/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uncore PMUs of /sys/bus/event_source/devices. The kernel says there of each PMU its number
 * (type), the CPUs to open its events on (cpumask, one of each part of the machine), where the
 * parts of an event lie in the words of an attribute (format/), and the events that it knows by
 * name (events/) with what one count is worth (.scale, .unit).
 */
#include "numa/bandwidth-perf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numa/sysfs.h"
#include "shm/base.h"

#define DEVICES "sys/bus/event_source/devices"
#define EVENTS_MAX 512u /* of a node: controllers times events */
#define TEXT_BYTES 256
#define MIB_BYTES 1048576.0

struct counter {
	int fd;
	enum perf_way way;
	double scale; /* bytes of one count */
};

struct bandwidth {
	unsigned n;
	struct counter counter[EVENTS_MAX];
};

/* ---- words of an attribute -------------------------------------------------------- */

/* Puts the low bits of `value` where "0-7,32-35" says, in this order. -ERANGE: they do not fit. */
static int scatter(const char *ranges, uint64_t value, uint64_t *word)
{
	char *end;

	for (;; ranges = end + 1) {
		unsigned long first = strtoul(ranges, &end, 10), last = first;

		if (end == ranges || first > 63)
			return -EINVAL;
		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		if (last < first || last > 63)
			return -EINVAL;
		for (unsigned long bit = first; bit <= last; bit++, value >>= 1)
			*word |= (value & 1) << bit;
		if (*end != ',')
			return value ? -ERANGE : 0;
	}
}

/* "config1:0-15" */
static int place_term(int pmu, const char *name, uint64_t value, uint64_t config[3])
{
	char path[TEXT_BYTES], text[TEXT_BYTES], *colon;
	unsigned word = 0;
	int r;

	snprintf(path, sizeof(path), "format/%s", name);
	r = sysfs_text(pmu, path, text, sizeof(text));
	if (r < 0)
		return r == -ENOENT ? -EINVAL : r;
	colon = strchr(text, ':');
	if (strncmp(text, "config", 6) != 0 || !colon)
		return -EINVAL;
	if (colon != text + 6)
		word = (unsigned)(text[6] - '0');
	return word > 2 ? -EINVAL : scatter(colon + 1, value, &config[word]);
}

int perf_parse_terms(int pmu, const char *terms, uint64_t ret_config[3])
{
	uint64_t config[3] = { 0 };
	char text[TEXT_BYTES], *at = text, *term;

	if ((size_t)snprintf(text, sizeof(text), "%s", terms) >= sizeof(text))
		return -EINVAL;
	text[strcspn(text, "\n")] = '\0';
	while ((term = strsep(&at, ","))) {
		char *equals = strchr(term, '='), *end;
		uint64_t value = 1; /* of a term without one */
		int r;

		if (equals) {
			*equals = '\0';
			value = strtoull(equals + 1, &end, 0);
			if (end == equals + 1 || *end)
				return -EINVAL;
		}
		r = place_term(pmu, term, value, config);
		if (r < 0)
			return r;
	}
	memcpy(ret_config, config, sizeof(config));
	return 0;
}

/* ---- one event ----------------------------------------------------------------------- */

/* Bytes of one count: its scale and unit, where the kernel says them. */
static double scale_of(int pmu, const struct perf_event *e)
{
	char path[TEXT_BYTES], text[TEXT_BYTES];
	double scale;

	snprintf(path, sizeof(path), "events/%s.scale", e->name);
	if (sysfs_text(pmu, path, text, sizeof(text)) < 0)
		return e->bytes;
	scale = strtod(text, NULL);
	snprintf(path, sizeof(path), "events/%s.unit", e->name);
	if (sysfs_text(pmu, path, text, sizeof(text)) < 0)
		return scale;
	return strncmp(text, "MiB", 3) == 0 ? scale * MIB_BYTES : scale;
}

/* 0, -ENOENT: this PMU does not have it. */
static int describe(int pmu, const struct perf_event *e, struct perf_event_attr *ret)
{
	char path[TEXT_BYTES], text[TEXT_BYTES];
	const char *terms = e->terms;
	uint64_t type, config[3];
	int r;

	snprintf(path, sizeof(path), "events/%s", e->name);
	if (sysfs_text(pmu, path, text, sizeof(text)) == 0)
		terms = text;
	if (!terms)
		return -ENOENT;
	r = perf_parse_terms(pmu, terms, config);
	if (r == 0)
		r = sysfs_number(pmu, "type", &type);
	if (r < 0)
		return r;
	*ret = (struct perf_event_attr){
		.type = (uint32_t)type,
		.size = sizeof(*ret),
		.config = config[0],
		.config1 = config[1],
		.config2 = config[2],
		.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING,
	};
	return 0;
}

static int open_event(const struct bandwidth_machine *m, int pmu, const struct perf_event *e,
		      int cpu, struct bandwidth *b)
{
	struct perf_event_attr attr;
	int r = describe(pmu, e, &attr), fd;

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (b->n == EVENTS_MAX)
		return -E2BIG;
	fd = m->perf_open(&attr, cpu);
	if (fd < 0)
		return fd;
	b->counter[b->n++] = (struct counter){ .fd = fd, .way = e->way, .scale = scale_of(pmu, e) };
	return 0;
}

/* ---- all of a node -------------------------------------------------------------------- */

static bool is_one(const struct perf_pmus *p, const char *name)
{
	return strncmp(name, p->prefix, strlen(p->prefix)) == 0 &&
	       !(p->without && strstr(name, p->without));
}

static DIR *open_devices(const struct bandwidth_machine *m)
{
	int fd = openat(m->root, DEVICES, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d)
		close_fd(&fd);
	return d;
}

int perf_count_pmus(const struct bandwidth_machine *m, const struct perf_pmus *p)
{
	DIR *d = open_devices(m);
	struct dirent *e;
	int n = 0;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(d)))
		n += is_one(p, e->d_name);
	closedir(d);
	return n;
}

static int open_pmu(const struct bandwidth_machine *m, const struct perf_pmus *p, int devices,
		    const char *name, unsigned node, struct bandwidth *b)
{
	CLOSE_FD int pmu = openat(devices, name, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cpu_set_t cpus;
	int r = pmu < 0 ? -errno : sysfs_list(pmu, "cpumask", &cpus);

	for (int cpu = 0; r == 0 && cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET((size_t)cpu, &cpus) || topo_node_of_cpu(m->topo, cpu) != (int)node)
			continue;
		for (unsigned i = 0; r == 0 && i < p->n_events; i++)
			r = open_event(m, pmu, &p->event[i], cpu, b);
	}
	return r;
}

static int open_pmus(const struct bandwidth_machine *m, const struct perf_pmus *p, unsigned node,
		     struct bandwidth *b)
{
	DIR *d = open_devices(m);
	struct dirent *e;
	int r = d ? 0 : -errno;

	while (r == 0 && (e = readdir(d)))
		if (is_one(p, e->d_name))
			r = open_pmu(m, p, dirfd(d), e->d_name, node, b);
	if (d)
		closedir(d);
	return r;
}

int perf_open_node(const struct bandwidth_machine *m, const struct perf_pmus *p, unsigned node,
		   struct bandwidth **ret, char *why)
{
	struct bandwidth *b = calloc(1, sizeof(*b));
	int r = b ? open_pmus(m, p, node, b) : -ENOMEM;

	if (r == 0 && b->n == 0)
		r = -ENODEV;
	if (r == 0) {
		*ret = b;
		return 0;
	}
	perf_close_node(b);
	if (r == -EACCES || r == -EPERM)
		snprintf(why, BANDWIDTH_WHY_BYTES,
			 "%s*: needs CAP_PERFMON, as sparqd-bandwidth.service has it", p->prefix);
	else if (r == -ENODEV)
		snprintf(why, BANDWIDTH_WHY_BYTES, "%s*: no event that counts this node's memory",
			 p->prefix);
	else
		snprintf(why, BANDWIDTH_WHY_BYTES, "%s*: %s", p->prefix, strerror(-r));
	return r;
}

void perf_close_node(struct bandwidth *b)
{
	for (unsigned i = 0; b && i < b->n; i++)
		close_fd(&b->counter[i].fd);
	free(b);
}

/* ---- reading --------------------------------------------------------------------------- */

struct reading {
	uint64_t count, enabled_ns, running_ns;
};

/* A counter that shared its hardware with others ran for a part of the time only. */
static double bytes_of(const struct counter *c, const struct reading *r)
{
	double bytes = (double)r->count * c->scale;

	return r->running_ns == r->enabled_ns
		       ? bytes
		       : bytes * (double)r->enabled_ns / (double)r->running_ns;
}

int perf_read_node(const struct bandwidth_machine *m, struct bandwidth *b,
		   struct bandwidth_count *ret, char *why)
{
	double sum[PERF_WAYS] = { 0 };
	bool has[PERF_WAYS] = { false };

	for (unsigned i = 0; i < b->n; i++) {
		const struct counter *c = &b->counter[i];
		struct reading r;

		if (m->read(c->fd, &r, sizeof(r)) != sizeof(r)) {
			snprintf(why, BANDWIDTH_WHY_BYTES, "a counter cannot be read");
			return -EIO;
		}
		if (r.running_ns == 0) {
			snprintf(why, BANDWIDTH_WHY_BYTES,
				 "others hold the counters: end their perf sessions");
			return -EBUSY;
		}
		sum[c->way] += bytes_of(c, &r);
		has[c->way] = true;
	}
	*ret = BANDWIDTH_NOTHING;
	if (has[PERF_READ])
		ret->read_bytes = (uint64_t)sum[PERF_READ];
	if (has[PERF_WRITE])
		ret->write_bytes = (uint64_t)sum[PERF_WRITE];
	if (has[PERF_TOTAL])
		ret->total_bytes = (uint64_t)sum[PERF_TOTAL];
	return 0;
}
