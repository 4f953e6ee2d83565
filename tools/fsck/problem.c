/* SPDX-License-Identifier: MIT
 *
 * problem.c: the table of everything that can be wrong, and what happens when something is: text, JSON,
 * question, count.
 *
 * Why one table: code, text, repair and severity of a problem are decided in one place, and the manual page
 * lists the same rows.
 *
 * Severities: ERROR counts in the exit code. WARNING is reported and never repaired. NOTICE is a normal
 * state that the run ends.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsck.h"

#define SHOWN_MAX 100u /* lines of one problem without -v */

enum severity { NOTICE, WARNING, ERROR };

struct row {
	const char *code, *text, *repair; /* repair NULL: cannot be repaired */
	enum severity severity;
	bool preen; /* -p repairs it */
};

static const struct row table[PR_COUNT] = {
	[PR_SUPER_NONE] = {"super-none", "no copy of the superblock is usable", NULL, ERROR, false},
	[PR_SUPER_COPY] = {"super-copy", "a copy of the superblock is damaged",
			   "Write it from the other copy", ERROR, true},
	[PR_SUPER_DIFFER] = {"super-differ", "the copies of the superblock differ",
			     "Make the other like the one in use", ERROR, false},
	[PR_FILE_SHORT] = {"file-short", "the file ends before its data begins", NULL, ERROR, false},
	[PR_FILE_TRUNCATED] = {"file-truncated", "the file is shorter than its chunks",
			       "Give up what was cut off", ERROR, false},
	[PR_HEAD_MAGIC] = {"head-magic", "the heap head has no magic number", "Write it", ERROR, false},
	[PR_CHUNK_COUNT] = {"chunk-count", "the number of chunks is impossible",
			    "Take it from the size of the file", ERROR, false},
	[PR_DESC_PAST_END] = {"desc-past-end", "there are descriptors past the last chunk",
			      "Count their chunks, or clear them", ERROR, false},
	[PR_STATE_NONE] = {"state-none", "no copy of the state sector is valid", "Write a new one", ERROR,
			   false},
	[PR_STATE_COPY] = {"state-copy", "a copy of the state sector is damaged", "Write it anew", ERROR,
			   true},
	[PR_STATE_FOREIGN] = {"state-foreign", "the file is a copy that was taken while the heap was in use",
			      "Accept it as it is", ERROR, false},
	[PR_STATE_BOOT] = {"state-boot",
			   "the machine went down while the heap was in use; stores may be missing",
			   "Accept it as it is", ERROR, false},
	[PR_STATE_DIRTY] = {"state-dirty", "the heap was not closed cleanly", "Mark it clean at the end",
			    NOTICE, true},
	[PR_CHECKPOINT_NONE] = {"checkpoint-none", "no copy of the checkpoint is valid", "Begin an empty log",
				ERROR, false},
	[PR_CHECKPOINT_COPY] = {"checkpoint-copy", "a copy of the checkpoint is damaged",
				"Write it from the other copy", ERROR, true},
	[PR_LIVE] = {"checkpoint-live", "a word that moves the checkpoint is impossible",
		     "Clear it, and take the other copy, or the sector", ERROR, false},
	[PR_CUT] = {"power-cut", "what memory held of the heap is lost", "Recover it from its log", ERROR,
		    true},
	[PR_WAL_SHORT] = {"wal-short", "the log ends before the position to which it was durable",
			  "Recover what it has", ERROR, false},
	[PR_WAL_RECORD] = {"wal-record", "a record of the log is impossible", "Leave it out", ERROR, false},
	[PR_RING] = {"ring", "the positions of the log in memory are impossible",
		     "Complete the commits under way from their own logs", ERROR, false},
	[PR_LANE_LIMIT] = {"lane-limit", "a lane has reached the limit of generations", "Raise the limit",
			   ERROR, true},
	[PR_LANE_STATE] = {"lane-state", "the state word of a lane is impossible", "Make the lane idle",
			   ERROR, false},
	[PR_LANE_LOG] = {"lane-log", "the log of a transaction in flight is damaged",
			 "Leave its changes as they are", ERROR, false},
	[PR_LANE_ACTIVE] = {"lane-active", "a transaction is incomplete", "Roll it back", ERROR, true},
	[PR_LANE_COMMITTED] = {"lane-committed", "a committed transaction is not applied", "Roll it forward",
			       ERROR, true},
	[PR_LANE_EMPTY] = {"lane-empty", "a thread ended within a section that changes nothing", "End it",
			   NOTICE, true},
	[PR_LANE_LIVE] = {"lane-live", "a transaction is running or waits for recovery", NULL, NOTICE, false},
	[PR_LANE_CLEAN] = {"lane-clean", "the heap says clean but a transaction is in flight", "Recover it",
			   ERROR, false},
	[PR_JOURNAL_EXTENT] = {"journal-extent", "the first chunks are not marked as journal", "Mark them",
			       ERROR, false},
	[PR_DESC_FREE] = {"desc-free", "a descriptor is neither of a free chunk nor of a hole", "Free it",
			  ERROR, false},
	[PR_DESC_RUN] = {"desc-run", "a descriptor is no possible run", "Free its chunks", ERROR, false},
	[PR_DESC_EXTENT] = {"desc-extent", "a descriptor is no possible extent", "Free its chunks", ERROR,
			    false},
	[PR_DESC_TYPE] = {"desc-type", "a run or extent has an impossible type", "Make it untyped", ERROR,
			  false},
	[PR_DESC_CONT] = {"desc-cont", "a chunk does not name the head of the run or extent it is in",
			  "Correct it", ERROR, false},
	[PR_DESC_ORPHAN] = {"desc-orphan", "a chunk continues a run or extent that is not there", "Free it",
			    ERROR, false},
	[PR_DESC_OVERLAP] = {"desc-overlap", "a run or extent begins within another one",
			     "Cut the first one before it", ERROR, false},
	[PR_DESC_LONG] = {"desc-long", "a run or extent goes past the last chunk", "Cut it", ERROR, false},
	[PR_BITS_PAST_END] = {"bits-past-end", "bits past the last block of a run are set", "Clear them",
			      ERROR, false},
	[PR_SEMAPHORE_TOTAL] = {"semaphore-total", "a semaphore has more permits than one can have",
				"Leave it none", ERROR, false},
	[PR_SEMAPHORE_CELL] = {"semaphore-cell", "what a member has of a semaphore is impossible", "Clear it",
			       ERROR, false},
	[PR_HOLD_LINK] = {"hold-link", "a list of held references leads to something that is no record",
			  "End the list there", ERROR, false},
	[PR_HOLD_CYCLE] = {"hold-cycle", "a list of held references leads back to a record already seen",
			   "End the list there", ERROR, false},
	[PR_HOLD_FIELD] = {"hold-field", "a record of a held reference names an impossible holder",
			   "Make it one that is gone", ERROR, false},
	[PR_HOLD_BUCKET] = {"hold-bucket", "a record of a held reference is in the list of other objects",
			    "Take it out of the list", ERROR, false},
	[PR_HOLD_OBJECT] = {"hold-object", "a held reference is not to an allocated block of a program",
			    "Take it out of the list", ERROR, false},
	[PR_HOLD_DUPLICATE] = {"hold-duplicate", "two records say what one member holds of one object",
			       "Take the second one out", ERROR, false},
	[PR_HOLD_ORPHAN] = {"hold-orphan", "a record of a held reference is in no list", "Free it", ERROR,
			    false},
	[PR_HOLD_VOID] = {"hold-void",
			  "objects that nobody holds any more wait for the next open to free them", NULL,
			  NOTICE, false},
	[PR_ROOT_LINK] = {"root-link", "a list of names leads to something that is no entry",
			  "End the list there", ERROR, false},
	[PR_ROOT_CYCLE] = {"root-cycle", "a list of names leads back to an entry already seen",
			   "End the list there", ERROR, false},
	[PR_ROOT_NAME] = {"root-name", "an entry has no proper name", "Take it out of the list", ERROR,
			  false},
	[PR_ROOT_BUCKET] = {"root-bucket", "an entry is in the list of another name", "Move it", ERROR,
			    false},
	[PR_ROOT_DUPLICATE] = {"root-duplicate", "a name appears twice", "Take the second entry out", ERROR,
			       false},
	[PR_ROOT_TARGET] = {"root-target", "a name does not mean an allocated block", "Remove the name",
			    ERROR, false},
	[PR_ROOT_SIZE] = {"root-size", "a root is larger than its block", "Forget its size", ERROR, false},
	[PR_ROOT_ORPHAN] = {"root-orphan", "an entry is in no list", "Put it into its list", ERROR, false},
	[PR_TYPE_LINK] = {"type-link", "the type table leads to something that is no row",
			  "End the list there", ERROR, false},
	[PR_TYPE_CYCLE] = {"type-cycle", "the type table leads back to a row already seen",
			   "End the list there", ERROR, false},
	[PR_TYPE_ROW] = {"type-row", "a row of the type table is impossible", "Take it out", ERROR, false},
	[PR_TYPE_DUPLICATE] = {"type-duplicate", "a type number appears twice", "Take the second row out",
			       ERROR, false},
	[PR_POINTER] = {"pointer", "a pointer field is not the start of an allocated block", NULL, WARNING,
			false},
	[PR_POISON] = {"poison", "the heap was poisoned by a failed write or recovery", "Lift it", ERROR,
		       true},
	[PR_WORD] = {"word", "a lock word names an owner that cannot be", "Free it", ERROR, true},
	[PR_ATTACHMENT] = {"attachment", "an attachment number is at or above the limit", "Raise the limit",
			   ERROR, true},
	[PR_LEASE] = {"lease", "a lease is of a position that the log has not reached", "Clear it", ERROR,
		      true},
	[PR_MEMBERS] = {"members", "rows of ended processes are left", "Clear them", NOTICE, true},
};

