/* SPDX-License-Identifier: Apache-2.0 */
/* The file that outlives a daemon: what is in it after each step is what recovery will find. */
#include "daemon/catalogue.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "daemon/record.h"
#include "shm/base.h"

static int create(size_t bytes, uint32_t caches, uint32_t sequences, struct catalogue **ret)
{
	static const struct catalogue_pool pools[] = { { .node = 0, .units = 5 },
						       { .node = 1, .units = 600 } };
	const struct catalogue_params p = {
		.bytes = bytes,
		.max_caches = caches,
		.max_sequences = sequences,
		.pool = pools,
		.n_pools = ARRAY_SIZE(pools),
	};

	return catalogue_create(&p, ret);
}

static struct catalogue *make(size_t bytes)
{
	struct catalogue *c = NULL;

	assert_int_equal(create(bytes, 3, 5, &c), 0);
	return c;
}

static void header(void **state)
{
	struct catalogue *c = make(MIB + 77);
	const struct catalogue_header *h = catalogue_header(c);
	struct stat st;

	(void)state;
	assert_true(h->magic == CATALOGUE_MAGIC);
	assert_int_equal(h->layout, CATALOGUE_LAYOUT);
	assert_int_equal(h->generation, 1);
	assert_int_equal(h->bytes, MIB);
	assert_true(h->checksum == XXH3_64bits(h, offsetof(struct catalogue_header, checksum)));
	assert_int_equal(h->blocks_at + (uint64_t)h->n_blocks * CATALOGUE_BLOCK, h->bytes);
	assert_int_equal(fstat(catalogue_fd(c), &st), 0);
	assert_int_equal(st.st_size, h->bytes);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_null(catalogue_free(c));
	assert_null(catalogue_free(NULL));
}

static void refused(void **state)
{
	struct catalogue *c = NULL;

	(void)state;
	assert_int_equal(create(8192, 3, 5, &c), -EINVAL);
	assert_int_equal(create(MIB, 0, 5, &c), -EINVAL);
	assert_int_equal(create(MIB, 3, 0, &c), -EINVAL);
	assert_int_equal(create(MIB, 3, UINT32_MAX, &c), -EINVAL);
	assert_null(c);
}

/* BUILDING -> LIVE with a checksum -> FREE with another generation, seen through a mapping of its
 * own, as a restarted daemon sees it. */
static void cache_records(void **state)
{
	struct catalogue *c = make(MIB);
	char *again = mmap(NULL, MIB, PROT_READ, MAP_SHARED, catalogue_fd(c), 0);
	const struct cache_record *seen;
	size_t fixed = offsetof(struct cache_record, uid);
	uint32_t slot, other, i;

	(void)state;
	assert_ptr_not_equal(again, MAP_FAILED);
	assert_int_equal(catalogue_take_cache(c, &slot), 0);
	seen = (const struct cache_record *)(again + catalogue_header(c)->caches_at) + slot;
	assert_int_equal(seen->state, RECORD_BUILDING);
	assert_int_equal(seen->generation, 1);
	catalogue_cache(c, slot)->layers = 32;
	catalogue_publish_cache(c, slot);
	assert_int_equal(seen->state, RECORD_LIVE);
	assert_int_equal(seen->layers, 32);
	assert_true(seen->checksum ==
		    XXH3_64bits((const char *)seen + fixed, sizeof(*seen) - fixed));
	for (i = 1; i < 3; i++)
		assert_int_equal(catalogue_take_cache(c, &other), 0);
	assert_int_equal(catalogue_take_cache(c, &other), -ENOSPC);
	catalogue_drop_cache(c, slot);
	assert_int_equal(seen->state, RECORD_FREE);
	assert_int_equal(seen->generation, 2);
	assert_int_equal(catalogue_take_cache(c, &other), 0);
	assert_int_equal(other, slot);
	assert_int_equal(seen->layers, 0);
	munmap(again, MIB);
	catalogue_free(c);
}

