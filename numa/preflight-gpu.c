/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVIDIA's devices, as far as files tell: are there any, is there a driver for them, may this
 * process open them? Nothing of a device is touched.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "numa/preflight-private.h"
#include "numa/sysfs.h"
#include "shm/base.h"

#define NVIDIA_VENDOR 0x10de
#define DISPLAY_CLASS 0x03 /* the first byte of a PCI class: display controllers, 3D ones as well  \
			    */
#define REFUSED "caches with device=cuda:N are refused"

static DIR *open_directory(int root, const char *path)
{
	int fd = openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d && fd >= 0)
		close(fd);
	return d;
}

/* "0x10de" */
static uint64_t read_hex(int root, const char *path)
{
	char text[32];

	return sysfs_text(root, path, text, sizeof(text)) < 0 ? 0 : strtoull(text, NULL, 16);
}

static bool is_nvidia(int root, const char *address)
{
	char path[300];

	snprintf(path, sizeof(path), "sys/bus/pci/devices/%s/vendor", address);
	if (read_hex(root, path) != NVIDIA_VENDOR)
		return false;
	snprintf(path, sizeof(path), "sys/bus/pci/devices/%s/class", address);
	return read_hex(root, path) >> 16 == DISPLAY_CLASS;
}

/* Those that the bus has; of the first its address. */
static unsigned count_on_bus(int root, char ret_first[32])
{
	DIR *d = open_directory(root, "sys/bus/pci/devices");
	const struct dirent *e;
	unsigned n = 0;

	ret_first[0] = '\0';
	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.' || !is_nvidia(root, e->d_name))
			continue;
		if (n++ == 0)
			snprintf(ret_first, 32, "%.31s", e->d_name);
	}
	if (d)
		closedir(d);
	return n;
}

/* Those that the driver has taken. */
static unsigned count_of_driver(int root)
{
	DIR *d = open_directory(root, "proc/driver/nvidia/gpus");
	const struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

/* "550.54.15"; -errno: there is no driver. */
static int read_version(int root, char *ret, size_t n)
{
	char text[256], *version;
	int r = sysfs_text(root, "proc/driver/nvidia/version", text, sizeof(text));

	if (r < 0)
		return r;
	/* The first word that is a number: an open driver says "for x86_64" before it. */
	version = text;
	while (*version && *version != '\n' && !(*version >= '0' && *version <= '9')) {
		version += strcspn(version, " \n");
		version += strspn(version, " ");
	}
	snprintf(ret, n, "%.*s", (int)strcspn(version, " \n"), version);
	return 0;
}

static void check_no_driver(int root, struct checks *c)
{
	char first[32];
	unsigned n = count_on_bus(root, first);
	struct check *one;

	if (n == 0) {
		checks_add(c, "gpu", CHECK_OK, "none, and none is needed");
		return;
	}
	one = checks_add(c, "gpu", CHECK_WARNING,
			 "%u of NVIDIA on the bus (%s) and no driver for it: " REFUSED, n, first);
	if (faccessat(root, "etc/debian_version", F_OK, 0) == 0)
		check_mend(one, "apt-get install nvidia-driver && modprobe nvidia-current");
	else
		check_mend(one, "modprobe nvidia");
}

/* A node of the driver that this process cannot open; NULL: there is none. */
static const char *closed_node(int root)
{
	static const char *const nodes[] = { "dev/nvidiactl", "dev/nvidia0", "dev/nvidia-uvm" };

	for (unsigned i = 0; i < ARRAY_SIZE(nodes); i++)
		if (faccessat(root, nodes[i], R_OK | W_OK, AT_EACCESS) < 0)
			return nodes[i];
	return NULL;
}

/* In a sandbox they are not there; elsewhere a program of the driver makes them. */
static void check_nodes_of(const struct preflight *p, int root, unsigned n, const char *version,
			   struct checks *c)
{
	const char *node = closed_node(root);
	struct check *one;

	if (!node) {
		checks_add(c, "gpu", CHECK_OK, "NVIDIA driver %s, %u device%s", version, n,
			   n == 1 ? "" : "s");
		return;
	}
	one = checks_add(c, "gpu", CHECK_WARNING,
			 "NVIDIA driver %s, %u device%s, and /%s cannot be opened: " REFUSED,
			 version, n, n == 1 ? "" : "s", node);
	if (p->unit)
		check_mend(one,
			   "install -D -m 644 /usr/share/sparqd/gpu.conf "
			   "/etc/systemd/system/%s.d/gpu.conf && systemctl daemon-reload && "
			   "systemctl restart %s",
			   p->unit, p->unit);
	else
		check_mend(one, "nvidia-modprobe -c 0 -u");
}

void preflight_gpu(const struct preflight *p, int root, struct checks *c)
{
	char version[32];
	unsigned n;

	if (read_version(root, version, sizeof(version)) < 0) {
		check_no_driver(root, c);
		return;
	}
	n = count_of_driver(root);
	if (n == 0)
		checks_add(c, "gpu", CHECK_WARNING,
			   "NVIDIA driver %s finds no device that it can use: " REFUSED, version);
	else
		check_nodes_of(p, root, n, version, c);
}
