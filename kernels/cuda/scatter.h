/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changed bytes of the host, from a lane's memory to where they belong: hundreds
 * of short runs that one copy brings to the device and one launch spreads, a block of
 * threads for each run. Read by host and device code.
 */
#pragma once

#include <stdint.h>

#define CUDA_RUN_BYTES 65536u /* of one block of threads */
#define CUDA_RUN_ALIGN 16u    /* of addresses and lengths */
#define CUDA_SCATTER_THREADS 128u

struct cuda_run {
	uint64_t to;    /* device address */
	uint32_t at, n; /* bytes, from the beginning of the lane's memory */
};

struct cuda_scatter {  /* at the address that the kernel is given */
	uint64_t lane; /* device address of the lane's memory */
	uint32_t runs, rsv;
	struct cuda_run run[];
};
