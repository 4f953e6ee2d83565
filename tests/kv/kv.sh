#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# kv.sh KV DEMO FSCK OTHER_HEAP ONE_SHARD: pheap-kv as its users see it. The last line says how many cases passed and failed.
#
# How it cleans up: a keeper removes the folder when the last process that holds the pipe's other end has ended, also when
# this script is killed.
set -u
kv=$(realpath -e "$1") demo=$(realpath -e "$2") fsck=$(realpath -e "$3") other_heap=$(realpath -e "$4") || exit 99
one_shard=$(realpath -e "$5") || exit 99
passed=0 failed=0 child=''

dir=$(mktemp -d "${TMPDIR:-/tmp}/pheap-kv-test-XXXXXX") || exit 99
mkfifo "$dir/hold"
# shellcheck disable=SC2016 # expanded by the keeper
setsid bash -c 'trap "" INT TERM HUP; exec <"$1/hold" >/dev/null 2>&1; read -r _; rm -rf "$1"' keeper "$dir" &
exec 9>"$dir/hold"
trap 'if [ -n "$child" ]; then kill -9 "$child" 2>/dev/null; fi' EXIT
cd "$dir" || exit 99

good() { passed=$((passed + 1)); }
bad()
{
	failed=$((failed + 1))
	printf 'FAILED: %s\n' "$1"
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
fsck_gives()
{
	local got=0
	"$fsck" -n -f "$2" >out 2>err || got=$?
	if [ "$got" = "$1" ]; then good; else bad "fsck -n -f $2: $got, not $1"; fi
}

# kill_in_transaction N WORD...: a load that is killed in the middle of its N-th transaction.
kill_in_transaction()
{
	local n=$1 i
	shift
	: >stalled # of the one before
	"$kv" "$@" --stall "$n" >stalled 2>err </dev/null &
	child=$!
	for ((i = 0; i < 3000; i++)); do
		if grep -q '^stalled' stalled || ! kill -0 "$child" 2>/dev/null; then break; fi
		sleep 0.02
	done
	kill -9 "$child" 2>/dev/null
	wait "$child" 2>/dev/null
	child=''
	check "load does not come to transaction $n" grep -q '^stalled' stalled
}

make_lines()
{
	local i
	for ((i = 0; i < $1; i++)); do
		printf 'key-%d\tvalue %d %0*d\n' "$i" $((i * 7919)) $((i * i % 600 + 1)) "$i"
	done
}

# ---- one record

gives 0 h put alpha one
gives 0 h get alpha
check "the value of alpha" test "$(cat out)" = one
gives 0 h put alpha two
gives 0 h get alpha
check "the new value of alpha" test "$(cat out)" = two
gives 0 h put empty ''
gives 0 h get empty
check "an empty value" test ! -s out
gives 1 h get beta
gives 1 h delete beta
printf 'a\0b\n\377\n' >bytes
"$kv" h put beta <bytes && "$kv" h put beta2 - <bytes
"$kv" h get beta >out
check "bytes through standard input" cmp -s out bytes
"$kv" h get beta2 >out
check "bytes through -" cmp -s out bytes
head -c 3000000 /dev/urandom >bytes
"$kv" h put large <bytes
"$kv" h get large >out
check "a large value" cmp -s out bytes
gives 0 h list
check "list" test "$(tr '\n' ' ' <out)" = 'alpha beta beta2 empty large '
gives 0 h list be
check "list with a prefix" test "$(tr '\n' ' ' <out)" = 'beta beta2 '
gives 0 h delete large
gives 1 h get large
gives 0 h delete empty
gives 0 h list zzz
check "list of nothing" test ! -s out
gives 0 h stats
says 'records               3'
key=$(printf '%01024d' 0)
gives 0 h put "$key" long
gives 0 h get "$key"
check "a key of 1024 bytes" test "$(cat out)" = long
fsck_gives 0 h

# ---- many records

make_lines 3000 >lines
gives 0 l load lines --format lines --threads 3
gives 0 l verify lines --format lines
says 'contents equal the input exactly: 3000 records'
gives 0 l get key-2999
check "a loaded value" test "$(cat out)" = "$(sed -n 's/^key-2999\t//p' lines)"
gives 0 l load lines --format lines
says '; 0 transactions'
gives 0 l load lines --format lines --again
says '; 3000 transactions'
gives 0 l load lines --format lines --rounds 3 --threads 8
says '; 18000 transactions'
gives 0 l verify lines --format lines
gives 0 l put key-5 wrong
gives 1 l verify lines --format lines
says 'key-5: has another value'
gives 0 l delete key-5
gives 1 l verify lines --format lines
says 'key-5: is missing'
gives 0 l load lines --format lines --again
gives 0 l put key-x more
gives 1 l verify lines --format lines
says 'key-x: is not in the input'
gives 0 l delete key-x
gives 0 l verify lines --format lines
fsck_gives 0 l

cat >status <<'TXT'
Package: both
Architecture: amd64
Description: first
 Package: not a field

Package: both
Architecture: i386

Package:   alone  
Architecture: all


Package: last
TXT
gives 0 d load status
gives 0 d list
check "keys of packages" test "$(tr '\n' ' ' <out)" = 'alone both:amd64 both:i386 last '
"$kv" d get both:amd64 >out
check "a paragraph, byte for byte" cmp -s out <(head -n 4 status)
gives 0 d verify status
says 'contents equal the input exactly: 4 records'

# ---- killed

done_before=0
for n in 1 2 3 64 65 700 2001; do
	kill_in_transaction "$n" k load lines --format lines --rounds 4 --durability process
	fsck_gives 4 k
	gives 0 k verify lines --format lines --so-far
	says 'after a kill: 1 undone'
	"$kv" k stats >out
	done_now=$(sed -n 's/^load transactions *//p' out)
	# the stalled one was not committed, all before it were counted by others, too
	check "committed work went: $done_before, then $done_now" test "$done_now" -ge "$done_before"
	done_before=$done_now
	fsck_gives 0 k
done
gives 2 k load status
says 'not finished'
gives 1 k verify lines --format lines
says 'is not finished'
kill_in_transaction 500 k load lines --format lines --rounds 4
gives 0 k load lines --format lines --rounds 4
says 'after a kill: 1 undone'
says "going on at"
gives 0 k verify lines --format lines
says 'contents equal the input exactly: 3000 records'
gives 0 k stats
says 'load transactions     30000'
says 'kills in transactions'
fsck_gives 0 k

# ---- what a power cut may take

gives 0 h stats
says 'durability            sync'
for level in process epoch sync; do
	gives 0 $level put first one --durability $level
	gives 0 $level stats
	says "durability            $level"
	kill_in_transaction 700 $level load lines --format lines
	fsck_gives 4 $level
	gives 0 $level get first
	check "a record of $level from before the kill" test "$(cat out)" = one
	gives 0 $level delete first
	gives 0 $level verify lines --format lines --so-far
	gives 0 $level load lines --format lines --durability $level
	gives 0 $level verify lines --format lines
	says 'contents equal the input exactly: 3000 records'
	fsck_gives 0 $level
done
kill_in_transaction 100 loaded load lines --format lines --durability epoch
gives 0 loaded stats
says 'durability            epoch'
gives 2 process put a b --durability sync
check "one sentence for another durability" test "$(cat err)" = \
	'pheap-kv: process: was made with --durability process, which cannot be changed later'
gives 2 sync load lines --format lines --durability epoch
gives 2 sync get key-1 --durability process
gives 2 none put a b --durability most
says '--durability takes sync, epoch or process'
check "a refused durability makes no file" test ! -e none

# a table that the log is too small to double in one transaction
"$one_shard" 1000 >narrow-lines
gives 0 narrow load narrow-lines --format lines --max-size 1M
gives 0 narrow stats
says 'buckets               512'
gives 0 narrow verify narrow-lines --format lines
gives 0 wide load narrow-lines --format lines
gives 0 wide stats
says 'buckets               1024'
fsck_gives 0 narrow

# ---- what cannot be done

gives 2 missing get a
check "one sentence for a missing file" test "$(cat err)" = 'pheap-kv: missing: no such file; put or load makes one'
check "get makes no file" test ! -e missing
gives 2 missing load nothing
says 'nothing: No such file'
check "a refused load makes no file" test ! -e missing
gives 2 h put "${key}0" x
says 'a key has 1 to 1024 bytes'
gives 2 h put '' x
gives 2 h get "${key}0"
printf 'no tab here\n' >broken
gives 2 h load broken --format lines
says 'no tab'
printf 'a\t1\na\t2\n' >broken
gives 2 h load broken --format lines
says 'the same key'
printf '\t1\n' >broken
gives 2 h load broken --format lines
says 'a key is empty'
printf '%s0\tx\n' "$key" >broken
gives 2 h load broken --format lines
says 'longer than 1024'
printf 'Version: 1\n' >broken
gives 2 h load broken
says 'no field Package'
gives 2 h load "$dir"
"$other_heap" other "something else" && "$other_heap" any ""
gives 2 other get a
says 'something else'
gives 2 other put a b
gives 2 any get a
says 'not made by pheap-kv'
fsck_gives 0 other
head -c 300000 /dev/zero >zeros
gives 2 zeros get a
gives 2 zeros put a b
check "a refused file is unchanged" cmp -s zeros <(head -c 300000 /dev/zero)
head -c 100000 l >short
gives 2 short get key-1
gives 2 "$dir" get a
gives 2 h
gives 2 h nonsense
says "unknown command 'nonsense' (usage: pheap-kv FILE get KEY)"
gives 2 h get a --nonsense
says "unknown option '--nonsense'"
check "one line for an unknown option" test "$(wc -l <err)" = 2
gives 2 h put a b --max-size
says "option '--max-size' needs a value"
: >nothing_in_it
gives 2 nothing_in_it put a b
check "no advice for programmers" test "$(cat err)" = 'pheap-kv: nothing_in_it: the file is empty'
gives 2 h get
gives 2 h get a b
gives 2 h load lines --threads 0
gives 2 h load lines --threads 65
gives 2 h load lines --format xml
gives 2 h put a b --max-size 5X
gives 2 new put a b --max-size 1
check "no heap of one byte" test ! -e new
gives 0 --help
says 'Usage: pheap-kv FILE'

# ---- full

gives 0 small put a b --max-size 1M
gives 2 small load lines --format lines
for size in 64K 70K 80K; do
	gives 2 tiny put a "$key" --max-size $size
	check "a heap of $size for nothing stays" test ! -e tiny
done
gives 2 tiny load lines --format lines --max-size 64K
check "a heap for no record stays" test ! -e tiny
gives 2 small put b "$(head -c 100000 /dev/zero | tr '\0' x)$(head -c 10000 lines)" --max-size 64K
check "a heap with records does not go" test -e small
gives 0 small get a
check "a full heap keeps what it has" test "$(cat out)" = b
gives 1 small verify lines --format lines
fsck_gives 0 small
gives 0 small delete a

# ---- the demo

mkdir t
TMPDIR=$dir/t "$demo" --seconds 2 --threads 4 --seed 7 --kv "$kv" --fsck "$fsck" status >out 2>err </dev/null
check "the demo" test $? = 0
says 'contents equal the input exactly: 4 records'
check "the demo leaves nothing" test -z "$(ls t)"
TMPDIR=$dir/t "$demo" --seconds 60 --kv "$kv" --fsck "$fsck" status >out 2>err </dev/null &
child=$!
for ((i = 0; i < 3000; i++)); do
	if grep -q 'kills [1-9]' out; then break; fi
	sleep 0.02
done
kill -9 "$child"
wait "$child" 2>/dev/null
child=''
for ((i = 0; i < 3000; i++)); do
	if [ -z "$(ls t)" ]; then break; fi
	sleep 0.02
done
check "a killed demo leaves nothing" test -z "$(ls t)"
"$demo" --kv "$kv" --fsck "$fsck" nothing >out 2>err </dev/null
check "the demo without an input" test $? = 1

cd /
exec 9>&-
wait
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
