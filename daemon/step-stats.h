/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a step counts into the stats page: the worker's own block, the blocks of the sequences it
 * holds, and its user's. Before its completion is posted, so that who has the answer finds it in
 * the figures. Nothing where there is no page.
 */
#pragma once

#include "daemon/step-item.h"

/* A head that was gathered, by node. Its rows lie on one, but for placement=rows: then its bytes
 * are shared out evenly by its shares, for a kernel does not count share by share. */
void step_stats_head(const struct step_head *h);
/* An item that is over, while it is held. */
void step_stats_item(struct stepper *s, const struct step_item *i);
/* The entry; after its items. */
void step_stats_entry(struct stepper *s, const struct sparq_cqe *cqe);
/* A tile of a layer that was just flushed. */
void step_stats_flush(struct stepper *s, const struct kv_space *space, const struct kv_view *view);
