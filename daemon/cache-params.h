/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parameters of a cache: from the message to its record, from the record to
 * what kernels need, and what differs between two. No state.
 */
#pragma once

#include "daemon/catalogue.h"
#include "daemon/record.h"
#include "kernels/kernels.h"
#include "shm/sparq-abi.h"

#define MAX_SPACES 16u /* pairs of formats in one cache */

/* What kernels need to know: a space for each pair of formats that layers have. They differ in
 * their formats only, so what is not about tiles may be asked of any, the first. */
struct spaces {
	uint32_t n;
	uint8_t of_layer[MAX_LAYERS];
	struct kv_space space[MAX_SPACES];
};
static inline const struct kv_space *spaces_layer(const struct spaces *s, uint32_t layer)
{
	return &s->space[s->of_layer[layer]];
}

/* Fills the fixed part of a record but for uid. -EINVAL, -EOPNOTSUPP with `why`. */
int cache_params_parse(const struct sparq_msg_cache_create *m, struct cache_record *ret, char *why);
/* One parameter of the policy. */
int cache_params_set(struct cache_record *r, const char *key, const char *value, char *why);
/* The spaces, and the arguments with the defaults that depend on the geometry; `ret_args` is
 * what they borrow. Also of a record that a restart finds: it has all of this as text. */
int cache_params_settle(const struct cache_record *r, uint8_t ret_args[KV_POLICY_ARGS_BYTES],
			struct spaces *ret_spaces, char *why);
/* -EEXIST with `why` naming the first parameter that differs. */
int cache_params_compare(const struct cache_record *have, const struct cache_record *want,
			 char *why);
