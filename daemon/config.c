/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table says everything about a key: its type, where it lies, its default,
 * its range, whether a reload may change it and what it is for. Parser,
 * defaults, dump and reload are loops over it.
 *
 * A parse works on a copy and replaces the caller's struct at the end: after an
 * error nothing has changed.
 */
#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/log.h"
#include "numa/reserve.h"
#include "numa/sysfs.h"
#include "shm/base.h"
#include "shm/sparq-abi.h"

#define FILE_BYTES_MAX (64 * KIB)

enum key_type {
	KEY_TEXT,
	KEY_BYTES,
	KEY_U32,
	KEY_BOOL,
	KEY_LEVEL,
	KEY_PAGES,
	KEY_RESERVE,
	KEY_NODES,
	KEY_PLACEMENT
};

struct key {
	const char *name;
	enum key_type type;
	size_t at, size;      /* of the field */
	uint64_t least, most; /* KEY_TEXT: of its length */
	const char *preset;
	bool reload;
	const char *help;
};

#define FIELD(field) #field, offsetof(struct config, field), sizeof(((struct config *)0)->field)
#define KEY_(name_, at_, size_, type_, least_, most_, preset_, reload_, help_)                     \
	{                                                                                          \
		name_, type_, at_, size_, least_, most_, preset_, reload_, help_                   \
	}
#define KEY(...) KEY_(__VA_ARGS__)
#define FIXED false
#define RELOAD true

