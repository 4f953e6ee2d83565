/* SPDX-License-Identifier: MIT
 *
 * diskerror.c: heaps with a WAL on a disk that fails: each call of the library, one at a time, in pairs, and for good.
 *
 * What: a heap that is new, or was closed, killed, cut, or poisoned; opened, changed by one or two members, and closed, while a
 * call fails. Then opened again, in the same boot or after a power cut, perhaps with more failures; and used, closed, cut
 * and opened once more, which shows whether anybody went on with what only the page cache has.
 *
 * Invariants
 *   B1  An error only if a call failed; a sentence with it, and nothing left open.
 *   B2  A sync that failed poisons the heap for all members; reading goes on.
 *   B3  After a power cut, or poison, the next open has a state from the last one that was acknowledged to the last one that was
 *       begun; without either it has the last one.
 *   B4  What is acknowledged after that survives a cut.
 *
 * Usage: diskerror [sampled [seed [first run]]]; sampled: how many runs with several failures; "all" for each code at each call
 * as well.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "heap.h"
#include "keeper.h"
#include "ledger.h"
#include "mutant.h"
#include "weakdisk.h"

#define HISTORY_MAX 80u
#define BASES_MAX 16u
#define BASE_CLOSED 1u
#define BASE_FULL 4u
#define OPEN_TRIES 8
#define FAILURES_MAX 10
#define ALARM_S 60

/* What is known of a heap: states[now] is visible, perhaps the one after it; states[low] is acknowledged. */
struct known {
	struct ledger states[HISTORY_MAX];
	unsigned low, now;
	bool more;     /* states[now + 1] may have become visible */
	bool poisoned; /* told so */
};

/* How runs begin. */
struct base {
	const char *name;
	struct disk_image image;
	struct known known;
	bool cut;
	unsigned steps;
	bool hard; /* ends with SIGKILL, then a power cut */
};

static struct base bases[BASES_MAX];
static unsigned base_count;
static uint32_t level;

/* The run. */
static struct known *known;
static struct known run_known;
static pheap *members[2];
static uint64_t serial, seed, run_number;
static struct rng script;
static const struct base *base;
static const char *place = "";
static char faults_text[300];
static long calls[DISK_FNS]; /* of the first life */
static unsigned long passed, failed, runs, tried, opened_count, poisoned_count, cut_count, big_count,
	full_count;

static bool __attribute__((format(printf, 2, 3))) expect(bool good, const char *format, ...)
{
	va_list args;

	passed += good;
	failed += !good;
	if (good)
		return true;
	va_start(args, format);
	printf("violation: ");
	vprintf(format, args);
	printf("\n  at %s; %s; %s\n  %s\n  %s\n  replay: 0 %llu %llu\n", place, base ? base->name : "",
	       level == PHEAP_SYNC ? "sync" : "epoch", faults_text, pheap_error_detail(NULL),
	       (unsigned long long)seed, (unsigned long long)run_number);
	va_end(args);
	if (failed >= FAILURES_MAX) {
		printf("%lu passed, %lu failed\n", passed, failed);
		exit(1);
	}
	return false;
}

static void on_crash(int signal)
{
	char text[400];
	int n = snprintf(text, sizeof(text),
			 "violation: signal %d at %s; %s; %s\n  %.150s\n  replay: 0 %llu %llu\n", signal,
			 place, base ? base->name : "", level == PHEAP_SYNC ? "sync" : "epoch", faults_text,
			 (unsigned long long)seed, (unsigned long long)run_number);

	(void)!write(1, text, (size_t)n);
	_exit(1);
}

/* ---- what is known ---- */

static void acknowledged(void)
{
	known->low = known->now;
}

static void committed(const struct ledger *state)
{
	known->states[++known->now] = *state;
	if (known->now + 2 >= HISTORY_MAX)
		exit(2);
}

