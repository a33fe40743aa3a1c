/* SPDX-License-Identifier: Apache-2.0 */
/* A treap over its members' own nodes: see order.h. */
#include "daemon/order.h"

#include <stddef.h>
#include <stdint.h>

/* Of chance, so that the tree is flat whatever the keys; of the address, so that it takes no room.
 * It is the end of MurmurHash3: neighbours in memory have nothing in common. */
static uint64_t rank(const struct order_node *n)
{
	uint64_t x = (uintptr_t)n;

	x = (x ^ x >> 33) * 0xff51afd7ed558ccd;
	x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53;
	return x ^ x >> 33;
}

/* Where the node hangs. */
static struct order_node **place_of(struct order_node *n)
{
	if (!n->parent)
		return &n->in->root;
	return n->parent->left == n ? &n->parent->left : &n->parent->right;
}

/* The node comes in the place of its parent, which becomes its child; the order stays. */
static void rotate_up(struct order_node *n)
{
	struct order_node *p = n->parent, **from, *between;
	bool left = p->left == n;

	*place_of(p) = n;
	n->parent = p->parent;
	p->parent = n;
	from = left ? &n->right : &n->left;
	between = *from;
	*from = p;
	*(left ? &p->left : &p->right) = between;
	if (between)
		between->parent = p;
}

void order_insert(struct order *o, struct order_node *n)
{
	struct order_node **at = &o->root, *parent = NULL;
	bool first = true;

	while (*at) {
		bool left = o->before(n, *at);

		parent = *at;
		first &= left;
		at = left ? &parent->left : &parent->right;
	}
	*n = (struct order_node){ .parent = parent, .in = o };
	*at = n;
	if (first)
		o->first = n;
	while (n->parent && rank(n->parent) < rank(n))
		rotate_up(n);
}

/* The one behind the first: nothing is on the left of it. */
static struct order_node *second(const struct order_node *n)
{
	struct order_node *next = n->right;

	if (!next)
		return n->parent;
	while (next->left)
		next = next->left;
	return next;
}

void order_remove(struct order_node *n)
{
	struct order *o = n->in;

	if (!o)
		return;
	if (o->first == n)
		o->first = second(n);
	while (n->left || n->right) {
		struct order_node *up = n->left;

		if (!up || (n->right && rank(n->right) > rank(up)))
			up = n->right;
		rotate_up(up);
	}
	*place_of(n) = NULL;
	*n = (struct order_node){ .in = NULL };
}
