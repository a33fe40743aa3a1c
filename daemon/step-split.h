/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of caches with device=cuda:N,host: the newest rows are the device's, older ones are
 * attended by workers where they lie, at the same time; both results are merged by their lse.
 */
#pragma once

#include <stdint.h>

struct step_item;
struct stepper;

/* The first row that is the device's, of one that was staged; 0: all of them are, or the cache is
 * none of those. */
uint32_t step_split_row(const struct step_item *i);
/* Adds both halves to the wave. -ENOSPC: the lane is full, or the wave; -EOPNOTSUPP: it cannot be
 * cut, or the device not run its half, and the item says why. */
int step_split_stage(struct stepper *s, struct step_item *i, uint32_t row);
