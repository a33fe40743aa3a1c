/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hardware counters, on recorded machines. An administrator relies on two things: a figure is of
 * what it says, to the byte, and where the machine has none there is a reason and no figure.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "numa/bandwidth-file.h"
#include "numa/bandwidth-perf.h"
#include "shm/base.h"

/* ---- a machine ------------------------------------------------------------------ */

#define OPENED_MAX 64

static struct opened {
	struct perf_event_attr attr;
	int cpu, fd;
	uint64_t count, enabled_ns, running_ns;
} opened[OPENED_MAX];
static unsigned n_opened;
static int refuse;

static int open_counter(struct perf_event_attr *attr, int cpu)
{
	struct opened *o = &opened[n_opened];

	if (refuse)
		return refuse;
	assert_true(n_opened < OPENED_MAX);
	*o = (struct opened){ .attr = *attr, .cpu = cpu, .enabled_ns = 100, .running_ns = 100 };
	o->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	n_opened++;
	return o->fd;
}

static ssize_t read_counter(int fd, void *to, size_t n)
{
	assert_int_equal(n, 3 * sizeof(uint64_t));
	for (unsigned i = 0; i < n_opened; i++)
		if (opened[i].fd == fd) {
			memcpy(to, &opened[i].count, n);
			return (ssize_t)n;
		}
	return -1;
}

/* Two nodes of four CPUs each, numbered as some machines do. */
static const struct topo *two_nodes(void)
{
	static struct topo t;

	memset(&t, 0, sizeof(t));
	t.n_nodes = 2;
	t.n_cpus = 8;
	for (unsigned i = 0; i < 2; i++) {
		t.node[i].id = (int)(2 * i);
		t.node[i].n_cpus = 4;
		for (unsigned c = 0; c < 4; c++)
			CPU_SET(4 * i + c, &t.node[i].cpus);
	}
	return &t;
}

static struct bandwidth_machine machine(const char *name)
{
	char path[4096];
	int root;

	snprintf(path, sizeof(path), "%s/%s", getenv("SPARQ_FIXTURES"), name);
	root = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	assert_true(root >= 0);
	n_opened = 0;
	refuse = 0;
	return (struct bandwidth_machine){
		.root = root, .topo = two_nodes(), .perf_open = open_counter, .read = read_counter
	};
}

static struct bandwidth *open_node(const struct bandwidth_machine *m,
				   const struct bandwidth_source *s, unsigned node)
{
	char why[BANDWIDTH_WHY_BYTES] = "";
	struct bandwidth *b;

	if (s->probe(m, why) < 0 || s->open(m, node, &b, why) < 0)
		fail_msg("%s: %s", s->name, why);
	return b;
}

static struct bandwidth_count count_of(const struct bandwidth_machine *m,
				       const struct bandwidth_source *s, struct bandwidth *b)
{
	char why[BANDWIDTH_WHY_BYTES] = "";
	struct bandwidth_count c;

	if (s->read(m, b, &c, why) < 0)
		fail_msg("%s: %s", s->name, why);
	return c;
}

static struct opened *find(uint32_t type, uint64_t config, int cpu)
{
	for (unsigned i = 0; i < n_opened; i++)
		if (opened[i].attr.type == type && opened[i].attr.config == config &&
		    opened[i].cpu == cpu)
			return &opened[i];
	fail_msg("type %u config %#llx was not opened on cpu %d", type, (unsigned long long)config,
		 cpu);
	return NULL;
}

/* ---- perf ------------------------------------------------------------------------- */

