/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client wakes the daemon: shm/doorbell.c (doorbell_ring, sleeper_announce) and the credit of
 * shm/ring.c (ring_client_tell, ring_daemon_credit).
 *
 * Stores go through a FIFO per process which a drainer empties at any time (TSO, as on x86); a fence
 * waits until it is empty. Timed waits are left out, so a lost wake is a deadlock: Spin reports an
 * invalid end state. The client polls its CQ; wake-both.pml lets it sleep too.
 *
 * The client publishes n <= N entries in batches, reads completions in any order with that, and the
 * daemon may have at most C completions unread. An entry beyond waits for the client's cq_head, and
 * a daemon with nothing but such entries sleeps: so that store counts as a publish.
 *
 * Negative controls, each must lose a wake:
 *   NO_CLIENT_FENCE   after a publish
 *   NO_DAEMON_FENCE   after the announcement
 *   NO_CREDIT_FENCE   cq_head is stored and the epoch looked at without a fence
 *   NO_CREDIT_RING    cq_head is stored and the epoch not looked at
 *   CREDIT_OFF_BY_ONE the client takes one entry too few for waiting
 *   NO_CREDIT_TELL    cq_head is not stored when the CQ is drained
 *   ONE_EPOCH         every sleep has the same number: "rung in this epoch" is then wrong
 *   NO_STICKY         a signal reaches only who sleeps already
 *   BAD_DRAIN         the eventfd is drained between the last scan and the sleep
 * COLD is sq_cold instead of sleep_epoch: one number, and rung every time. It must keep all.
 */
#ifndef N
#define N 4 /* entries */
#endif
#define C 2 /* cq_entries */

#define TAIL 0  /* seq of the entries: how many are published */
#define TOLD 1  /* cq_head */
#define EPOCH 2 /* sleep_epoch */
#define CQE 3   /* seq of the completions: how many are written */

byte memory[4];
chan client_stores = [3] of { byte, byte };
chan daemon_stores = [3] of { byte, byte };
bool readable = false;   /* the eventfd has a count */
bool asleep = false;     /* only NO_STICKY looks at it */
byte n;                  /* entries of this run */

#define fence(stores) empty(stores)

inline drain(stores)
{
	atomic { stores ? word, value -> memory[word] = value; word = 0; value = 0 }
}

active proctype client_buffer() { byte word, value; end: do :: drain(client_stores) od }
active proctype daemon_buffer() { byte word, value; end: do :: drain(daemon_stores) od }

/* doorbell_ring, from the load of the epoch on */
inline ring()
{
	epoch = memory[EPOCH];
	if
#ifdef COLD
	:: epoch != 0 ->
#else
	:: epoch != 0 && epoch != last ->
#endif
		fence(client_stores); /* a system call */
#ifdef NO_STICKY
		atomic { if :: asleep -> readable = true :: else fi };
#else
		readable = true;
#endif
		last = epoch
	:: else
	fi;
	epoch = 0
}

inline publish()
{
	do /* a batch of one or more */
	:: published < n -> published++; client_stores ! TAIL, published;
		if :: true -> break :: published < n fi
	od;
#ifndef NO_CLIENT_FENCE
	fence(client_stores);
#endif
	ring()
}

/* ring_client_tell and what its caller does */
inline tell()
{
#ifdef CREDIT_OFF_BY_ONE
	awaited = published - told > C + 1;
#else
	awaited = published - told > C;
#endif
	told = seen;
	client_stores ! TOLD, told;
	if
	:: awaited ->
#ifndef NO_CREDIT_RING
#ifndef NO_CREDIT_FENCE
		fence(client_stores);
#endif
		ring()
#else
		skip
#endif
	:: else
	fi;
	awaited = false
}

active proctype client()
{
	byte published, seen, told, last, epoch;
	bool awaited;

	select(n : 1 .. N);
	do
	:: published < n -> publish()
	:: memory[CQE] > seen -> /* peek and seen */
		seen++;
		if
#ifndef NO_CREDIT_TELL
		:: memory[CQE] == seen -> tell() /* drained */
#else
		:: memory[CQE] == seen -> skip
#endif
		:: memory[CQE] > seen -> tell()  /* half the ring */
		:: memory[CQE] > seen -> skip
		fi
	:: seen == n -> break
	od
}

/* ring_daemon_copy: sets `work` if an entry is there and has credit */
inline copy()
{
	work = memory[TAIL] > head;
	if
	:: work && head - snapshot >= C -> snapshot = memory[TOLD]; work = head - snapshot < C
	:: else
	fi
}

inline complete()
{
	head++;
	daemon_stores ! CQE, head;
	work = false
}

active proctype daemon()
{
	byte head, snapshot, epoch;
	bool work;

	do
	:: n != 0 && head == n -> break
	:: n == 0 || head < n ->
		copy();
		if
		:: work -> complete()
		:: else ->
#if defined(ONE_EPOCH) || defined(COLD)
			epoch = 1;
#else
			epoch++;
#endif
			daemon_stores ! EPOCH, epoch;
#ifndef NO_DAEMON_FENCE
			fence(daemon_stores);
#endif
			copy();
			if
			:: work -> complete()
			:: else ->
				fence(daemon_stores); /* a system call */
#ifdef BAD_DRAIN
				readable = false;
#endif
				asleep = true;
				readable;
				asleep = false;
				readable = false
			fi;
			daemon_stores ! EPOCH, 0
		fi
	od
}
