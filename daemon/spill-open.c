/* SPDX-License-Identifier: Apache-2.0 */
/* A spill directory from the start to the end of the daemon: see spill.h. */
#include <errno.h>
#include <string.h>

#include "daemon/spill-private.h"
#include "shm/base.h"

static void on_disk(void *arg, uint32_t events)
{
	spill_ended(arg);
}

static void say_opened(const struct spill *sp)
{
	struct disk_made made = disk_made(sp->disk);

	log_info("spill_dir = %s: %s, %zu MiB of buffers%s%s", sp->config->spill_dir, made.engine,
		 made.buffer_bytes / MIB, made.huge ? " in huge pages" : "",
		 made.uring_error || made.register_error ? "" : ", registered");
	if (made.uring_error)
		log_notice("spill_dir = %s: io_uring is not available (%s): files go by %s",
			   sp->config->spill_dir, strerror(-made.uring_error), made.engine);
	if (made.register_error)
		log_notice("spill_dir = %s: the buffers cannot be registered (%s): raise "
			   "LimitMEMLOCK",
			   sp->config->spill_dir, strerror(-made.register_error));
	if (!sp->dir.direct)
		log_notice("spill_dir = %s does not take O_DIRECT: files go through the page cache",
			   sp->config->spill_dir);
}

/* 0 also if it cannot be used: what is wrong was logged. */
static int open_directory(struct spill *sp)
{
	struct disk_params p = {
		.depth = sp->config->spill_depth,
		.piece_bytes = SEQUENCE_PIECE_BYTES,
	};
	char why[SPARQ_ERROR_TEXT] = "";
	int r;

	r = spill_dir_open(sp->config->spill_dir, &sp->dir, why);
	if (r < 0) {
		log_event(EVENT_SPILL_OFF, NULL,
			  "%s; nothing is spilled, and what was cannot be loaded", why);
		return r == -ENOMEM ? r : 0;
	}
	p.directory = sp->dir.fd;
	p.direct = sp->dir.direct;
	r = disk_new(&p, &sp->disk);
	if (r == 0)
		r = loop_add(sp->loop, &sp->source, disk_event_fd(sp->disk), POLLIN, on_disk, sp);
	if (r < 0)
		return r;
	say_opened(sp);
	return 0;
}

int spill_open(struct store *st, struct loop *loop, const struct config *config, struct spill **ret)
{
	struct spill *sp = calloc(1, sizeof(*sp));
	int r;

	if (!sp)
		return -ENOMEM;
	sp->store = st;
	sp->loop = loop;
	sp->config = config;
	sp->dir = SPILL_DIR_NULL;
	sp->source = LOOP_SOURCE_NULL;
	r = config->spill_dir[0] ? open_directory(sp) : 0;
	if (r < 0) {
		spill_close(sp);
		return r;
	}
	if (sp->disk)
		spill_sweep_start(sp);
	st->spill = sp;
	*ret = sp;
	return 0;
}

void spill_hook(struct spill *sp, const struct spill_hooks *hooks)
{
	sp->hooks = *hooks;
}

struct spill *spill_close(struct spill *sp)
{
	if (!sp)
		return NULL;
	loop_timer_cancel(sp->loop, &sp->sweep);
	loop_remove(sp->loop, &sp->source);
	sp->disk = disk_free(sp->disk);
	while (sp->jobs) {
		struct seq *s = sp->jobs->file.seq;

		if (s)
			s->spilling = NULL;
		spill_job_free(sp->jobs);
		if (s) {
			evict_place(s);
			seq_end_control(s);
		}
	}
	spill_dir_close(&sp->dir);
	free(sp->adopted);
	sp->store->spill = NULL;
	free(sp);
	return NULL;
}
