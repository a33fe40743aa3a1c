/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the driver: see driver.h. */
#include "kernels/cuda/driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>

#include "kernels/cuda/backend.h"

#define SYMBOL_TEXT(symbol) SYMBOL_TEXT_OF(symbol)
#define SYMBOL_TEXT_OF(symbol) #symbol

static int find_symbols(struct cuda_driver *d, char *why)
{
	struct {
		const char *symbol;
		void **at;
	} wanted[] = {
#define X(name, symbol) { SYMBOL_TEXT(symbol), (void **)&d->name },
		CUDA_DRIVER_FUNCTIONS(X)
#undef X
	};

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		*wanted[i].at = dlsym(d->library, wanted[i].symbol);
		if (!*wanted[i].at)
			return cuda_fail(why, ENOTSUP,
					 CUDA_DRIVER_LIBRARY " has no %s: install a driver that "
							     "supports CUDA %d.%d or newer",
					 wanted[i].symbol, CUDA_DRIVER_LEAST / 1000,
					 CUDA_DRIVER_LEAST % 1000 / 10);
	}
	return 0;
}

/* It can be asked before it is initialised, which an old one might refuse. */
static int check_version(struct cuda_driver *d, char *why)
{
	CUresult r = d->version(&d->found);

	if (r != CUDA_SUCCESS)
		return cuda_fail(why, ENODEV, "cuDriverGetVersion: %s", cuda_driver_error(d, r));
	if (d->found < CUDA_DRIVER_LEAST)
		return cuda_fail(why, ENOTSUP,
				 "the driver supports CUDA %d.%d, and the kernels need %d.%d: "
				 "install a newer driver",
				 d->found / 1000, d->found % 1000 / 10, CUDA_DRIVER_LEAST / 1000,
				 CUDA_DRIVER_LEAST % 1000 / 10);
	return 0;
}

static int initialise(struct cuda_driver *d, char *why)
{
	CUresult r = d->init(0);

	if (r == CUDA_SUCCESS)
		return 0;
	if (r == CUDA_ERROR_OUT_OF_MEMORY)
		return cuda_fail(why, ENOMEM, "cuInit: out of memory");
	return cuda_fail(why, ENODEV,
			 "cuInit: %s: the driver finds no device that it can use; are there "
			 "/dev/nvidia nodes that this process may open (gpu.conf of sparqd)?",
			 cuda_driver_error(d, r));
}

int cuda_driver_find(struct cuda_driver *ret, char *why)
{
	struct cuda_driver d = { .library = dlopen(CUDA_DRIVER_LIBRARY, RTLD_NOW | RTLD_LOCAL) };
	int r;

	if (!d.library)
		return cuda_fail(why, ENODEV, "no driver: %.150s; install NVIDIA's driver",
				 dlerror());
	r = find_symbols(&d, why);
	if (r == 0)
		r = check_version(&d, why);
	if (r < 0) {
		cuda_driver_close(&d);
		return r;
	}
	*ret = d;
	return 0;
}

int cuda_driver_open(struct cuda_driver *ret, char *why)
{
	struct cuda_driver d;
	int r = cuda_driver_find(&d, why);

	if (r < 0)
		return r;
	r = initialise(&d, why);
	if (r < 0) {
		cuda_driver_close(&d);
		return r;
	}
	d.runs = true;
	*ret = d;
	return 0;
}

void cuda_driver_close(struct cuda_driver *d)
{
	/* Once it runs it has threads and handlers of its own: it stays. */
	if (d->library && !d->runs)
		dlclose(d->library);
	*d = CUDA_DRIVER_NULL;
}

const char *cuda_driver_error(const struct cuda_driver *d, CUresult error)
{
	const char *name = NULL;

	if (d->error_name(error, &name) != CUDA_SUCCESS || !name)
		return "an error without a name";
	return name;
}