static void test_intel_servers(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-intel");
	struct bandwidth *b = open_node(&m, &bandwidth_imc, 1);
	struct bandwidth_count c;

	/* Two controllers, two events, on the CPU of this node; the free running ones count the
	 * same bytes again and are left out. */
	assert_int_equal(n_opened, 4);
	find(14, 0x0304, 4)->count = 10;
	find(15, 0x0304, 4)->count = 1;
	find(14, 0x0c04, 4)->count = 3;
	c = count_of(&m, &bandwidth_imc, b);
	assert_int_equal(c.read_bytes, 11 * 64);
	assert_int_equal(c.write_bytes, 3 * 64);
	assert_int_equal(c.total_bytes, BANDWIDTH_UNKNOWN);
	/* It ran for a quarter of the time. */
	find(14, 0x0304, 4)->running_ns = 25;
	assert_int_equal(count_of(&m, &bandwidth_imc, b).read_bytes, 41 * 64);
	bandwidth_imc.close(b);
	close(m.root);
}

static void test_intel_clients(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-client");
	struct bandwidth *b = open_node(&m, &bandwidth_imc, 0);
	char why[BANDWIDTH_WHY_BYTES] = "";

	assert_int_equal(n_opened, 2);
	find(9, 1, 0)->count = 7;
	assert_int_equal(count_of(&m, &bandwidth_imc, b).read_bytes, 7 * 64);
	assert_int_equal(count_of(&m, &bandwidth_imc, b).write_bytes, 0); /* counted, and none */
	bandwidth_imc.close(b);
	/* Nothing of it is on the other node. */
	assert_int_equal(bandwidth_imc.open(&m, 1, &b, why), -ENODEV);
	assert_non_null(strstr(why, "this node"));
	close(m.root);
}

static void test_amd(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-zen4");
	struct bandwidth *b = open_node(&m, &bandwidth_amd, 1);
	struct bandwidth_count c;

	find(21, 0x10a, 4)->count = 5;
	find(21, 0x20a, 4)->count = 6;
	assert_int_equal(n_opened, 2);
	c = count_of(&m, &bandwidth_amd, b);
	assert_int_equal(c.read_bytes, 5 * 64);
	assert_int_equal(c.write_bytes, 6 * 64);
	bandwidth_amd.close(b);
	close(m.root);

	m = machine("bandwidth-zen2");
	b = open_node(&m, &bandwidth_amd, 0);
	assert_int_equal(n_opened, 8);
	/* Channel 0 is event 0x07, channel 7 is 0x1c7: its upper bit lies apart. */
	find(18, 0x3807, 0)->count = 2;
	find(18, 0x1000038c7, 0)->count = 40;
	c = count_of(&m, &bandwidth_amd, b);
	assert_int_equal(c.total_bytes, 42 * 64);
	assert_int_equal(c.read_bytes, BANDWIDTH_UNKNOWN);
	bandwidth_amd.close(b);
	close(m.root);
}

/* The fabric of Zen 4 under a kernel without amd_umc: its events mean something else. */
static void test_a_count_of_something_else_is_none(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-zen4-old");
	char why[BANDWIDTH_WHY_BYTES] = "";

	assert_int_equal(bandwidth_amd.probe(&m, why), -ENODEV);
	assert_non_null(strstr(why, "Linux 6.7"));
	close(m.root);
}

static void test_arm(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-arm");
	struct bandwidth *b = open_node(&m, &bandwidth_cmn, 0);
	struct bandwidth_count c;

	find(11, 0xd0005, 0)->count = 9;
	c = count_of(&m, &bandwidth_cmn, b);
	assert_int_equal(c.total_bytes, 9 * 64);
	assert_int_equal(c.read_bytes, BANDWIDTH_UNKNOWN);
	bandwidth_cmn.close(b);
	close(m.root);
}

static void test_what_is_not_known_is_not_0(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-intel");
	char why[BANDWIDTH_WHY_BYTES] = "";
	struct bandwidth *b;
	struct bandwidth_count c;

	refuse = -EACCES;
	assert_int_equal(bandwidth_imc.open(&m, 0, &b, why), -EACCES);
	assert_non_null(strstr(why, "CAP_PERFMON"));
	refuse = 0;
	b = open_node(&m, &bandwidth_imc, 0);
	opened[0].running_ns = 0; /* never had the hardware */
	assert_int_equal(bandwidth_imc.read(&m, b, &c, why), -EBUSY);
	assert_non_null(strstr(why, "others hold the counters"));
	bandwidth_imc.close(b);
	close(m.root);
}

