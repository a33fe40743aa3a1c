/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk, a crash or an administrator does to the files of spilled sequences costs at most
 * that sequence, and is said. Everybody who sets spill_dir relies on it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/image.h"
#include "daemon/log.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "spill-world.h"

static char why[SPARQ_ERROR_TEXT];

/* ---- damage ----------------------------------------------------------------------------- */

static void refused(struct world *w, struct seq *s, const char *with)
{
	struct client c;

	client_await(w, s, &c);
	world_settle(w);
	assert_int_equal(c.calls, 1);
	assert_int_equal(c.error, -EIO);
	if (!strstr(c.why, with) || !strstr(c.why, "seq in spill_dir"))
		fail_msg("\"%s\" does not say \"%s\"", c.why, with);
	assert_true(seq_is_spilled(s));
	assert_int_equal(w->f.pool.used_bytes, 0);
}

/* A byte anywhere, an end anywhere: refused with the place, and whole again if the file is. */
static void test_damaged(void **state)
{
	struct world *w = *state;
	struct seq *s = world_fill(w, "a", 4000, 1);
	struct sequence_file head;
	struct stat st;
	int fd;

	world_spill(w, s);
	fd = world_open_file(w, world_number(s));
	assert_int_equal(pread(fd, &head, sizeof(head), 0), sizeof(head));
	assert_int_equal(fstat(fd, &st), 0);
	for (uint64_t at = 0, step = 1; at < (uint64_t)st.st_size;
	     at += step, step = step * 3 + 7) {
		/* Its own place in the header or trailer, or that of its piece. */
		const char *with = "offset ";

		world_flip(fd, at);
		refused(w, s, with);
		world_flip(fd, at);
	}
	/* What nobody reads is not believed either: the last zero of the trailer. */
	world_flip(fd, (uint64_t)st.st_size - 1);
	refused(w, s, "the trailer is damaged");
	world_flip(fd, (uint64_t)st.st_size - 1);
	world_flip(fd, SEQUENCE_BLOCK + SEQUENCE_PIECE_BYTES + 5);
	refused(w, s, "offset 1052672");
	world_flip(fd, SEQUENCE_BLOCK + SEQUENCE_PIECE_BYTES + 5);
	for (off_t end = 0; end < st.st_size; end = end * 4 + 4095) {
		uint8_t *rest = malloc((size_t)(st.st_size - end));

		assert_int_equal(pread(fd, rest, (size_t)(st.st_size - end), end),
				 st.st_size - end);
		assert_int_equal(ftruncate(fd, end), 0);
		refused(w, s, end < 8 ? "not the file of a sequence" : "the file ends at");
		assert_int_equal(pwrite(fd, rest, (size_t)(st.st_size - end), end),
				 st.st_size - end);
		free(rest);
	}
	close(fd);
	world_load(w, s);
	world_check(&w->model);
	world_drop(s);
	model_deinit(&w->model);
}

/* One user's file in the place of another's, both whole. */
static void test_swapped(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 1000, 1), *b;
	char command[400];

	model_deinit(&w->model);
	b = world_fill(w, "b", 1000, 77);
	world_spill(w, a);
	world_spill(w, b);
	snprintf(command, sizeof(command), "cd '%s' && mv 1.seq x && mv 2.seq 1.seq && mv x 2.seq",
		 w->config.spill_dir);
	assert_int_equal(system(command), 0);
	refused(w, a, "of another sequence");
	refused(w, b, "of another sequence");
	assert_int_equal(system(command), 0);
	world_load(w, b);
	world_check(&w->model);
	world_drop(a);
	world_drop(b);
	model_deinit(&w->model);
}

static void test_file_gone(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 1000, 1);
	char command[256];

	world_spill(w, a);
	snprintf(command, sizeof(command), "rm '%s/1.seq'", w->config.spill_dir);
	assert_int_equal(system(command), 0);
	refused(w, a, "open");
	world_drop(a);
	model_deinit(&w->model);
}

/* ---- restarts
 * ---------------------------------------------------------------------------------------- */

