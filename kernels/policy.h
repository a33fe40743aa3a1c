/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A policy is a pure function from a step to a plan. It sees no pointer to
 * data, no thread, no device and no format.
 *
 * Its parameters are data: one table drives the parser, the defaults, the
 * error messages and the check that sparq-policies(7) names each one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kv_plan;

#define KV_MAX_DECODE_Q 16u /* more queries than this in an item are a prompt */

enum kv_param_type { KV_PARAM_U32, KV_PARAM_BOOL, KV_PARAM_WORD };

struct kv_param {
	const char *name;
	enum kv_param_type type;
	size_t at;             /* offset of a uint32_t in the policy's arguments */
	uint32_t preset, least, most;
	const char *const *words; /* KV_PARAM_WORD: value = index; NULL ends */
	const char *help;
};
#define KV_U32(type, field, preset, least, most, help) \
	{ #field, KV_PARAM_U32, offsetof(type, field), preset, least, most, NULL, help }
#define KV_BOOL(type, field, preset, help) \
	{ #field, KV_PARAM_BOOL, offsetof(type, field), preset, 0, 1, NULL, help }
#define KV_WORD(type, field, preset, words, help) \
	{ #field, KV_PARAM_WORD, offsetof(type, field), preset, 0, 0, words, help }

/* State that accompanies a sequence: declared, so that rows cut, moved or forked take it along. */
enum kv_slot_scope { KV_PER_LAYER, KV_PER_SEQUENCE };
enum kv_slot_extent { KV_ROWS, KV_SELECTION };
enum kv_slot_owner { KV_BY_POLICY, KV_BY_WRITE };
struct kv_slot {
	const char *name;
	enum kv_slot_scope scope;
	enum kv_slot_extent extent;
	enum kv_slot_owner owner;
};

/* All that a policy may know of a step. */
struct kv_step {
	bool prefill; /* more than KV_MAX_DECODE_Q queries */
	bool full;    /* no causal order */
	uint32_t layer, layers;
	uint32_t rows;   /* visible to the last query: sinks + sealed + tail */
	uint32_t sinks, sealed, tail;
	uint32_t n_q, group;
	uint32_t k_dim, v_dim;
};

#define KV_POLICY_OFFERED (1u << 0) /* users may choose it; else only its plan is tested */

struct kv_policy {
	const char *name, *summary;
	uint32_t flags;
	size_t args_bytes; /* at most KV_POLICY_ARGS_BYTES, uint32_t fields only */
	const struct kv_param *params;
	unsigned n_params;
	const struct kv_slot *slots;
	unsigned n_slots;
	uint32_t (*needs)(const void *args); /* KV_NEED_*; NULL: none */
	/* -EINVAL with `why` if the parameters do not go together or with the geometry; may be
	 * NULL. */
	int (*check)(const void *args, uint32_t k_dim, uint32_t group, char *why);
	/* Resolves defaults that depend on the geometry (l = k / 4, mean by group); may be NULL. */
	void (*settle)(void *args, uint32_t k_dim, uint32_t group);
	void (*plan)(struct kv_plan *p, const struct kv_step *s, const void *args);
};
#define KV_POLICY_ARGS_BYTES 128

const struct kv_policy *kv_policy_find(const char *name); /* offered ones */
const struct kv_policy *kv_policy_at(unsigned i, bool offered); /* NULL ends */
void kv_policy_defaults(const struct kv_policy *p, void *args);
/* -ENOENT unknown key, -EINVAL bad value: `why` (KV_ERROR_TEXT bytes) names the key, the value
 * and what is allowed. */
int kv_policy_set(const struct kv_policy *p, void *args, const char *key, const char *value,
		  char *why);
/* The value of a parameter as text; how many bytes. */
int kv_policy_get(const struct kv_policy *p, const void *args, const char *key, char *ret,
		  size_t n);
