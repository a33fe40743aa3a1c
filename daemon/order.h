/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in order, and stays so while members come and go: a treap (Seidel, Aragon 1996) whose
 * nodes lie in the members. Insertion and removal take a time that grows as the logarithm of their
 * number, the first is at hand; nothing is allocated, and so nothing can fail. Where a member's key
 * is to change, it is taken out before and put in again.
 */
#pragma once

#include <stdbool.h>

struct order;

struct order_node {
	struct order_node *left, *right, *parent;
	struct order *in; /* NULL: in none */
};

struct order {
	struct order_node *root, *first;
	bool (*before)(const struct order_node *a, const struct order_node *b);
};

/* Behind those that it is not before. */
void order_insert(struct order *o, struct order_node *n);
void order_remove(struct order_node *n); /* also of one that is in none */
