/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What dashboards and alerts rely on: each series is there from the first scrape, its figure is the
 * page's, and what is not known is not there, with its reason beside it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "client/metrics-private.h"
#include "daemon/shortage.h"
#include "shm/base.h"
#include "tests/unit/metrics-page.h"

extern const char *const metrics_limit_names[];
extern const unsigned metrics_n_limits;

/* The text of a page as a string. */
static char *render(const struct stats *s, enum metrics_format format, bool sequences)
{
	const struct metrics_options o = { format, sequences };
	struct metrics_text text = METRICS_TEXT_NULL;

	assert_int_equal(metrics_render(s, &o, &text), 0);
	text_put(&text, "", 1);
	assert_false(text.failed);
	return text.data;
}

/* The value of a sample, by its name and labels as they stand there; NULL: there is none. */
static const char *value_of(const char *text, const char *sample)
{
	static char value[32];
	size_t n = strlen(sample);

	for (const char *line = text; line; line = strchr(line, '\n'), line += line != NULL)
		if (!strncmp(line, sample, n) && line[n] == ' ') {
			snprintf(value, sizeof(value), "%.*s", (int)strcspn(line + n + 1, "\n"),
				 line + n + 1);
			return value;
		}
	return NULL;
}

static void assert_value(const char *text, const char *sample, const char *value)
{
	const char *found = value_of(text, sample);

	if (!found)
		fail_msg("no %s", sample);
	assert_string_equal(found, value);
}

/* How many samples a metric has; each has the labels that the table says, in its order. */
static unsigned count_samples(const char *text, const struct metric *m)
{
	size_t n = strlen(m->name);
	unsigned count = 0;

	for (const char *line = text; line; line = strchr(line, '\n'), line += line != NULL) {
		char labels[256] = "", *to = labels;

		if (strncmp(line, m->name, n) || (line[n] != '{' && line[n] != ' '))
			continue;
		for (const char *c = line + n; *c == '{' || *c == ',';) {
			size_t length = strcspn(++c, "=");

			to += sprintf(to, "%s%.*s", to > labels ? " " : "", (int)length, c);
			for (c += length + 2; *c != '"'; c++)
				c += *c == '\\';
			c++;
		}
		if (strcmp(labels, m->labels))
			fail_msg("%s has the labels \"%s\", not \"%s\"", m->name, labels,
				 m->labels);
		count++;
	}
	return count;
}

/* What a daemon knows only later: users come, a cache asks for a device, a node is calibrated,
 * hardware counts or does not. */
static bool may_be_absent(const struct metric *m)
{
	return strstr(m->labels, "user") || strstr(m->labels, "device") ||
	       m->type == METRIC_HISTOGRAM || !strcmp(m->name, "sparq_shares_far_total") ||
	       !strcmp(m->name, "sparq_audit_most_relative_error") ||
	       !strcmp(m->name, "sparq_dram_bytes_total") ||
	       !strcmp(m->name, "sparq_node_roofline_bytes_per_second") ||
	       !strcmp(m->name, "sparq_calibration_time_seconds");
}

static void test_first_scrape(void **state)
{
	const struct metric *m;
	struct stats page;
	char *text, line[256];

	page_fresh(&page);
	text = render(&page, METRICS_PLAIN, false);
	for (unsigned i = 0; (m = metrics_at(i)); i++) {
		if (m->is_sequence) {
			assert_null(strstr(text, m->name));
			continue;
		}
		snprintf(line, sizeof(line), "# HELP %s ", m->name);
		assert_non_null(strstr(text, line));
		snprintf(line, sizeof(line), "# TYPE %s ", m->name);
		assert_non_null(strstr(text, line));
		if (count_samples(text, m) == 0 && !may_be_absent(m))
			fail_msg("%s has no series", m->name);
	}
	assert_value(text, "sparq_steps_total{op=\"step\",policy=\"sparq\",result=\"failed\"}",
		     "0");
	assert_value(text, "sparq_step_duration_seconds_count", "0");
	assert_value(text, "sparq_audit_relative_error_count{policy=\"sparq\"}", "0");
	assert_null(strstr(text, "sparq_audit_relative_error_count{policy=\"dense\"}"));
	assert_value(text, "sparq_step_duration_seconds_bucket{le=\"+Inf\"}", "0");
	assert_value(text, "sparq_build_info{version=\"0.1.0\",isa=\"avx2\"}", "1");
	free(text);
}

