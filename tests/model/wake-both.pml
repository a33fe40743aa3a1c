/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both sides sleep: the handshakes of wake-eventfd.pml and wake-futex.pml at once, bound together by
 * the credit. The client sleeps when its CQ is empty, and tells cq_head before that and at no other
 * time; the daemon has one place in the CQ, so that nearly every entry waits for the word of a
 * client that is about to sleep.
 *
 * Negative controls, each must lose a wake:
 *   NO_TELL          the client sleeps without storing cq_head
 *   NO_CREDIT_FENCE  it stores cq_head and looks at the epoch without a fence
 *   NO_CREDIT_RING   it stores cq_head and does not look at the epoch
 *   RING_FIRST       it looks at the epoch, then stores cq_head
 *   NO_WAKE          the daemon completes and goes to sleep without looking at cq_need
 */
#ifndef N
#define N 3
#endif
#define C 1 /* cq_entries */

#define TAIL 0
#define TOLD 1
#define EPOCH 2
#define CQE 3
#define NEED 4

byte memory[5];
chan client_stores = [2] of { byte, byte };
chan daemon_stores = [2] of { byte, byte };
bool readable = false;
byte bell = 0;
bool asleep = false; /* the client, in the futex */

#define fence(stores) empty(stores)

inline drain(stores)
{
	atomic { stores ? word, value -> memory[word] = value; word = 0; value = 0 }
}

active proctype client_buffer() { byte word, value; end: do :: drain(client_stores) od }
active proctype daemon_buffer() { byte word, value; end: do :: drain(daemon_stores) od }

inline ring()
{
	epoch = memory[EPOCH];
	if
	:: epoch != 0 && epoch != last -> fence(client_stores); readable = true; last = epoch
	:: else
	fi;
	epoch = 0
}

/* ring_client_tell before a sleep */
inline tell()
{
	awaited = published - told > C;
#ifdef RING_FIRST
	if :: awaited -> fence(client_stores); ring() :: else fi;
#endif
	told = seen;
	client_stores ! TOLD, told;
#if !defined(NO_CREDIT_RING) && !defined(RING_FIRST)
	if
	:: awaited ->
#ifndef NO_CREDIT_FENCE
		fence(client_stores);
#endif
		ring()
	:: else
	fi;
#endif
	awaited = false
}

inline client_sleep()
{
#ifndef NO_TELL
	if :: told != seen -> tell() :: else fi;
#endif
	heard = bell;
	client_stores ! NEED, 1;
	fence(client_stores);
	if
	:: memory[CQE] > seen
	:: memory[CQE] == seen ->
		atomic { if :: bell == heard -> asleep = true :: else fi };
		!asleep
	fi;
	client_stores ! NEED, 0;
	heard = 0
}

active proctype client()
{
	byte published, seen, told, last, epoch, heard;
	bool awaited;

	do
	:: published < N -> published++; client_stores ! TAIL, published; fence(client_stores); ring()
	:: memory[CQE] > seen -> seen++
	:: memory[CQE] == seen && seen < published -> client_sleep()
	:: seen == N -> break
	od
}

inline copy()
{
	work = memory[TAIL] > head;
	if
	:: work && head - snapshot >= C -> snapshot = memory[TOLD]; work = head - snapshot < C
	:: else
	fi
}

/* Completes the entry and ends the pass: waiter_wake. */
inline complete()
{
	head++;
	daemon_stores ! CQE, head;
	work = false;
#ifndef NO_WAKE
	fence(daemon_stores);
	if
	:: memory[NEED] != 0 ->
		atomic { fence(daemon_stores) -> work = memory[NEED]; memory[NEED] = 0 };
		if :: work -> bell++; asleep = false :: else fi;
		work = false
	:: else
	fi
#endif
}

active proctype daemon()
{
	byte head, snapshot, epoch;
	bool work;

	do
	:: head == N -> break
	:: head < N ->
		copy();
		if
		:: work -> complete()
		:: else ->
			epoch++;
			daemon_stores ! EPOCH, epoch;
			fence(daemon_stores);
			copy();
			if
			:: work -> complete()
			:: else -> readable; readable = false
			fi;
			daemon_stores ! EPOCH, 0
		fi
	od
}