/* Which of [from, to] does the heap hold? -1: none. */
static int state_find(pheap *h, unsigned from, unsigned to)
{
	struct ledger got;
	const char *why;
	int rc = ledger_read(h, &got, &why);

	if (!expect(rc == 0, "reading gives %d: %s", rc, why ? why : ""))
		return -1;
	for (unsigned i = to + 1; i-- > from;)
		if (ledger_same(&got, &known->states[i]))
			return (int)i;
	expect(false, "it holds transaction %llu, not %llu to %llu", (unsigned long long)got.number,
	       (unsigned long long)known->states[from].number, (unsigned long long)known->states[to].number);
	return -1;
}

/* After a failure: is the heap the same for all members, and can it be read? */
static void settle_once(bool must)
{
	bool poisoned[2] = {false, false};

	for (unsigned i = 0; i < 2; i++) {
		pheap_tx *tx;
		int rc, found;

		if (!members[i])
			continue;
		rc = pheap_begin(members[i], 0, &tx);
		if (rc == 0)
			pheap_abort(tx);
		poisoned[i] = rc == PHEAP_EPOISONED;
		expect(rc == 0 || rc == PHEAP_EPOISONED || weakdisk.fired, "a later begin gives %d", rc);
		expect(!must || poisoned[i], "member %u is not told: begin gives %d", i, rc);
		expect(!known->poisoned || poisoned[i], "member %u is not told any more: begin gives %d", i,
		       rc);
		found = state_find(members[i], known->now, known->now + known->more);
		if (found > (int)known->now) {
			known->now = (unsigned)found;
			known->more = false;
		}
	}
	expect(weakdisk.fired || !members[0] || !members[1] || poisoned[0] == poisoned[1],
	       "only one member is told");
	known->poisoned |= poisoned[0] || poisoned[1];
}

/* Looking may meet the next failure. */
static void settle(bool must)
{
	bool fired = weakdisk.fired;

	for (int i = 0; i < 2 + (int)FAULTS_MAX; i++) {
		weakdisk.fired = false;
		settle_once(must);
		fired |= weakdisk.fired;
		if (!weakdisk.fired)
			break;
	}
	weakdisk.fired = fired;
}

/* ---- calls ---- */

/* After each: has it met a failure? */
static bool fired_at, open_sync;

static void enter(const char *what)
{
	place = what;
	fired_at = weakdisk.fired;
	weakdisk.fired = weakdisk.fired_sync = false;
}

static void leave(int rc, const char *what)
{
	bool fired = weakdisk.fired, sync = weakdisk.fired_sync;

	if (rc)
		expect(fired || known->poisoned || rc == -E2BIG, "%s gives %d, and no call failed", what, rc);
	big_count += rc == -E2BIG;
	if (sync && rc && !known->poisoned)
		expect(rc == PHEAP_EPOISONED, "%s gives %d after a sync that failed", what, rc);
	if (rc) {
		const char *text = pheap_error_detail(members[0] ? members[0] : members[1]);
		const char *other = pheap_error_detail(members[1]);

		expect(*text || *other || rc == -ENOMEM, "%s gives %d without a sentence", what, rc);
	}
	if (fired || (rc && rc != -E2BIG)) {
		place = "after it";
		settle(sync);
	}
	weakdisk.fired |= fired_at;
}

static void transact(pheap *h)
{
	struct ledger next = known->states[known->now];
	uint64_t way = rng_below(&script, 8), lsn = 0;
	pheap_tx *tx;
	int rc;

	enter("a change");
	rc = ledger_change(h, ++serial, &next, &tx);
	if (rc) {
		leave(rc, "a change");
		return;
	}
	if (way == 0) {
		place = "an abort";
		pheap_abort(tx);
		leave(0, "an abort");
		return;
	}
	place = way < 3 ? "an asynchronous commit" : "a commit";
	known->states[known->now + 1] = next;
	known->more = true;
	rc = way < 3 ? pheap_commit_async(tx, &lsn) : pheap_commit(tx);
	if (rc && rc != PHEAP_EPOISONED)
		known->more = false;
	if (rc == 0) {
		known->more = false;
		committed(&next);
		if (way >= 3 && level == PHEAP_SYNC)
			acknowledged();
	}
	leave(rc, place);
	if (way != 1 || rc)
		return;
	enter("a wait");
	rc = pheap_wait(h, lsn, 10000);
	if (rc == 0)
		acknowledged();
	leave(rc, "a wait");
}