/* An absent counter that reads 0 would be taken for an idle memory controller. */
static void test_absent(void **state)
{
	struct stats page;
	char *text;

	page_fresh(&page);
	text = render(&page, METRICS_PLAIN, false);
	assert_null(strstr(text, "\nsparq_dram_bytes_total"));
	assert_null(strstr(text, "\nsparq_node_roofline"));
	assert_null(strstr(text, "\nsparq_calibration"));
	assert_null(strstr(text, "\nsparq_shares_far_total"));
	assert_value(text, "sparq_parked_sequences", "0");
	assert_value(text,
		     "sparq_dram_source_info{node=\"0\",source=\"resctrl\",state=\"absent\","
		     "reason=\"no \\\"resctrl\\\" in /proc/filesystems\"}",
		     "1");
	free(text);
	page_busy(&page, 0);
	text = render(&page, METRICS_PLAIN, false);
	assert_value(text, "sparq_dram_bytes_total{node=\"1\",dir=\"read\",source=\"imc\"}", "123");
	assert_null(strstr(text, "dir=\"write\",source=\"imc\""));
	assert_value(text, "sparq_node_roofline_bytes_per_second{node=\"1\"}", "60000000000");
	assert_null(strstr(text, "sparq_node_roofline_bytes_per_second{node=\"0\"}"));
	assert_value(text, "sparq_shares_far_total", "10");
	page.worker[1].shares_far = STATS_UNKNOWN; /* a part of the sum is not the sum */
	free(text);
	text = render(&page, METRICS_PLAIN, false);
	assert_null(strstr(text, "\nsparq_shares_far_total"));
	free(text);
	page_deinit(&page);

	/* A daemon with very many sequences that has not looked at all of them yet. */
	page_fresh(&page);
	page.control.sequences = 20000;
	page.control.parked = STATS_UNKNOWN;
	page.control.rows[0] = STATS_UNKNOWN;
	page.control.away_pages = STATS_UNKNOWN;
	text = render(&page, METRICS_PLAIN, false);
	assert_value(text, "sparq_sequences", "20000");
	assert_null(strstr(text, "\nsparq_parked_sequences"));
	assert_null(strstr(text, "\nsparq_rows{format=\"f16\"}"));
	assert_null(strstr(text, "\nsparq_numa_away_pages "));
	assert_value(text, "sparq_numa_moved_pages_total", "0");
	free(text);
	page_deinit(&page);
}

/* Of a device that is lost nothing but what was counted is known; of one that never was, nothing.
 */