static void sequence_records(void **state)
{
	struct catalogue *c = make(MIB);
	struct sequence_record *r;
	uint32_t slot, other;

	(void)state;
	assert_int_equal(catalogue_take_sequence(c, &slot), 0);
	r = catalogue_sequence(c, slot);
	assert_int_equal(r->state, RECORD_BUILDING);
	r->layers = 3;
	r->intent = 1;
	catalogue_publish_sequence(c, slot);
	assert_int_equal(r->state, RECORD_LIVE);
	/* The intent changes while the record is LIVE: it is not summed. */
	r->intent = 2;
	assert_true(r->checksum ==
		    XXH3_64bits((char *)r + SEQUENCE_FIXED_AT, SEQUENCE_FIXED_BYTES));
	for (unsigned i = 1; i < 5; i++)
		assert_int_equal(catalogue_take_sequence(c, &other), 0);
	assert_int_equal(catalogue_take_sequence(c, &other), -ENOSPC);
	catalogue_drop_sequence(c, slot);
	assert_int_equal(catalogue_take_sequence(c, &other), 0);
	assert_int_equal(other, slot);
	assert_int_equal(r->generation, 2);
	assert_int_equal(r->intent, 0);
	catalogue_free(c);
}

/* A generation is never 0, or an id could be. */
static void generation_wraps(void **state)
{
	struct catalogue *c = make(MIB);
	uint32_t slot;

	(void)state;
	assert_int_equal(catalogue_take_cache(c, &slot), 0);
	catalogue_cache(c, slot)->generation = UINT32_MAX;
	catalogue_drop_cache(c, slot);
	assert_int_equal(catalogue_cache(c, slot)->generation, 1);
	catalogue_free(c);
}

/* ---- blocks: by workers, at once ------------------------------------------------ */

static void *taker(void *arg)
{
	struct catalogue *c = arg;

	for (unsigned round = 0; round < 3000; round++) {
		uint32_t block[20], n;

		for (n = 0; n < 20 && catalogue_take_block(c, &block[n]) == 0; n++) {
			uint32_t *word = catalogue_block(c, block[n]);

			word[0] = block[n];
			word[CATALOGUE_BLOCK / 4 - 1] = round;
		}
		while (n--) {
			uint32_t *word = catalogue_block(c, block[n]);

			if (word[0] != block[n] || word[CATALOGUE_BLOCK / 4 - 1] != round)
				return c; /* taken twice */
			catalogue_put_block(c, block[n]);
		}
	}
	return NULL;
}

static void blocks(void **state)
{
	struct catalogue *c = make(CATALOGUE_BLOCK * 75);
	uint32_t n = catalogue_header(c)->n_blocks, *block = calloc(n, sizeof(*block)), got;
	pthread_t t[4];
	void *what;

	(void)state;
	assert_int_not_equal(n % 64, 0); /* the bitmap's last word is not whole */
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, taker, c), 0);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], &what);
		assert_null(what);
	}
	for (got = 0; catalogue_take_block(c, &block[got]) == 0; got++)
		assert_in_range(block[got], 1, n - 1);
	assert_int_equal(got, n - 1); /* all but BLOCK_NONE */
	catalogue_put_block(c, block[7]);
	assert_int_equal(catalogue_take_block(c, &block[8]), 0);
	assert_int_equal(block[8], block[7]);
	free(block);
	catalogue_free(c);
}

/* ---- after a restart ------------------------------------------------------------- */

static void adopted(void **state)
{
	struct catalogue *c = make(MIB), *again = NULL;
	char why[CATALOGUE_WHY_BYTES] = "";
	uint32_t slot, block;

	(void)state;
	assert_int_equal(catalogue_take_cache(c, &slot), 0);
	catalogue_publish_cache(c, slot);
	assert_int_equal(catalogue_take_block(c, &block), 0);
	catalogue_notes(c)[604] = 77;
	assert_int_equal(catalogue_adopt(catalogue_fd(c), &again, why), 0);
	assert_int_equal(catalogue_header(again)->generation, 2);
	assert_int_equal(catalogue_cache(again, slot)->state, RECORD_LIVE);
	assert_true(catalogue_cache_is_whole(again, slot));
	assert_int_equal(catalogue_notes(again)[604], 77);
	catalogue_cache(again, slot)->heads ^= 1;
	assert_false(catalogue_cache_is_whole(again, slot));
	/* No block is taken but by a mark, and none twice. */
	assert_int_equal(catalogue_mark_block(again, block), 0);
	assert_int_equal(catalogue_mark_block(again, block), -EUCLEAN);
	assert_int_equal(catalogue_mark_block(again, 0), -EUCLEAN);
	assert_int_equal(catalogue_mark_block(again, catalogue_header(again)->n_blocks), -EUCLEAN);
	catalogue_put_block(again, block);
	catalogue_free(again);
	catalogue_free(c);
}