static void checkpoint(pheap *h)
{
	int rc;

	enter("a checkpoint");
	rc = pheap_checkpoint(h);
	if (rc == 0)
		acknowledged();
	leave(rc, "a checkpoint");
}

static int member_open(unsigned i, uint32_t flags)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	int rc;

	opt.durability = level;
	opt.initial_size = 330 << 10;
	opt.max_size = 1200 << 10;
	opt.journal_size = 64 << 10;
	opt.lane_count = 8;
	opt.member_count = 6;
	opt.epoch_ms = 3600000;
	enter(i ? "open by another" : "open");
	weakdisk.device = i;
	rc = pheap_open(DISK_PATH, flags, &opt, &members[i]);
	opened_count++;
	open_sync = weakdisk.fired_sync;
	if (rc) {
		expect(weakdisk.fired || weakdisk.boot_hidden, "open gives %d, and no call failed", rc);
		expect(*pheap_error_detail(NULL), "open gives %d without a sentence", rc);
		expect(i || (weakdisk.fds == 0 && weakdisk.maps == 0), "a descriptor or a mapping is left");
	}
	weakdisk.fired |= fired_at;
	return rc;
}

static void member_close(unsigned i)
{
	bool last = !members[i ^ 1], fired;
	int rc;

	if (!members[i])
		return;
	enter(last ? "the last close" : "a close");
	rc = pheap_close(members[i]);
	fired = weakdisk.fired;
	members[i] = NULL;
	expect(rc == 0 || fired || known->poisoned, "close gives %d, and no call failed", rc);
	expect(!last || rc || !known->poisoned, "the last close of a poisoned heap gives 0");
	expect(rc == 0 || *pheap_error_detail(NULL), "close gives %d without a sentence", rc);
	if (last && (weakdisk.fired_sync || rc == PHEAP_EPOISONED))
		known->poisoned = true; /* what the file has is not known */
	if (last && rc == 0)
		acknowledged();
	if (last)
		expect(weakdisk.fds == 0 && weakdisk.maps == 0, "a descriptor or a mapping is left");
	weakdisk.fired |= fired_at;
}

/* ---- a run ---- */

static void power_cut(void)
{
	struct disk_image image;

	weakdisk_take(&image);
	weakdisk_put(&image, true);
	disk_image_free(&image);
	cut_count++;
}

/* Opens it, with what failures are left; then it holds what it has to. sure: no cut, no poison. */
static bool reopen(bool sure, uint32_t flags)
{
	int rc = -1, found;

	for (int i = 0; i < OPEN_TRIES && rc; i++) {
		if (i == OPEN_TRIES / 2) { /* the disk is well again */
			weakdisk.stays = 0;
			weakdisk.fault_count = weakdisk.fault_at;
		}
		rc = member_open(0, flags);
		/* What it had begun to make durable is lost as in a cut. */
		sure &= !(rc && open_sync);
		if (rc && rng_below(&script, 4) == 0) {
			power_cut();
			sure = false;
		}
	}
	if (!expect(rc == 0, "the heap does not open any more: %d", rc))
		return false;
	/* Where the boot is not known, power may have been cut. */
	if (known->poisoned || weakdisk.boot_hidden)
		sure = false;
	place = "after the open";
	found = state_find(members[0], sure ? known->now : known->low, known->now + known->more);
	known->more = known->poisoned = false;
	if (found < 0)
		return false;
	known->now = (unsigned)found;
	if (known->low > known->now)
		known->low = known->now;
	if (weakdisk.fired) {
		place = "after the open";
		settle(false);
	}
	return true;
}

