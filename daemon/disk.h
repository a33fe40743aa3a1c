/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole files of one directory, written, read and removed by a thread of its own,
 * past the page cache where the file system allows it.
 *
 * Two lanes, one for what is read and one for what is written or removed: a
 * client that waits for a file does not wait for files that others are written to. Each
 * lane has one job at a time and `depth` pieces of it under way, in buffers that are made once;
 * pieces pass through the job's `move` in order, in the disk's thread.
 *
 *   write:  NAME.tmp --(all pieces)--> fsync --> rename to NAME --> fsync of the directory
 *
 * Until the rename there is no NAME, after it the file is whole and on the disk. A job that
 * fails or is cancelled leaves no NAME.tmp behind; one that was read stays as it is.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_NAME_MAX 32
#define DISK_ALIGN 4096u /* of pieces, in memory and in files */
#define DISK_DEPTH_MAX 64u
#define DISK_PIECE_MIN (128u << 10)
#define DISK_PIECE_MAX (1u << 20)

struct disk;

enum disk_kind { DISK_BEST, DISK_URING, DISK_SYNC };

struct disk_params {
	enum disk_kind kind;
	int directory;  /* stays the caller's, open until disk_free */
	unsigned depth; /* pieces under way, of each lane */
	size_t piece_bytes;
	bool direct; /* O_DIRECT */
};

/* What it became: each fallback has its reason here, 0 where there is none. */
struct disk_made {
	const char *engine; /* "io_uring" or "system calls" */
	int uring_error;    /* -errno: why it is not io_uring */
	int register_error; /* -errno: why the buffers are not registered */
	bool huge;          /* buffers lie in huge pages */
	size_t buffer_bytes;
};

enum disk_op { DISK_WRITE, DISK_READ, DISK_REMOVE };

struct disk_job {
	/* The caller's, set before disk_submit and left alone until the job came back. */
	enum disk_op op;
	char name[DISK_NAME_MAX];
	uint32_t group;      /* whose it is: groups take turns */
	uint32_t head_bytes; /* of the first piece, whole blocks; 0: it is like the others */
	uint64_t bytes;      /* of the file to write; of the one that was read, from `opened` on */
	/* NULL, or called with the open file before the first byte of it is read. */
	int (*opened)(void *arg, int fd, uint64_t bytes);
	/* The bytes [at, at + n) of the file: made, or taken. In order, by the disk's thread; an
	 * error ends the job with it. */
	int (*move)(void *arg, uint64_t at, void *data, size_t n);
	void *arg;

	/* The disk's; atomic while it runs. */
	uint64_t moved;

	/* How it ended: in what time, without the wait for its turn; what failed, and where. */
	int64_t ns;
	int error;
	const char *what; /* "open", "write", "fsync" ... */
	uint64_t error_at;

	uint32_t cancelled; /* atomic */
	struct disk_job *next;
};

int disk_new(const struct disk_params *p, struct disk **ret);
/* Cancels everything and waits for what is under way; jobs that did not come back never will, and
 * are the caller's again. */
struct disk *disk_free(struct disk *d);
struct disk_made disk_made(const struct disk *d);
/* Readable while there are jobs to fetch. */
int disk_event_fd(const struct disk *d);

/* One thread submits, cancels and fetches. The jobs of one lane and group follow each other in the
 * order they came. */
void disk_submit(struct disk *d, struct disk_job *job);
/* It ends with -ECANCELED as soon as no piece is under way, or as it would have. */
void disk_cancel(struct disk *d, struct disk_job *job);
/* A job that ended, or NULL. */
struct disk_job *disk_fetch(struct disk *d);
