/* SPDX-License-Identifier: Apache-2.0 */
/* Where memory and threads are, for administrators: sparq-numa(7). */
#include <stdio.h>
#include <string.h>

#include "daemon/control-json.h"
#include "daemon/control.h"
#include "daemon/server.h"
#include "shm/base.h"
#include "shm/clock.h"

/* "0-3,8" */
static void format_cpus(const cpu_set_t *set, char *ret, size_t n)
{
	size_t at = 0;

	ret[0] = '\0';
	for (int cpu = 0; cpu < CPU_SETSIZE && at < n; cpu++) {
		int last = cpu;

		if (!CPU_ISSET((size_t)cpu, set))
			continue;
		while (last + 1 < CPU_SETSIZE && CPU_ISSET((size_t)last + 1, set))
			last++;
		at += (size_t)snprintf(ret + at, n - at, last > cpu ? "%s%d-%d" : "%s%d",
				       at ? "," : "", cpu, last);
		cpu = last;
	}
}

static json_object *distances(const struct placement *p, const struct topo *t, unsigned from)
{
	json_object *all = json_object_new_array();

	for (unsigned i = 0; i < p->n; i++) {
		int to = topo_find(t, p->arena[i].node);

		if (to >= 0)
			json_object_array_add(all, json_object_new_int(t->distance[from][to]));
	}
	return all;
}

/* What is not known is not there: the pool of a node that has gone is still the pool. */
static void add_machine(const struct placement *p, const struct topo *t, int id, json_object *o)
{
	int index = topo_find(t, id);
	const struct topo_node *n = &t->node[MAX(index, 0)];
	char cpus[1024] = "";

	if (index < 0)
		return;
	format_cpus(&n->cpus, cpus, sizeof(cpus));
	json_object_object_add(o, "distances", distances(p, t, (unsigned)index));
	if (n->n_cpus)
		json_add_text(o, "cpus", cpus);
	else
		json_object_object_add(o, "nearest", json_object_new_int(t->node[n->near].id));
	json_add_number(o, "memory_bytes", n->memory_bytes);
	json_add_number(o, "memory_free_bytes", n->free_bytes);
	json_add_number(o, "free_pages_2M", n->huge_free[0]);
	json_add_number(o, "free_pages_1G", n->huge_free[1]);
}

static bool knows_far(const struct server *s)
{
	return s->pinned || s->placement.n == 1;
}

static void add_workers(const struct server *s, int id, json_object *o)
{
	uint64_t n = 0, near = 0, far = 0;

	for (unsigned i = 0; i < workers_count(s->workers); i++) {
		struct worker_place w = workers_place(s->workers, i);

		if (w.node != id && s->placement.n > 1)
			continue;
		n++;
		near += w.shares_near;
		far += w.shares_far;
	}
	json_add_number(o, "workers", n);
	if (!knows_far(s))
		return;
	json_add_number(o, "shares_near", near);
	json_add_number(o, "shares_far", far);
}

static json_object *node_object(const struct server *s, const struct topo *t, unsigned index)
{
	const struct placement *p = &s->placement;
	const struct arena *a = &p->arena[index];
	json_object *o = json_object_new_object();

	json_object_object_add(o, "node", json_object_new_int(a->node));
	add_machine(p, t, a->node, o);
	add_workers(s, a->node, o);
	json_add_number(o, "pool_bytes", a->bytes);
	json_add_number(o, "pool_used_bytes", pool_node_used_bytes(&p->pool, index));
	json_add_text(o, "pages", arena_pages_name(a->pages));
	json_add_number(o, "page_bytes", a->page_bytes);
	json_add_number(o, "misplaced_pages", a->misplaced_pages);
	return o;
}

/* A tier of its own, in the pool or not. */
static json_object *memory_only(const struct placement *p, const struct topo *t)
{
	json_object *all = json_object_new_array();

	for (unsigned i = t->n_nodes; i < topo_all(t); i++) {
		json_object *o = json_object_new_object();
		int id = t->node[i].id;
		bool in_pool = false;

		for (unsigned k = 0; k < p->n; k++)
			in_pool |= p->arena[k].node == id;
		json_object_object_add(o, "node", json_object_new_int(id));
		json_object_object_add(o, "in_pool", json_object_new_boolean(in_pool));
		json_object_object_add(o, "distance",
				       json_object_new_int(t->distance[i][t->node[i].near]));
		add_machine(p, t, id, o);
		json_object_array_add(all, o);
	}
	return all;
}

static int begin(struct server *s, json_object *in, struct varlink_error *e)
{
	static const char *const known[] = { "verify", "repair", NULL };
	int verify = 0, repair = 0;

	if (json_check_keys(in, known, e) < 0 || json_get_flag(in, "verify", &verify, e) < 0 ||
	    json_get_flag(in, "repair", &repair, e) < 0)
		return -EINVAL;
	if (s->refused)
		return varlink_refuse(e, CONTROL_REFUSED, "%s", s->refusal);
	if (repair)
		log_notice("uid %u has misplaced pages brought back", (unsigned)s->asking_uid);
	if (verify || repair)
		patrol_ask(&s->patrol, repair);
	return 0;
}

static void add_moved(const struct rebalance *r, json_object *out)
{
	uint64_t away;

	json_add_number(out, "moved_pages", r->mover.moved_pages);
	json_add_number(out, "moved_bytes", r->mover.moved_bytes);
	if (rebalance_away(r, &away))
		json_add_number(out, "away_pages", away);
}

int control_numa(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	struct server *s = arg;
	FREE_MEMORY struct topo *now = malloc(sizeof(*now));
	json_object *nodes;

	if (begin(s, in, e) < 0)
		return -EINVAL;
	if (!now || topo_read("/", now) < 0)
		return varlink_refuse(e, CONTROL_REFUSED, "cannot read the machine's topology");
	nodes = json_object_new_array();
	for (unsigned i = 0; i < s->placement.n; i++)
		json_object_array_add(nodes, node_object(s, now, i));
	json_object_object_add(out, "nodes", nodes);
	json_object_object_add(out, "memory_only", memory_only(&s->placement, now));
	json_object_object_add(out, "pinned", json_object_new_boolean(s->pinned));
	if (!knows_far(s))
		json_add_text(out, "reason",
			      "workers are not pinned: pin_workers = no, or there "
			      "are more of them than CPUs");
	json_object_object_add(out, "verifying",
			       json_object_new_boolean(patrol_is_hurried(&s->patrol)));
	json_add_number(out, "rounds", s->patrol.rounds);
	json_add_number(out, "verified_seconds_ago",
			(clock_now_ns() - s->patrol.ended_ns) / 1000000000);
	add_moved(&s->rebalance, out);
	return 0;
}