static void test_restart(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 3000, 1), *b;
	struct model m = w->model;
	uint64_t bytes;
	char command[256];

	b = world_fill(w, "b", 2000, 500000);
	world_spill(w, a);
	bytes = spill_stat(w->spill).bytes;
	(void)b;
	snprintf(command, sizeof(command),
		 "cd '%s' && touch 99.seq 7.seq.tmp keep.me 8.seqx seq .seq", w->config.spill_dir);
	assert_int_equal(system(command), 0);
	world_restart(w);
	/* What nobody has is removed, what is not ours stays. */
	assert_int_equal(world_files(w, "[0-9].seq"), 1);
	assert_int_equal(world_files(w, "tmp"), 0);
	assert_int_equal(world_files(w, "keep.me") + world_files(w, "seqx") +
				 world_files(w, "^seq"),
			 3);
	a = m.seq = world_named(w, "a");
	b = w->model.seq = world_named(w, "b");
	assert_true(seq_is_spilled(a) && seq_is_here(b));
	assert_int_equal(spill_stat(w->spill).bytes, bytes);
	assert_int_equal(w->f.user->charged[USER_SPILLED], bytes);
	world_check(&w->model);
	world_load(w, a);
	world_check(&m);
	world_spill(w, b); /* under a number that is not taken */
	assert_true(world_number(b) > 1);
	world_load(w, b);
	world_check(&w->model);
	world_drop(a);
	world_drop(b);
	model_deinit(&m);
	model_deinit(&w->model);
}

static void shell(const struct world *w, const char *what)
{
	char command[300];

	snprintf(command, sizeof(command), "cd '%s' && %s", w->config.spill_dir, what);
	assert_int_equal(system(command), 0);
}

static void come_back(struct world *w, bool spilled)
{
	struct seq *a;

	world_restart(w);
	a = w->model.seq = world_named(w, "a");
	assert_non_null(a);
	assert_int_equal(seq_is_spilled(a), spilled);
	assert_int_equal(world_files(w, "[0-9].seq"), spilled);
	world_load(w, a);
	world_check(&w->model);
	world_drop(a);
	model_deinit(&w->model);
}

/* It died when the file was whole, and nothing had its name. */
static void test_died_before_the_word(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 3000, 1);

	assert_int_equal(spill_sequence(w->spill, a), 0);
	while (!world_files(w, ".seq"))
		sched_yield();
	come_back(w, false);
}

static struct layer_record *layers_of(struct world *w, const struct seq *s)
{
	const struct sequence_record *r = s->record;

	return catalogue_block(w->f.catalogue, r->block[0]);
}

/* It died when the record named the file, and the layers still had their pages. */
static void test_died_behind_the_word(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 3000, 1);
	struct layer_record before[MODEL_LAYERS], *l = layers_of(w, a);

	memcpy(before, l, sizeof(before));
	world_spill(w, a);
	for (unsigned i = 0; i < MODEL_LAYERS; i++) {
		before[i].spilled_rows = l[i].spilled_rows;
		l[i] = before[i];
	}
	come_back(w, true);
}

/* It died when all was loaded, and the record still named the file. */
static void test_died_loaded(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 3000, 1);
	struct sequence_record *r = a->record;
	uint64_t spilled;

	world_spill(w, a);
	spilled = r->spilled;
	shell(w, "ln 1.seq kept");
	world_load(w, a);
	while (world_files(w, ".seq"))
		assert_int_equal(loop_step(w->loop, SECOND / 10), 0);
	shell(w, "mv kept 1.seq");
	r->spilled = spilled;
	come_back(w, true);
}

/* The directory was lost, or a file in it: the sequence is dropped, the others are not. */
static void test_restart_without_file(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 1000, 1), *b, *c;
	char command[256];
	int fd;

	model_deinit(&w->model);
	b = world_fill(w, "b", 1000, 1);
	model_deinit(&w->model);
	c = world_fill(w, "c", 1000, 1);
	world_spill(w, a);
	world_spill(w, b);
	world_spill(w, c);
	snprintf(command, sizeof(command), "rm '%s/1.seq'", w->config.spill_dir);
	assert_int_equal(system(command), 0);
	fd = world_open_file(w, 2);
	world_flip(fd, 100);
	close(fd);
	log_level_set(LOG_EMERG);
	world_restart(w);
	log_level_set(LOG_ERR);
	assert_null(world_named(w, "a"));
	assert_null(world_named(w, "b"));
	assert_int_equal(world_files(w, "2.seq.bad"), 1); /* for people to look at */
	c = w->model.seq = world_named(w, "c");
	world_load(w, c);
	world_check(&w->model);
	world_drop(c);
	model_deinit(&w->model);
}