/* The number never is 0, and a damaged one is no reason to lose what is there. */
static void generations(void **state)
{
	struct catalogue *c = make(MIB), *again = NULL;
	char why[CATALOGUE_WHY_BYTES] = "";

	(void)state;
	catalogue_header(c)->generation = UINT32_MAX;
	assert_int_equal(catalogue_adopt(catalogue_fd(c), &again, why), 0);
	assert_int_equal(catalogue_header(again)->generation, 1);
	catalogue_free(again);
	catalogue_free(c);
}

/* What the layout before has is taken over, and is of this one from then on; so is one whose daemon
 * died while it did that. */
static void layout_before(void **state)
{
	(void)state;
	for (unsigned died = 0; died < 2; died++) {
		struct catalogue *c = make(MIB), *again = NULL;
		struct catalogue_header *h = catalogue_header(c), saved = *h;
		char why[CATALOGUE_WHY_BYTES] = "";

		h->layout = CATALOGUE_LAYOUT_BEFORE;
		h->checksum = XXH3_64bits(h, offsetof(struct catalogue_header, checksum));
		h->layout = died ? CATALOGUE_LAYOUT : CATALOGUE_LAYOUT_BEFORE;
		assert_int_equal(catalogue_adopt(catalogue_fd(c), &again, why), 0);
		assert_int_equal(catalogue_header(again)->layout, CATALOGUE_LAYOUT);
		assert_true(catalogue_header(again)->checksum == saved.checksum);
		catalogue_free(again);
		h->layout = CATALOGUE_LAYOUT_BEFORE - 1;
		h->checksum = XXH3_64bits(h, offsetof(struct catalogue_header, checksum));
		assert_int_equal(catalogue_adopt(catalogue_fd(c), &again, why), -EPROTONOSUPPORT);
		catalogue_free(c);
	}
}

/* A header that another daemon wrote, or that was damaged, is refused with what was found, and the
 * file is left as it was. */
static void headers_refused(void **state)
{
	struct catalogue *c = make(MIB), *again = NULL;
	struct catalogue_header *h = catalogue_header(c), saved = *h;
	char why[CATALOGUE_WHY_BYTES] = "";

	(void)state;
	h->layout++;
	assert_int_equal(catalogue_adopt(catalogue_fd(c), &again, why), -EPROTONOSUPPORT);
	assert_non_null(strstr(why, "layout 5."));
	*h = saved;
	h->tiles_layout++;
	assert_int_equal(catalogue_adopt(catalogue_fd(c), &again, why), -EPROTONOSUPPORT);
	/* Each byte that is summed. */
	for (size_t i = 0; i < offsetof(struct catalogue_header, generation); i++) {
		*h = saved;
		((uint8_t *)h)[i] ^= 0x40;
		assert_true(catalogue_adopt(catalogue_fd(c), &again, why) < 0);
		assert_non_null(strstr(why, "last daemon"));
	}
	/* And a sum that agrees with parts that do not fit. */
	*h = saved;
	h->n_sequences = UINT32_MAX;
	h->checksum = XXH3_64bits(h, offsetof(struct catalogue_header, checksum));
	assert_int_equal(catalogue_adopt(catalogue_fd(c), &again, why), -EUCLEAN);
	/* A pool of no arenas: nobody could place a page. */
	*h = saved;
	h->n_pools = 0;
	h->blocks_at = h->notes_at;
	h->n_blocks = (uint32_t)((h->bytes - h->blocks_at) / CATALOGUE_BLOCK);
	h->checksum = XXH3_64bits(h, offsetof(struct catalogue_header, checksum));
	assert_int_equal(catalogue_adopt(catalogue_fd(c), &again, why), -EUCLEAN);
	*h = saved;
	assert_null(again);
	assert_int_equal(ftruncate(catalogue_fd(c), 100), 0);
	assert_int_equal(catalogue_adopt(catalogue_fd(c), &again, why), -EUCLEAN);
	catalogue_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header),
		cmocka_unit_test(refused),
		cmocka_unit_test(cache_records),
		cmocka_unit_test(sequence_records),
		cmocka_unit_test(generation_wraps),
		cmocka_unit_test(blocks),
		cmocka_unit_test(adopted),
		cmocka_unit_test(generations),
		cmocka_unit_test(headers_refused),
		cmocka_unit_test(layout_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
