/* SPDX-License-Identifier: MIT
 *
 * join.c: recovery by the living. A process joins a heap in which a member has died (somebody else is
 * attached, so it is no first opener), allocates as far as the dead one's locks let it, and only then
 * recovers it.
 *
 * Why: words that free themselves and latches that hold until idle matter only here; a first opener
 * recovers all before it does anything. What it allocated before must survive what the recovery applies or
 * undoes.
 */
#include "explore.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "layout.h"

#define OWN_COUNT 12u
#define MEMBERS_MAX 8u

/* Sizes and types of the oracle's usual blocks: the same runs. */
static const size_t own_sizes[OWN_COUNT] = {8, 24, 40, 56, 72, 88, 104, 120, 300, 700, 5000, 17000};

struct own {
	pheap *h;
	uint64_t offs[OWN_COUNT];
	uint32_t type;
};

static int failed(pheap *h, const char *call, int rc, char *why, size_t n)
{
	snprintf(why, n, "beside the dead: %s: %d (%s)", call, rc, pheap_error_detail(h));
	return -1;
}

/* 0 also when there is no space: then there is nothing to look at. */
static int own_make(struct own *own, char *why, size_t n)
{
	pheap_tx *tx;
	int rc = pheap_begin(own->h, PHEAP_CONCURRENT, &tx);

	if (rc)
		return failed(own->h, "begin", rc, why, n);
	for (unsigned i = 0; i < OWN_COUNT; i++) {
		void *p = pheap_alloc(tx, own_sizes[i], own->type);

		if (!p)
			break;
		memset(p, 0xa0 + (int)i, own_sizes[i]);
		own->offs[i] = pheap_offset(own->h, p);
	}
	rc = pheap_commit(tx);
	if (rc)
		memset(own->offs, 0, sizeof(own->offs));
	return rc && rc != -ENOSPC ? failed(own->h, "commit", rc, why, n) : 0;
}

static int own_check(const struct own *own, char *why, size_t n)
{
	for (unsigned i = 0; i < OWN_COUNT; i++) {
		const uint8_t *p = pheap_at(own->h, own->offs[i]);

		for (size_t k = 0; p && k < own_sizes[i]; k++)
			if (p[k] != 0xa0 + i) {
				snprintf(
					why, n,
					"beside the dead: block %#llx, committed before the recovery, has lost byte %zu",
					(unsigned long long)own->offs[i], k);
				return -1;
			}
	}
	return 0;
}

static int own_free(struct own *own, char *why, size_t n)
{
	pheap_tx *tx;
	int rc = pheap_begin(own->h, PHEAP_CONCURRENT, &tx);

	if (rc)
		return failed(own->h, "begin", rc, why, n);
	for (unsigned i = 0; i < OWN_COUNT; i++)
		(void)pheap_free(tx, pheap_at(own->h, own->offs[i]));
	rc = pheap_commit(tx);
	return rc ? failed(own->h, "free of what was committed before the recovery", rc, why, n) : 0;
}

static int live(struct explore *x, struct own *own, struct level *l, char *why, size_t n)
{
	uint32_t count;
	int rc;

	if (own_make(own, why, n))
		return -1;
	rc = pheap_recover(own->h, &count);
	if (rc)
		return failed(own->h, "recover", rc, why, n);
	if (own_check(own, why, n) || own_free(own, why, n))
		return -1;
	return explore_match(x, own->h, l, x->living_has, why, n);
}

/* Who comes in recovers the dead. To be there already when somebody dies is to come in while he looks alive: `alive` says
 * for how long. */
static int open_beside(const struct explore *x, struct level *l, bool alive, pheap **ret)
{
	const struct phd_super *s = (const void *)l->file->bytes;
	const struct phd_member *members = (const void *)(l->file->bytes + s->member_off);
	int dying[MEMBERS_MAX], rc;
	unsigned count = 0;
	char path[16];

	(void)memfile_bystander(l->file, PHD_LOCK_ANY);
	for (uint32_t i = 0; i < s->member_count && count < MEMBERS_MAX; i++)
		if (members[i].attachment && members[i].attachment == x->living)
			(void)memfile_bystander(l->file, PHD_LOCK_SLOT + i);
		else if (members[i].attachment && alive)
			dying[count++] = memfile_bystander(l->file, PHD_LOCK_SLOT + i);
	snprintf(path, sizeof(path), "mem:%u", l->depth);
	rc = pheap_open(path, 0, NULL, ret);
	while (count)
		memfile_die(dying[--count]);
	return rc;
}

static int leave(pheap *h, struct level *l, int fits, char *why, size_t n)
{
	int rc;

	if (pheap_current(h))
		pheap_abort(pheap_current(h));
	rc = pheap_close(h);
	if (rc && fits > 0)
		fits = failed(h, "close", rc, why, n);
	memfile_kill(l->file);
	return fits;
}

int explore_join(struct explore *x, struct level *l, char *why, size_t n)
{
	struct own own = {.type = (uint32_t)(x->turn % 3)};
	int rc = open_beside(x, l, true, &own.h);

	if (rc) {
		snprintf(why, n, "join: %d (%s)", rc, pheap_error_detail(NULL));
		return -1;
	}
	return leave(own.h, l, live(x, &own, l, why, n), why, n);
}

int explore_rejoin(struct explore *x, struct level *l, bool record, char *why, size_t n)
{
	int fits = -1, rc;
	pheap *h;

	explore_report(x, l, record);
	rc = open_beside(x, l, x->turn % 2, &h);
	if (rc) {
		explore_report(x, NULL, false);
		snprintf(why, n, "join: %d (%s)", rc, pheap_error_detail(NULL));
		return -1;
	}
	rc = pheap_recover(h, NULL);
	explore_report(x, l, false);
	if (rc)
		(void)failed(h, "recover", rc, why, n);
	else
		fits = explore_match(x, h, l, x->living_has, why, n);
	fits = leave(h, l, fits, why, n);
	explore_report(x, NULL, false);
	return fits;
}
