/* SPDX-License-Identifier: MIT
 *
 * board.c: see board.h.
 *
 * Why drawn over itself with three escape sequences and no library: they are all that is needed, and every
 * terminal has them.
 */
#define _GNU_SOURCE
#include "board.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "score.h"

#define DRAW_NS 100000000u
#define LINE_NS 1000000000u
#define RATE_NS 1000000000u /* the rate is that of the last second */

static struct {
	bool open, live;
	unsigned seconds, line_count;
	uint64_t drawn_ns;
	uint64_t rate_ns, rate_done;
	double rate;
	const char *what;
} board;

void board_open(bool live, unsigned seconds)
{
	board.open = true;
	board.live = live;
	board.seconds = seconds;
	board.what = "";
	board.rate_ns = stage_now_ns();
	board.rate_done = score_done();
}

void board_say(const char *what)
{
	board.what = what;
}

static void rate_take(uint64_t now_ns)
{
	uint64_t done = score_done();

	if (now_ns - board.rate_ns < RATE_NS)
		return;
	board.rate = (double)(done - board.rate_done) * 1e9 / (double)(now_ns - board.rate_ns);
	board.rate_ns = now_ns;
	board.rate_done = done;
}

static double passed_s(uint64_t now_ns)
{
	return (double)(now_ns - score.start_ns) / 1e9;
}

/* ---- a line ---- */

static void line_print(uint64_t now_ns)
{
	struct recoveries put_right = score_recoveries();

	printf("%3.0f s  %8.0f/s  %llu records  kills %llu, %llu inside", passed_s(now_ns), board.rate,
	       (ull)score_record_count(), (ull)score.kill_count, (ull)score.inside_count);
	printf("  put right %llu by survivors, %llu by newcomers", (ull)put_right.beside_count,
	       (ull)put_right.attaching_count);
	printf("  next commit %.3f ms, at most %.3f ms\n", (double)series_median(&score.resumed_ns) / 1e6,
	       (double)series_max(&score.resumed_ns) / 1e6);
}

/* ---- the board ---- */

static const char *state_text(const struct worker *worker)
{
	switch (worker_state(worker)) {
	case WORKER_NONE:
		return "to be replaced";
	case WORKER_ATTACHING:
		return "attaching";
	case WORKER_LOADING:
		return "loading";
	case WORKER_STALLED:
		return "in a transaction";
	default:
		return "KILLED";
	}
}

static void workers_draw(FILE *f)
{
	fprintf(f, "worker      pid  state             transactions   kills  last recovery\n");
	for (unsigned i = 0; i < score.worker_count; i++) {
		const struct worker *worker = &score.workers[i];

		fprintf(f, "%6u %8d  %-16s %13llu %7llu  %s\n", worker->number, (int)worker->pid,
			state_text(worker), (ull)worker_done(worker), (ull)worker->kill_count, worker->last);
	}
}

static void sums_draw(FILE *f)
{
	struct recoveries put_right = score_recoveries();

	fprintf(f, "\nrate         %.0f transactions a second, %llu in all\n", board.rate, (ull)score_done());
	fprintf(f, "records      %llu in the heap; each is changed, deleted, put back, again and again\n",
		(ull)score_record_count());
	fprintf(f, "kills        %llu: %llu inside a transaction, %llu while attaching, %llu all at once\n",
		(ull)score.kill_count, (ull)score.inside_count, (ull)score.opening_count,
		(ull)score.all_count);
	fprintf(f, "put right    %llu by survivors, %llu by newcomers\n", (ull)put_right.beside_count,
		(ull)put_right.attaching_count);
	fprintf(f, "next commit  of a survivor after a kill: %.3f ms median, %.3f ms at most\n",
		(double)series_median(&score.resumed_ns) / 1e6, (double)series_max(&score.resumed_ns) / 1e6);
	fprintf(f, "last kill    %s\n", score.last_kill);
	fprintf(f, "checks       %llu comparisons of every byte, %llu fsck: nothing wrong  %s\n",
		(ull)score.verify_count, (ull)score.fsck_count, board.what);
}

/* Cut to the terminal: a line that wraps would shift all that is drawn next. */
static void text_show(const char *text)
{
	struct winsize size = {0};
	unsigned count = 0;
	int width;

	width = ioctl(1, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
	if (board.line_count)
		printf("\033[%uA", board.line_count);
	for (const char *end; (end = strchr(text, '\n')); text = end + 1, count++)
		printf("\r\033[K%.*s\n", end - text < width ? (int)(end - text) : width - 1, text);
	board.line_count = count;
	fflush(stdout);
}

static void board_draw(uint64_t now_ns)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return;
	fprintf(f, "%.1f of %u s\n\n", passed_s(now_ns), board.seconds);
	workers_draw(f);
	sums_draw(f);
	if (fclose(f) == 0)
		text_show(text);
	free(text);
}

void board_tick(void)
{
	uint64_t now_ns = stage_now_ns();

	if (!board.open || now_ns - board.drawn_ns < (board.live ? DRAW_NS : LINE_NS))
		return;
	board.drawn_ns = now_ns;
	rate_take(now_ns);
	if (board.live)
		board_draw(now_ns);
	else
		line_print(now_ns);
}

void board_close(void)
{
	if (board.open && board.live)
		board_draw(stage_now_ns());
	board.open = false;
}
