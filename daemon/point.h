/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Synchronisation points: the places between two stores of a change that takes
 * several, where a crash must find either the old state or the new one.
 *
 * In the daemon that is installed a point is nothing. Tests build a second daemon,
 * sparqd-points, in which each one may be told to be the last (tests/crash/point.c).
 * There its name stands in a section of its own, so that a test can list all that
 * exist and a new one cannot be forgotten. A name is that of the change and of what
 * was just done: append_written, truncate_intent.
 *
 * BREAK_ORDER(statement) is the positive control: in the build sparqd-broken the statement
 * runs, which publishes what is not written yet; everywhere else it is nothing. So BREAK_SWAP for
 * rows that are overwritten, in sparqd-torn.
 */
#pragma once

#ifdef SPARQD_POINTS

#define POINT_NAME_BYTES 32

void point_reached(const char *name);

#define POINT(name)                                                                                \
	do {                                                                                       \
		_Static_assert(sizeof(#name) <= POINT_NAME_BYTES, "a name of a point");            \
		static const char point_name[POINT_NAME_BYTES]                                     \
			__attribute__((section("sparqd_points"), used,                             \
				       aligned(POINT_NAME_BYTES))) = #name;                        \
		point_reached(point_name);                                                         \
	} while (0)

#else

#define POINT(name) ((void)0)

#endif

#ifdef SPARQD_BREAK_ORDER
#define BREAK_ORDER(statement) statement
#else
#define BREAK_ORDER(statement) ((void)0)
#endif

#ifdef SPARQD_BREAK_SWAP
#define BREAK_SWAP(statement) statement
#else
#define BREAK_SWAP(statement) ((void)0)
#endif