static void test_devices(void **state)
{
	static const char *const expected[][2] = {
		{ "sparq_devices{state=\"open\"}", "1" },
		{ "sparq_devices{state=\"lost\"}", "1" },
		{ "sparq_devices{state=\"failed\"}", "1" },
		{ "sparq_devices{state=\"closed\"}", "0" },
		{ "sparq_device_info{device=\"cuda:0\",product=\"NVIDIA H200\","
		  "bus=\"0000:65:00.0\",driver=\"13.0\",state=\"open\",reason=\"\"}",
		  "1" },
		{ "sparq_device_info{device=\"cuda:3\",product=\"\",bus=\"\",driver=\"\","
		  "state=\"failed\",reason=\"no driver\"}",
		  "1" },
		{ "sparq_device_memory_bytes{device=\"cuda:0\",state=\"copies\"}", "300" },
		{ "sparq_device_memory_bytes{device=\"cuda:0\",state=\"other\"}", "200" },
		{ "sparq_device_memory_bytes{device=\"cuda:0\",state=\"free\"}", "500" },
		{ "sparq_device_copies_limit_bytes{device=\"cuda:0\"}", "600" },
		{ "sparq_device_batches_total{device=\"cuda:0\"}", "21" },
		{ "sparq_device_steps_total{device=\"cuda:0\",result=\"done\"}", "42" },
		{ "sparq_device_steps_total{device=\"cuda:0\",result=\"failed\"}", "1" },
		{ "sparq_device_steps_total{device=\"cuda:1\",result=\"done\"}", "7" },
		{ "sparq_device_busy_seconds_total{device=\"cuda:0\"}", "1.75" },
		{ "sparq_device_read_bytes_total{device=\"cuda:0\",plane=\"score\"}", "8000" },
		{ "sparq_device_read_bytes_total{device=\"cuda:0\",plane=\"k\"}", "0" },
		{ "sparq_device_beside_steps_total{device=\"cuda:0\",reason=\"kernel\"}", "3" },
		{ "sparq_device_beside_steps_total{device=\"cuda:0\",reason=\"memory\"}", "0" },
		{ "sparq_device_beside_steps_total{device=\"cuda:3\",reason=\"lost\"}", "5" },
		{ "sparq_device_beside_read_bytes_total{device=\"cuda:0\",plane=\"recent\"}",
		  "77" },
		{ "sparq_device_copied_bytes_total{device=\"cuda:0\"}", "310" },
		{ "sparq_device_evicted_bytes_total{device=\"cuda:0\"}", "10" },
		{ "sparq_device_dram_active_ratio{device=\"cuda:0\",source=\"nvml\"}", "0.625" },
		{ "sparq_device_dram_source_info{device=\"cuda:1\",source=\"nvml\","
		  "state=\"absent\",reason=\"the device is not open\"}",
		  "1" },
	};
	struct stats page;
	char *text;

	page_fresh(&page);
	text = render(&page, METRICS_PLAIN, false);
	assert_value(text, "sparq_devices{state=\"lost\"}", "0");
	assert_null(strstr(text, "device=\""));
	free(text);
	page_busy(&page, 0);
	text = render(&page, METRICS_PLAIN, false);
	for (unsigned i = 0; i < ARRAY_SIZE(expected); i++)
		assert_value(text, expected[i][0], expected[i][1]);
	assert_null(strstr(text, "sparq_device_memory_bytes{device=\"cuda:1\""));
	assert_null(strstr(text, "sparq_device_dram_active_ratio{device=\"cuda:1\""));
	assert_null(strstr(text, "sparq_device_steps_total{device=\"cuda:3\""));
	assert_null(strstr(text, "cuda:2"));
	free(text);
	page_deinit(&page);
}