/* Does its repair give up what somebody may have used? Not file-truncated: free chunks may be all that was cut
 * off; what was not free shows as desc-past-end (pass1.c) or desc-long. */
static bool problem_loses(enum fsck_problem id)
{
	switch (id) {
	case PR_DESC_FREE:
	case PR_DESC_RUN:
	case PR_DESC_EXTENT:
	case PR_DESC_ORPHAN:
	case PR_DESC_OVERLAP:
	case PR_DESC_LONG:
	case PR_WAL_SHORT:
	case PR_WAL_RECORD:
		return true;
	default:
		return false;
	}
}

static const char *const severity_names[] = {"notice", "warning", "error"};

const char *problem_code(enum fsck_problem id)
{
	return table[id].code;
}

/* Prints s as a JSON string. Bytes that are not plain text become \u00XX. */
static void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < ' ' || c > '~')
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void json_open(const struct fsck *f)
{
	static bool opened;

	if (opened)
		return;
	opened = true;
	printf("{\"file\": ");
	json_string(f->path);
	printf(", \"problems\": [");
}

static void progress_clear(const struct fsck *f)
{
	if (f->progress)
		fprintf(stderr, "\r\033[K");
}

static bool ask(struct fsck *f, const char *question)
{
	char line[16];

	for (;;) {
		printf("%s (y, n, or a: yes to all)? ", question);
		fflush(stdout);
		if (!fgets(line, sizeof line, stdin)) {
			puts("no");
			return false;
		}
		if (line[0] == 'a' || line[0] == 'A')
			f->mode = MODE_YES;
		if (strchr("aAyY", line[0]))
			return true;
		if (strchr("nN", line[0]))
			return false;
	}
}

