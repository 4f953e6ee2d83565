/* SPDX-License-Identifier: MIT
 *
 * store.c: see store.h.
 */
#include "store.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "plan.h"

static const struct pheap_type *types_get(uint64_t *ret_count)
{
	static uint32_t shard_offs[KV_SHARD_COUNT];
	static const uint32_t bucket_offs[] = {offsetof(struct kv_bucket, first)};
	static const uint32_t entry_offs[] = {offsetof(struct kv_entry, next),
					      offsetof(struct kv_entry, value)};
	static const struct pheap_type types[] = {
		{PHEAP_TYPE(struct kv_map), 8, sizeof(struct kv_map), "map", shard_offs, KV_SHARD_COUNT},
		{PHEAP_TYPE(struct kv_bucket), 8, sizeof(struct kv_bucket), "bucket", bucket_offs, 1},
		{PHEAP_TYPE(struct kv_entry), 8, sizeof(struct kv_entry), "entry", entry_offs, 2},
		{KV_TYPE_VALUE, 1, 1, "value", NULL, 0},
		{PHEAP_TYPE(struct kv_load), 8, sizeof(struct kv_load), "load", NULL, 0},
		{PHEAP_TYPE(struct kv_life), 8, sizeof(struct kv_life), "life", NULL, 0},
	};

	for (uint32_t i = 0; i < KV_SHARD_COUNT; i++)
		shard_offs[i] = (uint32_t)(offsetof(struct kv_map, shards) + i * sizeof(struct kv_shard) +
					   offsetof(struct kv_shard, buckets));
	*ret_count = sizeof(types) / sizeof(types[0]);
	return types;
}

int kv_store_fail(const struct kv_store *store, int rc, const char *what)
{
	const char *detail = pheap_error_detail(store->h);

	fprintf(stderr, "pheap-kv: %s: %s\n", what, *detail ? detail : pheap_strerror(rc));
	return rc;
}

/* The library's sentence begins with the file, and may hold a clause for who writes programs. */
static int open_tell(const char *path, enum kv_open how, int rc)
{
	const char *detail = pheap_error_detail(NULL), *flag, *begin = NULL, *end;
	size_t n = strncmp(detail, path, strlen(path)) == 0 ? strlen(path) : 0;

	if (rc == -ENOENT && how != KV_MAKE && access(path, F_OK) != 0 && errno == ENOENT) {
		fprintf(stderr, "pheap-kv: %s: no such file; put or load makes one\n", path);
		return rc;
	}
	if (!*detail)
		return kv_store_fail(&(struct kv_store){0}, rc, path);
	flag = strstr(detail + n, "PHEAP_");
	for (const char *p = detail + n; flag && p < flag; p++)
		if (strncmp(p, "; ", 2) == 0)
			begin = p;
	end = begin ? strstr(flag, "; ") : NULL;
	fprintf(stderr, "pheap-kv: %.*s%s\n", (int)(begin ? begin - detail : (ptrdiff_t)strlen(detail)),
		detail, end ? end : "");
	return rc;
}

static int was_killed(const struct kv_store *store)
{
	return !store->info.was_clean && store->info.recovery_ns > 0;
}

void kv_store_tell_recovery(const struct kv_store *store)
{
	const struct pheap_info *info = &store->info;

	if (!was_killed(store))
		return;
	printf("after a kill: %llu undone, %llu completed, in %llu us\n",
	       (unsigned long long)info->recovered_back, (unsigned long long)info->recovered_forward,
	       (unsigned long long)info->recovery_ns / 1000);
	fflush(stdout);
}

/* Adds what was recovered between two looks. */
static int life_write(pheap_tx *tx, const struct kv_store *store, const struct pheap_info *from,
		      const struct pheap_info *to)
{
	uint64_t key = pheap_offset(store->h, store->life);
	uint64_t back = to->recovered_back - from->recovered_back;
	uint64_t forward = to->recovered_forward - from->recovered_forward;
	uint64_t ns = to->recovery_ns - from->recovery_ns;
	struct kv_life *life;
	int rc = pheap_lock(tx, &key, 1);

	if (rc)
		return rc;
	life = PHEAP_MODIFY(tx, store->life);
	if (!life)
		return pheap_error(tx);
	life->kill_count++;
	life->inside_count += back + forward > 0;
	life->back_count += back;
	life->forward_count += forward;
	if (life->recovery_ns_max < ns)
		life->recovery_ns_max = ns;
	return 0;
}

/* Beside others: once the roots are there, this changes nothing but "life". */
static int roots_make(pheap_tx *tx, void *arg)
{
	static const struct pheap_info nothing;
	struct kv_store *store = arg;

	store->map = PHEAP_ROOT(tx, "map", struct kv_map);
	store->load = PHEAP_ROOT(tx, "load", struct kv_load);
	store->life = PHEAP_ROOT(tx, "life", struct kv_life);
	if (!store->map || !store->load || !store->life)
		return pheap_error(tx);
	return was_killed(store) ? life_write(tx, store, &nothing, &store->info) : 0; /* S1 */
}