static void test_figures(void **state)
{
	static const char *const expected[][2] = {
		{ "sparq_steps_total{op=\"step\",policy=\"sparq\",result=\"done\"}", "200" },
		{ "sparq_steps_total{op=\"step\",policy=\"sparq\",result=\"failed\"}", "2" },
		{ "sparq_refused_entries_total{reason=\"quota\"}", "6" },
		{ "sparq_read_bytes_total{node=\"1\",plane=\"k\",source=\"software\"}", "8192" },
		{ "sparq_read_bytes_total{node=\"0\",plane=\"k\",source=\"software\"}", "0" },
		{ "sparq_operation_read_bytes_total{op=\"step\",plane=\"k\"}", "8192" },
		{ "sparq_dense_equivalent_bytes_total", "131072" },
		{ "sparq_written_bytes_total{op=\"step\"}", "1280" },
		{ "sparq_flush_bytes_total{dir=\"write\"}", "24" },
		{ "sparq_pool_bytes{node=\"0\",tier=\"memory\",state=\"used\"}", "1048576" },
		{ "sparq_pool_bytes{node=\"0\",tier=\"memory\",state=\"free\"}", "1072693248" },
		{ "sparq_numa_misplaced_pages{node=\"1\"}", "4" },
		{ "sparq_protocol_errors_total{reason=\"ring\"}", "6" },
		{ "sparq_evicted_bytes_total{reason=\"quota\"}", "800" },
		{ "sparq_evicted_sequences_total{reason=\"quota\"}", "8" },
		{ "sparq_spill_bytes_total{dir=\"out\"}", "400" },
		{ "sparq_spill_bytes_total{dir=\"in\"}", "0" },
		{ "sparq_rows{format=\"hier4\"}", "77" },
		{ "sparq_recovery_duration_seconds", "0.0025" },
		{ "sparq_user_read_bytes_total{user=\"1000\"}", "42" },
		{ "sparq_user_clients{user=\"1000\"}", "2" },
		{ "sparq_charged_bytes{user=\"1000\"}", "5000" },
		{ "sparq_user_steps_total{user=\"1001\"}", "9" }, /* gone, but counted */
		{ "sparq_step_duration_seconds_bucket{le=\"2e-06\"}", "2" },
		{ "sparq_step_duration_seconds_bucket{le=\"4e-06\"}", "122" },
		{ "sparq_step_duration_seconds_bucket{le=\"8.388608\"}", "122" },
		{ "sparq_step_duration_seconds_bucket{le=\"+Inf\"}", "126" },
		{ "sparq_audit_relative_error_bucket{policy=\"sparq\",le=\"0.0001\"}", "0" },
		{ "sparq_audit_relative_error_bucket{policy=\"sparq\",le=\"0.01\"}", "3" },
		{ "sparq_audit_relative_error_bucket{policy=\"sparq\",le=\"1\"}", "3" },
		{ "sparq_audit_relative_error_bucket{policy=\"sparq\",le=\"+Inf\"}", "4" },
		{ "sparq_audit_relative_error_sum{policy=\"sparq\"}", "1.52" },
		{ "sparq_audit_relative_error_count{policy=\"sparq\"}", "4" },
		{ "sparq_audit_most_relative_error{policy=\"sparq\"}", "1.5" },
		{ "sparq_audits_beyond_total", "9" },
		{ "sparq_numa_strayed_pages_total{node=\"1\"}", "13" },
		{ "sparq_numa_unstriped_pages_total", "14" },
		{ "sparq_audits_left_out_total{reason=\"dropped\"}", "2" },
		{ "sparq_step_duration_seconds_count", "126" },
		{ "sparq_step_duration_seconds_sum", "3.0000005" },
	};
	struct stats page;
	char *text;

	page_busy(&page, 0);
	text = render(&page, METRICS_OPENMETRICS, false);
	for (unsigned i = 0; i < ARRAY_SIZE(expected); i++)
		assert_value(text, expected[i][0], expected[i][1]);
	assert_null(strstr(text, "user=\"0\"")); /* a free slot is no user */
	assert_null(value_of(text, "sparq_quota_bytes{user=\"1000\"}")); /* no limit is no figure */
	assert_value(text, "sparq_quota_bytes{user=\"1001\"}", "0");
	free(text);
	page_deinit(&page);
}

static void test_sequences(void **state)
{
	const struct metric *m;
	struct stats page;
	char *text;

	page_busy(&page, 3);
	text = render(&page, METRICS_PLAIN, true);
	for (unsigned i = 0; (m = metrics_at(i)); i++)
		if (m->is_sequence)
			assert_int_equal(count_samples(text, m), 3);
	assert_value(text,
		     "sparq_sequence_read_bytes_total{user=\"1000\",cache=\"chat\","
		     "sequence=\"12884901890\",name=\"turn-2\"}",
		     "1002");
	free(text);
	page.cache[1].id += 1ull << 32; /* dropped, and another one in its place */
	text = render(&page, METRICS_PLAIN, true);
	assert_value(text,
		     "sparq_sequence_rows{user=\"1000\",cache=\"\",sequence=\"12884901888\","
		     "name=\"turn-0\"}",
		     "1");
	free(text);
	page_deinit(&page);
}