static void test_terms(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-zen4");
	int pmu = openat(m.root, "sys/bus/event_source/devices/amd_df", O_DIRECTORY | O_RDONLY);
	uint64_t config[3];

	/* A number whose bits lie in two places, from the lowest on. */
	assert_int_equal(perf_parse_terms(pmu, "event=0x1c7,umask=0xf38\n", config), 0);
	assert_int_equal(config[0], 0x10f0038c7);
	assert_int_equal(perf_parse_terms(pmu, "event=0x4000", config), -ERANGE);
	assert_int_equal(perf_parse_terms(pmu, "nosuch=1", config), -EINVAL);
	assert_int_equal(perf_parse_terms(pmu, "event=x", config), -EINVAL);
	close(pmu);
	close(m.root);
}

/* ---- resctrl ------------------------------------------------------------------------ */

static void test_resctrl(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-resctrl");
	struct bandwidth *b = open_node(&m, &bandwidth_resctrl, 1);
	struct bandwidth_count c = count_of(&m, &bandwidth_resctrl, b);

	assert_int_equal(c.total_bytes, 0); /* since it was opened */
	assert_int_equal(c.read_bytes, BANDWIDTH_UNKNOWN);
	bandwidth_resctrl.close(b);
	close(m.root);
}

/* Two recordings of one machine: what is between them is what is counted. */
static void test_resctrl_counts_its_group_and_its_node(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-resctrl-group");
	struct bandwidth_machine later = machine("bandwidth-resctrl-later");
	struct bandwidth *b = open_node(&m, &bandwidth_resctrl, 1);

	/* Caches 2 and 3 are of node 1: 21 and 28 before, 121 and 1028 after. */
	assert_int_equal(count_of(&later, &bandwidth_resctrl, b).total_bytes, 1100);
	bandwidth_resctrl.close(b);
	close(m.root);
	close(later.root);
}

/* Made while it counts: what it says from then on would be of the whole machine. */
static void test_resctrl_notices_its_group(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-resctrl");
	struct bandwidth_machine later = machine("bandwidth-resctrl-group");
	char why[BANDWIDTH_WHY_BYTES] = "";
	struct bandwidth_count c;
	struct bandwidth *b = open_node(&m, &bandwidth_resctrl, 1);

	assert_int_equal(bandwidth_resctrl.read(&later, b, &c, why), -ESTALE);
	assert_non_null(strstr(why, "made"));
	bandwidth_resctrl.close(b);
	b = open_node(&later, &bandwidth_resctrl, 1);
	assert_int_equal(bandwidth_resctrl.read(&m, b, &c, why), -ESTALE);
	assert_non_null(strstr(why, "removed"));
	bandwidth_resctrl.close(b);
	close(m.root);
	close(later.root);
}

static void test_unavailable_is_absent(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-unavailable");
	struct bandwidth_machine before = machine("bandwidth-resctrl");
	char why[BANDWIDTH_WHY_BYTES] = "";
	struct bandwidth_count c;
	struct bandwidth *b;

	assert_int_equal(bandwidth_resctrl.open(&m, 0, &b, why), -ENODATA);
	assert_non_null(strstr(why, "Unassigned"));
	/* One that counted before. */
	b = open_node(&before, &bandwidth_resctrl, 1);
	assert_int_equal(bandwidth_resctrl.read(&m, b, &c, why), -ENODATA);
	assert_non_null(strstr(why, "cache 3: the kernel says \"Unavailable\""));
	bandwidth_resctrl.close(b);
	close(m.root);
	close(before.root);
}

/* ---- machines that have nothing -------------------------------------------------------- */