static const struct key keys[] = {
	KEY(FIELD(socket), KEY_TEXT, 1, CONFIG_PATH_MAX - 1, "/run/sparqd/sparqd.sock", FIXED,
	    "where clients connect"),
	KEY(FIELD(control), KEY_TEXT, 1, CONFIG_PATH_MAX - 1, "/run/sparqd/control.sock", FIXED,
	    "where sparqctl connects"),
	KEY(FIELD(pool_bytes), KEY_BYTES, 0, UINT64_MAX, "0", FIXED,
	    "memory for KV rows, over all nodes; 0: a quarter of the machine's"),
	KEY(FIELD(huge_pages), KEY_PAGES, 0, HUGE_1G, "yes", FIXED,
	    "take the pool from reserved huge pages where there are enough: yes, no, 2M, 1G"),
	KEY(FIELD(reserve_huge_pages), KEY_RESERVE, 1, CONFIG_TEXT_MAX - 1, "auto", FIXED,
	    "huge pages that sparqd-hugepages sets aside: auto, no, or node0:2M:4096,..."),
	KEY(FIELD(placement), KEY_PLACEMENT, 0, SPREAD_ROWS, "heads", FIXED,
	    "where rows of caches lie that do not say: heads, rows or local"),
	KEY(FIELD(pool_parts), KEY_U32, 1, 16, "1", FIXED,
	    "parts of each node's memory, each used as if it were a node"),
	KEY(FIELD(numa_nodes), KEY_NODES, 0, CONFIG_TEXT_MAX - 1, "", FIXED,
	    "nodes that the pool has parts of, such as 0-1,4; empty: those with CPUs"),
	KEY(FIELD(rebalance), KEY_BOOL, 0, 1, "yes", RELOAD,
	    "move pages that found their node full back to it, and others off a full node"),
	KEY(FIELD(rebalance_rate), KEY_BYTES, MIB, UINT64_MAX, "128M", RELOAD,
	    "bytes of pages that are moved in a second, at most"),
	KEY(FIELD(rebalance_full), KEY_U32, 20, 100, "95", RELOAD,
	    "percent of a node's part of the pool from which it is full"),
	KEY(FIELD(catalogue_bytes), KEY_BYTES, MIB, 64 * GIB, "64M", FIXED,
	    "memory for the tables that say what is in the pool"),
	KEY(FIELD(workers), KEY_U32, 0, 64, "0", FIXED, "threads that compute; 0: one per CPU"),
	KEY(FIELD(pin_workers), KEY_BOOL, 0, 1, "yes", FIXED, "tie each worker to its CPU"),
	KEY(FIELD(isa), KEY_TEXT, 0, 15, "", FIXED,
	    "best instruction set: scalar, avx2, avx512, neon, dotprod; empty: the CPU's best"),
	KEY(FIELD(spin_us), KEY_U32, 0, 10000, "0", FIXED,
	    "microseconds that a worker polls before it sleeps; 0: measured at start"),
	KEY(FIELD(max_caches), KEY_U32, 1, 1 << 16, "1024", FIXED, "caches of all users"),
	KEY(FIELD(max_sequences), KEY_U32, 1, 1 << 24, "8192", FIXED, "sequences of all users"),
	KEY(FIELD(max_rows), KEY_U32, 1024, SPARQ_ROW_LIMIT - 1, "4194304", FIXED,
	    "rows of one sequence"),
	KEY(FIELD(max_sessions), KEY_U32, 1, 65536, "1024", FIXED, "connected clients"),
	KEY(FIELD(user_bytes), KEY_BYTES, 0, UINT64_MAX, "0", RELOAD,
	    "memory of one user: KV rows and session segments; 0: as much as the pool has"),
	KEY(FIELD(user_sessions), KEY_U32, 0, 65536, "256", RELOAD, "sessions of one user"),
	KEY(FIELD(user_queues), KEY_U32, 0, 1 << 20, "4096", RELOAD, "ring pairs of one user"),
	KEY(FIELD(user_caches), KEY_U32, 0, 1 << 16, "256", RELOAD, "caches of one user"),
	KEY(FIELD(user_sequences), KEY_U32, 0, 1 << 24, "8192", RELOAD, "sequences of one user"),
	KEY(FIELD(user_session_rate), KEY_U32, 0, 1000000, "200", RELOAD,
	    "sessions that one user may open in a second; 0: no limit"),
	KEY(FIELD(arena_bytes_max), KEY_BYTES, 4 * KIB, 1024 * GIB, "1G", RELOAD,
	    "arena of one session"),
	KEY(FIELD(segment_bytes), KEY_BYTES, 0, UINT64_MAX, "0", RELOAD,
	    "memory for rings and arenas of all sessions; 0: as much as the pool"),
	KEY(FIELD(spill_dir), KEY_TEXT, 0, CONFIG_PATH_MAX - 1, "", FIXED,
	    "where parked sequences that nobody uses are put; empty: nowhere"),
	KEY(FIELD(spill_bytes), KEY_BYTES, 0, UINT64_MAX, "0", RELOAD,
	    "files in spill_dir, all together; 0: as much as it has room for"),
	KEY(FIELD(user_spill_bytes), KEY_BYTES, 0, UINT64_MAX, "0", RELOAD,
	    "files in spill_dir of one user; 0: no limit but spill_bytes"),
	KEY(FIELD(spill_idle_s), KEY_U32, 0, UINT32_MAX, "0", RELOAD,
	    "seconds after which an unused parked sequence is spilled; 0: never"),
	KEY(FIELD(spill_depth), KEY_U32, 1, 64, "4", FIXED,
	    "pieces of 1 MiB that the disk is asked for at once, each way"),
	KEY(FIELD(audit), KEY_U32, 0, 1u << 30, "4096", RELOAD,
	    "of steps that read a part of their rows, one in so many is computed again over "
	    "all and compared; 0: none"),
	KEY(FIELD(cuda_module), KEY_TEXT, 1, CONFIG_PATH_MAX - 1, SPARQ_CUDA_MODULE, FIXED,
	    "the program of caches with device=cuda:N"),
	KEY(FIELD(device_bytes), KEY_BYTES, 0, UINT64_MAX, "0", FIXED,
	    "memory of each device for copies of rows; 0: three quarters of what is free"),
	KEY(FIELD(user_device_bytes), KEY_BYTES, 0, UINT64_MAX, "0", RELOAD,
	    "rows of one user in caches on devices; 0: no limit but user_bytes"),
	KEY(FIELD(timeout_us), KEY_U32, 0, UINT32_MAX, "300000000", FIXED,
	    "deadline of an entry that names none; 0: none"),
	KEY(FIELD(reattach_s), KEY_U32, 0, 30 * 86400, "60", FIXED,
	    "how long after a restart a sequence waits for its client, where its cache drops it"),
	KEY(FIELD(keeper_watchdog_s), KEY_U32, 0, 3600, "30", FIXED,
	    "seconds without progress after which --keeper starts the daemon again; 0: never"),
	KEY(FIELD(log_level), KEY_LEVEL, LOG_ERR, LOG_DEBUG, "info", RELOAD,
	    "error, warning, notice, info or debug"),
};

static const struct {
	const char *name;
	unsigned shift;
} suffixes[] = {
	{ "GiB", 30 }, { "MiB", 20 }, { "KiB", 10 }, { "G", 30 },
	{ "M", 20 },   { "K", 10 },   { "B", 0 },    { "", 0 },
};

/* ---- values -------------------------------------------------------------- */

