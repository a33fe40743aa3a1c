/* SPDX-License-Identifier: Apache-2.0 */
/* The file between sparqd-bandwidth and sparqd: see bandwidth-file.h. */
#include "numa/bandwidth-file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/base.h"

#define MAGIC 0x4457425152415053ull
#define LAYOUT 1u
#define STALE_NS ((int64_t)BANDWIDTH_STALE_S * 1000000000)

void bandwidth_file_init(struct bandwidth_file *f, const struct topo *t)
{
	memset(f, 0, sizeof(*f));
	f->magic = MAGIC;
	f->layout = LAYOUT;
	f->n_nodes = t->n_nodes;
	for (unsigned i = 0; i < t->n_nodes; i++) {
		f->node[i].node = t->node[i].id;
		for (unsigned k = 0; k < BANDWIDTH_SOURCES; k++) {
			struct bandwidth_entry *e = &f->node[i].source[k];

			snprintf(e->name, sizeof(e->name), "%s", bandwidth_sources[k]->name);
			e->count = BANDWIDTH_NOTHING;
		}
	}
}

static int write_all(int fd, const void *from, size_t n)
{
	ssize_t wrote = write(fd, from, n);

	if (wrote < 0)
		return -errno;
	return (size_t)wrote == n ? 0 : -ENOSPC;
}

int bandwidth_file_write(const char *path, const struct bandwidth_file *f)
{
	char fresh[256];
	CLOSE_FD int fd = -1;
	int r;

	if ((size_t)snprintf(fresh, sizeof(fresh), "%s.new", path) >= sizeof(fresh))
		return -ENAMETOOLONG;
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0)
		return -errno;
	r = write_all(fd, f, sizeof(*f));
	if (r == 0 && rename(fresh, path) < 0)
		r = -errno;
	if (r < 0)
		unlink(fresh);
	return r;
}

static int read_all(const char *path, struct bandwidth_file *f)
{
	CLOSE_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : read(fd, f, sizeof(*f));

	if (n < 0)
		return -errno;
	return n == sizeof(*f) ? 0 : -EPROTO;
}

static bool is_whole(const struct bandwidth_file *f)
{
	if (f->magic != MAGIC || f->layout != LAYOUT || f->n_nodes > TOPO_MAX_NODES)
		return false;
	for (uint32_t i = 0; i < f->n_nodes; i++)
		for (unsigned k = 0; k < BANDWIDTH_SOURCES; k++) {
			const struct bandwidth_entry *e = &f->node[i].source[k];

			if (!memchr(e->name, 0, sizeof(e->name)) ||
			    !memchr(e->why, 0, sizeof(e->why)))
				return false;
		}
	return true;
}

int bandwidth_file_read(const char *path, uint64_t now_ns, struct bandwidth_file *ret, char *why)
{
	int r = read_all(path, ret);
	int64_t age;

	if (r == 0 && !is_whole(ret))
		r = -EPROTO;
	if (r == -ENOENT)
		snprintf(why, BANDWIDTH_WHY_BYTES,
			 "sparqd-bandwidth does not run: systemctl start sparqd-bandwidth");
	else if (r == -EPROTO)
		snprintf(why, BANDWIDTH_WHY_BYTES,
			 "sparqd-bandwidth is of another version: systemctl restart "
			 "sparqd-bandwidth");
	else if (r < 0)
		snprintf(why, BANDWIDTH_WHY_BYTES, "%.40s: %s", path, strerror(-r));
	if (r < 0)
		return r;
	/* It may have been written since `now_ns` was taken. The words are a label of a metric:
	 * what changes from one look to the next must not be among them. */
	age = (int64_t)(now_ns - ret->written_ns);
	if (age > STALE_NS || age < -STALE_NS) {
		snprintf(why, BANDWIDTH_WHY_BYTES,
			 "sparqd-bandwidth has not written for more than %u s: systemctl restart "
			 "sparqd-bandwidth",
			 BANDWIDTH_STALE_S);
		return -ESTALE;
	}
	return 0;
}
