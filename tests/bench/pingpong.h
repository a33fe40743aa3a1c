/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One cache line going there and back between two processors: the least that
 * any exchange between two threads can cost. A host may move virtual CPUs
 * between far and near, unseen by the guest, so a latency is worth something
 * only beside this number, measured just before it.
 */
#pragma once

/* Median round trip in ns between the two CPUs, or 0 if a thread cannot be pinned there. */
double pingpong_ns(int cpu_a, int cpu_b);
/* The same between the first two CPUs that this process may use; 0 if there is one only. */
double pingpong_line_ns(void);