static int parse_digits(const char *text, const char **ret_end, uint64_t *ret)
{
	uint64_t n = 0;
	const char *p = text;

	for (; *p >= '0' && *p <= '9'; p++) {
		if (checked_mul(n, 10, &n) < 0 || checked_add(n, (uint64_t)(*p - '0'), &n) < 0)
			return -ERANGE;
	}
	if (p == text)
		return -EINVAL;
	*ret_end = p;
	*ret = n;
	return 0;
}

static int parse_number(const struct key *k, const char *text, uint64_t *ret)
{
	const char *end;
	uint64_t n;
	int r = parse_digits(text, &end, &n);

	if (r < 0)
		return r;
	while (k->type == KEY_BYTES && *end == ' ')
		end++;
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		if (strcmp(end, suffixes[i].name) != 0)
			continue;
		if (k->type != KEY_BYTES && *end != '\0')
			return -EINVAL;
		if (checked_mul(n, 1ull << suffixes[i].shift, &n) < 0)
			return -ERANGE;
		*ret = n;
		return n < k->least || n > k->most ? -ERANGE : 0;
	}
	return -EINVAL;
}

static int parse_bool(const char *text, bool *ret)
{
	static const char *const yes[] = { "yes", "true", "on", "1" };
	static const char *const no[] = { "no", "false", "off", "0" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
			*ret = strcmp(text, yes[i]) == 0;
			return 0;
		}
	}
	return -EINVAL;
}

/* A truth, or a size of page. */
static int parse_pages(const char *text, enum huge_pages *ret)
{
	bool any;

	if (strcmp(text, "2M") == 0)
		*ret = HUGE_2M;
	else if (strcmp(text, "1G") == 0)
		*ret = HUGE_1G;
	else if (parse_bool(text, &any) == 0)
		*ret = any ? HUGE_YES : HUGE_NO;
	else
		return -EINVAL;
	return 0;
}

static const char *format_pages(enum huge_pages pages)
{
	static const char *const words[] = {
		[HUGE_NO] = "no", [HUGE_YES] = "yes", [HUGE_2M] = "2M", [HUGE_1G] = "1G"
	};

	return words[pages];
}

static int parse_placement(const char *text, enum spread *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(placement_names); i++)
		if (strcmp(text, placement_names[i]) == 0) {
			*ret = (enum spread)i;
			return 0;
		}
	return -EINVAL;
}

static int store_number(const struct key *k, const char *text, void *field)
{
	uint64_t n;
	int r = parse_number(k, text, &n);

	if (r < 0)
		return r;
	if (k->type == KEY_BYTES)
		*(uint64_t *)field = n;
	else
		*(uint32_t *)field = (uint32_t)n;
	return 0;
}

static int store_text(const struct key *k, const char *text, void *field)
{
	size_t n = strlen(text);

	if (n < k->least || n > k->most)
		return -ERANGE;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			return -EINVAL;
	memset(field, 0, k->size);
	memcpy(field, text, n);
	return 0;
}

static int store_reserve(const struct key *k, const char *text, void *field)
{
	struct reserve unused;
	int r = reserve_parse(text, &unused);

	return r < 0 ? r : store_text(k, text, field);
}

static int store_nodes(const struct key *k, const char *text, void *field)
{
	cpu_set_t unused;
	int r = sysfs_parse_list(text, &unused);

	return r < 0 ? r : store_text(k, text, field);
}

static int store_value(const struct key *k, const char *text, void *field)
{
	int level;

	switch (k->type) {
	case KEY_TEXT:
		return store_text(k, text, field);
	case KEY_BOOL:
		return parse_bool(text, field);
	case KEY_PAGES:
		return parse_pages(text, field);
	case KEY_RESERVE:
		return store_reserve(k, text, field);
	case KEY_NODES:
		return store_nodes(k, text, field);
	case KEY_PLACEMENT:
		return parse_placement(text, field);
	case KEY_LEVEL:
		level = log_level_parse(text);
		if (level >= 0)
			*(int *)field = level;
		return MIN(level, 0);
	default:
		return store_number(k, text, field);
	}
}

static const char *format_bytes(uint64_t n, char *ret, size_t size)
{
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		uint64_t unit = 1ull << suffixes[i].shift;

		if (unit == 1 || (n > 0 && n % unit == 0)) {
			snprintf(ret, size, "%" PRIu64 "%s", n / unit,
				 unit == 1 ? "" : suffixes[i].name);
			break;
		}
	}
	return ret;
}