static void test_a_virtual_machine_has_reasons(void **state)
{
	struct bandwidth_machine m = machine("bandwidth-none");

	for (unsigned i = 0; i < BANDWIDTH_SOURCES; i++) {
		char why[BANDWIDTH_WHY_BYTES] = "";

		assert_int_equal(bandwidth_sources[i]->probe(&m, why), -ENODEV);
		assert_true(strlen(why) > 10);
	}
	close(m.root);
	m = machine("bandwidth-no-mbm");
	for (unsigned i = 0; i < 1; i++) {
		char why[BANDWIDTH_WHY_BYTES] = "";

		assert_int_equal(bandwidth_resctrl.probe(&m, why), -ENODEV);
		assert_non_null(strstr(why, "does not count bandwidth"));
	}
	close(m.root);
}

/* ---- the file ----------------------------------------------------------------------------- */

static void refused(const char *path, uint64_t now, int error, const char *word)
{
	static struct bandwidth_file f;
	char why[BANDWIDTH_WHY_BYTES] = "";

	assert_int_equal(bandwidth_file_read(path, now, &f, why), error);
	if (!strstr(why, word))
		fail_msg("\"%s\": no \"%s\"", why, word);
}

static void test_the_file(void **state)
{
	static struct bandwidth_file out, in;
	char path[128], why[BANDWIDTH_WHY_BYTES] = "", later[BANDWIDTH_WHY_BYTES] = "";

	snprintf(path, sizeof(path), "%s/bandwidth-%d", P_tmpdir, getpid());
	refused(path, 0, -ENOENT, "systemctl start sparqd-bandwidth");
	bandwidth_file_init(&out, two_nodes());
	out.written_ns = 1000;
	out.node[1].source[1].count.read_bytes = 77;
	assert_int_equal(bandwidth_file_write(path, &out), 0);
	assert_int_equal(bandwidth_file_read(path, 2000, &in, why), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	assert_int_equal(in.node[1].node, 2);
	assert_string_equal(in.node[1].source[1].name, "imc");
	assert_int_equal(in.node[0].source[0].count.total_bytes, BANDWIDTH_UNKNOWN);
	/* Replaced after the reader looked at its clock. */
	assert_int_equal(bandwidth_file_read(path, 999, &in, why), 0);
	refused(path, 1000 + 7 * 1000000000ull, -ESTALE, "restart sparqd-bandwidth");
	assert_int_equal(bandwidth_file_read(path, 1000 + 7 * 1000000000ull, &in, why), -ESTALE);
	assert_int_equal(bandwidth_file_read(path, 1000 + 9 * 1000000000ull, &in, later), -ESTALE);
	assert_string_equal(why, later); /* a label of a metric: no series of its own each time */
	out.written_ns = 7 * 1000000000ull;
	assert_int_equal(bandwidth_file_write(path, &out), 0);
	refused(path, 1000, -ESTALE, "restart sparqd-bandwidth");
	out.written_ns = 1000;
	memset(out.node[0].source[0].why, 'x', BANDWIDTH_WHY_BYTES); /* has no end */
	assert_int_equal(bandwidth_file_write(path, &out), 0);
	refused(path, 1000, -EPROTO, "another version");
	assert_int_equal(truncate(path, 100), 0);
	refused(path, 1000, -EPROTO, "another version");
	unlink(path);
	refused("/dev/null", 1000, -EPROTO, "another version");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_intel_servers),
		cmocka_unit_test(test_intel_clients),
		cmocka_unit_test(test_amd),
		cmocka_unit_test(test_a_count_of_something_else_is_none),
		cmocka_unit_test(test_arm),
		cmocka_unit_test(test_what_is_not_known_is_not_0),
		cmocka_unit_test(test_terms),
		cmocka_unit_test(test_resctrl),
		cmocka_unit_test(test_resctrl_counts_its_group_and_its_node),
		cmocka_unit_test(test_resctrl_notices_its_group),
		cmocka_unit_test(test_unavailable_is_absent),
		cmocka_unit_test(test_a_virtual_machine_has_reasons),
		cmocka_unit_test(test_the_file),
	};

	return cmocka_run_group_tests_name("bandwidth", tests, NULL, NULL);
}
