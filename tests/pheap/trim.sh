#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# trim.sh: pheap trim: the file has less on the disk, and its heap all that it had; others see what is missing.
# shellcheck source=tests/pheap/common
. "$(dirname "${BASH_SOURCE[0]}")/common"

blocks() { stat -c %b "$1"; }

gives 0 create --size 64M --max 128M h
full=$(blocks h)
gives 0 trim h
says '^h: [4-6][0-9.]+ MiB given back, .* on disk$'
check "less on the disk" test "$(blocks h)" -lt $((full / 2))
less=$(blocks h)
gives 0 info h
says '^given back: +[4-6][0-9.]+ MiB of the free chunks'
gives 0 info --json h
says '"hole_chunk_count": [0-9]{4}'
gives 0 dump h desc 2000
says 'FREE, perhaps without space in the file$'
"$fsck" -n -f -v h >out 2>err
check "fsck finds nothing" test $? -eq 0
says 'of them [0-9]+ given back'
"$fsck" -y -f h >out 2>err
check "nor repairs" test $? -eq 0
# opening it takes nothing back
member h nap 0
check "it stays so" test "$(blocks h)" -le $((less + 256))
gives 0 trim h
says '^h: (0 bytes|[0-9.]+ [KB].*) given back'

# beside somebody
joined h a concurrent lock 1 say ready sleep
a=$started
gives 0 trim h
killed "$a"
gives 0 trim h

gives 0 trim --help
says '^Usage: pheap trim FILE$'
gives 2 trim
gives 2 trim h h
gives 2 trim --wrong h
gives 1 trim nothing
printf 'x' >junk
gives 1 trim junk
finish
