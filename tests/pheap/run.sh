#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# shellcheck disable=SC2016 # scripts of the commands
#
# run.sh: pheap run: what becomes of the command's end, of signals, of sons that crash in every way, of restarts.
# shellcheck source=tests/pheap/common
. "$(dirname "${BASH_SOURCE[0]}")/common"

# ---- exit codes

gives 0 run -- true
gives 1 run -- false
gives 3 run -- sh -c 'exit 3'
gives 0 run true
gives 200 run sh -c 'exit 200'
for signal in 1 2 3 6 9 11 13 14 15; do
	gives $((128 + signal)) run -- member one signal $signal
	says "was killed by signal $signal"
done
gives 127 run -- no-such-command
says 'no-such-command: cannot be started: No such file'
gives 126 run -- "$dir"
: >plain
gives 126 run -- ./plain
says 'Permission denied'
gives 125 run
says 'give a command'
gives 125 run --grace x -- true
says '--grace x: give seconds, or inf'
gives 125 run --backoff inf -- true
gives 125 run --restart=x -- true
gives 125 run --frob -- true
says "unknown option '--frob'"
gives 125 run --heap
gives 0 run --help
says '--backoff SECONDS'
gives 0 run -- sh -c 'echo "$1"' sh --heap
says '^--heap$'

# ---- sons that crash in every way, while their father lives on and ends well

rm -f one
for way in 'signal 9' 'signal 11' 'signal 15' 'exit 0' 'exit 7' crash; do
	for tx in concurrent exclusive; do
		gives 0 run --heap h -- sh -c "member h $tx change $way || true"
		says "pheap run: h: pid [0-9]+ \\(member\\), attachment [0-9]+, died: 1 rolled back, 0 completed, in"
		gives 0 info h
		says '^h: clean$'
		whole h
	done
done

# as the OOM killer does it: several sons at once, from outside
gives 0 run --heap h -- sh -c 'member h concurrent change sleep & one=$!; member h concurrent sleep & two=$!
	while [ "$(pheap info --members h | grep -c " 1      1 ")" -lt 2 ]; do sleep 0.02; done; kill -9 $one $two; wait; true'
check "two dead" test "$(grep -c ', died: ' err)" = 2
whole h

# beside a member that lives
joined h living say ready sleep
living=$started
gives 0 run --heap h -- sh -c 'member h exclusive change signal 9; true'
says 'died: 1 rolled back'
gives 0 info --members h
says "^ *0 .* $living member .* alive$"
says_not dead
killed "$living"

# several heaps, one of them not there, one no heap
head -c 100000 /dev/zero >zeros
gives 0 run --heap h --heap i --heap none --heap zeros -- sh -c 'member h exclusive change exit 1; member i exclusive change exit 1; true'
says 'run: h: pid'
says 'run: i: pid'
says 'zeros: is not a heap'
says_not none
whole h
whole i
check "a heap that is not there is not made" test ! -e none

# a command without dead members opens nothing
before=$(cksum h)
gives 0 run --heap h -- true
gives 1 run --heap h -- false
check "the heap was opened for nothing" test "$before" = "$(cksum h)"

# ---- descendants

# a grandson whose father has ended: waited for, and recovered
export MEMBER_ALONE=1
gives 0 run --heap h -- sh -c 'member h exclusive change nap 300 signal 9 & exit 0'
says 'a descendant \(pid [0-9]+\) was killed by signal 9'
says 'died: 1 rolled back'
whole h
gives 0 run -- sh -c '(sh -c "sleep 0.3; echo last >last" &) ; exit 0'
check "it did not wait for what was left" test -e last

# the command dies: what is left gets TERM
gives 137 run --heap h -- sh -c 'member h exclusive change say ready sleep >son & until grep -q ready son; do sleep 0.02; done; kill -9 $$'
says 'a descendant \(pid [0-9]+\) was killed by signal 15'
says 'died: 1 rolled back'
whole h

# and KILL, if it does not obey
gives 1 run --heap h --grace 0.2 -- sh -c '(trap "" TERM; exec member h exclusive change say ready sleep) >son & until grep -q ready son; do sleep 0.02; done; exit 1'
says 'after the grace of 0.2 s: killed'
says 'a descendant \(pid [0-9]+\) was killed by signal 9'
whole h
gives 1 run --grace 0 -- sh -c '(trap "" TERM; sleep 50) & exit 1'
unset MEMBER_ALONE

# nobody stays a zombie
started zombies pheap run -- sh -c '(true &); (false &); sleep 0.2; echo ready; exec sleep 50'
run=$started
await ready zombies.out
check "it has children besides the command" until_true test "$(wc -w <"/proc/$run/task/$run/children")" = 1
kill "$run"
ended "$run" 143

# ---- signals

cat >obey <<'SH'
#!/usr/bin/env bash
for name in TERM INT HUP QUIT USR1 USR2; do
	# shellcheck disable=SC2064 # the name now
	trap "echo got-$name" $name
