/* SPDX-License-Identifier: Apache-2.0 */
/* What is wanted of the machine, and the checks that only the daemon can make. */
#include "daemon/doctor.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "daemon/placement.h"
#include "daemon/server.h"
#include "shm/base.h"

#define UNIT "sparqd.service"
#define SPILL_PIECE_BYTES MIB
#define MAPS_OF_SESSION 2 /* its segment, and what the fault handler may cut out of it */
#define MAPS_OF_DAEMON 1024

/* ---- what is wanted ---------------------------------------------------------- */

static uint64_t memlock_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_MEMLOCK, &l) < 0 || l.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	return l.rlim_cur;
}

static struct preflight wanted(const struct config *c, const char *path)
{
	return (struct preflight){
		.root = "/",
		.config = path,
		.unit = keep_kind() == KEEP_SYSTEMD ? UNIT : NULL,
		.want_1g = c->huge_pages == HUGE_YES || c->huge_pages == HUGE_1G,
		.want_2m = c->huge_pages != HUGE_NO,
		.insist = c->huge_pages == HUGE_2M || c->huge_pages == HUGE_1G,
		/* One buffer for each piece under way, both ways. */
		.locked_bytes = c->spill_dir[0] ? 2 * c->spill_depth * SPILL_PIECE_BYTES : 0,
		.memlock_bytes = memlock_limit(),
		.maps = (uint64_t)c->max_sessions * MAPS_OF_SESSION + MAPS_OF_DAEMON,
		.uring = preflight_try_uring(),
	};
}

/* ---- the daemon's own ---------------------------------------------------------- */

/* Of the words that kernels can use, those that the first CPU has: " avx2 fma". */
static void read_features(char *ret, size_t n)
{
	static const char *const words[] = {
		"avx2",        "fma",   "f16c",    "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
		"avx512_bf16", "asimd", "asimdhp", "asimddp", "i8mm",     "sve",
	};
	FREE_MEMORY char *line = NULL;
	FILE *f = fopen("/proc/cpuinfo", "re");
	size_t room = 0, used = 0;

	ret[0] = '\0';
	while (f && getline(&line, &room, f) > 0) {
		if (strncmp(line, "flags", 5) && strncmp(line, "Features", 8))
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(words) && used < n; i++) {
			const char *at = strstr(line, words[i]);
			size_t length = strlen(words[i]);

			while (at && (at[-1] != ' ' || !strchr(" \n", at[length])))
				at = strstr(at + 1, words[i]);
			if (at)
				used += (size_t)snprintf(ret + used, n - used, " %s", words[i]);
		}
		break;
	}
	if (f)
		fclose(f);
}

static void check_isa(const struct config *c, struct checks *ret)
{
	const char *best = NULL;
	char features[128];
	struct check *one;

	for (unsigned i = 0; kv_isa_at(i); i++)
		if (kv_isa_usable(kv_isa_at(i)))
			best = kv_isa_at(i); /* the last is the best */
	if (!best || strcmp(best, "scalar") == 0)
		checks_add(ret, "cpu", CHECK_WARNING,
			   "no instruction set that there are kernels for: the portable ones "
			   "compute, many times slower");
	else if (c->isa[0] && strcmp(c->isa, best) != 0) {
		one = checks_add(ret, "cpu", CHECK_WARNING, "isa = %s, and this CPU has %s", c->isa,
				 best);
		if (!getenv("SPARQD_ISA"))
			check_mend(one, "sed -i '/^ *isa *=/d' " SPARQD_CONF);
	} else {
		read_features(features, sizeof(features));
		checks_add(ret, "cpu", CHECK_OK, "%s kernels; the CPU has%s", best, features);
	}
}

