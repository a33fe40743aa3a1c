/* SPDX-License-Identifier: Apache-2.0 */
/* Between spill.c (sequences), spill-file.c (bytes) and spill-dir.c (the directory). */
#pragma once

#include "daemon/disk.h"
#include "daemon/image.h"
#include "daemon/log.h"
#include "daemon/record.h"
#include "daemon/spill.h"
#include "shm/sequence-file.h"

/* ---- spill-dir.c ------------------------------------------------------------------ */

struct spill_dir {
	int fd, lock_fd; /* -1: nothing is spilled */
	uint32_t id;     /* of the directory; never 0 */
	bool direct;     /* it takes O_DIRECT */
	uint64_t next;   /* number of the next file: above all that are there */
};
#define SPILL_DIR_NULL ((struct spill_dir){ .fd = -1, .lock_fd = -1 })

/* Makes the directory if it is not there, locks it, tries it. -errno with `why`. */
int spill_dir_open(const char *path, struct spill_dir *ret, char *why);
void spill_dir_close(struct spill_dir *d);
/* A file's header, and that it is as long as it says. */
int spill_dir_look(const struct spill_dir *d, uint64_t number, struct sequence_file *ret,
		   char *why);
/* Removes the files of sequences whose numbers are not among these, ascending. How many. */
unsigned spill_dir_clean(const struct spill_dir *d, const uint64_t *number, size_t n);
void spill_dir_name(uint64_t number, char ret[DISK_NAME_MAX]);

/* ---- spill-file.c ----------------------------------------------------------------- */

/* One file on its way; in the disk's thread while the job runs. */
struct spill_file {
	struct seq *seq;
	struct sequence_file head;
	struct sequence_trailer *trailer;
	struct image *image;       /* out */
	struct image_build *build; /* in */
	char why[SPARQ_ERROR_TEXT];
};

/* Says whose it is, in the header: a file that was put in another's place is not taken for it. */
void spill_file_writer(const struct seq *s, char ret[32]);
int spill_file_opened(void *arg, int fd, uint64_t bytes);
int spill_file_write(void *arg, uint64_t at, void *data, size_t n);
int spill_file_read(void *arg, uint64_t at, void *data, size_t n);
/* Control thread, when the job is over. */
void spill_file_deinit(struct spill_file *f);

/* ---- spill.c ---------------------------------------------------------------------- */

enum spill_way { SPILL_OUT, SPILL_IN, SPILL_REMOVE };

struct spill_job {
	struct disk_job disk;
	struct spill *spill;
	enum spill_way way;
	struct spill_file file; /* .seq is held, and knows of it; NULL: SPILL_REMOVE */
	uint64_t number;
	unsigned tries;
	bool stalled; /* not with the disk: it is tried again when something was spilled */
	struct spill_wait *waiting;
	struct spill_job *next, **link; /* all that are under way */
};

struct spill_job *spill_job_free(struct spill_job *j);

struct spill {
	struct store *store;
	struct loop *loop;
	const struct config *config;
	struct spill_dir dir;
	struct disk *disk;
	struct loop_source source;
	struct loop_timer sweep;
	uint32_t sweep_slot;
	int64_t calm_ns; /* no spill before: the last one failed */
	struct spill_job *jobs;
	struct spill_wait *waking; /* still to be told */
	struct spill_stat stat;
	uint64_t *adopted; /* numbers, until spill_adopted */
	size_t n_adopted, adopted_room;
	struct log_limit log;
	struct spill_hooks hooks;
};

/* Takes what the disk is done with. */
void spill_ended(struct spill *sp);

/* ---- spill-idle.c ----------------------------------------------------------------- */

void spill_sweep_start(struct spill *sp);
