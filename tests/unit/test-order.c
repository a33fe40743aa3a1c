/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members in order, while they come and go. Eviction relies on the first being the first, after
 * anything, and on looking for it costing no more among a million than among a hundred.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/order.h"
#include "shm/base.h"

#define MOST 300u
#define MANY 200000u

struct member {
	struct order_node node;
	uint32_t key, number;
};

static const struct member *of(const struct order_node *n)
{
	return container_of(n, const struct member, node);
}

static uint64_t n_compared;

static bool before(const struct order_node *a, const struct order_node *b)
{
	n_compared++;
	return of(a)->key < of(b)->key;
}

static uint32_t random_state = 1;

static uint32_t roll(uint32_t below)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(random_state >> 8) * below >> 24);
}

/* How many below it, each where its parent has it, none before those on its left; how deep. */
static unsigned check_tree(const struct order *o, const struct order_node *n,
			   const struct order_node *parent, unsigned *ret_depth)
{
	unsigned left, right, n_left, n_right;

	*ret_depth = 0;
	if (!n)
		return 0;
	assert_ptr_equal(n->parent, parent);
	assert_ptr_equal(n->in, o);
	if (n->left)
		assert_true(of(n->left)->key <= of(n)->key);
	if (n->right)
		assert_true(of(n->right)->key >= of(n)->key);
	n_left = check_tree(o, n->left, n, &left);
	n_right = check_tree(o, n->right, n, &right);
	*ret_depth = 1 + MAX(left, right);
	return n_left + 1 + n_right;
}

/* The first by looking at all. */
static const struct member *least(const struct member *m, unsigned n)
{
	const struct member *best = NULL;

	for (unsigned i = 0; i < n; i++)
		if (m[i].node.in && (!best || m[i].key < best->key))
			best = &m[i];
	return best;
}

static void in_and_out(void **state)
{
	static struct member m[MOST];
	struct order o = { .before = before };
	unsigned in = 0, depth;

	for (unsigned i = 0; i < 20000; i++) {
		struct member *one = &m[roll(i % 5000 < 2500 ? MOST : 8)];

		if (one->node.in) {
			order_remove(&one->node);
			assert_null(one->node.in);
			in--;
		} else {
			one->key = roll(i % 3 ? 1000 : 4); /* many alike */
			order_insert(&o, &one->node);
			in++;
		}
		order_remove(&(struct order_node){ .in = NULL });
		assert_int_equal(check_tree(&o, o.root, NULL, &depth), in);
		assert_int_equal(!!o.first, in > 0);
		if (in)
			assert_int_equal(of(o.first)->key, least(m, MOST)->key);
	}
}

/* Of those that are alike the one that came first goes first. */
static void alike_keep_their_turn(void **state)
{
	static struct member m[MOST];
	struct order o = { .before = before };

	for (unsigned i = 0; i < MOST; i++) {
		m[i].key = i % 3;
		m[i].number = i;
		order_insert(&o, &m[i].node);
	}
	for (unsigned key = 0; key < 3; key++)
		for (unsigned i = key; i < MOST; i += 3) {
			assert_int_equal(of(o.first)->number, i);
			order_remove(o.first);
		}
	assert_null(o.first);
	assert_null(o.root);
}

/* Sequences are used one after the other, so keys come in order: the worst that can happen to a
 * tree that does not balance itself. */
static void flat_whatever_comes(void **state)
{
	struct member *m = calloc(MANY, sizeof(*m));
	struct order o = { .before = before };
	unsigned depth;

	for (unsigned i = 0; i < MANY; i++) {
		m[i].key = i;
		order_insert(&o, &m[i].node);
	}
	assert_int_equal(check_tree(&o, o.root, NULL, &depth), MANY);
	assert_true(depth < 60); /* 18 at the least; of chance about 45 */
	n_compared = 0;
	for (unsigned i = 0; i < 1000; i++) { /* the first goes, and comes last */
		struct order_node *n = o.first;

		assert_int_equal(of(n)->key, i);
		order_remove(n);
		container_of(n, struct member, node)->key = MANY + i;
		order_insert(&o, n);
	}
	assert_true(n_compared < 1000 * 60);
	free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_and_out),
		cmocka_unit_test(alike_keep_their_turn),
		cmocka_unit_test(flat_whatever_comes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
