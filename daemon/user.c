/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quotas per uid. A slot outlives its last session while anything is charged:
 * a parked sequence still belongs to somebody.
 */
#include "daemon/user.h"

#include <assert.h>

#include "daemon/stats.h"

#include "shm/atomic.h"
#include "shm/base.h"

const char *const user_what_names[USER_WHATS] = {
	[USER_BYTES] = "bytes",
	[USER_SESSIONS] = "sessions",
	[USER_QUEUES] = "queues",
	[USER_CACHES] = "caches",
	[USER_SEQUENCES] = "sequences",
	[USER_SPILLED] = "spilled",
	[USER_DEVICE_BYTES] = "device_bytes",
};

static void limit_user(struct user *user, const uint64_t limit[USER_WHATS])
{
	for (unsigned i = 0; i < USER_WHATS; i++)
		store_relaxed(&user->limit[i], limit[i]);
}

int users_get(struct users *u, uid_t uid, struct user **ret)
{
	struct user *user;

	for (user = u->first; user; user = user->next)
		if (user->uid == uid)
			break;
	if (!user) {
		user = calloc(1, sizeof(*user));
		if (!user)
			return -ENOMEM;
		user->uid = uid;
		user->stats = u->stats ? stats_page_user(u->stats, uid) : NULL;
		limit_user(user, u->limit);
		user->next = u->first;
		u->first = user;
	}
	user->refs++;
	*ret = user;
	return 0;
}

static bool charged_anything(const struct user *user)
{
	for (unsigned i = 0; i < USER_WHATS; i++)
		if (load_acquire(&user->charged[i]))
			return true;
	return false;
}

struct user *users_put(struct users *u, struct user *user)
{
	struct user **at;

	if (!user)
		return NULL;
	assert(user->refs > 0);
	if (--user->refs || charged_anything(user))
		return NULL;
	for (at = &u->first; *at != user; at = &(*at)->next)
		assert(*at);
	*at = user->next;
	if (user->stats)
		stats_set(&user->stats->used, STATS_GONE);
	free(user);
	return NULL;
}

void users_deinit(struct users *u)
{
	while (u->first) {
		struct user *user = u->first;

		u->first = user->next;
		free(user);
	}
}

void users_limit(struct users *u, const uint64_t limit[USER_WHATS])
{
	for (unsigned i = 0; i < USER_WHATS; i++)
		u->limit[i] = limit[i];
	for (struct user *user = u->first; user; user = user->next)
		limit_user(user, limit);
}

int user_charge(struct user *u, enum user_what what, uint64_t n)
{
	uint64_t limit = load_relaxed(&u->limit[what]);
	uint64_t now = load_relaxed(&u->charged[what]);

	/* Not an add and a check: what another thread is refused must not be refused because of
	 * a charge that is about to be taken back. */
	do {
		if (now > limit || n > limit - now)
			return -EDQUOT;
	} while (!compare_exchange(&u->charged[what], &now, now + n));
	return 0;
}

void user_restore(struct user *u, enum user_what what, uint64_t n)
{
	fetch_add(&u->charged[what], n);
}

void user_refund(struct user *u, enum user_what what, uint64_t n)
{
	uint64_t before = fetch_sub(&u->charged[what], n);

	assert(before >= n);
	(void)before;
}