static const char *format_value(const struct key *k, const void *field, char *ret, size_t size)
{
	switch (k->type) {
	case KEY_TEXT:
	case KEY_RESERVE:
	case KEY_NODES:
		return field;
	case KEY_BOOL:
		return *(const bool *)field ? "yes" : "no";
	case KEY_PAGES:
		return format_pages(*(const enum huge_pages *)field);
	case KEY_PLACEMENT:
		return placement_names[*(const enum spread *)field];
	case KEY_LEVEL:
		return log_level_name(*(const int *)field);
	case KEY_BYTES:
		return format_bytes(*(const uint64_t *)field, ret, size);
	default:
		snprintf(ret, size, "%" PRIu32, *(const uint32_t *)field);
		return ret;
	}
}

/* ---- errors -------------------------------------------------------------- */

/* What a key takes, for the end of an error message. */
static const char *describe(const struct key *k, char *ret, size_t size)
{
	char least[32], most[32];

	switch (k->type) {
	case KEY_TEXT:
		snprintf(ret, size, "a text of %" PRIu64 " to %" PRIu64 " characters", k->least,
			 k->most);
		break;
	case KEY_BOOL:
		snprintf(ret, size, "yes or no");
		break;
	case KEY_PAGES:
		snprintf(ret, size, "yes, no, 2M or 1G");
		break;
	case KEY_PLACEMENT:
		snprintf(ret, size, "heads, rows or local");
		break;
	case KEY_RESERVE:
		snprintf(ret, size, "auto, no, or a list such as node0:2M:4096,node1:1G:16");
		break;
	case KEY_NODES:
		snprintf(ret, size, "a list of nodes such as 0-1,4");
		break;
	case KEY_LEVEL:
		snprintf(ret, size, "error, warning, notice, info or debug");
		break;
	case KEY_BYTES:
		if (k->most == UINT64_MAX)
			snprintf(ret, size, "a size such as 512M or 96GiB");
		else
			snprintf(ret, size, "a size from %s to %s",
				 format_bytes(k->least, least, sizeof(least)),
				 format_bytes(k->most, most, sizeof(most)));
		break;
	default:
		snprintf(ret, size, "a whole number from %" PRIu64 " to %" PRIu64, k->least,
			 k->most);
	}
	return ret;
}

static const struct key *find_key(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(name, keys[i].name) == 0)
			return &keys[i];
	return NULL;
}

/* Sets one key; `place` ("" or "FILE:LINE: ") begins the message. */
static int set_key(struct config *c, const char *place, const char *name, const char *value,
		   const struct key **ret_key, char *why)
{
	const struct key *k = find_key(name);
	char allowed[96];

	if (k == NULL) {
		snprintf(why, CONFIG_WHY_BYTES,
			 "%s\"%.40s\" is not a key of sparqd.conf(5); "
			 "sparqd --dump-config lists them",
			 place, name);
		return -EINVAL;
	}
	if (store_value(k, value, (char *)c + k->at) < 0) {
		snprintf(why, CONFIG_WHY_BYTES, "%s%s = \"%.40s\": %s is expected", place, name,
			 value, describe(k, allowed, sizeof(allowed)));
		return -EINVAL;
	}
	*ret_key = k;
	return 0;
}

/* ---- lines --------------------------------------------------------------- */

static char *trim(char *s)
{
	char *end;

	while (*s == ' ' || *s == '\t' || *s == '\r')
		s++;
	end = s + strlen(s);
	while (end > s && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
		*--end = '\0';
	return s;
}

/* Cuts a comment: a # that begins the line or follows a blank, so a path may contain one. */
static void cut_comment(char *s)
{
	for (char *p = s; *p != '\0'; p++) {
		if (*p == '#' && (p == s || p[-1] == ' ' || p[-1] == '\t')) {
			*p = '\0';
			return;
		}
	}
}

/* "key = value" in place: 1, nothing on the line: 0, no "=": -EINVAL. */
static int split(char *line, char **ret_name, char **ret_value)
{
	char *equals;

	cut_comment(line);
	line = trim(line);
	if (*line == '\0')
		return 0;
	equals = strchr(line, '=');
	if (equals == NULL)
		return -EINVAL;
	*equals = '\0';
	*ret_name = trim(line);
	*ret_value = trim(equals + 1);
	return 1;
}

static int parse_line(struct config *c, const char *place, char *line, uint64_t *seen, char *why)
{
	const struct key *k;
	char *name, *value;
	int r = split(line, &name, &value);

	if (r == 0)
		return 0;
	if (r < 0) {
		snprintf(why, CONFIG_WHY_BYTES, "%s\"%.40s\": \"key = value\" is expected", place,
			 trim(line));
		return r;
	}
	r = set_key(c, place, name, value, &k, why);
	if (r < 0)
		return r;
	if (*seen & (1ull << (k - keys))) {
		snprintf(why, CONFIG_WHY_BYTES, "%s%s is given twice", place, name);
		return -EINVAL;
	}
	*seen |= 1ull << (k - keys);
	return 0;
}

void config_defaults(struct config *c)
{
	_Static_assert(ARRAY_SIZE(keys) <= 64, "a bit per key");

	memset(c, 0, sizeof(*c));
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		int r = store_value(&keys[i], keys[i].preset, (char *)c + keys[i].at);

		assert(r == 0); /* else the table is wrong */
	}
}