/* More than are held at once: whoever has a million of them must not need memory for a million. */
static void test_many_sequences(void **state)
{
	const struct metrics_options o = { .format = METRICS_OPENMETRICS, .sequences = true };
	struct metrics_text whole = METRICS_TEXT_NULL, part = METRICS_TEXT_NULL;
	const uint32_t n = 40000;
	struct metrics_stream *m;
	const struct metric *one;
	struct stats page;
	size_t at = 0;

	page_busy(&page, n);
	assert_int_equal(metrics_render(&page, &o, &whole), 0);
	assert_int_equal(metrics_stream_open(&page, &o, &m), 0);
	while (metrics_stream_next(m, &part) > 0) {
		assert_in_range(part.n, 1, 64 << 10);
		assert_memory_equal(whole.data + at, part.data, part.n);
		at += part.n;
		part.n = 0;
	}
	assert_int_equal(at, whole.n);
	metrics_stream_close(m);
	text_put(&whole, "", 1);
	for (unsigned i = 0; (one = metrics_at(i)); i++)
		if (one->is_sequence)
			assert_int_equal(count_samples(whole.data, one), n);
	assert_value(whole.data,
		     "sparq_sequence_rows{user=\"1000\",cache=\"chat\",sequence=\"12884941887\","
		     "name=\"turn-39999\"}",
		     "40000");
	metrics_text_deinit(&whole);
	metrics_text_deinit(&part);
	page_deinit(&page);
}

static void test_formats(void **state)
{
	struct stats page;
	char *text;

	page_fresh(&page);
	text = render(&page, METRICS_OPENMETRICS, false);
	assert_non_null(strstr(text, "# TYPE sparq_steps counter\n"));
	assert_non_null(strstr(text, "# TYPE sparq_build info\n"));
	assert_non_null(strstr(text, "# UNIT sparq_read_bytes bytes\n"));
	assert_string_equal(text + strlen(text) - strlen("\n# EOF\n"), "\n# EOF\n");
	free(text);
	text = render(&page, METRICS_PLAIN, false);
	assert_non_null(strstr(text, "# TYPE sparq_steps_total counter\n"));
	assert_non_null(strstr(text, "# TYPE sparq_build_info gauge\n"));
	assert_null(strstr(text, "# UNIT"));
	assert_null(strstr(text, "# EOF"));
	free(text);
}

/* A figure of a daemon that is not there would be an old one. */
static void test_away(void **state)
{
	char *text = render(NULL, METRICS_OPENMETRICS, true);

	assert_value(text, "sparq_up", "0");
	assert_null(strstr(text, "sparq_generation"));
	assert_non_null(strstr(text, "# EOF\n"));
	free(text);
}

static void test_busy_writer(void **state)
{
	const struct metrics_options o = { .format = METRICS_PLAIN };
	struct metrics_text text = METRICS_TEXT_NULL;
	struct stats page;

	page_fresh(&page);
	page.busy = 3; /* it is waited for */
	assert_int_equal(metrics_render(&page, &o, &text), 0);
	page.busy = 1000; /* but not for long */
	assert_int_equal(metrics_render(&page, &o, &text), -EAGAIN);
	assert_int_equal(text.n, 0);
	metrics_text_deinit(&text);
}

/* Names are the daemon's own, but what is written here is parsed elsewhere. */
static void test_text(void **state)
{
	struct metrics_text t = METRICS_TEXT_NULL;

	text_quoted(&t,
		    "a\\b\"c\nd\xff"
		    "e-past",
		    9);
	text_number(&t, UINT64_MAX);
	text_nano(&t, 1000000000);
	text_put(&t, " ", 1);
	text_nano(&t, 12000000001);
	text_put(&t, "", 1);
	assert_string_equal(t.data, "\"a\\\\b\\\"c?d?e\"18446744073709551615"
				    "1 12.000000001");
	metrics_text_deinit(&t);
}

static void test_words(void **state)
{
	assert_int_equal(metrics_n_limits, LIMITS);
	for (unsigned i = 0; i < LIMITS; i++)
		assert_string_equal(metrics_limit_names[i], limit_names[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_scrape),   cmocka_unit_test(test_absent),
		cmocka_unit_test(test_figures),        cmocka_unit_test(test_sequences),
		cmocka_unit_test(test_many_sequences), cmocka_unit_test(test_formats),
		cmocka_unit_test(test_away),           cmocka_unit_test(test_busy_writer),
		cmocka_unit_test(test_text),           cmocka_unit_test(test_words),
		cmocka_unit_test(test_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
