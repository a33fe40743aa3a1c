/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What carries the requests of daemon/disk.h: io_uring, or plain system calls
 * where it is forbidden. One thread uses it, which need not be the one that opened it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/disk.h"

enum disk_request_op {
	DISK_REQUEST_READ,
	DISK_REQUEST_WRITE,
	DISK_REQUEST_FSYNC,
	DISK_REQUEST_UNLINK
};

struct disk_request {
	enum disk_request_op op;
	int fd;           /* of the file; DISK_REQUEST_UNLINK: of the directory */
	const char *name; /* DISK_REQUEST_UNLINK */
	void *data;       /* in the memory that `open` was told */
	uint32_t bytes;
	uint64_t at;
	void *token;
};

struct disk_event {
	void *token;
	int res; /* bytes, or -errno */
};

struct disk_backend {
	const char *name;
	/* `entries` requests under way at most. `*ret_register_error`: why the memory could not be
	 * registered; it works without. */
	int (*open)(unsigned entries, void *memory, size_t bytes, void **ret_state,
		    int *ret_register_error);
	void (*close)(void *state);
	/* Begins one; what `name` points at stays until its event. -errno: not begun. */
	int (*submit)(void *state, const struct disk_request *q);
	/* Waits for at least one of those under way; how many, at most n. -errno is fatal. */
	int (*wait)(void *state, struct disk_event *ret, unsigned n);
};

extern const struct disk_backend disk_uring, disk_sync;

/* With a back end of the caller's, for tests. */
int disk_new_over(const struct disk_params *p, const struct disk_backend *backend,
		  struct disk **ret);