static void check_kept(const struct server *s, struct checks *ret)
{
	bool systemd = access("/run/systemd/system", F_OK) == 0;
	struct check *one;

	if (!s) {
		checks_add(ret, "kept", CHECK_OK, "%s can keep the memory through a crash",
			   systemd ? "systemd" : "no systemd here: sparqd --keeper");
		return;
	}
	if (server_is_kept(s)) {
		checks_add(ret, "kept", CHECK_OK, "%s keeps the memory",
			   keep_kind_name(keep_kind()));
		return;
	}
	one = checks_add(ret, "kept", CHECK_WARNING,
			 "nobody keeps the memory: KV ends with this daemon");
	one->said = true;
	if (keep_kind() == KEEP_NONE)
		check_mend(one, "%s",
			   systemd ? "systemctl enable --now sparqd.socket" : "sparqd --keeper");
}

/* ---- all of it ------------------------------------------------------------------- */

static void run(const struct preflight *p, const struct topo *t, const struct config *c,
		const struct server *s, struct checks *ret)
{
	ret->n = 0;
	check_isa(c, ret);
	preflight_memory(p, t, ret);
	preflight_machine(p, t, ret);
	check_kept(s, ret);
}

static void unknown_node(const struct preflight *p, const struct config *c, int node,
			 struct checks *ret)
{
	struct check *one;

	ret->n = 0;
	one = checks_add(ret, "numa", CHECK_WRONG,
			 "numa_nodes = %s: there is no node %d that sparqd may use: it will not "
			 "start",
			 c->numa_nodes, node);
	check_mend(one, "sed -i '/^ *numa_nodes *=/d' %s", p->config);
}

int doctor_foresee(const struct config *c, const char *path, struct checks *ret)
{
	struct preflight_node node[TOPO_MAX_NODES];
	struct preflight p = wanted(c, path);
	FREE_MEMORY struct topo *t = malloc(sizeof(*t));
	int missing = -1, r = t ? topo_read("/", t) : -ENOMEM;

	if (r < 0)
		return r;
	if (topo_choose(t, c->numa_nodes, &missing) < 0) {
		unknown_node(&p, c, missing, ret);
		return 0;
	}
	p.node = node;
	TOPO_EACH_CHOSEN(t, i)
	node[p.n_nodes++] = (struct preflight_node){ t->node[i].id, placement_wanted(t, c), false,
						     ARENA_SMALL };
	p.other_bytes = c->catalogue_bytes;
	run(&p, t, c, NULL, ret);
	doctor_devices(c, NULL, ret);
	return 0;
}

void doctor_look(const struct server *s, struct checks *ret)
{
	struct preflight_node node[TOPO_MAX_NODES];
	struct preflight p = wanted(&s->config, s->args->config_path);
	FREE_MEMORY struct topo *t = malloc(sizeof(*t));
	cpu_set_t ids;

	/* As it is now: what the start saw may be free no more. */
	if (!t || topo_read("/", t) < 0) {
		ret->n = 0;
		checks_add(ret, "cpus", CHECK_UNKNOWN, "the machine's topology cannot be read");
		return;
	}
	CPU_ZERO(&ids);
	for (unsigned i = 0; i < s->placement.n; i++) {
		const struct arena *a = &s->placement.arena[i];

		if (a->node >= 0)
			CPU_SET((size_t)a->node, &ids);
		node[i] = (struct preflight_node){ a->node, a->bytes, true, a->pages };
	}
	topo_choose_set(t, &ids);
	p.node = node;
	p.n_nodes = s->placement.n;
	run(&p, t, &s->config, s, ret);
}

void doctor_tell(const struct server *s)
{
	FREE_MEMORY struct checks *checks = malloc(sizeof(*checks));

	if (!checks)
		return;
	doctor_look(s, checks);
	for (unsigned i = 0; i < checks->n; i++) {
		const struct check *c = &checks->item[i];

		if (c->said || (c->verdict != CHECK_WARNING && c->verdict != CHECK_WRONG))
			continue;
		log_event(EVENT_MACHINE, NULL, "%s: %s%s%s", c->name, c->text,
			  c->remedy[0] ? "; to mend it: " : "", c->remedy);
	}
}
