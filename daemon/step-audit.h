/* SPDX-License-Identifier: Apache-2.0 */
/* A step that is audited, on its way through a worker: see audit.h. Token path. */
#pragma once

#include "daemon/step-item.h"

/* It was staged: is it to be audited? Its queries are copied then. */
void step_audit_choose(struct stepper *s, struct step_item *i);
/* After its wave: what the head found. */
void step_audit_head(const struct step_head *h);
/* After the completion was posted, before anything is flushed: the rows that it saw. */
void step_audit_settle(struct stepper *s, struct step_item *i);
