/* SPDX-License-Identifier: MIT
 *
 * input.c: see input.h.
 *
 * Why read and not mapped: a file that another program shortens meanwhile would kill a mapper, and the keys
 * and values must stay the same for the whole load.
 */
#define _GNU_SOURCE
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#define INPUT_SIZE_MAX ((size_t)1 << 32)

int kv_read_all(int fd, size_t size_max, char **ret, size_t *ret_size)
{
	size_t size = 0, room = 65536;
	char *bytes = malloc(room);

	while (bytes) {
		ssize_t got = read(fd, bytes + size, room - size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 || size + (size_t)got > size_max) {
			int rc = got < 0 ? -errno : -EFBIG;

			free(bytes);
			return rc;
		}
		if (got == 0) {
			*ret = bytes;
			*ret_size = size;
			return 0;
		}
		size += (size_t)got;
		if (size == room) {
			char *more = realloc(bytes, room *= 2);

			if (!more)
				free(bytes);
			bytes = more;
		}
	}
	return -ENOMEM;
}

int kv_bytes_compare(struct kv_bytes a, struct kv_bytes b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int rc = n ? memcmp(a.p, b.p, n) : 0;

	return rc ? rc : (a.n > b.n) - (a.n < b.n);
}

static int refuse(const char *path, const struct kv_record *record, const char *why)
{
	int n = record->key.n < 80 ? (int)record->key.n : 80;

	fprintf(stderr, "pheap-kv: %s: %s%s%.*s\n", path, why, n ? ": " : "", n, n ? record->key.p : "");
	return -EINVAL;
}

/* The line that starts at `at`, with its newline if it has one. */
static struct kv_bytes line_at(const struct kv_input *input, size_t at)
{
	const char *start = input->bytes + at;
	const char *end = memchr(start, '\n', input->size - at);

	return (struct kv_bytes){start, end ? (size_t)(end - start) + 1 : input->size - at};
}

static bool line_blank(struct kv_bytes line)
{
	for (size_t i = 0; i < line.n; i++)
		if (!strchr(" \t\r\n", line.p[i]) || !line.p[i])
			return false;
	return true;
}

/* Field `name` (with its colon) of a paragraph, without blanks around it; n 0: none. */
static struct kv_bytes field_get(struct kv_bytes paragraph, const char *name)
{
	struct kv_input lines = {.bytes = (char *)(uintptr_t)paragraph.p, .size = paragraph.n};
	size_t length = strlen(name);

	for (size_t at = 0; at < lines.size;) {
		struct kv_bytes line = line_at(&lines, at);

		at += line.n;
		if (line.n < length || strncasecmp(line.p, name, length) != 0)
			continue;
		line.p += length;
		line.n -= length;
		while (line.n && strchr(" \t", line.p[0])) {
			line.p++;
			line.n--;
		}
		while (line.n && strchr(" \t\r\n", line.p[line.n - 1]))
			line.n--;
		return line;
	}
	return (struct kv_bytes){NULL, 0};
}

static int record_add(struct kv_input *input, size_t *room, struct kv_record record)
{
	if (input->count == *room) {
		size_t more = *room ? 2 * *room : 1024;
		struct kv_record *records = realloc(input->records, more * sizeof(*records));

		if (!records)
			return -ENOMEM;
		input->records = records;
		*room = more;
	}
	input->records[input->count++] = record;
	input->value_size += record.value.n;
	return 0;
}

static int dpkg_split(struct kv_input *input, const char *path)
{
	size_t room = 0;

	for (size_t at = 0; at < input->size;) {
		struct kv_record record = {.value = {input->bytes + at, 0}};
		struct kv_bytes line;
		int rc;

		while (at < input->size && !line_blank(line = line_at(input, at))) {
			at += line.n;
			record.value.n += line.n;
		}
		if (record.value.n == 0) {
			at += line_at(input, at).n;
			continue;
		}
		record.key = field_get(record.value, "Package:");
		if (record.key.n == 0)
			return refuse(path, &record,
				      "a paragraph has no field Package; is this a file of dpkg?");
		rc = record_add(input, &room, record);
		if (rc)
			return rc;
	}
	return 0;
}

static int lines_split(struct kv_input *input, const char *path)
{
	size_t room = 0;

	for (size_t at = 0; at < input->size;) {
		struct kv_bytes line = line_at(input, at);
		const char *tab = memchr(line.p, '\t', line.n);
		struct kv_record record = {.key = {line.p, tab ? (size_t)(tab - line.p) : line.n}};
		int rc;

		at += line.n;
		if (!tab)
			return refuse(path, &record, "a line has no tab between key and value");
		record.value = (struct kv_bytes){tab + 1, line.n - record.key.n - 1};
		if (record.value.n && record.value.p[record.value.n - 1] == '\n')
			record.value.n--;
		rc = record_add(input, &room, record);
		if (rc)
			return rc;
	}
	return 0;
}