/* Recovery believes nothing: a damaged record costs its sequence, not what its stale words name. */
static void test_damaged_records(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 1000, 1), *b, *c;
	struct layer_record before[MODEL_LAYERS], *l;
	struct sequence_record *r;

	model_deinit(&w->model);
	b = world_fill(w, "b", 1000, 1);
	model_deinit(&w->model);
	c = world_fill(w, "c", 1000, 1);
	memcpy(before, layers_of(w, b), sizeof(before));
	world_spill(w, b);
	l = layers_of(w, b);
	memcpy(l, before, sizeof(before));
	for (unsigned i = 0; i < MODEL_LAYERS; i++)
		l[i].spilled_rows = UINT32_MAX;
	world_spill(w, c);
	r = c->record;
	r->block[0] = ((struct sequence_record *)a->record)->block[0];
	r->state = RECORD_BUILDING;
	catalogue_publish_sequence(w->f.catalogue, id_slot(c->id));
	log_level_set(LOG_EMERG);
	world_restart(w);
	log_level_set(LOG_ERR);
	assert_non_null(world_named(w, "a"));
	assert_null(world_named(w, "b"));
	assert_null(world_named(w, "c"));
	assert_int_equal(spill_stat(w->spill).sequences, 0);
	assert_int_equal(world_files(w, ".seq"), 0);
	world_drop(world_named(w, "a"));
	model_deinit(&w->model);
}

/* Another spill_dir, or none: what is in the first one waits until it is given again. */
static void test_other_directory(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 1000, 1);
	struct client c = { .calls = 0 };
	char first[CONFIG_PATH_MAX];

	memcpy(first, w->config.spill_dir, sizeof(first));
	world_spill(w, a);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(w->config.spill_dir, sizeof(first), i ? "" : "%.60s/other", w->base);
		log_level_set(LOG_EMERG);
		world_restart(w);
		log_level_set(LOG_ERR);
		a = world_named(w, "a");
		assert_non_null(a);
		assert_int_equal(spill_stat(w->spill).away, 1);
		assert_int_equal(spill_await(w->spill, a, &c.wait, why), -EIO);
		assert_non_null(strstr(why, "spill_dir"));
		assert_int_equal(c.calls, 0);
	}
	memcpy(w->config.spill_dir, first, sizeof(first));
	world_restart(w);
	a = w->model.seq = world_named(w, "a");
	world_load(w, a);
	world_check(&w->model);
	world_drop(a);
	model_deinit(&w->model);
}

/* A directory is one daemon's, and nobody else may write to it: said, and then nothing is spilled.
 */
static void test_directories(void **state)
{
	struct world *w = *state;
	struct seq *a = world_fill(w, "a", 1000, 1);
	struct spill *second = NULL;
	struct store other = w->f.store;
	struct config config = w->config;
	char path[80];

	log_level_set(LOG_EMERG);
	assert_int_equal(spill_open(&other, w->loop, &config, &second), 0);
	assert_string_equal(spill_stat(second).directory, "");
	assert_int_equal(spill_sequence(second, a), -EOPNOTSUPP);
	spill_close(second);

	snprintf(path, sizeof(path), "%s/open", w->base);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(chmod(path, 0777), 0);
	snprintf(config.spill_dir, sizeof(config.spill_dir), "%s", path);
	assert_int_equal(spill_open(&other, w->loop, &config, &second), 0);
	assert_string_equal(spill_stat(second).directory, "");
	spill_close(second);

	snprintf(config.spill_dir, sizeof(config.spill_dir), "%s/no/such", w->base);
	assert_int_equal(spill_open(&other, w->loop, &config, &second), 0);
	assert_string_equal(spill_stat(second).directory, "");
	spill_close(second);
	log_level_set(LOG_ERR);
	w->f.store.spill = w->spill;
	world_drop(a);
	model_deinit(&w->model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_damaged, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_swapped, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_file_gone, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_restart, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_died_before_the_word, world_set_up,
						world_tear_down),
		cmocka_unit_test_setup_teardown(test_died_behind_the_word, world_set_up,
						world_tear_down),
		cmocka_unit_test_setup_teardown(test_died_loaded, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(test_restart_without_file, world_set_up,
						world_tear_down),
		cmocka_unit_test_setup_teardown(test_damaged_records, world_set_up,
						world_tear_down),
		cmocka_unit_test_setup_teardown(test_other_directory, world_set_up,
						world_tear_down),
		cmocka_unit_test_setup_teardown(test_directories, world_set_up, world_tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
