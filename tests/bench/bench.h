/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands of sparq-bench share. */
#pragma once

/* A command: 0, 1 failed, 2 wrong usage; one file each, listed in main.c. */
int bench_append(int argc, char **argv);
int bench_attend(int argc, char **argv);
int bench_device(int argc, char **argv);
int bench_fork(int argc, char **argv);
int bench_overwrite(int argc, char **argv);
int bench_ring(int argc, char **argv);
int bench_spill(int argc, char **argv);

/* Limits the kernels; 2: said what there is. */
int bench_isa(const char *command, const char *isa);
double bench_now_ns(void);
/* Sorts them. n > 0 */
double bench_median(double *sample, unsigned n);
/* Says what failed and why (`error`: a negative errno) on stderr; 1. */
int bench_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));
