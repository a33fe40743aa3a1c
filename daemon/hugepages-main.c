/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqd-hugepages(8): sets huge pages aside as sparqd.conf(5) says, before
 * sparqd starts. A program of its own, because it is root's and sparqd is not.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/placement.h"
#include "numa/reserve.h"
#include "shm/base.h"

#define SETTINGS_MOST 16

enum { EXIT_USAGE = 2 };

static const char usage[] = "usage: sparqd-hugepages [--config path] [--set key=value] [--exact] "
			    "[--dry-run]\n"
			    "       sparqd-hugepages --help | --version\n";

static const struct option options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "set", required_argument, NULL, 's' },
	{ "exact", no_argument, NULL, 'e' },
	{ "dry-run", no_argument, NULL, 'd' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'v' },
	{ NULL, 0, NULL, 0 },
};

struct command_line {
	const char *config; /* NULL: the default, which need not be there */
	const char *set[SETTINGS_MOST];
	unsigned n_set;
	bool exact, dry_run;
};

static int parse(int argc, char **argv, struct command_line *l)
{
	int id;

	while ((id = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (id) {
		case 'c':
			l->config = optarg;
			break;
		case 's':
			if (l->n_set == SETTINGS_MOST)
				return -E2BIG;
			l->set[l->n_set++] = optarg;
			break;
		case 'e':
			l->exact = true;
			break;
		case 'd':
			l->dry_run = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 1;
		case 'v':
			puts("sparqd-hugepages " SPARQ_VERSION);
			return 1;
		default:
			return -EINVAL;
		}
	}
	return optind < argc ? -EINVAL : 0;
}

/* As sparqd reads it. */
static int read_config(const struct command_line *l, struct config *c, char *why)
{
	int r;

	config_defaults(c);
	r = config_read(c, l->config ?: SPARQD_CONF, why);
	if (r == -ENOENT && !l->config)
		r = 0;
	for (unsigned i = 0; r == 0 && i < l->n_set; i++)
		r = config_set(c, l->set[i], why);
	return r;
}

/* What the pool wants, node by node. */
static int want_of_pool(const struct config *c, struct reserve *ret, char *why)
{
	size_t page_bytes = c->huge_pages == HUGE_1G ? GIB : 2 * MIB;
	FREE_MEMORY struct topo *t = malloc(sizeof(*t));
	int missing, r = t ? topo_read("/", t) : -ENOMEM;

	if (r == 0)
		r = topo_choose(t, c->numa_nodes, &missing);
	if (r == -ENOENT)
		snprintf(why, CONFIG_WHY_BYTES, "numa_nodes = %.200s: there is no node %d",
			 c->numa_nodes, missing);
	if (r < 0)
		return r;
	ret->n = 0;
	if (c->huge_pages == HUGE_NO)
		return 0;
	TOPO_EACH_CHOSEN(t, i)
	ret->item[ret->n++] = (struct reserve_item){
		.node = t->node[i].id,
		.page_bytes = page_bytes,
		.pages = placement_wanted(t, c) / page_bytes,
	};
	return 0;
}

static void tell_shortage(const struct reserve_item *item, const struct reserved *got,
			  const char *size)
{
	printf("node %d: %" PRIu64 " of %" PRIu64
	       " pages of %s: the node has no more free memory in "
	       "pieces of that size; end what uses it and run this again",
	       item->node, got->got, item->pages, size);
	if (item->page_bytes == GIB)
		printf(", or boot with hugepagesz=1G hugepages=%d:%" PRIu64, item->node,
		       item->pages);
	printf("; until then sparqd uses what there is\n");
}

/* One line: whether all is there. */
static bool reserve_one(const struct command_line *l, const struct reserve_item *item)
{
	const char *size = item->page_bytes == GIB ? "1 GiB" : "2 MiB";
	struct reserved got;
	int r;

	if (l->dry_run) {
		printf("node %d: %" PRIu64 " pages of %s are wanted\n", item->node, item->pages,
		       size);
		return true;
	}
	r = reserve_pages("/", item, l->exact, &got);
	if (r == -ENOENT)
		printf("node %d: there is no such node, or no pages of %s\n", item->node, size);
	else if (r < 0)
		printf("node %d: pages of %s: %s\n", item->node, size, strerror(-r));
	else if (got.got < item->pages)
		tell_shortage(item, &got, size);
	else
		printf("node %d: %" PRIu64 " pages of %s, %" PRIu64 " wanted, %" PRIu64
		       " before%s\n",
		       item->node, got.got, size, item->pages, got.before,
		       got.compacted ? "; memory had to be compacted" : "");
	return r == 0 && got.got >= item->pages;
}

static int reserve_all(const struct command_line *l, const struct config *c)
{
	FREE_MEMORY struct reserve *wanted = malloc(sizeof(*wanted));
	char why[CONFIG_WHY_BYTES] = "";
	bool all = true;
	int r = wanted ? reserve_parse(c->reserve_huge_pages, wanted) : -ENOMEM;

	if (r == 0 && wanted->automatic)
		r = want_of_pool(c, wanted, why);
	if (r < 0) {
		fprintf(stderr, "sparqd-hugepages: %s\n", why[0] ? why : strerror(-r));
		return EXIT_FAILURE;
	}
	if (wanted->n == 0)
		puts("no huge pages are wanted");
	/* Large ones first: small ones taken before them may break the last whole gibibyte. */
	for (unsigned large = 2; large-- > 0;)
		for (unsigned i = 0; i < wanted->n; i++)
			if ((wanted->item[i].page_bytes == GIB) == large)
				all &= reserve_one(l, &wanted->item[i]);
	return all ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	struct command_line l = { .config = NULL };
	char why[CONFIG_WHY_BYTES] = "";
	struct config c;
	int r;

	r = parse(argc, argv, &l);
	if (r < 0)
		fputs(usage, stderr);
	if (r != 0)
		return r < 0 ? EXIT_USAGE : EXIT_SUCCESS;
	r = read_config(&l, &c, why);
	if (r < 0) {
		fprintf(stderr, "sparqd-hugepages: %s\n", why[0] ? why : strerror(-r));
		return EXIT_FAILURE;
	}
	return reserve_all(&l, &c);
}
