#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2016 # scripts of awk
#
# top.sh: pheap top: who runs, who holds, who waits, as pages and on a terminal.
# shellcheck source=tests/pheap/common
. "$(dirname "${BASH_SOURCE[0]}")/common"

# top WORD...: one page after a short interval
top() { gives 0 top --interval 0.1 --once "$@"; }

# shows TEXT: a page comes to say it, within a minute
shows_now()
{
	timeout -k 5 60 "$pheap" top --interval 0.05 --once h >out 2>err </dev/null
	grep -qE -- "$1" out
}
shows() { check "top does not come to show: $1" until_true shows_now "$1"; }

member h nap 0
top h
says 'h: clean$'
says 'members: 0 alive, 0 dead, [0-9]+ recovered   lanes: 0 of [0-9]+ taken, 0 in a transaction, 0 waiting'
says '^no lock is held$'

# ---- load

joined h a say ready spin 0
a=$started
joined h b say ready spin 0
b=$started
gives 0 top --interval 0.3 --count 3 h
says 'h: in use$'
says 'members: 2 alive, 0 dead'
says 'mode: concurrent$'
check "three pages" test "$(grep -c '^SLOT' out)" = 3
for pid in "$a" "$b"; do
	check "$pid runs no transactions" \
		awk -v pid="$pid" '$3 == pid && $8 > 100 { good++ } END { exit good != 3 }' out
done
check "the sum is not the sum of all" awk '
	/^transactions: / { total = $2 + 0; sum = 0 }
	/ alive$/ { sum += $8 }
	/^$/ && sum { if (sum > total + 2 || sum < total - 2) exit 1; sum = 0 }' out
check "control characters in plain text" test "$(tr -d '\n -~' <out | wc -c)" = 0
killed "$a"
killed "$b"
member h nap 0

# ---- stripes: held and waited for

joined h holder concurrent lock 5 lock 6 say ready sleep
holder=$started
started one member h concurrent lock 5 sleep
one=$started
started two member h concurrent lock 5 sleep
two=$started
shows '^stripe [0-9]+ .* 2: '
says "^stripe [0-9]+ +[0-9.]+ s  pid $holder \\(member\\) lane [0-9]+ +2: "
says "2: .*pid $one \\(member\\) lane [0-9]+ [0-9.]+ s"
says "2: .*pid $two \\(member\\) lane [0-9]+ [0-9.]+ s"
check "what is waited for comes first" awk '/^LOCK/ { getline; exit !/2: / }' out
says "^ +[0-9]+ +[0-9]+ +$one member +1 +1 +1 +[0-9]+  alive$"
says '2 waiting'
gives 0 top --interval 0.2 --count 3 h
check "the time that was seen does not grow" awk '
	/^stripe .* 2: / { if ($3 <= last) bad = 1; last = $3; rows++ } END { exit bad || rows != 3 }' out

# the holder dies: one of the two has it
killed "$holder"
shows '^stripe [0-9]+ .* 1: '
says_not "$holder"
says 'members: 2 alive, 0 dead, 1 recovered'
killed "$one"
killed "$two"
top h
says 'members: 0 alive, [12] dead'
says 'DEAD'
says 'dead, not yet recovered$'
member h nap 0

# shared
joined h one concurrent share 9 say ready sleep
one=$started
joined h two concurrent share 9 say ready sleep
two=$started
top h
says "^stripe [0-9]+ .* pid $one \\(member\\) lane [0-9]+ shared, pid $two \\(member\\) lane [0-9]+ shared"
killed "$one"
killed "$two"
member h nap 0

# the exclusive transaction, one that waits for it, and one of another mode
joined h one exclusive change say ready sleep
one=$started
top h
says "^exclusive +[0-9.]+ s  pid $one \\(member\\) lane"
says "mode: exclusive for pid $one \\(member\\) lane [0-9]+ alone$"
started two member h concurrent sleep
two=$started
shows "^end of lane [0-9]+ .*pid $one \\(member\\) lane [0-9]+ +1: pid $two"
says 'mode: changing$'
says "^change of mode .* pid $two"
killed "$two"
killed "$one"
member h nap 0

# many members: they have an end
pids=()
for ((i = 0; i < 12; i++)); do
	joined h "m$i" concurrent lock "$i" say ready sleep
	pids[i]=$started
done
top h
check "12 members" test "$(grep -c ' alive$' out)" = 12

# ---- on a terminal

# page_heights: the number of lines of each page that a terminal was sent
page_heights() { tr -d '\r' <out | awk -v RS='\033\\[H' 'NR > 1 { print gsub(/\n/, "") + 1 }'; }

for rows in 8 12 24 50; do
	"$terminal" $rows 70 COMMAND q pheap top --interval 0.1 h >out 2>err </dev/null
	check "q on $rows rows" test $? = 0
	check "a page is higher than $rows rows: $(page_heights | tr '\n' ' ')" \
		test "$(page_heights | sort -n | tail -n 1)" -le $rows
	check "a line is wider than the terminal" awk '
		{ gsub(/\033\[[?0-9]*[A-Za-z]/, ""); gsub(/\r/, ""); if (length > 70) exit 1 }' out
	check "the terminal is not as it was" grep -q "$(printf '\033\\[?25h\033\\[?1049l')" out
done
check "50 rows show all members" test "$(grep -ac '^ .* member ' out)" -ge 12
"$terminal" 24 80 COMMAND '\003' pheap top --interval 0.1 h >out 2>err </dev/null
check "Ctrl-C" test $? = 0
check "the terminal is not as it was after Ctrl-C" grep -q "$(printf '\033\\[?1049l')" out
"$terminal" 24 80 COMMAND '' pheap top --interval 0.1 --once h >out 2>err </dev/null
check "--once on a terminal" test $? = 0
check "--once moves the cursor" test "$(grep -c "$(printf '\033')" out)" = 0
for pid in "${pids[@]}"; do killed "$pid"; done
member h nap 0

# ---- a heap that goes, and comes back

export MEMBER_EPHEMERAL=1
joined e first say ready sleep
first=$started
started top pheap top --interval 0.1 e
top=$started
await 'members: 1 alive' top.out
killed "$first"
joined e second say ready sleep
await " $started member .* alive" top.out
killed "$started"
joined e third say ready close
wait "$started"
check "the file went" until_true test ! -e e
ended "$top" 0
await 'e: was removed' top.err
unset MEMBER_EPHEMERAL
started top pheap top --interval 0.1 h
kill -INT "$started"
ended "$started" 130

# ---- what cannot be done

gives 1 top none
says 'No such file'
head -c 100000 /dev/zero >zeros
gives 1 top --once zeros
says 'is not a heap'
gives 2 top
gives 2 top h h
for interval in 0 0.001 x inf -1 1e9; do
	gives 2 top --interval $interval h
	says 'give seconds from 0.01 to 86400'
done
gives 2 top --count 0 h
gives 2 top --frob h
gives 0 top --help
says 'Usage: pheap top'

finish
