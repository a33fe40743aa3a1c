/* SPDX-License-Identifier: Apache-2.0 */
/* The order of channels: see channels.h. */
#include "kernels/channels.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int check_order(const char *what, const uint8_t *channel, uint32_t n, char *why)
{
	bool seen[KV_MAX_DIM] = { false };

	for (uint32_t i = 0; i < n; i++) {
		if (channel[i] >= n || seen[channel[i]]) {
			snprintf(why, KV_ERROR_TEXT,
				 "%s[%u]=%u: each channel from 0 to %u must stand once", what, i,
				 channel[i], n - 1);
			return -EINVAL;
		}
		seen[channel[i]] = true;
	}
	return 0;
}

int kv_channels_check(const struct kv_space *s, const struct kv_channels *t, char *why)
{
	int r;

	if (t->n_outliers > s->outliers) {
		snprintf(why, KV_ERROR_TEXT,
			 "n_outliers=%u: the cache was made with room for outliers=%u",
			 t->n_outliers, s->outliers);
		return -EINVAL;
	}
	r = check_order("k_channels", t->k, s->k_dim, why);
	return r ? r : check_order("v_channels", t->v, s->v_dim, why);
}

void kv_channels_store(const uint8_t *channel, uint32_t n, size_t bytes, const void *from, void *to)
{
	const uint32_t *word = from;
	const uint16_t *half = from;

	if (bytes == sizeof(*word))
		for (uint32_t i = 0; i < n; i++)
			((uint32_t *)to)[i] = word[channel[i]];
	else
		for (uint32_t i = 0; i < n; i++)
			((uint16_t *)to)[i] = half[channel[i]];
}

void kv_channels_scale(const struct kv_channels *t, uint32_t n, float scale, const float *from,
		       float *to)
{
	if (t)
		for (uint32_t i = 0; i < n; i++)
			to[i] = from[t->k[i]] * scale;
	else
		for (uint32_t i = 0; i < n; i++)
			to[i] = from[i] * scale;
}

void kv_channels_restore(const struct kv_channels *t, uint32_t n, float *y)
{
	float x[KV_MAX_DIM];

	memcpy(x, y, n * sizeof(*x));
	for (uint32_t i = 0; i < n; i++)
		y[t->v[i]] = x[i];
}

void kv_channels_find(const struct kv_channels *t, uint32_t n, const uint32_t *channel, uint32_t r,
		      uint16_t *ret_place)
{
	bool chosen[KV_MAX_DIM] = { false };
	uint32_t found = 0;

	for (uint32_t j = 0; j < r; j++) {
		chosen[channel[j]] = true;
		ret_place[j] = (uint16_t)channel[j];
	}
	for (uint32_t i = 0; t && i < n; i++)
		if (chosen[t->k[i]])
			ret_place[found++] = (uint16_t)i;
}