int config_parse(struct config *c, const char *file, const char *text, size_t n, char *why)
{
	struct config fresh = *c;
	uint64_t seen = 0;
	unsigned number = 0;

	for (size_t at = 0; at < n;) {
		const char *newline = memchr(text + at, '\n', n - at);
		size_t length = newline ? (size_t)(newline - text) - at : n - at;
		char line[512], place[80];
		int r;

		snprintf(place, sizeof(place), "%.60s:%u: ", file, ++number);
		if (length >= sizeof(line) || memchr(text + at, '\0', length) != NULL) {
			snprintf(why, CONFIG_WHY_BYTES,
				 "%sa line of at most %zu characters is expected", place,
				 sizeof(line) - 1);
			return -EINVAL;
		}
		memcpy(line, text + at, length);
		line[length] = '\0';
		r = parse_line(&fresh, place, line, &seen, why);
		if (r < 0)
			return r;
		at += length + 1;
	}
	*c = fresh;
	return 0;
}

static int read_file(const char *path, char *buffer, size_t size, size_t *ret_bytes)
{
	CLOSE_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	size_t n = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t r = read(fd, buffer + n, size - n);

		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		n += (size_t)r;
		if (n == size)
			return -EFBIG;
	}
	*ret_bytes = n;
	return 0;
}

int config_read(struct config *c, const char *path, char *why)
{
	FREE_MEMORY char *text = malloc(FILE_BYTES_MAX);
	size_t n = 0;
	int r;

	if (text == NULL)
		return -ENOMEM;
	r = read_file(path, text, FILE_BYTES_MAX, &n);
	if (r < 0) {
		snprintf(why, CONFIG_WHY_BYTES, "%.100s: %s", path, strerror(-r));
		return r;
	}
	return config_parse(c, path, text, n, why);
}

int config_set(struct config *c, const char *assignment, char *why)
{
	const struct key *k;
	char line[512], *name, *value;

	if (strlen(assignment) >= sizeof(line) || strchr(assignment, '=') == NULL) {
		snprintf(why, CONFIG_WHY_BYTES, "\"%.40s\": key=value is expected", assignment);
		return -EINVAL;
	}
	strcpy(line, assignment);
	/* No comments here: the shell has had its say about #. */
	value = strchr(line, '=');
	*value++ = '\0';
	name = trim(line);
	return set_key(c, "", name, trim(value), &k, why);
}

size_t config_dump(const struct config *c, char *ret, size_t n)
{
	size_t used = 0;
	char value[32];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const struct key *k = &keys[i];
		const char *text = format_value(k, (const char *)c + k->at, value, sizeof(value));

		used += (size_t)snprintf(ret ? ret + MIN(used, n) : NULL, used < n ? n - used : 0,
					 "# %s%s\n%s =%s%s\n", k->help,
					 k->reload ? " (reload)" : "", k->name, *text ? " " : "",
					 text);
	}
	return used;
}

int config_reload(struct config *running, const struct config *fresh, char *why)
{
	char from[32], to[32];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const struct key *k = &keys[i];
		const char *a = (const char *)running + k->at, *b = (const char *)fresh + k->at;

		if (k->reload || memcmp(a, b, k->size) == 0)
			continue;
		snprintf(why, CONFIG_WHY_BYTES,
			 "%s runs as \"%.40s\", the file says \"%.40s\": this needs a restart, so "
			 "nothing was reloaded",
			 k->name, format_value(k, a, from, sizeof(from)),
			 format_value(k, b, to, sizeof(to)));
		return -EINVAL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].reload)
			memcpy((char *)running + keys[i].at, (const char *)fresh + keys[i].at,
			       keys[i].size);
	return 0;
}

void config_compare(const struct config *before, const struct config *after,
		    void (*changed)(void *arg, const char *key, const char *before,
				    const char *after),
		    void *arg)
{
	char from[32], to[32];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const struct key *k = &keys[i];
		const char *a = (const char *)before + k->at, *b = (const char *)after + k->at;

		if (memcmp(a, b, k->size) != 0)
			changed(arg, k->name, format_value(k, a, from, sizeof(from)),
				format_value(k, b, to, sizeof(to)));
	}
}
