/* SPDX-License-Identifier: Apache-2.0 */
/* Bits of what was copied: see present.h. */
#include "daemon/present.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#include "shm/atomic.h"
#include "shm/base.h"

#define WORD_BITS 64u
#define WORD_BYTES ((size_t)WORD_BITS * PRESENT_BLOCK)

static size_t words_of(size_t bits)
{
	return DIV_UP(bits, WORD_BITS);
}

static uint64_t *reserve(size_t words)
{
	void *p = mmap(NULL, words * sizeof(uint64_t), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int present_init(struct present *p, size_t bytes)
{
	struct present made = { .bytes = bytes };

	made.fine = reserve(DIV_UP(bytes, WORD_BYTES));
	made.coarse = reserve(words_of(DIV_UP(bytes, WORD_BYTES)));
	if (!made.fine || !made.coarse) {
		present_deinit(&made);
		return -ENOMEM;
	}
	*p = made;
	return 0;
}

void present_deinit(struct present *p)
{
	size_t words = DIV_UP(p->bytes, WORD_BYTES);

	if (p->fine)
		munmap(p->fine, words * sizeof(*p->fine));
	if (p->coarse)
		munmap(p->coarse, words_of(words) * sizeof(*p->coarse));
	*p = PRESENT_NULL;
}

/* Bits of word `word` for blocks in [at, end), bytes. */
static uint64_t mask_of(size_t word, size_t at, size_t end)
{
	size_t first = word * WORD_BYTES, from = at > first ? (at - first) / PRESENT_BLOCK : 0;
	size_t to = MIN(DIV_UP(end - first, PRESENT_BLOCK), (size_t)WORD_BITS);

	return (to < WORD_BITS ? (1ull << to) - 1 : UINT64_MAX) & ~((1ull << from) - 1);
}

void present_forget(struct present *p, size_t at, size_t n)
{
	assert(at + n <= p->bytes);
	for (size_t word = at / WORD_BYTES; n && word <= (at + n - 1) / WORD_BYTES; word++) {
		/* What was written is visible to whoever sees the bit cleared, and so copies. */
		fetch_and(&p->fine[word], ~mask_of(word, at, at + n));
		/* Before the coarse bit: present_note sets that one first, and looks here after. */
		fence_seq_cst();
		fetch_and(&p->coarse[word / WORD_BITS], ~(1ull << word % WORD_BITS));
	}
}

void present_note(struct present *p, size_t at, size_t n)
{
	assert(at % PRESENT_BLOCK == 0 && at + n <= p->bytes);
	for (size_t word = at / WORD_BYTES; n && word <= (at + n - 1) / WORD_BYTES; word++) {
		uint64_t mask = mask_of(word, at, at + n);
		uint64_t *coarse = &p->coarse[word / WORD_BITS], bit = 1ull << word % WORD_BITS;

		/* Who clears it after this has written before; who cleared it before is seen. */
		if ((fetch_or(&p->fine[word], mask) | mask) != UINT64_MAX)
			continue;
		fetch_or(coarse, bit);
		fence_seq_cst();
		if (load_relaxed(&p->fine[word]) != UINT64_MAX)
			fetch_and(coarse, ~bit);
	}
}

/* The first word at or behind `word` that is not wholly set, below `end`. */
static size_t next_word(const struct present *p, size_t word, size_t end)
{
	while (word < end) {
		uint64_t unset = ~load_acquire(&p->coarse[word / WORD_BITS]) >> word % WORD_BITS;

		if (unset)
			return word + (size_t)__builtin_ctzll(unset);
		word = (word / WORD_BITS + 1) * WORD_BITS;
	}
	return end;
}

/* Bytes from the word's beginning to its first block in [at, end) that is there, or is not;
 * WORD_BYTES: none. */
static size_t first_block(const struct present *p, size_t word, size_t at, size_t end, bool there)
{
	uint64_t bits = load_acquire(&p->fine[word]);

	bits = (there ? bits : ~bits) & mask_of(word, at, end);
	return bits ? (size_t)__builtin_ctzll(bits) * PRESENT_BLOCK : WORD_BYTES;
}

bool present_missing(const struct present *p, size_t at, size_t end, size_t *ret_at, size_t *ret_n)
{
	size_t last = DIV_UP(end, WORD_BYTES), word, block = WORD_BYTES, from;

	for (word = at / WORD_BYTES; word < last; word++) {
		word = next_word(p, word, last);
		if (word >= last)
			return false;
		block = first_block(p, word, at, end, false);
		if (block < WORD_BYTES)
			break;
	}
	if (block == WORD_BYTES)
		return false;
	from = word * WORD_BYTES + block;
	for (; word < last; word++) {
		block = first_block(p, word, from, end, true);
		if (block < WORD_BYTES)
			break;
	}
	*ret_at = from;
	*ret_n = (word < last ? MIN(word * WORD_BYTES + block, end) : end) - from;
	return true;
}