static void work(unsigned steps)
{
	for (unsigned i = 0; i < steps; i++) {
		pheap *h = members[1] && rng_below(&script, 3) == 0 ? members[1] : members[0];

		if (!h)
			h = members[1];
		if (i % 7 == 5)
			checkpoint(h);
		else
			transact(h);
	}
}

/* The image is what the file is from now on; what is open is of another one, and goes. */
static void abandon(struct disk_image *image, bool cut)
{
	weakdisk.quiet = true;
	for (unsigned i = 0; i < 2; i++) {
		(void)pheap_close(members[i]);
		members[i] = NULL;
	}
	weakdisk.quiet = false;
	weakdisk_put(image, cut);
	disk_image_free(image);
}

static void kill_all(void)
{
	struct disk_image image;

	weakdisk_take(&image);
	abandon(&image, false);
}

static void members_close(void)
{
	unsigned first = (unsigned)rng_below(&script, 2);

	member_close(first);
	member_close(first ^ 1);
}

/* As the base says, until its members have closed it. */
static void first_life(void)
{
	uint32_t flags = base->image.cache ? 0 : PHEAP_CREATE;
	bool sure = !base->cut;

	if (!reopen(sure, flags))
		return;
	if (rng_below(&script, 2))
		(void)member_open(1, 0);
	if (weakdisk.fired) {
		place = "after the opens";
		settle(false);
	}
	work(base->steps);
	if (!base->hard && rng_below(&script, 3))
		members_close();
	else
		kill_all();
}

/* Nothing fails any more. */
static void last_life(void)
{
	struct disk_image image;
	bool cut = base->hard || rng_below(&script, 2);

	weakdisk.stays = 0;
	if (cut)
		power_cut();
	place = "the next open";
	if (!reopen(!cut, PHEAP_CREATE))
		return;
	weakdisk_faults(NULL, 0);
	if (known->poisoned) {
		member_close(0);
		if (!reopen(false, 0))
			return;
	}
	work(3);
	checkpoint(members[0]);
	work(2);
	if (rng_below(&script, 2))
		member_close(0);
	weakdisk_take(&image);
	abandon(&image, true);
	if (reopen(false, 0))
		member_close(0);
}

/* Runs with one failure have the same script. */
static void run_begin(const struct base *b, uint64_t n, const struct disk_fault *faults, unsigned count)
{
	uint64_t which = count > 1 ? n + 1 : 0;

	size_t at = 0;

	base = b;
	run_number = n;
	script.state = seed * 1000003 + which;
	weakdisk.rng.state = seed * 7919 + n;
	run_known = b->known;
	known = &run_known;
	serial = 1000 + which * 100;
	faults_text[0] = 0;
	for (unsigned i = 0; i < count; i++)
		at += (size_t)snprintf(
			faults_text + at, sizeof(faults_text) - at, "%s%s call %ld gives %s%s",
			i ? ", then " : "", faults[i].fn == DISK_ANY ? "any" : disk_names[faults[i].fn],
			faults[i].left, strerror(-faults[i].code), faults[i].stays ? " for good" : "");
	alarm(ALARM_S);
	if (b->image.cache)
		weakdisk_put(&b->image, b->cut);
	else
		weakdisk_clear();
	weakdisk_faults(faults, count);
	weakdisk.fds = weakdisk.maps = 0;
	weakdisk.fired = weakdisk.fired_sync = false;
}

static void run(const struct base *b, uint64_t n, const struct disk_fault *faults, unsigned count)
{
	run_begin(b, n, faults, count);
	first_life();
	memcpy(calls, weakdisk.calls, sizeof(calls));
	tried += weakdisk.fault_at;
	poisoned_count += known->poisoned;
	if (members[0] || members[1])
		members_close();
	last_life();
	if (members[0])
		member_close(0);
	runs++;
}

