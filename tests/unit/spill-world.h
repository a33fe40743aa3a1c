/* SPDX-License-Identifier: Apache-2.0 */
/* A store with a spill directory, for tests of it: what they do with sequences, and their clients.
 */
#pragma once

#include "daemon/spill.h"
#include "seq-model.h"

#define SECOND 1000000000ll

struct world {
	struct store_fixture f;
	struct config config;
	struct loop *loop;
	struct spill *spill;
	struct cache *cache;
	struct model model;
	char base[64];
};

struct client {
	struct spill_wait wait;
	unsigned calls;
	int error;
	char why[SPARQ_ERROR_TEXT];
};

struct cache *world_cache(struct world *w, const char *name, const char *k_format,
			  const char *v_format, const char *policy, const char *options);
int world_set_up(void **state);
int world_tear_down(void **state);
void world_restart(struct world *w);
struct seq *world_named(struct world *w, const char *name);
void world_settle(struct world *w);
struct seq *world_fill(struct world *w, const char *name, uint32_t rows, uint32_t tag);
void world_spill(struct world *w, struct seq *s);
void world_load(struct world *w, struct seq *s);
void world_take(struct world *w, struct seq *s);
void world_drop(struct seq *s);
void world_check(struct model *m);
unsigned world_files(const struct world *w, const char *end);
void client_await(struct world *w, struct seq *s, struct client *c);
int world_open_file(const struct world *w, uint64_t number);
uint64_t world_number(const struct seq *s);
void world_flip(int fd, uint64_t at);