static bool decide(struct fsck *f, const struct row *row)
{
	if (!row->repair || f->stopped)
		return false;
	switch (f->mode) {
	case MODE_YES:
		return true;
	case MODE_PREEN:
		return row->preen;
	case MODE_ASK:
		return row->severity == NOTICE || ask(f, row->repair);
	default:
		return false;
	}
}

static void print_text(const struct fsck *f, const struct row *row, const char *where, bool fixed)
{
	if (f->mode == MODE_ASK || row->severity == WARNING || !row->repair)
		printf("[%s] %s: %s\n", row->code, row->text, where);
	else
		printf("[%s] %s: %s. %s? %s\n", row->code, row->text, where, row->repair,
		       fixed ? "yes" : "no");
}

static void print_json(const struct fsck *f, const struct row *row, const char *where, uint64_t off,
		       bool fixed)
{
	static bool more;

	json_open(f);
	printf("%s\n  {\"code\": \"%s\", \"severity\": \"%s\", \"offset\": %llu, \"text\": ", more ? "," : "",
	       row->code, severity_names[row->severity], (unsigned long long)off);
	more = true;
	json_string(row->text);
	printf(", \"where\": ");
	json_string(where);
	printf(", \"repair\": ");
	if (row->repair)
		json_string(row->repair);
	else
		printf("null");
	printf(", \"repaired\": %s}", fixed ? "true" : "false");
}

static void count(struct fsck *f, const struct row *row, bool fixed)
{
	if (row->severity == NOTICE)
		f->notice_count++;
	else if (row->severity == WARNING)
		f->warning_count++;
	else if (fixed)
		f->error_fixed++;
	else
		f->error_left++;
}

static const char *const pass_titles[] = {
	"",
	"superblock, state and log",
	"journal",
	"chunk directory",
	"runs and bitmaps",
	"semaphores, held references, names and types",
	"coordination",
};

