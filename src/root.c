/* SPDX-License-Identifier: MIT
 *
 * root.c: see root.h.
 */
#include "root.h"

#include <errno.h>

#include "defer.h"
#include "error.h"
#include "lock.h"

#define CHAIN_MAX (1u << 20) /* longer is a cycle in a damaged file */

/* What this transaction will publish; its own calls see it at once. */
struct ph_root_pending {
	char name[PHD_NAME_SIZE];
	uint64_t entry_off, off, size;
	uint64_t serial;
	uint32_t bucket;
	bool created; /* the entry itself is new */
};

static uint32_t name_bucket(const char *name)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 0x100000001b3ull;
	return (uint32_t)(hash % PHD_ROOT_BUCKETS);
}

static int name_check(const pheap *h, const char *name, const char *call)
{
	if (!name || !*name || strnlen(name, PHD_NAME_SIZE) == PHD_NAME_SIZE)
		return ph_error(h, -EINVAL, "%s: a name has 1 to 63 bytes", call);
	return 0;
}

/* An entry of the file, or NULL when off can not be one. */
static struct phd_root *entry_at(const pheap *h, uint64_t off)
{
	if (off % 8 || !ph_heap_has(h, off, sizeof(struct phd_root)) ||
	    off + sizeof(struct phd_root) > ph_chunk_off(h, ph_chunk_count(h)))
		return NULL;
	return (struct phd_root *)(void *)(h->map + off);
}

static struct phd_root *entry_find(const pheap *h, const char *name, uint64_t *ret_off)
{
	uint64_t off = __atomic_load_n(&h->head->roots[name_bucket(name)], __ATOMIC_ACQUIRE);

	for (uint32_t i = 0; off && i < CHAIN_MAX; i++) {
		struct phd_root *e = entry_at(h, off);

		if (!e)
			return NULL;
		if (strncmp(e->name, name, PHD_NAME_SIZE) == 0) {
			*ret_off = off;
			return e;
		}
		off = e->next_off;
	}
	return NULL;
}

static struct ph_root_pending *pending_find(const pheap_tx *tx, const char *name)
{
	for (uint32_t i = tx ? tx->pending_count : 0; i-- > 0;)
		if (strcmp(tx->pending[i].name, name) == 0)
			return &tx->pending[i];
	return NULL;
}

uint64_t ph_root_private_size(const pheap_tx *tx)
{
	return tx->pending_room * sizeof(*tx->pending);
}

void ph_root_forget(pheap_tx *tx, uint64_t savepoint_id)
{
	while (tx->pending_count && tx->pending[tx->pending_count - 1].serial >= savepoint_id)
		tx->pending_count--;
}

static int pending_add(pheap_tx *tx, const char *name, uint64_t entry_off, uint64_t off, uint64_t size,
		       bool created)
{
	struct ph_root_pending *p;

	if (!ph_room(&tx->pending, &tx->pending_room, tx->pending_count + 1, sizeof(*tx->pending)))
		return -ENOMEM;
	tx->extras = true;
	p = &tx->pending[tx->pending_count++];
	*p = (struct ph_root_pending){.entry_off = entry_off,
				      .off = off,
				      .size = size,
				      .serial = tx->savepoint_serial,
				      .bucket = name_bucket(name),
				      .created = created};
	memcpy(p->name, name, strlen(name));
	return 0;
}

/* The list's head as this transaction will leave it. */
static uint64_t bucket_head(const pheap_tx *tx, uint32_t bucket)
{
	for (uint32_t i = tx->pending_count; i-- > 0;)
		if (tx->pending[i].created && tx->pending[i].bucket == bucket)
			return tx->pending[i].entry_off;
	return tx->h->head->roots[bucket];
}

static int entry_create(pheap_tx *tx, const char *name, uint64_t off, uint64_t size)
{
	struct pheap *h = tx->h;
	uint32_t bucket = name_bucket(name);
	struct phd_root entry = {.next_off = bucket_head(tx, bucket), .off = off, .size = size};
	uint64_t entry_off, room;
	int rc = ph_block_alloc(tx, sizeof(entry), 8, PHD_TYPE_ROOT, &entry_off, &room);

	if (rc)
		return rc;
	memcpy(entry.name, name, strlen(name));
	ph_copy(h->map + entry_off, &entry, sizeof(entry));
	rc = ph_defer_publish(tx, h->super.head_off + offsetof(struct phd_head, roots) + bucket * 8ull,
			      entry_off);
	return rc ? rc : pending_add(tx, name, entry_off, off, size, true);
}

