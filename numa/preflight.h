/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is this machine ready for memory of that size and kind? A list of checks:
 * each says how it is, why, and which command mends what is short.
 *
 * They read sysfs and procfs below a root, so that a recorded tree reads like a
 * live one. What is not in files (limits of a process, whether a system call is
 * refused) the caller says. What cannot be known is unknown, with the reason.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "numa/arena.h"
#include "numa/topo.h"

enum verdict { CHECK_OK, CHECK_WARNING, CHECK_WRONG, CHECK_UNKNOWN };

#define CHECK_TEXT_BYTES 256
#define CHECK_REMEDY_BYTES 384
#define CHECKS_MOST 256

struct check {
	const char *name;
	enum verdict verdict;
	char text[CHECK_TEXT_BYTES];
	char remedy[CHECK_REMEDY_BYTES]; /* a line for a shell of root; "": there is none */
	bool said; /* whoever meets it at the start says so in its own words */
};

struct checks {
	unsigned n;
	struct check item[CHECKS_MOST];
};

const char *check_verdict_name(enum verdict v); /* "ok", "warning", "wrong", "unknown" */
struct check *checks_add(struct checks *c, const char *name, enum verdict v, const char *format,
			 ...) __attribute__((format(printf, 4, 5)));
void check_mend(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
unsigned checks_count(const struct checks *c, enum verdict v);

struct preflight_node {
	int node;
	uint64_t bytes; /* wanted */
	bool taken;     /* there is an arena of it already, of these pages: */
	enum arena_pages pages;
};

struct preflight {
	const char *root;      /* "/" in life */
	const char *config;    /* the file that a remedy changes */
	const char *unit;      /* the service whose limits a remedy raises; NULL: this is a shell */
	bool want_1g, want_2m; /* as in struct arena_params */
	bool insist;           /* without them it is wrong, not just a warning */
	const struct preflight_node *node;
	unsigned n_nodes;
	uint64_t other_bytes; /* of ordinary memory beside those, still to be taken */
	uint64_t locked_bytes, memlock_bytes; /* wanted, and the limit; UINT64_MAX: none */
	uint64_t maps;                        /* mappings that it may come to */
	int uring;                            /* of trying io_uring: 0, -errno */
};

/* How the memory of `t` (of the same root) serves what is wanted. */
void preflight_memory(const struct preflight *p, const struct topo *t, struct checks *c);
/* The rest of the machine: limits, io_uring, nodes, clock speeds, GPUs. */
void preflight_machine(const struct preflight *p, const struct topo *t, struct checks *c);
/* What a process gets that asks for io_uring: 0, -errno. */
int preflight_try_uring(void);
