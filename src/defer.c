/* SPDX-License-Identifier: MIT
 *
 * defer.c: see defer.h.
 */
#include "defer.h"

#include <errno.h>

#include "error.h"
#include "savepoint.h"

/* Lines of one range beyond which it is not worth a look at each. */
#define LINES_MAX 1024u

/* F3. Adds `by` to the count of live deferred records of each line; without memory every line counts as having some. */
static void lines_count(pheap_tx *tx, uint64_t off, size_t n, int by)
{
	uint64_t first = off / 64, last = (off + n - 1) / 64;

	if (last - first >= LINES_MAX) {
		tx->defers_everywhere = true;
		return;
	}
	for (uint64_t line = first; line <= last; line++) {
		int64_t count = ph_map_get(&tx->defer_lines, line);

		if (!ph_map_put(&tx->defer_lines, line, (uint32_t)((count < 0 ? 0 : count) + by)))
			tx->defers_everywhere = true;
	}
}

static bool lines_have(const pheap_tx *tx, uint64_t off, size_t n)
{
	uint64_t first = off / 64, last = (off + n - 1) / 64;

	if (tx->defers_everywhere || last - first >= LINES_MAX)
		return true;
	for (uint64_t line = first; line <= last; line++)
		if (ph_map_get(&tx->defer_lines, line) > 0)
			return true;
	return false;
}

static bool is_deferred(const struct phd_record *r)
{
	return PHD_REC_KIND(r->target) == PHD_REC_DEFER || PHD_REC_KIND(r->target) == PHD_REC_PUBLISH;
}

static int record_drop(pheap_tx *tx, uint64_t at, uint32_t kind)
{
	struct phd_record *r = ph_log_at(&tx->log, at);
	uint64_t before = r->target;

	if (at < ph_savepoint_floor(tx)) {
		/* P3: a rollback must find the record alive again. */
		if (ph_log_units(8) * 8 > (uint64_t)(tx->log.limit - tx->log.next)) {
			int rc = ph_log_extend(tx, 8);

			if (rc)
				return rc;
		}
		memcpy(tx->log.next + sizeof(*r), &before, 8);
		ph_log_push(&tx->log, tx->lane, PHD_REC_TARGET(PHD_REC_REVIVE, at), 8);
	}
	if (kind == PHD_REC_DROPPED)
		lines_count(tx, PHD_REC_OFF(before), r->size, -1);
	/* Not a store that recovery can see: until the commit point deferred records are not looked at. */
	__atomic_store_n(&r->target, PHD_REC_TARGET(kind, PHD_REC_OFF(before)), __ATOMIC_RELEASE);
	return 0;
}

/* Settles what overlaps among the records below `end`; before each, what is older and overlaps it: else
 * that would be applied at commit over newer bytes that are in place already. */
static int settle_below(pheap_tx *tx, uint64_t off, size_t n, uint64_t end)
{
	uint64_t at = 0;

	while (at < end) {
		const struct phd_record *r = ph_log_at(&tx->log, at);
		uint64_t target = PHD_REC_OFF(r->target);
		size_t size = r->size;
		int rc;

		if (is_deferred(r) && target < off + n && off < target + size) {
			rc = settle_below(tx, target, size, at);
			if (rc)
				return rc;
			rc = ph_tx_undo(tx, target, size);
			if (rc)
				return rc;
			ph_copy(tx->h->map + target, ph_record_payload(r), size);
			rc = record_drop(tx, at, PHD_REC_DROPPED);
			if (rc)
				return rc;
		}
		at += ph_log_units(size);
	}
	return 0;
}

int ph_defer_settle(pheap_tx *tx, uint64_t off, size_t n)
{
	if (!tx->has_defers || !lines_have(tx, off, n))
		return 0;
	return settle_below(tx, off, n, ph_log_end(&tx->log));
}

/* A later DEFER over an older PUBLISH must win: the PUBLISH becomes an ordinary DEFER, in its place. */
static int publish_demote(pheap_tx *tx, uint64_t off, size_t n)
{
	uint64_t end = ph_log_end(&tx->log), at = 0;

	if (!lines_have(tx, off, n))
		return 0;
	while (at < end) {
		const struct phd_record *r = ph_log_at(&tx->log, at);
		uint64_t target = PHD_REC_OFF(r->target);
		size_t size = r->size;

		if (PHD_REC_KIND(r->target) == PHD_REC_PUBLISH && target < off + n && off < target + size) {
			int rc = record_drop(tx, at, PHD_REC_DEFER);

			if (rc)
				return rc;
		}
		at += ph_log_units(size);
	}
	return 0;
}

