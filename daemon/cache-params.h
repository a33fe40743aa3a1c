/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parameters of a cache: from the message to its record, from the record to
 * what kernels need, and what differs between two. No state.
 */
#pragma once

#include "daemon/catalogue.h"
#include "shm/sparq-abi.h"

/* Fills the fixed part of a record but for uid. -EINVAL, -EOPNOTSUPP with `why`. */
int cache_params_parse(const struct sparq_msg_cache_create *m, struct cache_record *ret, char *why);
/* One parameter of the policy. */
int cache_params_set(struct cache_record *r, const char *key, const char *value, char *why);
/* The space, and the arguments with the defaults that depend on the geometry; `ret_args` is
 * what ret_space borrows. */
int cache_params_settle(const struct cache_record *r, uint8_t ret_args[KV_POLICY_ARGS_BYTES],
			struct kv_space *ret_space, char *why);
/* -EEXIST with `why` naming the first parameter that differs. */
int cache_params_compare(const struct cache_record *have, const struct cache_record *want,
			 char *why);