static int entry_bind(pheap_tx *tx, const char *name, uint64_t entry_off, uint64_t off, uint64_t size)
{
	int rc = ph_defer_publish(tx, entry_off + offsetof(struct phd_root, size), size);

	if (rc == 0)
		rc = ph_defer_publish(tx, entry_off + offsetof(struct phd_root, off), off);
	return rc ? rc : pending_add(tx, name, entry_off, off, size, false);
}

static int name_bind(pheap_tx *tx, const char *name, uint64_t off, uint64_t size)
{
	const struct ph_root_pending *p = pending_find(tx, name);
	uint64_t entry_off = p ? p->entry_off : 0;

	if (!entry_off)
		entry_find(tx->h, name, &entry_off);
	return entry_off ? entry_bind(tx, name, entry_off, off, size) : entry_create(tx, name, off, size);
}

/* Where the name points now, for this transaction: 0 nowhere. */
static uint64_t name_get(const pheap *h, const pheap_tx *tx, const char *name, uint64_t *ret_size)
{
	const struct ph_root_pending *p = pending_find(tx, name);
	struct phd_root *e;
	uint64_t entry_off, off;

	if (p) {
		*ret_size = p->size;
		return p->off;
	}
	e = entry_find(h, name, &entry_off);
	if (!e)
		return 0;
	off = __atomic_load_n(&e->off, __ATOMIC_ACQUIRE);
	*ret_size = e->size;
	return ph_heap_has(h, off, 1) ? off : 0;
}

static int root_check(pheap_tx *tx, const char *name, uint64_t off, uint64_t said, size_t n, uint32_t type)
{
	struct ph_block b;
	const char *why;

	if (ph_block_find(tx->h, tx, off, &b, &why))
		return ph_tx_fail(tx, PHEAP_ECORRUPT,
				  "root \"%s\" at 0x%llx is %s; run pheap-fsck on the file", name,
				  (unsigned long long)off, why);
	if (PHD_DESC_TYPE(b.desc) != type)
		return ph_tx_fail(tx, PHEAP_ELAYOUT,
				  "root \"%s\" has type %u in the file, %u in this program", name,
				  PHD_DESC_TYPE(b.desc), type);
	if (said ? said != n : n > b.size)
		return ph_tx_fail(tx, PHEAP_ELAYOUT,
				  "root \"%s\" has %llu bytes in the file, %zu in this program", name,
				  (unsigned long long)(said ? said : b.size), n);
	return 0;
}

static int root_create(pheap_tx *tx, const char *name, size_t n, uint32_t type, uint64_t *ret_off)
{
	uint64_t room;
	int rc = ph_block_alloc(tx, n, n % 16 ? 8 : 16, type, ret_off, &room);

	if (rc)
		return rc;
	ph_zero(tx->h->map + *ret_off, room);
	return name_bind(tx, name, *ret_off, n);
}

const void *pheap_root(pheap_tx *tx, const char *name, size_t n, uint32_t type)
{
	uint64_t off, size = 0;
	int rc;

	if (tx && tx->magic == PH_TX_MAGIC && tx->thread == &ph_thread && tx->writable_by && tx->read_only &&
	    !tx->h->forked)
		rc = tx->doom; /* finding is reading */
	else
		rc = ph_tx_enter(tx, "pheap_root");
	if (rc || !tx)
		return NULL;
	rc = name_check(tx->h, name, "pheap_root");
	if (rc == 0 && (n == 0 || type > PHD_TYPE_USER_MAX))
		rc = ph_error(tx->h, -EINVAL, "pheap_root: a size of 0, or a type above 65535");
	if (rc == 0 && n > tx->h->super.size_max)
		rc = ph_error(tx->h, -ENOSPC, "pheap_root: %zu bytes are more than the heap's max_size", n);
	if (rc)
		goto fail;
	off = name_get(tx->h, tx, name, &size);
	if (!off && tx->read_only) {
		rc = ph_error(tx->h, -ENOENT,
			      "pheap_root: no root \"%s\", and a transaction that reads can not create it",
			      name);
		goto fail;
	}
	if (!off && tx->mode == PHD_MODE_CONCURRENT) {
		rc = ph_lock_stripe(tx, tx->h->super.stripe_count); /* Q1 */
		if (rc)
			goto fail;
		off = name_get(tx->h, tx, name, &size);
	}
	if (off)
		rc = root_check(tx, name, off, size, n, type);
	else
		rc = root_create(tx, name, n, type, &off);
	if (rc == 0)
		return tx->base + off;
fail:
	ph_tx_fail(tx, rc, NULL);
	return NULL;
}