struct note {
	struct kv_store *store;
	struct pheap_info now;
};

static int note_run(pheap_tx *tx, void *arg)
{
	struct note *note = arg;

	return life_write(tx, note->store, &note->store->noted, &note->now);
}

void kv_store_note_recovery(struct kv_store *store)
{
	struct note note = {.store = store};

	if (!store->life || store->info.read_only || pheap_info(store->h, &note.now, sizeof(note.now)) != 0 ||
	    note.now.recovery_ns == store->noted.recovery_ns)
		return;
	if (pheap_run(store->h, PHEAP_CONCURRENT, note_run, &note) == 0)
		store->noted = note.now;
}

static int roots_get(struct kv_store *store, enum kv_open how)
{
	if (how != KV_READ)
		return pheap_run(store->h, PHEAP_CONCURRENT, roots_make, store);
	store->map = pheap_find(store->h, "map");
	store->load = pheap_find(store->h, "load");
	store->life = pheap_find(store->h, "life");
	return 0;
}

/* Alone and empty: nobody's work goes with the file. */
static bool store_unused(const struct kv_store *store)
{
	struct pheap_stats stats;
	struct kv_shard sum = {0};

	if (pheap_stats(store->h, &stats, sizeof(stats)) != 0 || stats.member_count > 1)
		return false;
	if (store->map)
		kv_map_sum(store->map, &sum);
	return sum.record_count == 0 && (!store->load || kv_plan_done(store->load) == 0);
}

void kv_store_abandon(struct kv_store *store)
{
	if (store->made && store_unused(store))
		(void)unlink(store->path); /* S2; before the close: others would find the heap free then */
	(void)pheap_close(store->h);
	store->h = NULL;
}

static int open_fail(struct kv_store *store, int rc, const char *path)
{
	kv_store_fail(store, rc, path);
	store->map = NULL; /* a transaction that failed left no roots */
	store->load = NULL;
	kv_store_abandon(store);
	return rc;
}

static int heap_open(struct kv_store *ret, const char *path, enum kv_open how, struct pheap_options *opt)
{
	uint32_t flags = how == KV_READ ? PHEAP_RDONLY : how == KV_MAKE ? PHEAP_CREATE : 0;
	int rc;

	if (how != KV_MAKE)
		return pheap_open(path, flags, opt, &ret->h);
	rc = pheap_open(path, flags | PHEAP_EXCL, opt, &ret->h);
	ret->made = rc == 0;
	if (rc != -EEXIST)
		return rc;
	opt->durability = 0; /* heap_check tells it in words for users */
	return pheap_open(path, flags, opt, &ret->h);
}

const char *kv_durability_text(uint32_t durability)
{
	return durability == PHEAP_SYNC ? "sync" : durability == PHEAP_EPOCH ? "epoch" : "process";
}

/* Not that of somebody else's layout, and as durable as was asked for. */
static int heap_check(const struct kv_store *store, const struct kv_new *with)
{
	const struct pheap_info *info = &store->info;

	/* a heap without a layout name opens under any: its roots are somebody else's */
	if (strcmp(info->layout, KV_LAYOUT) != 0) {
		fprintf(stderr, "pheap-kv: %s: this heap was not made by pheap-kv (its layout is \"%s\")\n",
			store->path, info->layout);
		return PHEAP_ELAYOUT;
	}
	if (with->durability && with->durability != info->durability) {
		fprintf(stderr,
			"pheap-kv: %s: was made with --durability %s, which cannot be changed later\n",
			store->path, kv_durability_text(info->durability));
		return -EINVAL;
	}
	return 0;
}

int kv_store_open(struct kv_store *ret, const char *path, enum kv_open how, const struct kv_new *with)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	int rc;

	memset(ret, 0, sizeof(*ret));
	ret->path = path;
	opt.max_size = with->max_size;
	opt.durability = how == KV_MAKE ? with->durability : 0;
	opt.layout = KV_LAYOUT;
	opt.types = types_get(&opt.type_count);
	rc = heap_open(ret, path, how, &opt);
	if (rc) {
		ret->h = NULL;
		return open_tell(path, how, rc);
	}
	rc = pheap_info(ret->h, &ret->info, sizeof(ret->info));
	if (rc)
		return open_fail(ret, rc, path);
	rc = heap_check(ret, with);
	if (rc) {
		(void)pheap_close(ret->h);
		ret->h = NULL;
		return rc;
	}
	ret->noted = ret->info;
	rc = roots_get(ret, how);
	return rc ? open_fail(ret, rc, path) : 0;
}

int kv_store_close(struct kv_store *store)
{
	int rc;

	kv_store_note_recovery(store);
	rc = pheap_close(store->h);
	if (rc) {
		struct kv_store none = {0};

		kv_store_fail(&none, rc, "closing the heap");
	}
	store->h = NULL;
	return rc;
}
