#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# many.sh KV FSCK [SEED]: pheap-kv by several processes at a time, which are killed. The last line says how many cases
# passed and failed.
#
# How it cleans up: a keeper removes the folder when the last process that holds the pipe's other end has ended, also when
# this script is killed; the processes of a load end with their parent.
set -u
kv=$(realpath -e "$1") fsck=$(realpath -e "$2") || exit 99
seed=${3:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
RANDOM=$((seed % 32768))
passed=0 failed=0 children=()
echo "seed $seed"

dir=$(mktemp -d "${TMPDIR:-/tmp}/pheap-kv-test-XXXXXX") || exit 99
mkfifo "$dir/hold"
# shellcheck disable=SC2016 # expanded by the keeper
setsid bash -c 'trap "" INT TERM HUP; exec <"$1/hold" >/dev/null 2>&1; read -r _; rm -rf "$1"' keeper "$dir" &
exec 9>"$dir/hold"
trap 'for pid in "${children[@]}"; do kill -9 "$pid" 2>/dev/null; done' EXIT
cd "$dir" || exit 99

good() { passed=$((passed + 1)); }
bad()
{
	failed=$((failed + 1))
	printf 'FAILED (seed %s): %s\n' "$seed" "$1"
	sed 's/^/    /' out err 2>/dev/null | head -n 20
}

# check TEXT COMMAND...: the command says yes.
check()
{
	local text=$1
	shift
	if "$@"; then good; else bad "$text"; fi
}

# gives CODE WORD...: pheap-kv WORD... ends with CODE; its output is in out and err.
gives()
{
	local want=$1 got=0
	shift
	"$kv" "$@" >out 2>err </dev/null || got=$?
	if [ "$got" = "$want" ]; then good; else bad "pheap-kv $*: $got, not $want"; fi
}

says() { check "it does not say: $1" grep -qF -- "$1" out err; }
fsck_clean()
{
	"$fsck" -n -f "$1" >out 2>err
	check "fsck -n -f $1" test $? = 0
}

# waits COMMAND...: until it says yes; a minute at most.
waits()
{
	local i
	for ((i = 0; i < 3000; i++)); do
		if "$@"; then return 0; fi
		sleep 0.02
	done
	bad "waited for nothing: $*"
	return 1
}

gone() { ! kill -0 "$1" 2>/dev/null; }
sons() { cat "/proc/$1/task/$1/children" 2>/dev/null; }
count_sons()
{
	local pids
	read -ra pids <<<"$(sons "$1")"
	[ ${#pids[@]} = "$2" ]
}

# start NAME WORD...: a pheap-kv in the background, its pid in $pid, its output in NAME.
start()
{
	local name=$1
	shift
	"$kv" "$@" >"$name" 2>&1 </dev/null &
	pid=$!
	children+=("$pid")
}

# ends CODE NAME PID: it ends with CODE.
ends()
{
	local got=0
	wait "$3" || got=$?
	check "$2 ended with $got, not $1: $(tail -n 3 "$2")" test "$got" = "$1"
}

# kill_son PARENT: one of its sons, which the parent has not waited for.
kill_son()
{
	local pids
	read -ra pids <<<"$(sons "$1")"
	if [ ${#pids[@]} -gt 0 ]; then kill -9 "${pids[RANDOM % ${#pids[@]}]}" 2>/dev/null; fi
}

committed() { "$kv" "$1" stats 2>/dev/null | sed -n 's/^load transactions *//p'; }

for ((i = 0; i < 3000; i++)); do
	printf 'key-%d\tvalue %d %0*d\n' "$i" $((i * 7919)) $((i * i % 600 + 1)) "$i"
done >lines
for ((i = 0; i < 20000; i++)); do printf 'k%d\t%d\n' "$i" $((i * 31)); done >wide

# ---- one command, several processes

gives 0 a load lines --format lines --processes 4
says '; 3000 transactions'
gives 0 a verify lines --format lines
says 'contents equal the input exactly: 3000 records'
gives 0 a load lines --format lines --processes 3 --threads 2 --rounds 3
says '; 18000 transactions'
gives 0 a load lines --format lines --processes 2
says '; 0 transactions'
gives 0 a load lines --format lines --processes 16 --again
says '; 3000 transactions'
gives 0 a verify lines --format lines
fsck_clean a
gives 2 a load lines --processes 0
gives 2 a load lines --processes 17
gives 2 a load lines --format lines --processes 2 --report r
says 'is for one process'
gives 2 few load lines --format lines --processes 4 --max-size 512K --durability process
says 'too many for this heap'
check "a refused load makes no file" test ! -e few
gives 2 a load nothing --processes 2

# ---- its processes are killed, the others go on

start crew k load lines --format lines --processes 4 --rounds 100
crew=$pid
waits grep -q '^starting' crew
for ((i = 0; i < 40; i++)); do
	kill_son "$crew"
	sleep "0.0$((RANDOM % 9))"
	if [ $((i % 8)) = 0 ]; then
		gives 0 k verify lines --format lines --so-far
		before=$(committed k)
	fi
done
check "no kill was seen" grep -q 'was killed, the others go on' crew
ends 0 crew "$crew"
check "committed work went" test "$(committed k)" -ge "$before"
check "$(committed k) transactions, not $((3000 * 298))" test "$(committed k)" = $((3000 * 298))
gives 0 k verify lines --format lines
says 'contents equal the input exactly: 3000 records'
gives 0 k stats
says 'kills met'
fsck_clean k

# tables grow in the first round
start crew g load wide --format lines --processes 4
crew=$pid
waits grep -q '^starting' crew
while ! gone "$crew"; do kill_son "$crew"; sleep "0.0$((RANDOM % 3))"; done
wait "$crew"
gives 0 g load wide --format lines --processes 4
gives 0 g verify wide --format lines
says 'contents equal the input exactly: 20000 records'
check "$(committed g) transactions, not 20000" test "$(committed g)" = 20000
fsck_clean g

# killed again and again before they can do anything
start crew v load lines --format lines --processes 2 --stall 1
crew=$pid
while ! gone "$crew"; do kill_son "$crew"; sleep 0.02; done
ends 2 crew "$crew"
check "no end in sight" grep -q 'killed as soon as they start' crew
gives 0 v verify lines --format lines --so-far
fsck_clean v

# its processes end with it
start crew p load lines --format lines --processes 3 --rounds 1000000
crew=$pid
waits count_sons "$crew" 3
read -ra orphans <<<"$(sons "$crew")"
kill -9 "$crew"
wait "$crew" 2>/dev/null
for orphan in "${orphans[@]}"; do waits gone "$orphan"; done
gives 0 p verify lines --format lines --so-far
says 'contents equal exactly'
fsck_clean p

# ---- commands that know nothing of each other

for i in 1 2 3 4; do
	start "load-$i" s load lines --format lines --threads 1 --rounds 100
	loads[i]=$pid
done
waits grep -q . load-1 load-2 load-3 load-4
sleep 0.1
kill -9 "${loads[1]}"
sleep 0.1
kill -9 "${loads[2]}"
gives 0 s put by-hand "beside them"
gives 0 s get by-hand
check "a record beside a load" test "$(cat out)" = 'beside them'
gives 0 s list by
check "list beside a load" test "$(cat out)" = by-hand
# a round deletes each record and puts it back: it may be away for a moment
found() { "$kv" s get key-7 >out 2>err </dev/null; }
waits found
gives 0 s delete by-hand
gives 1 s get by-hand
gives 0 s verify lines --format lines --so-far
wait "${loads[1]}" "${loads[2]}" 2>/dev/null
ends 0 load-3 "${loads[3]}"
ends 0 load-4 "${loads[4]}"
check "$(committed s) transactions, not $((3000 * 298))" test "$(committed s)" = $((3000 * 298))
gives 0 s verify lines --format lines
says 'contents equal the input exactly: 3000 records'
fsck_clean s

# a dead one's locks: those beside it wait for nobody
start stalled t load lines --format lines --threads 1 --stall 701 --rounds 4
stalled=$pid
waits grep -q '^stalled' stalled
start beside t load lines --format lines --threads 2 --rounds 4
beside=$pid
waits grep -q 'at ' beside
kill -9 "$stalled"
wait "$stalled" 2>/dev/null
ends 0 beside "$beside"
gives 0 t verify lines --format lines
check "$(committed t) transactions, not 30000" test "$(committed t)" = 30000
gives 0 t stats
says 'undone                1'
says 'kills met             1'
fsck_clean t

# one load takes the place of another
start load-1 o load lines --format lines --rounds 1000000
first=$pid
waits grep -q 'starting at' load-1
gives 2 o load wide --format lines
says 'not finished'
gives 0 o load wide --format lines --again
ends 2 load-1 "$first"
check "the first does not say why" grep -q 'another process has begun another load' load-1
fsck_clean o

cd /
exec 9>&-
wait
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