/* ---- bases ---- */

/* A moment to keep: at the call with this number, or when the ring is full but for what is kept for switches. */
static long take_at, taken;
static bool take_full;
static struct base *take_to;

static void watch(void)
{
	const struct pheap *h = members[0] ? members[0] : members[1];
	bool full = h && h->coord->tail - h->coord->replay_lsn > h->super.wal_size / 4 * 3;

	if (!h || taken < 0 || (take_full ? !full : taken++ != take_at))
		return;
	taken = -1;
	weakdisk_take(&take_to->image);
	take_to->known = *known;
}

static bool was_taken(void)
{
	return taken < 0;
}

static struct base *base_add(const char *name, bool cut, unsigned steps)
{
	if (base_count == BASES_MAX)
		exit(2);
	bases[base_count] = (struct base){.name = name, .cut = cut, .steps = steps};
	return &bases[base_count++];
}

/* A life of its own that was cut short by SIGKILL. */
static void base_killed(const char *name, const struct disk_fault *fault, bool full, bool cut)
{
	struct base *b = base_add(name, cut, 4);
	static const struct base fresh = {.name = "making bases", .steps = 30};
	struct base from = fresh;

	from.known = bases[0].known;
	take_to = b;
	take_full = full;
	taken = 0;
	run_begin(&from, base_count, fault, fault != NULL);
	if (!reopen(true, PHEAP_CREATE))
		exit(1);
	if (member_open(1, 0))
		exit(1);
	take_at = fault ? -1 : 40 + (long)rng_below(&script, 200);
	weakdisk.watch = watch;
	work(full ? 5 : 30);
	if (full && members[1])
		ledger_flood(members[0], members[1], was_taken);
	weakdisk.watch = NULL;
	full_count += full && taken < 0;
	if (taken >= 0) { /* a moment between two calls */
		weakdisk_take(&b->image);
		b->known = *known;
	}
	kill_all();
}

static void bases_make(void)
{
	struct disk_fault fault = {.code = -EIO};
	struct base *b;

	while (base_count) {
		b = &bases[--base_count];
		disk_image_free(&b->image);
	}
	(void)base_add("no file", false, 8);
	memset(&bases[0].known, 0, sizeof(bases[0].known));
	b = base_add("a closed heap", false, 12);
	run_begin(&bases[0], 0, NULL, 0);
	if (!reopen(true, PHEAP_CREATE))
		exit(1);
	work(12);
	members_close();
	weakdisk_take(&b->image);
	b->known = *known;
	base_killed("a heap whose members were killed", NULL, false, false);
	base_killed("another heap whose members were killed", NULL, false, false);
	base_killed("a heap whose members were killed with the ring full", NULL, true, false);
	base_killed("a heap that the power went from", NULL, false, true);
	base_killed("another heap that the power went from", NULL, false, true);
	fault.fn = DISK_WRITE_SYNC;
	fault.left = 30;
	base_killed("a poisoned heap whose members were killed", &fault, false, false);
	fault.fn = DISK_MAP_SYNC;
	fault.left = 10;
	base_killed("another poisoned heap whose members were killed", &fault, false, false);
	base_killed("a poisoned heap that the power went from", &fault, false, true);
}

/* ---- plans ---- */

static const int codes[] = {-EIO, -ENOSPC, -EDQUOT, -ENOMEM, -EINTR, -EACCES, -ENOLCK};
#define CODES (sizeof(codes) / sizeof(*codes))

static uint64_t next_run, only = UINT64_MAX;

static void plan(const struct base *b, const struct disk_fault *faults, unsigned count)
{
	uint64_t n = next_run++;

	if (only == UINT64_MAX || n == only)
		run(b, n, faults, count);
}