/* Dropping needs no REVIVE here: the commit has begun, there is no rollback any more. */
void ph_defer_drop_freed(pheap_tx *tx)
{
	uint64_t at = 0;

	while (at < ph_log_end(&tx->log)) {
		struct phd_record *r = ph_log_at(&tx->log, at);

		if (is_deferred(r) && PHD_REC_OFF(r->target) >= tx->h->data_off &&
		    ph_block_freed(tx, PHD_REC_OFF(r->target)))
			__atomic_store_n(&r->target, PHD_REC_TARGET(PHD_REC_DROPPED, 0), __ATOMIC_RELEASE);
		at += ph_log_units(r->size);
	}
}

void ph_defer_clear(pheap_tx *tx)
{
	ph_map_clear(&tx->defer_lines);
	tx->has_defers = tx->has_publishes = tx->defers_everywhere = false;
}

void ph_defer_rescan(pheap_tx *tx)
{
	uint64_t at = 0;

	ph_defer_clear(tx);
	while (at < ph_log_end(&tx->log)) {
		const struct phd_record *r = ph_log_at(&tx->log, at);

		if (is_deferred(r)) {
			tx->has_defers = true;
			tx->has_publishes |= PHD_REC_KIND(r->target) == PHD_REC_PUBLISH;
			lines_count(tx, PHD_REC_OFF(r->target), r->size, 1);
		}
		at += ph_log_units(r->size);
	}
}

static int record_add(pheap_tx *tx, uint32_t kind, uint64_t off, const char *src, size_t n)
{
	while (n) {
		size_t step = ph_log_fits(&tx->log);

		if (step < 64 && step < n) {
			int rc = ph_log_extend(tx, n < 4096 ? n : 4096);

			if (rc)
				return rc;
			step = ph_log_fits(&tx->log);
		}
		if (step > n)
			step = n;
		if (step > UINT32_MAX / 2)
			step = UINT32_MAX / 2 & ~7u;
		ph_copy(tx->log.next + sizeof(struct phd_record), src, step);
		ph_log_push(&tx->log, tx->lane, PHD_REC_TARGET(kind, off), step);
		lines_count(tx, off, step, 1);
		off += step;
		src += step;
		n -= step;
	}
	tx->has_publishes |= kind == PHD_REC_PUBLISH;
	tx->has_defers = tx->applies = true;
	tx->extras = tx->modify_long = 1;
	return 0;
}

int ph_defer_publish(pheap_tx *tx, uint64_t off, uint64_t value)
{
	return record_add(tx, PHD_REC_PUBLISH, off, (const char *)&value, 8);
}

static int defer_range(pheap_tx *tx, const void *dst, const void *src, size_t n, uint64_t *ret_off)
{
	if (!dst || !src)
		return ph_tx_fail(tx, -EINVAL, "a deferred store from or to NULL");
	*ret_off = ph_tx_range(tx, dst, n);
	if (!*ret_off)
		return ph_tx_fail(tx, PHEAP_EFOREIGN, "%zu bytes at %p are not in this heap", n, dst);
	return 0;
}

int pheap_defer(pheap_tx *tx, const void *dst, const void *src, size_t n)
{
	uint64_t off;
	int rc = ph_tx_enter(tx, "pheap_defer");

	if (rc || n == 0)
		return rc;
	rc = defer_range(tx, dst, src, n, &off);
	if (rc)
		return rc;
	rc = tx->has_publishes ? publish_demote(tx, off, n) : 0;
	if (rc == 0)
		rc = record_add(tx, PHD_REC_DEFER, off, src, n);
	return rc ? ph_tx_fail(tx, rc, NULL) : 0;
}

int pheap_defer_u64(pheap_tx *tx, const uint64_t *dst, uint64_t value)
{
	uint64_t off;
	int rc = ph_tx_enter(tx, "pheap_defer_u64");

	if (rc)
		return rc;
	rc = defer_range(tx, dst, &value, 8, &off);
	if (rc)
		return rc;
	if (off % 8)
		return ph_tx_fail(tx, -EINVAL, "pheap_defer_u64: %p is not a multiple of 8",
				  (const void *)dst);
	rc = ph_defer_publish(tx, off, value);
	return rc ? ph_tx_fail(tx, rc, NULL) : 0;
}
