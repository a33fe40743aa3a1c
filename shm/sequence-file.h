/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence in a file, for all who write or read one: the library that saves and
 * loads, the daemon that spills. sparq-sequence(5) is the norm.
 *
 *   header | image, zeros to a block | trailer: a checksum for each piece of the image
 *
 * Nothing is believed before its checksum was compared: the header has its own, the
 * trailer too, and a piece is compared before a byte of it is used. The header tells
 * the length of the file, so that a truncated one is known before it is read.
 *
 * The image is what one daemon tells another about a sequence:
 *
 *   sequence_image | sequence_table[] | sequence_layer[] | sequence_extent[] | rows
 *
 * and the rows are, layer by layer: sealed tiles extent by extent, sinks, tail in chunks, each
 * in the order of kv_image_*.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEQUENCE_FILE_MAGIC 0x5145535152415053ull    /* "SPARQSEQ" */
#define SEQUENCE_TRAILER_MAGIC 0x444e455152415053ull /* "SPARQEND" */
#define SEQUENCE_IMAGE_MAGIC 0x474d495152415053ull   /* "SPARQIMG" */
#define SEQUENCE_FILE_VERSION 1u
#define SEQUENCE_IMAGE_VERSION 1u
/* Bits that this build knows; an unknown compatible one is ignored, an unknown incompatible one
 * refuses the file. */
#define SEQUENCE_FEATURES_COMPAT 0ull
#define SEQUENCE_FEATURES_INCOMPAT 0ull

#define SEQUENCE_BLOCK 4096u            /* all parts of a file begin and end on one */
#define SEQUENCE_PIECE_BYTES (1u << 20) /* of the image, all but the last */
#define SEQUENCE_WHY_BYTES 240

struct sequence_file { /* the first block */
	uint64_t magic;
	uint32_t version, header_bytes;
	uint64_t compat, incompat;
	uint64_t checksum; /* of the block, with 0 here */
	uint64_t file_bytes;
	uint64_t image_bytes; /* it begins behind the header */
	uint64_t trailer_at;
	uint32_t piece_bytes, n_pieces;
	uint64_t created_s; /* CLOCK_REALTIME */
	char writer[32];    /* who wrote it, for people */
	uint8_t rsv[SEQUENCE_BLOCK - 112];
};

struct sequence_trailer { /* on the last blocks, zeros behind it */
	uint64_t magic;
	uint64_t checksum; /* of all of the blocks, with 0 here */
	uint64_t file_bytes;
	uint32_t n_pieces, rsv;
	uint64_t piece[]; /* checksums */
};

struct sequence_image {
	uint64_t magic;
	uint32_t version, head_bytes;
	uint64_t compat, incompat;
	uint64_t bytes; /* of the image, this included */
	uint32_t layers, heads, kv_heads, k_dim, v_dim, dtype;
	float scale;
	uint32_t sinks, rollback, outliers;
	uint32_t tiles_layout; /* KV_LAYOUT of who wrote it */
	uint32_t needs;        /* planes that its policy asked for besides those of the formats */
	uint64_t budget_bytes;
	uint32_t timeout_us, n_tables, n_extents;
	uint32_t rows_least, rows_most, rsv;
	char cache[64], name[64]; /* what they were called */
	char k_format[128], v_format[128];
	char policy[32], device[32], model[128];
	char options[1024]; /* as sparq_cache_create(3) takes them */
	uint8_t rsv2[328];
};

struct sequence_table { /* by layer and KV head, ascending */
	uint32_t layer, kv_head, n_outliers, rsv;
	uint8_t k[256], v[256];
};

#define SEQUENCE_OWNED (1u << 0) /* the tile that is sealed next lies behind the last one */

struct sequence_layer {
	uint32_t rows, tail_first, n_extents, flags;
};

struct sequence_extent {
	uint16_t tiles, used; /* slots; those that count */
	uint32_t last_rows;   /* that count of the last of them, 1 to 128 */
};

_Static_assert(sizeof(struct sequence_file) == SEQUENCE_BLOCK, "sequence_file");
_Static_assert(offsetof(struct sequence_file, rsv) == 112, "sequence_file.rsv");
_Static_assert(sizeof(struct sequence_trailer) == 32, "sequence_trailer");
_Static_assert(sizeof(struct sequence_image) == 2048, "sequence_image");
_Static_assert(offsetof(struct sequence_image, rsv2) == 1720, "sequence_image.rsv2");
_Static_assert(sizeof(struct sequence_table) == 528, "sequence_table");
_Static_assert(sizeof(struct sequence_layer) == 16, "sequence_layer");
_Static_assert(sizeof(struct sequence_extent) == 8, "sequence_extent");

uint64_t sequence_checksum(const void *data, size_t n);

/* The header of a file for an image of so many bytes, sealed. `writer` for people. */
void sequence_file_plan(uint64_t image_bytes, uint64_t created_s, const char *writer,
			struct sequence_file *ret);
size_t sequence_trailer_bytes(const struct sequence_file *f);
/* Fills everything but the checksums of pieces, which are there, and the zeros behind them. */
void sequence_trailer_seal(const struct sequence_file *f, struct sequence_trailer *t);
/* Where piece i of the image lies in the file, and its bytes. */
uint64_t sequence_piece_at(const struct sequence_file *f, uint32_t i);
size_t sequence_piece_bytes(const struct sequence_file *f, uint32_t i);

/* What was read from a file of `file_bytes`: -EINVAL: not a sequence, -EPROTONOSUPPORT: of a later
 * release, -EBADMSG: damaged or cut short; `why` (SEQUENCE_WHY_BYTES) says it with the offset. */
int sequence_file_check(const struct sequence_file *f, uint64_t file_bytes, char *why);
int sequence_trailer_check(const struct sequence_file *f, const struct sequence_trailer *t,
			   char *why);
/* The last piece brings the zeros behind it: `data` has whole blocks. */
int sequence_piece_check(const struct sequence_file *f, const struct sequence_trailer *t,
			 uint32_t i, const void *data, char *why);
/* The head of an image of `bytes`, from a file or a client: that its texts end, its sizes are
 * possible, and nothing is asked of us that we do not know. */
int sequence_image_check(const struct sequence_image *m, uint64_t bytes, char *why);
/* Bytes of tables, layers and extents behind the head. */
uint64_t sequence_index_bytes(const struct sequence_image *m);
