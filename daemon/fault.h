/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last net under memory shared with clients: a SIGBUS inside a session
 * segment (memory failure, out of memory in shmem) puts a page of zeros there
 * and marks the session dead, instead of ending the daemon.
 *
 * A client cannot cause one: segments are reserved whole and sealed against
 * shrinking and hole punching before they are read (shm/segment.h). Every
 * other SIGBUS ends the process as it should.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Room for n segments; `wake` is an eventfd that the handler writes. Once per process. */
int fault_open(uint32_t n, int wake);
void fault_close(void);

/* A slot for a mapped segment; -ENOSPC. */
int fault_watch(void *base, size_t bytes, uint32_t *ret_slot);
void fault_forget(uint32_t slot); /* before it is unmapped */
bool fault_hit(uint32_t slot);    /* a fault was caught in it */
