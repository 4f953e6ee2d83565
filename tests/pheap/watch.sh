#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2016 # scripts of commands
#
# watch.sh: pheap watch: who died is told, once, and recovered; who left is not.
# shellcheck source=tests/pheap/common
. "$(dirname "${BASH_SOURCE[0]}")/common"

line='^[0-9-]{10} [0-9:.]{12} '

# watching NAME WORD...: a watch in the background; its pid is in $watch.
watching()
{
	local name=$1
	shift
	started "$name" pheap watch "$@"
	watch=$started
	# INT, TERM, HUP and CHLD are blocked: it is up
	check "watch does not begin" until_true grep -q '^SigBlk:.*14003$' "/proc/$watch/status"
}

# lines_are COUNT FILE
lines_are() { [ "$(wc -l <"$2")" = "$1" ]; }

# nobody_dead HEAP: as pheap info tells it.
nobody_dead()
{
	gives 0 info --members "$1"
	says_not dead
}

# ---- one death beside a member that lives

member h nap 0
joined h living say ready sleep
living=$started
watching w --once h
joined h dying exclusive change say ready sleep
dying=$started
killed "$dying"
ended "$watch" 0
check "one line for one death" lines_are 1 w.out
await "${line}h: pid $dying \\(member\\), attachment [0-9]+, died: 1 rolled back, 0 completed, in [0-9.]+ ms$" w.out
nobody_dead h
says "$living member"

# in every way
for way in 'signal 9' 'signal 11' 'signal 15' 'exit 0' 'exit 1' crash; do
	watching w --once h
	# shellcheck disable=SC2086 # two words
	started dying member h concurrent change $way
	dying=$started
	wait "$dying" 2>/dev/null
	ended "$watch" 0
	await "pid $dying .* died: (1 rolled back|recovered)" w.out
	nobody_dead h
done

# several at once, and only so many
watching w --count 3 h
pids=()
for name in a b c; do
	joined h $name concurrent change say ready sleep
	pids[${#pids[@]}]=$started
done
kill -KILL "${pids[@]}"
ended "$watch" 0
for pid in "${pids[@]}"; do await "pid $pid .* died: " w.out; done
check "three lines" lines_are 3 w.out
nobody_dead h

# who was dead before it began
joined h early exclusive change say ready sleep
early=$started
killed "$early"
gives 0 watch --once h
says "pid $early .* died: 1 rolled back"
nobody_dead h

# who leaves, does not die
watching w h
member h exclusive change commit
member h nap 300
member h nap 10
sleep 0.6
kill -TERM "$watch"
ended "$watch" 0
check "a line for who left" test ! -s w.out

# ---- it does not stay in the heap, and others recover too

watching w h
killed "$living"
await "pid $living .* died: 0 rolled back, 0 completed" w.out
until_true sh -c 'pheap info h | grep -q "^h: clean"'
gives 0 info h
says '^h: clean$'
member h exclusive change commit
gives 0 info h
says '^h: clean$'
whole h
kill -INT "$watch"
ended "$watch" 0
watching w h
kill -HUP "$watch"
ended "$watch" 0

# a survivor that meets what the dead held is faster, or not: one line all the same
joined h survivor say ready spin 0
survivor=$started
watching w --count 8 h
for i in 1 2 3 4 5 6 7 8; do
	joined h dying concurrent lock "$i" change say ready sleep
	killed "$started"
	check "no line for death $i" until_true lines_are "$i" w.out
done
ended "$watch" 0
check "eight lines" lines_are 8 w.out
nobody_dead h
killed "$survivor"
member h nap 0

# ---- several heaps; ephemeral ones

member i nap 0
watching w --count 2 h i
joined i dying_i exclusive change say ready sleep
killed "$started"
await 'i: pid .* died: 1 rolled back' w.out
joined h dying_h exclusive change say ready sleep
killed "$started"
ended "$watch" 0
await '(h: pid .* died: 1 rolled back)' w.out
whole i

export MEMBER_EPHEMERAL=1
joined e first say ready sleep
first=$started
watching w e
joined e second exclusive change say ready sleep
killed "$started"
await "e: pid $started .* died: 1 rolled back" w.out
killed "$first"
await "e: pid $first .* died: .*the heap went with its last user" w.out
check "the file went with its last user" until_true test ! -e e
joined e third exclusive change say ready sleep
killed "$started"
await "e: pid $started .* died: 1 rolled back.* the heap went with its last user" w.out
joined e fourth say ready nap 600
wait "$started"
check "the file went with who left" until_true test ! -e e
sleep 0.3
check "three lines" lines_are 3 w.out
check "nothing on standard error" test ! -s w.err
kill "$watch"
ended "$watch" 0
unset MEMBER_EPHEMERAL

# a file that is removed is waited for
member r nap 0
watching w --once r
sleep 0.3
rm r
await 'r: was removed; waiting for it to come back' w.err
joined r again exclusive change say ready sleep
killed "$started"
ended "$watch" 0
await 'r: pid .* died: 1 rolled back' w.out

# ---- another pid namespace: its pids mean nothing here

if unshare --pid --fork true 2>/dev/null; then
	watching w --once h
	started other unshare --pid --fork --kill-child member h exclusive change nap 400 signal 9
	ended "$watch" 0
	await 'pid [0-9] \(member\), attachment [0-9]+, died: 1 rolled back' w.out
	nobody_dead h
fi

# ---- what cannot be done

gives 1 watch none
says 'none: cannot be opened: No such file'
head -c 100000 /dev/zero >zeros
gives 1 watch zeros
says 'is not a heap'
gives 1 watch h zeros
gives 2 watch
says 'give one file at least'
gives 2 watch --count 0 h
gives 2 watch --frob h
gives 0 watch --help
says 'Usage: pheap watch'

# a lane that cannot be recovered: told, and it goes on watching
cp h broken
joined broken dying exclusive change say ready sleep
killed "$started"
lane=$(pheap info --members --json broken | grep -c lanes_active)
check "one dead member" test "$lane" = 1
off=$(pheap dump broken super | awk '$2 == "lane_off" { print $3; exit }')
for ((i = 0; i < 4; i++)); do
	printf '\7' | dd of=broken bs=1 seek=$((off + 128 * i)) conv=notrunc 2>/dev/null
done
watching w broken
await 'broken: cannot be recovered: .*pheap-fsck' w.err
kill "$watch"
ended "$watch" 0
check "no line for what was not done" test ! -s w.out

# cut short while it is watched: what maps it may die of that, the watch must not
cp h short
watching w short h
joined short dying exclusive change say ready sleep
truncate -s 70000 short
killed "$started"
await short: w.err
joined h dying exclusive change say ready sleep
killed "$started"
await "h: pid $started .* died: 1 rolled back" w.out
kill "$watch"
ended "$watch" 0

finish
