/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of sequences as save, load and the making of a cache see them. What is in
 * one is shm/sequence-file.h's affair.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/private.h"
#include "shm/sequence-file.h"

/* ---- file-read.c: a file that is whole, piece by piece ---------------------------- */

struct file_reader {
	sparq *c; /* whose error text says what is wrong */
	const char *path;
	int fd;
	struct sequence_file file;
	struct sequence_trailer *trailer;
	uint8_t *data; /* a piece, in whole blocks */
};
#define FILE_READER_NULL ((struct file_reader){ .fd = -1 })

/* Header and trailer are compared, and so is the head of the image in piece 0, which is in `data`
 * afterwards. */
int file_open(sparq *c, const char *path, struct file_reader *ret);
void file_reader_deinit(struct file_reader *r);
/* Piece i, compared, in r->data. */
int file_read(struct file_reader *r, uint32_t i);
/* While piece 0 is in `data`. */
static inline const struct sequence_image *file_head(const struct file_reader *r)
{
	return (const struct sequence_image *)r->data;
}

/* ---- file-write.c: a file that is not there until it is whole ----------------------- */

struct file_writer {
	sparq *c;
	const char *path, *name; /* the last part of the path */
	int directory, fd;
	char temporary[64]; /* empty: there is none */
	struct sequence_file file;
	struct sequence_trailer *trailer;
};
#define FILE_WRITER_NULL ((struct file_writer){ .directory = -1, .fd = -1 })

/* A file beside `path`, for an image of so many bytes. -EEXIST: there is one, and it is not to be
 * replaced. */
int file_create(sparq *c, const char *path, bool replace, uint64_t image_bytes,
		struct file_writer *ret);
/* Removes what was not ended. */
void file_writer_deinit(struct file_writer *w);
/* Piece i with its checksum; `data` has whole blocks, zeros behind the image. */
int file_write(struct file_writer *w, uint32_t i, const uint8_t *data, uint64_t checksum);
/* On the disk, and under its name. */
int file_end(struct file_writer *w, bool replace);

/* ---- file-params.c: what save and load have in common ------------------------------- */

int file_params(sparq *c, const struct sparq_file_params *given, uint32_t flags,
		struct sparq_file_params *ret);
/* -ECANCELED if the program gives up. */
int file_progress(sparq *c, const struct sparq_file_params *p, const struct sequence_image *m,
		  uint64_t bytes);
/* A piece of the arena to carry them: as large as there is room for, a piece of a file at most. */
int file_carrier(sparq *c, sparq_buf **ret);
/* Blocks in memory of their own, that a file may be read into and written from directly. */
uint8_t *file_blocks(uint64_t bytes);
static inline void file_unref_carrier(sparq_buf **b)
{
	*b = sparq_buf_unref(*b);
}
