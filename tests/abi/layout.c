/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints every number of the wire: constants, and offset and size of every
 * field. The listing is checked in (layout-MAJOR.expected): whoever changes
 * the wire changes it, and the diff is there to see.
 *
 * Fields must follow each other without a hole up to the size of their struct,
 * so none can be padding without a name, and none can be forgotten here.
 */
#include <stdio.h>

#include "shm/sparq-abi.h"

static size_t end; /* of the field before */
static int holes;

static void field(const char *name, size_t at, size_t bytes)
{
	printf("%8zu %6zu  %s\n", at, bytes, name);
	holes += at != end;
	end = at + bytes;
}

static void closing(const char *name, size_t bytes)
{
	printf("%8s %6zu  struct %s\n\n", "", bytes, name);
	holes += bytes != end;
	end = 0;
}

#define F(type, name) \
	field(#name, offsetof(struct type, name), sizeof(((struct type *)NULL)->name));
#define END(type) closing(#type, sizeof(struct type))
#define NUMBER(name) printf("%#20llx  %s\n", (unsigned long long)(name), #name);

static void print_entries(void)
{
	F(sparq_sqe, op) F(sparq_sqe, class_) F(sparq_sqe, flags) F(sparq_sqe, layer)
	F(sparq_sqe, n_items) F(sparq_sqe, user_data) F(sparq_sqe, sequence) F(sparq_sqe, q)
	F(sparq_sqe, kv) F(sparq_sqe, o) F(sparq_sqe, row) F(sparq_sqe, n_rows) F(sparq_sqe, n_q)
	F(sparq_sqe, timeout_us) F(sparq_sqe, seq)
	END(sparq_sqe);
	F(sparq_item, sequence) F(sparq_item, q) F(sparq_item, kv) F(sparq_item, o)
	F(sparq_item, row) F(sparq_item, n_rows) F(sparq_item, n_q) F(sparq_item, lse)
	F(sparq_item, report) F(sparq_item, q_stride) F(sparq_item, kv_stride)
	F(sparq_item, o_stride) F(sparq_item, rsv)
	END(sparq_item);
	F(sparq_report, status) F(sparq_report, flags) F(sparq_report, n_selected)
	F(sparq_report, n_scored) F(sparq_report, alpha_min) F(sparq_report, alpha_mean)
	F(sparq_report, dense_bytes) F(sparq_report, bytes) F(sparq_report, rsv)
	END(sparq_report);
	F(sparq_cqe, user_data) F(sparq_cqe, res) F(sparq_cqe, flags) F(sparq_cqe, bytes_read)
	F(sparq_cqe, aux) F(sparq_cqe, seq)
	END(sparq_cqe);
}

static void print_memory(void)
{
	F(sparq_ring_ctl, cq_head) F(sparq_ring_ctl, pad0) F(sparq_ring_ctl, cq_need)
	F(sparq_ring_ctl, pad1) F(sparq_ring_ctl, sq_head) F(sparq_ring_ctl, pad2)
	F(sparq_ring_ctl, sq_cold) F(sparq_ring_ctl, pad3) F(sparq_ring_ctl, cq_bell)
	F(sparq_ring_ctl, fatal) F(sparq_ring_ctl, pad4)
	END(sparq_ring_ctl);
	F(sparq_poller, sleep_epoch) F(sparq_poller, cpu) F(sparq_poller, pad)
	END(sparq_poller);
	F(sparq_daemon_page, magic) F(sparq_daemon_page, abi) F(sparq_daemon_page, generation)
	F(sparq_daemon_page, pid) F(sparq_daemon_page, n_pollers) F(sparq_daemon_page, features)
	F(sparq_daemon_page, pad0) F(sparq_daemon_page, heartbeat_ns) F(sparq_daemon_page, pad1)
	F(sparq_daemon_page, poller)
	END(sparq_daemon_page);
	F(sparq_ring_place, ctl) F(sparq_ring_place, sq) F(sparq_ring_place, cq)
	END(sparq_ring_place);
}

static void print_session_messages(void)
{
	F(sparq_msg, type) F(sparq_msg, size) F(sparq_msg, cookie) F(sparq_msg, res)
	F(sparq_msg, rsv)
	END(sparq_msg);
	F(sparq_msg_error, head) F(sparq_msg_error, text)
	END(sparq_msg_error);
	F(sparq_msg_hello, head) F(sparq_msg_hello, magic) F(sparq_msg_hello, abi)
	F(sparq_msg_hello, n_queues) F(sparq_msg_hello, sq_entries) F(sparq_msg_hello, node)
	F(sparq_msg_hello, arena_bytes) F(sparq_msg_hello, features)
	F(sparq_msg_hello, features_incompat)
	END(sparq_msg_hello);
	F(sparq_msg_hello_reply, head) F(sparq_msg_hello_reply, abi)
	F(sparq_msg_hello_reply, generation) F(sparq_msg_hello_reply, features)
	F(sparq_msg_hello_reply, features_incompat) F(sparq_msg_hello_reply, segment_bytes)
	F(sparq_msg_hello_reply, arena_offset) F(sparq_msg_hello_reply, arena_bytes)
	F(sparq_msg_hello_reply, n_queues) F(sparq_msg_hello_reply, sq_entries)
	F(sparq_msg_hello_reply, cq_entries) F(sparq_msg_hello_reply, poller)
	F(sparq_msg_hello_reply, max_rows) F(sparq_msg_hello_reply, max_items)
	F(sparq_msg_hello_reply, spin_ns) F(sparq_msg_hello_reply, pid)
	F(sparq_msg_hello_reply, ring)
	END(sparq_msg_hello_reply);
	F(sparq_msg_name, head) F(sparq_msg_name, kind) F(sparq_msg_name, index)
	F(sparq_msg_name, rsv) F(sparq_msg_name, name)
	END(sparq_msg_name);
	F(sparq_msg_info, head) F(sparq_msg_info, pool_bytes) F(sparq_msg_info, pool_used_bytes)
	F(sparq_msg_info, quota_bytes) F(sparq_msg_info, charged_bytes) F(sparq_msg_info, nodes)
	F(sparq_msg_info, workers) F(sparq_msg_info, sessions) F(sparq_msg_info, rsv)
	F(sparq_msg_info, page_bytes) F(sparq_msg_info, version) F(sparq_msg_info, isa)
	END(sparq_msg_info);
	F(sparq_msg_queue, head) F(sparq_msg_queue, queue) F(sparq_msg_queue, rsv)
	END(sparq_msg_queue);
	F(sparq_msg_stats, head) F(sparq_msg_stats, bytes) F(sparq_msg_stats, generation)
	F(sparq_msg_stats, rsv)
	END(sparq_msg_stats);
}

static void print_cache_messages(void)
{
	F(sparq_msg_cache_create, head) F(sparq_msg_cache_create, layers)
	F(sparq_msg_cache_create, heads) F(sparq_msg_cache_create, kv_heads)
	F(sparq_msg_cache_create, k_dim) F(sparq_msg_cache_create, v_dim)
	F(sparq_msg_cache_create, dtype) F(sparq_msg_cache_create, scale)
	F(sparq_msg_cache_create, rsv) F(sparq_msg_cache_create, budget_bytes)
	F(sparq_msg_cache_create, timeout_us) F(sparq_msg_cache_create, rsv2)
	F(sparq_msg_cache_create, name) F(sparq_msg_cache_create, k_format)
	F(sparq_msg_cache_create, v_format) F(sparq_msg_cache_create, policy)
	F(sparq_msg_cache_create, device) F(sparq_msg_cache_create, model)
	F(sparq_msg_cache_create, options)
	END(sparq_msg_cache_create);
	F(sparq_msg_cache, head) F(sparq_msg_cache, cache)
	END(sparq_msg_cache);
	F(sparq_msg_cache_set, head) F(sparq_msg_cache_set, cache) F(sparq_msg_cache_set, key)
	F(sparq_msg_cache_set, value)
	END(sparq_msg_cache_set);
	F(sparq_msg_cache_stat, head) F(sparq_msg_cache_stat, cache)
	F(sparq_msg_cache_stat, sequences) F(sparq_msg_cache_stat, rows)
	F(sparq_msg_cache_stat, bytes) F(sparq_msg_cache_stat, budget_bytes)
	F(sparq_msg_cache_stat, row_bytes) F(sparq_msg_cache_stat, dense_row_bytes)
	END(sparq_msg_cache_stat);
	F(sparq_msg_cache_table, head) F(sparq_msg_cache_table, cache)
	F(sparq_msg_cache_table, layer) F(sparq_msg_cache_table, kv_head)
	F(sparq_msg_cache_table, n_k) F(sparq_msg_cache_table, n_v)
	F(sparq_msg_cache_table, n_outliers) F(sparq_msg_cache_table, rsv)
	F(sparq_msg_cache_table, k_channels) F(sparq_msg_cache_table, v_channels)
	END(sparq_msg_cache_table);
	F(sparq_msg_cache_attach, head) F(sparq_msg_cache_attach, cache)
	F(sparq_msg_cache_attach, name)
	END(sparq_msg_cache_attach);
	F(sparq_msg_cache_shape, head) F(sparq_msg_cache_shape, cache)
	F(sparq_msg_cache_shape, name) F(sparq_msg_cache_shape, layers)
	F(sparq_msg_cache_shape, heads) F(sparq_msg_cache_shape, kv_heads)
	F(sparq_msg_cache_shape, k_dim) F(sparq_msg_cache_shape, v_dim)
	F(sparq_msg_cache_shape, dtype) F(sparq_msg_cache_shape, scale)
	F(sparq_msg_cache_shape, timeout_us) F(sparq_msg_cache_shape, budget_bytes)
	F(sparq_msg_cache_shape, k_format) F(sparq_msg_cache_shape, v_format)
	F(sparq_msg_cache_shape, policy) F(sparq_msg_cache_shape, device)
	F(sparq_msg_cache_shape, model)
	END(sparq_msg_cache_shape);
	F(sparq_msg_seq_create, head) F(sparq_msg_seq_create, cache)
	F(sparq_msg_seq_create, name)
	END(sparq_msg_seq_create);
	F(sparq_msg_seq, head) F(sparq_msg_seq, sequence) F(sparq_msg_seq, rows)
	END(sparq_msg_seq);
	F(sparq_msg_seq_stat, head) F(sparq_msg_seq_stat, sequence)
	F(sparq_msg_seq_stat, rows_least) F(sparq_msg_seq_stat, rows_most)
	F(sparq_msg_seq_stat, bytes) F(sparq_msg_seq_stat, node) F(sparq_msg_seq_stat, flags)
	END(sparq_msg_seq_stat);
	F(sparq_msg_seq_export, head) F(sparq_msg_seq_export, sequence)
	F(sparq_msg_seq_export, offset) F(sparq_msg_seq_export, addr)
	F(sparq_msg_seq_export, bytes) F(sparq_msg_seq_export, rsv)
	END(sparq_msg_seq_export);
	F(sparq_msg_seq_exported, head) F(sparq_msg_seq_exported, sequence)
	F(sparq_msg_seq_exported, total) F(sparq_msg_seq_exported, checksum)
	F(sparq_msg_seq_exported, bytes) F(sparq_msg_seq_exported, rsv)
	END(sparq_msg_seq_exported);
	F(sparq_msg_seq_import, head) F(sparq_msg_seq_import, cache)
	F(sparq_msg_seq_import, total) F(sparq_msg_seq_import, name)
	END(sparq_msg_seq_import);
	F(sparq_msg_seq_piece, head) F(sparq_msg_seq_piece, offset)
	F(sparq_msg_seq_piece, addr) F(sparq_msg_seq_piece, checksum)
	F(sparq_msg_seq_piece, bytes) F(sparq_msg_seq_piece, rsv)
	END(sparq_msg_seq_piece);
	F(sparq_msg_seq_import_end, head) F(sparq_msg_seq_import_end, commit)
	F(sparq_msg_seq_import_end, rsv)
	END(sparq_msg_seq_import_end);
	F(sparq_msg_seq_prefetch, head) F(sparq_msg_seq_prefetch, sequence)
	F(sparq_msg_seq_prefetch, rows) F(sparq_msg_seq_prefetch, bytes)
	F(sparq_msg_seq_prefetch, bytes_done)
	END(sparq_msg_seq_prefetch);
	F(sparq_msg_seq_tokens, head) F(sparq_msg_seq_tokens, sequence)
	F(sparq_msg_seq_tokens, tokens) F(sparq_msg_seq_tokens, n_tokens)
	F(sparq_msg_seq_tokens, row)
	END(sparq_msg_seq_tokens);
	F(sparq_msg_seq_prefix, head) F(sparq_msg_seq_prefix, cache)
	F(sparq_msg_seq_prefix, tokens) F(sparq_msg_seq_prefix, n_tokens)
	F(sparq_msg_seq_prefix, rsv) F(sparq_msg_seq_prefix, name)
	END(sparq_msg_seq_prefix);
}

static void print_numbers(void)
{
	NUMBER(SPARQ_MAGIC) NUMBER(SPARQ_ABI_MAJOR) NUMBER(SPARQ_FEATURE_LSE)
	NUMBER(SPARQ_FEATURE_REPORT) NUMBER(SPARQ_FEATURE_TABLE)
	NUMBER(SPARQ_FEATURE_ADOPT) NUMBER(SPARQ_FEATURE_EVICT) NUMBER(SPARQ_FEATURE_TOKENS)
	NUMBER(SPARQ_FEATURE_SAVE)
	NUMBER(SPARQ_FEATURE_PREFETCH) NUMBER(SPARQ_FEATURE_STATS)
	NUMBER(SPARQ_FEATURE_OVERWRITE) NUMBER(SPARQ_FEATURE_PLACEMENT)
	NUMBER(SPARQ_FEATURES_COMPAT)
	NUMBER(SPARQ_FEATURES_INCOMPAT) NUMBER(SPARQ_MAX_QUEUES) NUMBER(SPARQ_MAX_SQ_ENTRIES)
	NUMBER(SPARQ_MAX_ITEMS) NUMBER(SPARQ_MAX_ROWS) NUMBER(SPARQ_MAX_DECODE_Q)
	NUMBER(SPARQ_ROW_LIMIT) NUMBER(SPARQ_NAME_MAX) NUMBER(SPARQ_OP_NOP) NUMBER(SPARQ_OP_STEP)
	NUMBER(SPARQ_OP_APPEND) NUMBER(SPARQ_OP_ATTEND) NUMBER(SPARQ_OP_TRUNCATE)
	NUMBER(SPARQ_OP_OVERWRITE) NUMBER(SPARQ_OP_COUNT) NUMBER(SPARQ_SQE_LINK)
	NUMBER(SPARQ_SQE_FENCE) NUMBER(SPARQ_SQE_REPEAT) NUMBER(SPARQ_SQE_FULL)
	NUMBER(SPARQ_SQE_DENSE)
	NUMBER(SPARQ_SQE_DRAFT) NUMBER(SPARQ_SQE_PART) NUMBER(SPARQ_SQE_FLAGS)
	NUMBER(SPARQ_CLASS_INTERACTIVE) NUMBER(SPARQ_CLASS_BACKGROUND) NUMBER(SPARQ_LAYER_ALL)
	NUMBER(SPARQ_ADDR_OFFSET_BITS) NUMBER(SPARQ_CQE_REPEATED) NUMBER(SPARQ_CQE_DENSE)
	NUMBER(SPARQ_LINE_BYTES) NUMBER(SPARQ_MSG_REPLY) NUMBER(SPARQ_ERROR_TEXT)
	NUMBER(SPARQ_DTYPE_F32) NUMBER(SPARQ_DTYPE_F16) NUMBER(SPARQ_DTYPE_BF16)
	NUMBER(SPARQ_MAX_CHANNELS) NUMBER(SPARQ_MAX_OUTLIERS) NUMBER(SPARQ_MAX_TOKENS)
}

static void print_enumerations(void)
{
	NUMBER(SPARQ_PLANE_SCORE) NUMBER(SPARQ_PLANE_K) NUMBER(SPARQ_PLANE_V_UPPER)
	NUMBER(SPARQ_PLANE_V_LOWER) NUMBER(SPARQ_PLANE_PARAMETERS) NUMBER(SPARQ_PLANE_RECENT)
	NUMBER(SPARQ_PLANE_STATE) NUMBER(SPARQ_PLANE_OTHER) NUMBER(SPARQ_PLANES)
	NUMBER(SPARQ_REASON_NONE) NUMBER(SPARQ_REASON_OP) NUMBER(SPARQ_REASON_FLAGS)
	NUMBER(SPARQ_REASON_CLASS) NUMBER(SPARQ_REASON_LAYER) NUMBER(SPARQ_REASON_UNUSED)
	NUMBER(SPARQ_REASON_ITEMS) NUMBER(SPARQ_REASON_SEQUENCE) NUMBER(SPARQ_REASON_DUPLICATE)
	NUMBER(SPARQ_REASON_CACHE) NUMBER(SPARQ_REASON_ADDRESS) NUMBER(SPARQ_REASON_STRIDE)
	NUMBER(SPARQ_REASON_ROWS) NUMBER(SPARQ_REASON_QUERIES) NUMBER(SPARQ_REASON_ROW)
	NUMBER(SPARQ_REASON_BUSY) NUMBER(SPARQ_REASON_BUDGET) NUMBER(SPARQ_REASON_POOL)
	NUMBER(SPARQ_REASON_DEADLINE) NUMBER(SPARQ_REASON_LINKED)
	NUMBER(SPARQ_REASON_UNSUPPORTED) NUMBER(SPARQ_REASON_RESERVED) NUMBER(SPARQ_REASON_QUOTA)
	NUMBER(SPARQ_REASON_CATALOGUE) NUMBER(SPARQ_REASON_DEVICE) NUMBER(SPARQ_REASONS)
	NUMBER(SPARQ_MSG_HELLO) NUMBER(SPARQ_MSG_MAPPED) NUMBER(SPARQ_MSG_NAME)
	NUMBER(SPARQ_MSG_INFO) NUMBER(SPARQ_MSG_QUEUE_FD) NUMBER(SPARQ_MSG_STATS)
	NUMBER(SPARQ_MSG_CACHE_CREATE)
	NUMBER(SPARQ_MSG_CACHE_UNREF) NUMBER(SPARQ_MSG_CACHE_SET) NUMBER(SPARQ_MSG_CACHE_STAT)
	NUMBER(SPARQ_MSG_CACHE_TABLE) NUMBER(SPARQ_MSG_CACHE_ATTACH)
	NUMBER(SPARQ_MSG_SEQ_CREATE) NUMBER(SPARQ_MSG_SEQ_ATTACH) NUMBER(SPARQ_MSG_SEQ_FORK)
	NUMBER(SPARQ_MSG_SEQ_DROP) NUMBER(SPARQ_MSG_SEQ_TRUNCATE) NUMBER(SPARQ_MSG_SEQ_STAT)
	NUMBER(SPARQ_MSG_SEQ_ADOPT) NUMBER(SPARQ_MSG_SEQ_TOKENS)
	NUMBER(SPARQ_MSG_SEQ_CREATE_PREFIX)
	NUMBER(SPARQ_MSG_SEQ_PIN) NUMBER(SPARQ_SEQ_PINNED)
	NUMBER(SPARQ_PLACEMENT_UNKNOWN) NUMBER(SPARQ_PLACEMENT_LOCAL)
	NUMBER(SPARQ_PLACEMENT_HEADS) NUMBER(SPARQ_PLACEMENT_ROWS)
	NUMBER(SPARQ_MSG_SEQ_EXPORT) NUMBER(SPARQ_MSG_SEQ_IMPORT)
	NUMBER(SPARQ_MSG_SEQ_IMPORT_PIECE) NUMBER(SPARQ_MSG_SEQ_IMPORT_END)
	NUMBER(SPARQ_MAX_PIECE_BYTES) NUMBER(SPARQ_EXPORT_END)
	NUMBER(SPARQ_MSG_SEQ_PREFETCH)
}

int main(void)
{
	print_entries();
	print_memory();
	print_session_messages();
	print_cache_messages();
	print_numbers();
	print_enumerations();
	return holes == 0 ? 0 : 1;
}