static enum fsck_pass pass_current;
static int pass_percent;

/* Titles up to the current pass, each once. Those of passes 1 and 2 wait until there is more to say than
 * "clean". */
static void titles_print(const struct fsck *f)
{
	static int printed;

	while (printed < (int)pass_current) {
		printed++;
		if (!f->json && f->mode != MODE_PREEN)
			printf("Pass %d: %s\n", printed, pass_titles[printed]);
	}
}

bool problem(struct fsck *f, enum fsck_problem id, uint64_t off, const char *format, ...)
{
	const struct row *row = &table[id];
	bool shown = f->verbose || f->mode == MODE_ASK || f->problem_count[id] < SHOWN_MAX, asks, fixed;
	char where[256];
	va_list args;

	va_start(args, format);
	vsnprintf(where, sizeof where, format, args);
	va_end(args);
	f->problem_count[id]++;
	asks = f->mode == MODE_ASK && row->repair && !f->stopped;
	progress_clear(f);
	titles_print(f);
	if (asks && !f->json)
		print_text(f, row, where, false);
	fixed = decide(f, row);
	count(f, row, fixed);
	f->lost_count += fixed && problem_loses(id);
	if (f->json && shown)
		print_json(f, row, where, off, fixed);
	else if (!asks && shown)
		print_text(f, row, where, fixed);
	else if (!f->json && f->problem_count[id] == SHOWN_MAX + 1 && f->mode != MODE_ASK)
		printf("[%s] more of the same are not shown; -v shows all\n", row->code);
	return fixed;
}

void pass_begin(struct fsck *f, enum fsck_pass pass)
{
	pass_current = pass;
	pass_percent = -1;
	if (f->verbose || pass > PASS_JOURNAL)
		titles_print(f);
	fflush(stdout);
}

void pass_progress(struct fsck *f, uint64_t done, uint64_t total)
{
	int percent;

	if (!f->progress || !total)
		return;
	percent = (int)(done >= total ? 100 : done / (total / 100 + 1));
	if (percent == pass_percent)
		return;
	pass_percent = percent;
	fprintf(stderr, "\rPass %d: %3d%%", pass_current, percent);
	fflush(stderr);
}

void pass_end(struct fsck *f)
{
	progress_clear(f);
}

void pass_stop(struct fsck *f)
{
	if (!f->error_left)
		return;
	f->stopped = true;
	f->overlaid = true;
}

void note(struct fsck *f, const char *format, ...)
{
	FILE *to = f->json ? stderr : stdout;
	va_list args;

	progress_clear(f);
	fprintf(to, "%s: ", f->path);
	va_start(args, format);
	vfprintf(to, format, args);
	va_end(args);
	fputc('\n', to);
}

void fsck_fail(struct fsck *f, const char *format, ...)
{
	char text[640];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	progress_clear(f);
	fflush(stdout);
	fprintf(stderr, "pheap-fsck: %s %s\n", f->path, text);
	if (f->json) {
		json_open(f);
		printf("], \"error\": ");
		json_string(text);
		printf(", \"exit\": %d}\n", EXIT_OPERATION);
	}
	fflush(stdout);
	exit(EXIT_OPERATION);
}

int fsck_result(const struct fsck *f)
{
	return (f->error_fixed ? EXIT_FIXED : 0) | (f->error_left ? EXIT_UNCORRECTED : 0);
}

static void summary_json(const struct fsck *f, int rc)
{
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{"errors_corrected", f->error_fixed},
		{"errors_left", f->error_left},
		{"warnings", f->warning_count},
		{"notices", f->notice_count},
		{"rolled_back", f->lane_back},
		{"rolled_forward", f->lane_forward},
		{"log_commits", f->wal_commit_count},
		{"log_images", f->wal_image_count},
		{"log_size", f->wal_bytes},
		{"file_size", f->file_size},
		{"chunks", f->chunk_count},
		{"free_chunks", f->chunk_free_count},
		{"hole_chunks", f->chunk_hole_count},
		{"runs", f->run_count},
		{"extents", f->extent_count},
		{"blocks", f->block_count},
		{"allocated_size", f->block_size_sum},
		{"roots", f->root_count},
		{"types", f->type_count},
		{"pointers", f->pointer_count},
		{"holds", f->hold_count},
		{"void_objects", f->hold_void_count},
		{"semaphores", f->semaphore_count},
	};
	bool more = false;

	json_open(f);
	printf("],\n \"summary\": {\"result\": \"%s\", \"attached\": %s, \"was_clean\": %s, \"changed\": %s",
	       f->error_left	? "errors"
	       : f->error_fixed ? "repaired"
				: "clean",
	       f->attached ? "true" : "false", f->was_clean ? "true" : "false",
	       f->repair_count ? "true" : "false");
	printf(", \"checked\": %s, \"data_lost\": %s, \"ephemeral\": %s", f->desc ? "true" : "false",
	       f->lost_count ? "true" : "false", f->super.compat & PHD_COMPAT_EPHEMERAL ? "true" : "false");
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		printf(", \"%s\": %llu", rows[i].name, (unsigned long long)rows[i].value);
	printf(", \"counts\": {");
	for (int i = 0; i < PR_COUNT; i++)
		if (f->problem_count[i]) {
			printf("%s\"%s\": %llu", more ? ", " : "", table[i].code,
			       (unsigned long long)f->problem_count[i]);
			more = true;
		}
	printf("}}, \"exit\": %d}\n", rc);
}

