/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon wakes a client: waiter_wait and waiter_wake of shm/doorbell.c.
 *
 * Store buffers, fences and deadlocks as in wake-eventfd.pml. FUTEX_WAIT compares and falls asleep
 * in one step (the kernel's bucket lock). N completions, in batches.
 *
 * Other forms of the same, to know what the design can and cannot do without:
 *   PLAIN_CLEAR     cq_need is cleared by a store instead of an exchange: keeps all
 *   NO_CLEAR        the waker leaves cq_need alone, the sleeper clears it: keeps all
 *   MEMBARRIER      no waker fence, the sleeper runs membarrier(2) instead: keeps all
 *   TAIL_WORD       no bell, the futex is the number of completions; with NO_CLEAR it keeps all,
 *                   clearing loses: the clear of one sleep hits the next
 * Negative controls, each must lose a wake:
 *   NO_WAKER_FENCE  NO_SLEEPER_FENCE
 *   LATE_BELL       the bell is read after the last look
 *   NO_BELL         FUTEX_WAKE alone: it does not reach who is not in the kernel yet
 */
#ifndef N
#define N 4
#endif

#define CQE 0  /* seq of the completions: how many are written */
#define NEED 1 /* cq_need */

byte memory[2];
chan waker_stores = [3] of { byte, byte };
chan sleeper_stores = [3] of { byte, byte };
byte bell = 0;
bool asleep = false;

#define fence(stores) empty(stores)

inline drain(stores)
{
	atomic { stores ? word, value -> memory[word] = value; word = 0; value = 0 }
}

active proctype waker_buffer() { byte word, value; end: do :: drain(waker_stores) od }
active proctype sleeper_buffer() { byte word, value; end: do :: drain(sleeper_stores) od }

/* Takes cq_need: sets `need` to what it was. */
inline clear()
{
#if defined(NO_CLEAR)
	skip
#elif defined(PLAIN_CLEAR)
	waker_stores ! NEED, 0
#else
	atomic { fence(waker_stores) -> need = memory[NEED]; memory[NEED] = 0 }
#endif
}

active proctype waker()
{
	byte written;
	byte need;

	do
	:: written < N ->
		do /* the completions of a pass */
		:: written < N -> written++; waker_stores ! CQE, written;
			if :: true -> break :: written < N fi
		od;
#if !defined(NO_WAKER_FENCE) && !defined(MEMBARRIER)
		fence(waker_stores);
#endif
		need = memory[NEED];
		if :: need -> clear() :: else fi;
		if
		:: need ->
			fence(waker_stores); /* a locked addition, then a system call */
#if !defined(TAIL_WORD) && !defined(NO_BELL)
			bell++;
#endif
			asleep = false
		:: else
		fi;
		need = 0
	:: else -> break
	od
}

inline futex_wait()
{
	fence(sleeper_stores); /* a system call */
#ifdef TAIL_WORD
	atomic { if :: memory[CQE] == seen -> asleep = true :: else fi };
#else
	atomic { if :: bell == heard -> asleep = true :: else fi };
#endif
	!asleep
}

active proctype sleeper()
{
	byte seen, heard;

	do
	:: seen == N -> break
	:: memory[CQE] > seen -> seen++
	:: memory[CQE] == seen && seen < N ->
		heard = bell;
		sleeper_stores ! NEED, 1;
#ifndef NO_SLEEPER_FENCE
		fence(sleeper_stores);
#endif
#ifdef MEMBARRIER
		fence(waker_stores); /* every running peer passes a barrier */
#endif
		if
		:: memory[CQE] > seen
		:: memory[CQE] == seen ->
#ifdef LATE_BELL
			heard = bell;
#endif
			futex_wait()
		fi;
		sleeper_stores ! NEED, 0;
		heard = 0
	od
}
