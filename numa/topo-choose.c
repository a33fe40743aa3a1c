/* SPDX-License-Identifier: Apache-2.0 */
/* Of the nodes that there are, those that the pool has parts of. */
#include <errno.h>
#include <string.h>

#include "numa/sysfs.h"
#include "numa/topo.h"
#include "shm/base.h"

int topo_find(const struct topo *t, int id)
{
	for (unsigned i = 0; i < topo_all(t); i++)
		if (t->node[i].id == id)
			return (int)i;
	return -ENOENT;
}

int topo_home(const struct topo *t, int id)
{
	int at = topo_find(t, id);

	return at < 0 ? at : at < (int)t->n_nodes ? id : t->node[t->node[at].near].id;
}

/* Two of memory only: nobody's `near` is either. */
static void swap_nodes(struct topo *t, unsigned a, unsigned b)
{
	struct topo_node node = t->node[a];
	uint8_t row[TOPO_MAX_NODES];

	if (a == b)
		return;
	t->node[a] = t->node[b];
	t->node[b] = node;
	memcpy(row, t->distance[a], sizeof(row));
	memcpy(t->distance[a], t->distance[b], sizeof(row));
	memcpy(t->distance[b], row, sizeof(row));
	for (unsigned i = 0; i < topo_all(t); i++) {
		uint8_t one = t->distance[i][a];

		t->distance[i][a] = t->distance[i][b];
		t->distance[i][b] = one;
	}
}

void topo_choose_set(struct topo *t, const cpu_set_t *ids)
{
	t->n_chosen = 0;
	for (unsigned i = 0; i < topo_all(t); i++) {
		bool in = CPU_ISSET((size_t)t->node[i].id, ids);

		t->node[i].left_out = !in;
		if (in && i >= t->n_nodes)
			swap_nodes(t, t->n_nodes + t->n_chosen++, i);
	}
}

int topo_choose(struct topo *t, const char *list, int *ret_missing)
{
	cpu_set_t ids;
	int r = sysfs_parse_list(list, &ids);

	if (r < 0)
		return r;
	for (int id = 0; id < CPU_SETSIZE; id++) {
		if (!CPU_ISSET((size_t)id, &ids) || topo_find(t, id) >= 0)
			continue;
		*ret_missing = id;
		return -ENOENT;
	}
	for (unsigned i = 0; i < t->n_nodes && !*list; i++)
		CPU_SET((size_t)t->node[i].id, &ids);
	topo_choose_set(t, &ids);
	return 0;
}

unsigned topo_next(const struct topo *t, unsigned from)
{
	while (from < topo_all(t) && t->node[from].left_out)
		from++;
	return from;
}

unsigned topo_n_chosen(const struct topo *t)
{
	unsigned n = 0;

	TOPO_EACH_CHOSEN(t, i)
	n++;
	return n;
}
