/* SPDX-License-Identifier: MIT
 *
 * board.h: the demo while it runs: on a terminal a board that is drawn over itself, else a line a second.
 */
#ifndef KV_BOARD_H
#define KV_BOARD_H

#include <stdbool.h>
#include <stdint.h>

/* live: the board. seconds: how long it will go on. */
void board_open(bool live, unsigned seconds);

/* Often: draws when it is time to. */
void board_tick(void);

/* What the demo is at, beside killing. */
void board_say(const char *what);

/* Leaves the board as it is, for what is printed below. */
void board_close(void);

#endif