done
trap 'echo got-TERM; exit 9' TERM
sh -c 'trap "echo son-got" USR1 USR2 HUP INT; echo ready; while kill -0 $PPID 2>/dev/null; do sleep 0.05; done' &
while kill -0 $PPID 2>/dev/null; do sleep 0.02; done
SH
chmod +x obey
started signals pheap run --grace 30 -- ./obey
run=$started
await ready signals.out
for name in USR1 USR2 QUIT HUP INT; do
	kill -$name "$run"
	await got-$name signals.out
done
kill -TERM "$run"
ended "$run" 9
for name in TERM INT HUP QUIT USR1 USR2; do
	check "$name came not once" test "$(grep -c got-$name signals.out)" = 1
done
check "signals went to the son" test "$(grep -c son-got signals.out)" = 0

# after the grace KILL, to a command that stands still as well
for name in TERM INT HUP; do
	started grace pheap run --grace 0.2 -- sh -c 'trap "" TERM INT HUP; echo ready; while kill -0 $PPID 2>/dev/null; do sleep 0.05; done'
	run=$started
	await ready grace.out
	kill -$name "$run"
	ended "$run" 137
	check "it does not tell of the grace" grep -q 'after the grace' grace.err
done
started grace pheap run --grace inf -- sh -c 'trap "sleep 0.3; exit 4" TERM; echo ready; while kill -0 $PPID 2>/dev/null; do sleep 0.05; done'
run=$started
await ready grace.out
kill -TERM "$run"
ended "$run" 4
started still pheap run -- sh -c 'echo ready; kill -STOP $$; sleep 50'
run=$started
await ready still.out
kill -TERM "$run"
ended "$run" 143

# what was ignored stays ignored
started ignored sh -c 'trap "" HUP; exec pheap run -- sh -c "echo ready; exec sleep 50"'
run=$started
await ready ignored.out
kill -HUP "$run"
sleep 0.2
kill -TERM "$run"
ended "$run" 143

# its own death
started orphan pheap run -- sh -c 'trap "echo got-TERM; exit" TERM; echo ready; while kill -0 $PPID 2>/dev/null; do sleep 0.05; done'
run=$started
await ready orphan.out
killed "$run"
await got-TERM orphan.out

# the terminal's Ctrl-C comes once, and no restart after it
"$terminal" 24 80 ready '\003' pheap run --restart -- bash -c 'trap "echo got-INT; exit 6" INT; echo ready; while kill -0 $PPID 2>/dev/null; do sleep 0.05; done' >out 2>err </dev/null
check "Ctrl-C: $?" test $? = 6
check "Ctrl-C came not once" test "$(grep -c got-INT out)" = 1
says_not restart
"$terminal" 24 80 ready '\003' pheap run --restart -- sh -c 'echo ready; exec sleep 50' >out 2>err </dev/null
check "Ctrl-C without a trap: $?" test $? = 130
"$terminal" 24 80 ready 'line\012' pheap run -- sh -c 'echo ready; read -r word; echo "word=$word"' >out 2>err </dev/null
check "the command can read from the terminal" test $? = 0

# ---- restarts

lives() { wc -l <lives; }
gives 1 run --restart=3 --backoff 0.01 -- sh -c 'echo x >>lives; exit 1'
check "3 restarts: $(lives) lives" test "$(lives)" = 4
says 'restart 3 in 0.04 s'
says 'restarted 3 times in a row: that is the end'
rm lives
gives 0 run --restart --backoff 0.01 -- sh -c 'echo x >>lives; [ "$(wc -l <lives)" = 4 ] || kill -9 $$'
check "until it ends well: $(lives) lives" test "$(lives)" = 4
says 'restart 3 in'
gives 0 run --restart=5 --backoff 0.01 -- true
says_not restart
gives 5 run --restart=0 -- sh -c 'exit 5'
says_not restart
gives 127 run --restart --backoff 0.01 -- no-such-command

# each life finds the heap as the one before would have left it
rm -f h lives
gives 0 run --heap h --restart --backoff 0.01 -- sh -c 'echo x >>lives; [ "$(wc -l <lives)" -lt 6 ] || exec member h exclusive change commit close
	exec member h exclusive change commit exclusive change signal 9'
check "five deaths" test "$(grep -c 'died: 1 rolled back' err)" = 5
whole h

# no restart once it was told to end: not of a command that dies by it, not out of the pause
started ending pheap run --restart --backoff 0.01 -- sh -c 'echo ready; exec sleep 50'
run=$started
await ready ending.out
kill -TERM "$run"
ended "$run" 143
check "it was restarted" test "$(grep -c ready ending.out)" = 1
started pausing pheap run --restart --backoff 50 -- sh -c 'exit 3'
run=$started
await 'restart 1 in 50' pausing.err
kill -TERM "$run"
ended "$run" 3

# a restart waits for what the life before has left
MEMBER_ALONE=1 gives 0 run --heap h --restart --backoff 0.01 -- sh -c 'if [ -e second ]; then pheap info --members h; exit 0; fi; : >second
	member h exclusive change say ready sleep >son & until grep -q ready son; do sleep 0.02; done; exit 1'
says '^h: clean$'
whole h

finish