static int index_compare(const void *a, const void *b, void *arg)
{
	const struct kv_input *input = arg;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	int rc = kv_bytes_compare(input->records[x].key, input->records[y].key);

	return rc ? rc : (x > y) - (x < y);
}

static void keys_sort(struct kv_input *input)
{
	for (uint32_t i = 0; i < input->count; i++)
		input->by_key[i] = i;
	qsort_r(input->by_key, input->count, sizeof(*input->by_key), index_compare, input);
}

static bool key_repeats(const struct kv_input *input, size_t place)
{
	return place + 1 < input->count &&
	       kv_bytes_compare(input->records[input->by_key[place]].key,
				input->records[input->by_key[place + 1]].key) == 0;
}

static size_t key_qualify(struct kv_record *record, char *to)
{
	struct kv_bytes architecture = field_get(record->value, "Architecture:");
	struct kv_bytes name = record->key;

	memcpy(to, name.p, name.n);
	to[name.n] = ':';
	if (architecture.n)
		memcpy(to + name.n + 1, architecture.p, architecture.n);
	record->key = (struct kv_bytes){to, name.n + 1 + architecture.n};
	return record->key.n;
}

/* A package that is there for several architectures: all of its keys get theirs. */
static int keys_qualify(struct kv_input *input)
{
	bool repeated = false;
	char *to;

	for (size_t i = 0; i < input->count; i++)
		repeated |= key_repeats(input, i);
	if (!repeated)
		return 0;
	to = input->made_keys = malloc(input->size + input->count);
	if (!to)
		return -ENOMEM;
	for (size_t i = 0; i < input->count;) {
		size_t end = i;

		while (key_repeats(input, end))
			end++;
		for (size_t k = i; end > i && k <= end; k++)
			to += key_qualify(&input->records[input->by_key[k]], to);
		i = end + 1;
	}
	keys_sort(input);
	return 0;
}

/* I1 */
static int keys_check(const struct kv_input *input, const char *path)
{
	for (size_t i = 0; i < input->count; i++) {
		const struct kv_record *record = &input->records[input->by_key[i]];

		if (record->key.n == 0)
			return refuse(path, record, "a key is empty");
		if (record->key.n > KV_KEY_MAX)
			return refuse(path, record, "a key is longer than 1024 bytes");
		if (record->value.n > KV_VALUE_MAX)
			return refuse(path, record, "a value is larger than 1 GiB");
		if (key_repeats(input, i))
			return refuse(path, record, "two records have the same key");
	}
	return 0;
}

static int parse(struct kv_input *input, const char *path, enum kv_format format)
{
	int rc = format == KV_DPKG ? dpkg_split(input, path) : lines_split(input, path);

	if (rc)
		return rc;
	if (input->count > UINT32_MAX)
		return -E2BIG;
	input->by_key = malloc((input->count + 1) * sizeof(*input->by_key));
	if (!input->by_key)
		return -ENOMEM;
	keys_sort(input);
	rc = format == KV_DPKG ? keys_qualify(input) : 0;
	return rc ? rc : keys_check(input, path);
}

int kv_input_read(struct kv_input *ret, const char *path, enum kv_format format)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

	memset(ret, 0, sizeof(*ret));
	rc = fd < 0 ? -errno : kv_read_all(fd, INPUT_SIZE_MAX, &ret->bytes, &ret->size);
	if (fd >= 0)
		close(fd);
	if (rc == 0)
		rc = parse(ret, path, format);
	if (rc) {
		if (rc != -EINVAL)
			fprintf(stderr, "pheap-kv: %s: %s\n", path, strerror(-rc));
		kv_input_free(ret);
		return rc;
	}
	ret->hash = kv_hash((struct kv_bytes){ret->bytes, ret->size}) + format;
	return 0;
}

void kv_input_free(struct kv_input *input)
{
	free(input->bytes);
	free(input->records);
	free(input->by_key);
	free(input->made_keys);
	memset(input, 0, sizeof(*input));
}

size_t kv_input_find(const struct kv_input *input, struct kv_bytes key)
{
	size_t low = 0, high = input->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int rc = kv_bytes_compare(key, input->records[input->by_key[middle]].key);

		if (rc == 0)
			return input->by_key[middle];
		if (rc < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return SIZE_MAX;
}
