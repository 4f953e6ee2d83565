/* SPDX-License-Identifier: MIT
 *
 * input.h: a file of records, read into memory: what `load` writes into a heap and `verify` compares with
 * one.
 *
 * Invariants
 *   I1  Keys are unique, 1 to KV_KEY_MAX bytes; a file that cannot give such keys is refused.
 *   I2  A value is the file's own bytes, unchanged.
 */
#ifndef KV_INPUT_H
#define KV_INPUT_H

#include "map.h"

enum kv_format {
	KV_DPKG,  /* paragraphs; key: Package, or Package:Architecture where that is not unique */
	KV_LINES, /* KEY, a tab, VALUE, a newline */
};

struct kv_record {
	struct kv_bytes key, value;
};

struct kv_input {
	char *bytes; /* the file */
	size_t size;
	struct kv_record *records; /* in the file's order */
	size_t count;
	uint32_t *by_key;  /* indexes of records, sorted by key */
	char *made_keys;   /* keys that are not in the file as such */
	uint64_t hash;	   /* of the file and its format */
	size_t value_size; /* bytes of all values */
};

/* 0, or a code after a line on stderr that says why. */
int kv_input_read(struct kv_input *ret, const char *path, enum kv_format format);
void kv_input_free(struct kv_input *input);

/* Index of the record with this key, or SIZE_MAX. */
size_t kv_input_find(const struct kv_input *input, struct kv_bytes key);

int kv_bytes_compare(struct kv_bytes a, struct kv_bytes b);

/* A whole stream, malloced. 0, or -errno. */
int kv_read_all(int fd, size_t size_max, char **ret, size_t *ret_size);

#endif
