/* SPDX-License-Identifier: Apache-2.0 */
/* Measuring the nodes' read bandwidth, asked for by an administrator. */
#include <inttypes.h>
#include <string.h>

#include "daemon/calibrate.h"
#include "daemon/control-json.h"
#include "daemon/control.h"
#include "daemon/server.h"
#include "shm/base.h"

static const char *const none[] = { NULL };

/* The CPUs of the workers that work for the node; where workers are not pinned, as many threads as
 * there are of them for each node. */
static void plan_threads(const struct server *s, unsigned index, struct calibrate_node *ret)
{
	unsigned workers = workers_count(s->workers), n = 0;
	int home = topo_home(&s->topo, s->placement.arena[index].node);

	for (unsigned i = 0; s->pinned && i < workers; i++) {
		unsigned node;
		int cpu = topo_cpu(&s->topo, i, &node);

		if (cpu >= 0 && s->topo.node[node].id == home)
			ret->cpu[n++] = cpu;
	}
	while (!s->pinned && n < DIV_UP(workers, s->topo.n_nodes))
		ret->cpu[n++] = -1;
	ret->n_threads = n;
	ret->cache_bytes = calibrate_cache_bytes("/", ret->cpu, n);
}

static int start(struct server *s)
{
	FREE_MEMORY struct calibrate_node *node = calloc(s->placement.n, sizeof(*node));
	struct calibration *c;
	int r;

	if (!node)
		return -ENOMEM;
	for (unsigned i = 0; i < s->placement.n; i++) {
		node[i].memory = s->placement.arena[i].base;
		node[i].bytes = s->placement.arena[i].bytes;
		plan_threads(s, i, &node[i]);
	}
	r = calibrate_start(node, s->placement.n, &c);
	if (r < 0)
		return r;
	calibrate_free(s->calibration); /* its figures are of before */
	s->calibration = c;
	return 0;
}

int control_calibrate(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	struct server *s = arg;
	unsigned n, done = calibrate_done(s->calibration, &n);
	int r;

	if (json_check_keys(in, none, e) < 0)
		return -EINVAL;
	if (s->refused)
		return varlink_refuse(e, CONTROL_REFUSED, "%s", s->refusal);
	if (done < n)
		return varlink_refuse(e, CONTROL_REFUSED,
				      "a measurement is under way: %u of %u nodes are done", done,
				      n);
	r = start(s);
	if (r < 0)
		return varlink_refuse(e, CONTROL_REFUSED, "cannot measure: %s", strerror(-r));
	json_object_object_add(out, "nodes", json_object_new_int((int)s->placement.n));
	json_object_object_add(out, "milliseconds",
			       json_object_new_int((int)(s->placement.n * CALIBRATE_MS)));
	return 0;
}

/* What is not known is not there. */
static json_object *node_object(const struct server *s, unsigned index)
{
	json_object *o = json_object_new_object();
	struct calibrated c;

	json_object_object_add(o, "node", json_object_new_int(s->placement.arena[index].node));
	if (!calibrate_get(s->calibration, index, &c)) {
		json_add_text(o, "reason", "not measured yet");
		return o;
	}
	if (c.bytes_s)
		json_add_number(o, "read_bytes_per_second", c.bytes_s);
	json_add_number(o, "measured_at", c.taken_s);
	json_add_number(o, "threads", c.n_threads);
	if (c.why[0])
		json_add_text(o, "reason", c.why);
	return o;
}

int control_calibration(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	json_object *nodes = json_object_new_array();
	const struct server *s = arg;
	unsigned n, done = calibrate_done(s->calibration, &n);

	if (json_check_keys(in, none, e) < 0) {
		json_object_put(nodes);
		return -EINVAL;
	}
	json_object_object_add(out, "running", json_object_new_boolean(done < n));
	json_object_object_add(out, "done", json_object_new_int((int)done));
	json_object_object_add(out, "nodes", nodes);
	for (unsigned i = 0; i < s->placement.n; i++)
		json_object_array_add(nodes, node_object(s, i));
	return 0;
}
