#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# wal.sh: what info, dump and top say of a heap that survives power cuts, and of where it is.
# shellcheck source=tests/pheap/common
. "$(dirname "${BASH_SOURCE[0]}")/common"

json_says()
{
	if ! command -v python3 >/dev/null; then return; fi
	check "JSON: $1" python3 -c "import json; heap = json.load(open('out')); log = heap['log']; assert $1, heap"
}

# ---- creation, and a heap that was never used

for level in process epoch sync; do
	gives 0 create --durability $level --size 256K --max 4M $level
	gives 0 info $level
	says "durability ${level^^}$"
	gives 0 info --json $level
	json_says "heap['durability'] == '$level'"
	json_says "(log is None) == ('$level' == 'process')"
	whole $level
done
gives 0 create --size 256K plain
gives 0 info plain
says 'durability SYNC$'
gives 0 create --durability epoch --epoch 50 --journal 64K --size 256K small
gives 0 info --json small
json_says "log['size'] == 65536 and log['epoch_ms'] == 50"
gives 2 create --durability most none
says 'give sync, epoch or process'
gives 1 create --durability sync --journal 4K none
check 'a refused heap is there' test ! -e none
gives 0 info sync
says '^log: +[0-9.]+ [KM]iB; empty, at [0-9]+$'
gives 0 dump sync checkpoint
says 'the copy that counts'
says 'replay_lsn'
gives 0 dump sync wal
says 'no record: the log ends here$'
gives 1 dump process wal
says 'has no log'
gives 2 dump sync wal 7
gives 0 dump process checkpoint

# ---- where it is

before=$(cksum <sync)
gives 0 info sync
says '^stored on: +[^ ]+, (durable|process-only|refused|unknown): '
says '^flush: +(4 KiB are durable in [0-9.]+ us \(median of [0-9]+, in a file beside it\)|not measured: )'
gives 0 info --json sync
json_says "heap['storage'] in ('durable', 'process-only', 'refused', 'unknown')"
json_says "heap['flush_ns'] is None or heap['flush_ns'] > 0"
check 'looking changed the heap' test "$before" = "$(cksum <sync)"
gives 0 info /proc/self/cwd/sync
says '^stored on:'
check 'the measurement leaves a file' test -z "$(compgen -G 'pheap-info*')"
if [ -d /dev/shm ] && [ "$(stat -f -c %T /dev/shm)" = tmpfs ] && memory=$(mktemp -d /dev/shm/pheap-wal-XXXXXX); then
	gives 0 create --size 256K "$memory/heap"
	gives 0 info "$memory/heap"
	says '^stored on: +tmpfs, process-only: .* SYNC and EPOCH mean PROCESS$'
	rm -rf "$memory"
fi
mkdir shut
cp sync shut/heap
chmod 555 shut
if ! touch shut/probe 2>/dev/null; then
	gives 0 info shut/heap
	says '^flush: +not measured: the folder is not writable$'
fi
chmod 755 shut

# ---- in use

joined sync a spin 200 say ready sleep
a=$started
gives 0 info sync
says '^log: .* in use$'
says '^ +at [0-9]+, durable to [0-9]+, replayed from [0-9]+, epoch [0-9]+$'
says '^flushes: +[1-9][0-9]* of [0-9.]+ commits'
says '^logged: .* bytes for each byte committed'
says '^checkpoints: +[0-9]+ of '
gives 0 info --json sync
json_says "log['replay_lsn'] <= log['durable'] <= log['tail']"
json_says "log['stall_p99_ns'] <= log['stall_max_ns'] <= log['stall_ns']"
json_says "log['flushes'] > 0 and log['commits'] >= 200 and log['committed_size'] >= 1600"
gives 0 dump sync coord
says 'commit_count'
gives 0 dump sync wal
says '^  [0-9]+ COMMIT [0-9]+ bytes$'
says '^    DEFER +0x[0-9a-f]+ +8 '
says '^  [0-9]+ IMAGE [0-9]+ bytes$'
gives 0 dump sync ring
says '^  [0-9]+ COMMIT '
gives 0 dump sync chunk 2
says 'phd_lease@0x[0-9a-f]+: lease$'
gives 0 top --interval 0.05 --count 2 sync
says '^log: [0-9]+ % in use, .* not durable   flushes: [0-9]+/s of [0-9.]+ commits, [0-9]+ us   checkpoints: '
"$fsck" -n sync >out 2>err
check 'fsck -n of a heap in use' test $? = 0
says 'in use by member'

# an EPOCH heap commits nothing to its log
joined epoch b spin 50 say ready sleep
gives 0 info epoch
says '^flushes: +[0-9]+ of [0-9.]+ [KM]?i?[Bb][a-z]* each, in [0-9]+ us each$'
says '^logged: +[^,]+; [^,]+ of it images$'
says '^ +a power cut takes it back [0-9]+ ms at most$'
gives 0 top --once epoch
says '^log: .* flushes: [0-9]+/s of [0-9]+ us   checkpoints: '
gives 0 info --json epoch
json_says "log['epoch_ms'] > 0"
killed "$started"
started=$a

# ---- killed, and as after a cut

killed "$started"
gives 0 info sync
says '^sync: not closed cleanly$'
says 'opening it recovers it\.$'
cp sync cut
gives 0 info cut
says '^cut: copied without a clean close$'
says "programs are refused; 'pheap-fsck -y cut' accepts it\.$"
"$fsck" -n cut >out 2>err
check 'fsck -n of a copy' test $? = 4
says '\[state-foreign\]'
says '\[power-cut\] .*: it is a copy; the log has [0-9]+ bytes, [1-9][0-9]* commits'
"$fsck" -p cut >out 2>err
check 'fsck -p of a copy' test $? = 4
"$fsck" -y cut >out 2>err
check 'fsck -y of a copy' test $? = 1
says 'the log gave [1-9][0-9]* commits'
whole cut
member cut spin 5
"$fsck" -n --snapshot sync >out 2>err
check 'fsck -n --snapshot' test $? = 4
says '\[power-cut\] .*: it is said to be of a snapshot; '
"$fsck" -n sync >out 2>err
check 'fsck -n of a killed heap' test $? = 0
says_not 'power-cut'
member sync spin 5
whole sync
gives 0 info sync
says '^sync: clean$'
says '; empty, at [1-9]'

finish
