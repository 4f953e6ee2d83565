#!/bin/bash
# SPDX-License-Identifier: MIT
# The pheap command: create, info, dump; and that pheap-fsck agrees with what the library writes.
# Usage: command.sh PHEAP PHEAP-FSCK PHEAP-FSCK-MORTAL
set -u
pheap=$1
fsck=$2
mortal=$3
folder=$(mktemp -d "${TMPDIR:-/tmp}/pheap-command-XXXXXX") || exit 2
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
heap=$folder/a.heap
passed=0
failed=0

# check NAME WANTED-EXIT-CODE TEXT COMMAND...: TEXT must be in the output
check()
{
	local name=$1 want=$2 text=$3 out rc
	shift 3
	out=$("$@" 2>&1)
	rc=$?
	if [ "$rc" = "$want" ] && [[ $out == *"$text"* ]]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		printf 'FAILED: %s gave %d, wanted %d and "%s"\n%s\n' "$name" "$rc" "$want" "$text" "$out"
	fi
}

check create 0 'created' "$pheap" create --size 256K --max 4M --layout demo --lanes 5 --members 3 "$heap"
check 'create again' 1 'exists' "$pheap" create "$heap"
check 'too many lanes' 2 'from 1 to 16383' "$pheap" create --lanes 16384 "$folder/b.heap"
check 'unknown option' 2 "unknown option '--frob'" "$pheap" create --frob "$folder/b.heap"
check 'no value' 2 "'--max' needs a value" "$pheap" create --max
check 'size not a number' 2 '--size' "$pheap" create --size 7x "$folder/b.heap"
check 'too small' 1 'at least' "$pheap" create --max 100 "$folder/b.heap"
check 'no folder' 1 '' "$pheap" create "$folder/none/b.heap"
before=$(cksum "$heap")
check 'fsck of a new heap' 0 'clean' "$fsck" -n -f "$heap"
check info 0 'clean' "$pheap" info "$heap"
check 'info layout' 0 'demo' "$pheap" info "$heap"
check 'info json' 0 '"max_size": 4194304' "$pheap" info --json "$heap"
check 'info of a folder' 1 'directory' "$pheap" info "$folder"
check 'info of nothing' 1 'No such file' "$pheap" info "$folder/nothing"
head -c 100000 /dev/zero > "$folder/zeros"
check 'info of zeros' 1 'not a heap' "$pheap" info "$folder/zeros"
check 'dump list' 0 'lane N' "$pheap" dump "$heap"
for what in super 'super 1' state coord 'member 2' 'stripe 0' 'lane 4' head root type 'desc 0' 'chunk 0'; do
	# shellcheck disable=SC2086
	check "dump $what" 0 '' "$pheap" dump "$heap" $what
done
check 'dump at an offset' 0 'phd_state' "$pheap" dump "$heap" phd_state@0x200
check 'dump lane log' 0 'log: 0 bytes' "$pheap" dump "$heap" lane 0
check 'dump block' 0 'type 65538' "$pheap" dump "$heap" block "$("$pheap" dump "$heap" super |
	awk '$2 == "data_off" { print $3; exit }')"
check 'dump no such lane' 1 'from 0 to 4' "$pheap" dump "$heap" lane 5
check 'dump no such root' 1 'no root' "$pheap" dump "$heap" root nobody
check 'dump of what' 2 'unknown' "$pheap" dump "$heap" nonsense
check 'dump past the end' 1 'past the end' "$pheap" dump "$heap" super@0x7fffffff
check 'no command' 2 'help' "$pheap"
check 'unknown command' 2 'unknown' "$pheap" frobnicate
check help 0 'Usage' "$pheap" --help
check version 0 'library 0.' "$pheap" --version
if [ "$before" = "$(cksum "$heap")" ]; then
	passed=$((passed + 1))
else
	failed=$((failed + 1))
	echo 'FAILED: looking changed the file'
fi
# A heap that is not clean: left by a killed repair.
head_off=$("$pheap" dump "$heap" super | awk '$2 == "head_off" { print $3; exit }')
head -c 8 /dev/zero | dd of="$heap" bs=1 seek=$((head_off)) conv=notrunc 2>/dev/null
(PHEAP_FSCK_DIE_AFTER=2 "$mortal" -y "$heap" >/dev/null 2>&1) 2>/dev/null
check 'info, not closed' 0 'opening it recovers it' "$pheap" info "$heap"
check 'info json, not closed' 0 '"state": "not closed cleanly"' "$pheap" info --json "$heap"
cp "$heap" "$folder/copy"
check 'info of a copy' 0 "programs are refused; 'pheap-fsck -y $folder/copy' accepts it" "$pheap" info "$folder/copy"
check 'info json of a copy' 0 '"state": "copied without a clean close"' "$pheap" info --json "$folder/copy"
check 'fsck of a copy' 4 'state-foreign' "$fsck" -n "$folder/copy"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