int pheap_root_set(pheap_tx *tx, const char *name, const void *p)
{
	uint64_t off = 0, size = 0;
	struct ph_block b;
	const char *why;
	int rc = ph_tx_enter(tx, "pheap_root_set");

	if (rc)
		return rc;
	rc = name_check(tx->h, name, "pheap_root_set");
	if (rc == 0 && p) {
		off = ph_tx_range(tx, p, 1);
		if (!off)
			rc = ph_error(tx->h, PHEAP_EFOREIGN, "pheap_root_set: %p is not in this heap", p);
		else if (ph_block_find(tx->h, tx, off, &b, &why))
			rc = ph_error(tx->h, -EINVAL, "pheap_root_set: %p is %s", p, why);
		else if (PHD_DESC_TYPE(b.desc) > PHD_TYPE_USER_MAX &&
			 PHD_DESC_TYPE(b.desc) != PHD_TYPE_PERMITS)
			rc = ph_error(tx->h, -EINVAL, "pheap_root_set: %p belongs to the heap itself", p);
	}
	if (rc == 0 && tx->mode == PHD_MODE_CONCURRENT)
		rc = ph_lock_stripe(tx, tx->h->super.stripe_count);
	if (rc == 0 && (off || name_get(tx->h, tx, name, &size)))
		rc = name_bind(tx, name, off, 0);
	return ph_fail_if(tx, rc);
}

const void *pheap_find(const pheap *h, const char *name)
{
	uint64_t off, size;

	ph_heap_check(h, "pheap_find");
	if (h->forked || name_check(h, name, "pheap_find"))
		return NULL;
	off = name_get(h, pheap_current(h), name, &size);
	return off ? h->base + off : NULL;
}

/* A walk by names ends because each name is met once, in its bucket's list: is the entry at off the first
 * one of its name, and behind the one at `before` (0: the list's head)? */
static bool entry_follows(const pheap *h, uint32_t bucket, uint64_t before, uint64_t off)
{
	const struct phd_root *e = entry_at(h, off);
	uint64_t at = h->head->roots[bucket];
	bool passed = before == 0;

	if (!*e->name || strnlen(e->name, PHD_NAME_SIZE) == PHD_NAME_SIZE || name_bucket(e->name) != bucket)
		return false;
	for (uint32_t i = 0; at && i < CHAIN_MAX; i++) {
		const struct phd_root *other = entry_at(h, at);

		if (!other)
			return false;
		if (strncmp(other->name, e->name, PHD_NAME_SIZE) == 0)
			return passed && at == off;
		passed |= at == before;
		at = other->next_off;
	}
	return false;
}

int pheap_root_next(const pheap *h, char name[64])
{
	uint32_t bucket = 0, steps = 0;
	uint64_t off, before = 0;

	ph_heap_check(h, "pheap_root_next");
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	if (!name || strnlen(name, PHD_NAME_SIZE) == PHD_NAME_SIZE)
		return ph_error(h, -EINVAL, "pheap_root_next: name must be \"\" or what the last call gave");
	off = h->head->roots[0];
	if (*name) {
		struct phd_root *e;

		bucket = name_bucket(name);
		e = entry_find(h, name, &off);
		if (!e)
			return ph_error(h, -EINVAL, "pheap_root_next: no root was ever named \"%s\"", name);
		before = off;
		off = e->next_off;
	}
	for (;;) {
		for (; off; steps++) {
			const struct phd_root *e = entry_at(h, off);
			bool bound = e && __atomic_load_n(&e->off, __ATOMIC_ACQUIRE);

			if (!e || steps == CHAIN_MAX || (bound && !entry_follows(h, bucket, before, off)))
				return ph_error(h, PHEAP_ECORRUPT,
						"the list of roots is damaged; run pheap-fsck on the file");
			if (bound) {
				memcpy(name, e->name, PHD_NAME_SIZE);
				name[PHD_NAME_SIZE - 1] = 0;
				return 0;
			}
			off = e->next_off;
		}
		if (++bucket >= PHD_ROOT_BUCKETS)
			return -ENOENT;
		off = h->head->roots[bucket];
		before = 0;
	}
}