static void singles(const struct base *b, bool all)
{
	long counted[DISK_FNS];

	run(b, next_run, NULL, 0);
	memcpy(counted, calls, sizeof(counted));
	for (unsigned fn = 0; fn < DISK_FNS; fn++)
		for (long left = 0; left < counted[fn]; left++)
			for (unsigned c = 0; c < CODES; c++) {
				struct disk_fault f = {.fn = fn, .left = left, .code = codes[c]};

				if (all || c == (seed + (uint64_t)left + fn) % CODES)
					plan(b, &f, 1);
				else
					next_run++;
			}
}

/* The moments at which the next opener could be misled: the state at the first open, and the checkpoint of a full ring. */
static void aimed(unsigned long count)
{
	for (unsigned long k = 0; k < count; k++) {
		struct disk_fault f[2] = {
			{.fn = k % 4 < 2 ? DISK_WRITE_SYNC : DISK_SYNC, .left = (long)(k % 2), .code = -EIO},
			{.fn = DISK_WRITE_SYNC, .left = 1000, .code = -EIO}, /* not met */
		};

		struct base b = bases[k % 4 < 2 ? BASE_CLOSED : BASE_FULL];

		b.steps = 3; /* a checkpoint would put things right */
		b.hard = true;
		plan(&b, f, 2);
	}
}

static void sampled(void)
{
	static const unsigned hard[] = {DISK_WRITE_SYNC, DISK_SYNC, DISK_MAP_SYNC, DISK_ANY};
	struct rng r = {seed * 31337 + next_run};
	struct disk_fault faults[FAULTS_MAX];
	unsigned count = 2 + (unsigned)rng_below(&r, FAULTS_MAX - 1);
	const struct base *b = &bases[rng_below(&r, base_count)];

	for (unsigned i = 0; i < count; i++) {
		bool any = rng_below(&r, 4) == 0;

		faults[i] = (struct disk_fault){
			.fn = any ? (unsigned)rng_below(&r, DISK_FNS) : hard[rng_below(&r, 4)],
			.left = (long)rng_below(&r, i ? 8 : 40),
			.code = codes[rng_below(&r, CODES)],
			.stays = rng_below(&r, 4) == 0,
		};
	}
	plan(b, faults, count);
}

int main(int argc, char **argv)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
	bool all = argc > 1 && strcmp(argv[1], "all") == 0;
	unsigned long count = argc > 1 && !all ? strtoul(argv[1], NULL, 0) : all ? 20000 : 800;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	if (argc > 3) {
		only = strtoull(argv[3], NULL, 0);
		count = 40000;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		signal(signals[i], on_crash);
	/* Images are kept for a moment: no pages from the kernel for each. */
	mallopt(M_MMAP_THRESHOLD, 64 << 20);
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	ph_os = &weakdisk_os;
	ph_keeper_off = true; /* one thread makes all calls */
	for (int i = 0; i < 2; i++) {
		level = i ? PHEAP_EPOCH : PHEAP_SYNC;
		next_run = (uint64_t)i * 10000000;
		bases_make();
		for (unsigned k = 0; k < base_count; k++)
			singles(&bases[k], all || only != UINT64_MAX);
		printf("%s: %lu runs with one failure\n", i ? "epoch" : "sync", runs);
		next_run = (uint64_t)i * 10000000 + 4000000;
		aimed(count / 4);
		next_run = (uint64_t)i * 10000000 + 5000000;
		for (unsigned long k = 0; k < count / 2; k++)
			sampled();
	}
	printf("%lu runs, %lu failed calls, %lu opens, %lu power cuts, %lu poisoned, %lu too big\n", runs,
	       tried, opened_count, cut_count, poisoned_count, big_count);
	/* EPOCH has no commits that could fill it. */
	expect(full_count > 0, "no heap was killed with its ring full");
	printf("%lu passed, %lu failed\n", passed, failed);
	return failed != 0;
}
