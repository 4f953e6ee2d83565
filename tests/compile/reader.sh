#!/bin/bash
# SPDX-License-Identifier: MIT
#
# reader.sh: following a pointer in a heap is one add, or part of the addressing. Usage: reader.sh SOURCE_ROOT
#
# Each compiler that is installed compiles reader.c at -O2. The loop of list_sum, which goes through PHEAP_GET, may have
# one instruction more than that of plain_sum, which follows ordinary pointers: an addition of two registers. It has no call
# and no branch but its own. The instructions are shown.

set -u
root=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
trap 'exit 2' INT TERM HUP
passed=0
failed=0

check() { # what, command
	local what=$1
	shift
	if "$@"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: $what"
	fi
}

# function_of NAME: its instructions, `address: text` a line, also with a name that C++ made longer.
function_of() {
	awk -v name="$1" '
		/>:$/ { on = index($0, name) }
		on && /^ +[0-9a-f]+:/ { sub(/^ +/, ""); print }' "$tmp/all"
}

# loop_of: from where the backward jump goes to the jump. Of the instructions on standard input.
loop_of() {
	awk '
		{
			address = $1
			sub(/:$/, "", address)
			at[NR] = address
			text[NR] = $0
			line[address] = NR
			if ($2 ~ /^j/ && ($3 in line)) {
				for (i = line[$3]; i <= NR; i++)
					print text[i]
				exit
			}
		}'
}

count() { grep -cE "$1" <<<"$2"; }

compiler_check() {
	local cc=$1 heap plain jumps
	shift
	if ! "$cc" "$@" -Wall -Wextra -Werror -O2 -c -o "$tmp/reader.o" -I"$root/include" "$root/tests/compile/reader.c"; then
		check "$cc: it does not compile" false
		return
	fi
	objdump -d --no-show-raw-insn "$tmp/reader.o" >"$tmp/all"
	heap=$(function_of list_sum | loop_of)
	plain=$(function_of plain_sum | loop_of)
	printf '%s -O2, one node of a list in a heap:\n%s\nthe same with ordinary pointers:\n%s\n\n' "$cc" "$heap" "$plain"
	check "$cc: no loop was found" test -n "$heap" -a -n "$plain"
	check "$cc: a call in the loop" test "$(count '[[:space:]]call' "$heap")" = 0
	jumps=$(count '[[:space:]]j[a-z]+ ' "$heap")
	check "$cc: $jumps jumps in the loop" test "$jumps" = 1
	check "$cc: a conditional move in the loop" test "$(count '[[:space:]]cmov' "$heap")" = 0
	# add register to register; lea of two registers
	check "$cc: more than one addition of registers" \
		test "$(count '[[:space:]](add +%[a-z0-9]+,%|lea +\(%[a-z0-9]+,%)' "$heap")" -le 1
	check "$cc: more than one instruction beside the plain loop" \
		test "$(wc -l <<<"$heap")" -le $(($(wc -l <<<"$plain") + 1))
}

if [ "$(uname -m)" != x86_64 ]; then
	echo "SKIPPED: the instructions of $(uname -m) are not known to this test"
	exit 77
fi
if ! command -v objdump >/dev/null; then
	echo "SKIPPED: objdump is not installed"
	exit 77
fi
for cc in gcc clang g++ clang++; do
	if ! command -v "$cc" >/dev/null; then
		echo "SKIPPED: $cc is not installed"
	elif [ "${cc%++}" = "$cc" ]; then
		compiler_check "$cc" -std=c11
	else
		compiler_check "$cc" -std=c++17 -x c++
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
