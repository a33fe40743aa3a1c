/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a cache would meet that asks for a device: the module, the driver that it finds, and the
 * devices that were asked for already. The module is loaded for it and put away again; no device is
 * touched and no context made. So it is for who asks, not for each start.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/device.h"
#include "daemon/doctor.h"
#include "daemon/server.h"
#include "shm/base.h"

#define UNIT "sparqd.service"
#define REFUSED "caches with device=cuda:N are refused"

/* Is there a device that all this would be for? */
static bool is_wanted(const struct server *s)
{
	struct device_stat stat;

	return access("/proc/driver/nvidia/version", F_OK) == 0 ||
	       (s && devices_stat(s->store.devices, 0, &stat));
}

static const struct kv_gpu_backend *load(const char *path, void **ret_module, char *why)
{
	const struct kv_gpu_backend *backend;

	*ret_module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	backend = *ret_module ? dlsym(*ret_module, KV_GPU_SYMBOL) : NULL;
	if (!*ret_module)
		snprintf(why, KV_GPU_WHY, "no module: %.200s", dlerror());
	else if (!backend || backend->version != KV_GPU_VERSION)
		snprintf(why, KV_GPU_WHY, "%.150s is of another version of sparqd", path);
	return backend && backend->version == KV_GPU_VERSION ? backend : NULL;
}

static void check_module(const char *why, bool wanted, struct checks *ret)
{
	struct check *one;

	if (!wanted) {
		checks_add(ret, "cuda", CHECK_OK, "%s; nothing here needs it", why);
		return;
	}
	one = checks_add(ret, "cuda", CHECK_WARNING, "%s: " REFUSED, why);
	/* Packages have none: it is made where the toolkit is. */
	check_mend(one, "meson setup --reconfigure build -Dcuda=enabled && meson install -C build");
}

static void check_driver(int error, const char *why, bool wanted, struct checks *ret)
{
	struct check *one;

	if (!wanted) {
		checks_add(ret, "cuda", CHECK_OK, "%s; nothing here needs it", why);
		return;
	}
	one = checks_add(ret, "cuda", CHECK_WARNING, "%s: " REFUSED, why);
	if (access("/etc/debian_version", F_OK) < 0)
		return;
	check_mend(one, error == -ENOTSUP ? "apt-get update && apt-get install --only-upgrade "
					    "nvidia-driver libcuda1"
					  : "apt-get install libcuda1");
}

static void check_one(const struct device_stat *d, struct checks *ret)
{
	struct check *one;

	if (d->state == DEVICE_OPEN) {
		checks_add(ret, "device", CHECK_OK, "%s is open: %s", d->name, d->info.name);
	} else if (d->state == DEVICE_FAILED) {
		checks_add(ret, "device", CHECK_WARNING, "%s cannot be used: %.200s", d->name,
			   d->why);
	} else if (d->state == DEVICE_LOST) {
		one = checks_add(ret, "device", CHECK_WRONG, "%s is lost: %.200s", d->name, d->why);
		if (keep_kind() == KEEP_SYSTEMD)
			check_mend(one, "systemctl restart " UNIT);
	} else {
		checks_add(ret, "device", CHECK_OK, "%s is %s", d->name,
			   device_state_names[d->state]);
	}
}

void doctor_devices(const struct config *c, const struct server *s, struct checks *ret)
{
	char why[KV_GPU_WHY] = "", driver[KV_GPU_DRIVER] = "";
	const char *path = c->cuda_module;
	const struct kv_gpu_backend *backend;
	struct device_stat stat;
	void *module;
	int r;

	backend = load(path, &module, why);
	if (backend) {
		r = backend->probe(driver, why);
		if (r < 0)
			check_driver(r, why, is_wanted(s), ret);
		else
			checks_add(ret, "cuda", CHECK_OK, "the driver supports %s", driver);
	} else {
		check_module(why, is_wanted(s), ret);
	}
	if (module)
		dlclose(module);
	for (unsigned i = 0; s && devices_stat(s->store.devices, i, &stat); i++)
		check_one(&stat, ret);
}