static void summary_lost(const struct fsck *f)
{
	printf("%s: data was lost: ", f->path);
	if (f->pointers_followed)
		printf("%llu pointers lead nowhere", (unsigned long long)f->problem_count[PR_POINTER]);
	else
		printf("pointers in your data may lead nowhere");
	printf("; restore a copy if you can\n");
}

/* Nobody has it, and somebody had: whoever opens it next removes the file and starts with a new one. */
static bool ephemeral_over(const struct fsck *f)
{
	return f->super.compat & PHD_COMPAT_EPHEMERAL && !f->attached && f->state_copy >= 0 &&
	       f->state.open_gen;
}

static void summary_ephemeral(const struct fsck *f)
{
	if (!(f->super.compat & PHD_COMPAT_EPHEMERAL))
		return;
	printf("; ephemeral");
	if (f->attached)
		printf(": it goes with its last user");
	else if (ephemeral_over(f))
		printf(", and its users are gone: the next open removes it");
}

static void summary_detail(const struct fsck *f)
{
	printf("  %llu chunks, %llu free, of them %llu given back; %llu runs, %llu extents; %llu blocks of %llu bytes in all\n",
	       (unsigned long long)f->chunk_count, (unsigned long long)f->chunk_free_count,
	       (unsigned long long)f->chunk_hole_count, (unsigned long long)f->run_count,
	       (unsigned long long)f->extent_count, (unsigned long long)f->block_count,
	       (unsigned long long)f->block_size_sum);
	printf("  %llu semaphores; %llu held references, %llu objects wait to be freed\n",
	       (unsigned long long)f->semaphore_count, (unsigned long long)f->hold_count,
	       (unsigned long long)f->hold_void_count);
	printf("  %llu names, %llu types, %llu pointer fields followed; %llu notices\n",
	       (unsigned long long)f->root_count, (unsigned long long)f->type_count,
	       (unsigned long long)f->pointer_count, (unsigned long long)f->notice_count);
}

void problem_summary(struct fsck *f, int rc)
{
	bool dirty = f->problem_count[PR_STATE_DIRTY] != 0;

	if (f->json) {
		summary_json(f, rc);
		return;
	}
	printf("%s: ", f->path);
	if (f->error_left)
		printf("%llu errors left, %llu corrected", (unsigned long long)f->error_left,
		       (unsigned long long)f->error_fixed);
	else if (f->error_fixed)
		printf("%llu errors corrected, now clean", (unsigned long long)f->error_fixed);
	else if (dirty && f->overlaid)
		printf("not closed cleanly, nothing in flight, no errors");
	else
		printf(f->desc ? "clean" : "closed cleanly, not checked further (-f checks everything)");
	if (f->lane_back || f->lane_forward)
		printf("; %llu transactions %srolled back, %llu forward", (unsigned long long)f->lane_back,
		       f->overlaid ? "would be " : "", (unsigned long long)f->lane_forward);
	if (f->wal_bytes)
		printf("; the log %s %llu commits and %llu images", f->overlaid ? "would give" : "gave",
		       (unsigned long long)f->wal_commit_count, (unsigned long long)f->wal_image_count);
	if (f->warning_count)
		printf("; %llu warnings", (unsigned long long)f->warning_count);
	if (f->desc)
		printf("; %llu of %llu chunks in use",
		       (unsigned long long)(f->chunk_count - f->chunk_free_count),
		       (unsigned long long)f->chunk_count);
	summary_ephemeral(f);
	putchar('\n');
	if (f->verbose && f->desc)
		summary_detail(f);
	if (f->lost_count)
		summary_lost(f);
}
