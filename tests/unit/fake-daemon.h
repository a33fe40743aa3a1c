/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A daemon in a thread of the test: speaks the protocol through shm/, computes
 * nothing, and can be told to lie in the handshake, to keep entries for itself,
 * to die and to come back, with or without what it held.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "shm/message.h"
#include "shm/segment.h"

/* Entries whose user_data has this bit get no completion while `hold` is set. */
#define FAKE_HELD (1ull << 63)

struct fake {
	char dir[64], path[96];
	int listener, stop, kick; /* eventfds */
	pthread_t thread;
	/* What the test may set: before fake_start, or where atomic at any time. */
	void (*lie)(struct sparq_msg_hello_reply *r, struct sparq_daemon_page *page);
	const char *refuse; /* HELLO gets -EDQUOT with this text */
	uint32_t mute;      /* atomic: control messages are left unanswered */
	uint32_t hold;      /* atomic */
	uint32_t backwards; /* atomic: completes what it copied in one pass last first */
	uint32_t sleepless; /* atomic: polls without end */
	uint32_t die_at;    /* atomic: the next message of this type ends the session unanswered */
	uint32_t busy;      /* atomic: so many SEQ_ADOPT find the sequence attached */
	uint64_t gone[4];   /* ids that CACHE_ATTACH, SEQ_ADOPT do not find; 0: none */
	const char *kept;   /* a name that SEQ_ATTACH finds; NULL: any */
	uint64_t sequences; /* what CACHE_STAT tells */
	uint64_t next_id;   /* the last that was given */
	/* What it saw. */
	uint64_t completed; /* atomic */
	uint64_t sleeps;    /* atomic */
	struct sparq_msg_cache_create cache_create;
	struct sparq_msg_cache_table cache_table;
	uint64_t dropped; /* id of the last SEQ_DROP */
	uint32_t placement; /* that it tells of caches and sequences */
	uint64_t pinned;  /* what the last SEQ_PIN asked for */
	uint32_t n_drops, n_unrefs;
	uint32_t n[64];      /* atomic; messages, by type */
	uint32_t generation; /* atomic; of this start */
	uint32_t n_sessions; /* atomic */
};

void fake_start(struct fake *f);
/* Closes the session at once, as a killed process would. The thread ends. */
void fake_die(struct fake *f);
void fake_stop(struct fake *f); /* also after fake_die */
/* Dies and is back at once: the session, there must be one, ends, and the next is of another
 * generation. */
void fake_restart(struct fake *f);
/* Dies, and nobody listens until fake_back. */
void fake_away(struct fake *f);
void fake_back(struct fake *f);
