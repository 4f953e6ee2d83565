#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# readme_check.sh SOURCE LIBRARY CC...: the first C example in README.md compiles without a warning, links with LIBRARY, and
# does what it says: a transfer happens whole, or not at all when there is no money.
set -u
source=$1 library=$(realpath "$2")
shift 2
dir=$(mktemp -d "${TMPDIR:-/tmp}/pheap-readme-XXXXXX") || exit 99
mkfifo "$dir/hold"
# removes the folder when this script has ended, however it ends
# shellcheck disable=SC2016 # expanded by the keeper
setsid bash -c 'trap "" INT TERM HUP; exec <"$1/hold" >/dev/null 2>&1; read -r _; rm -rf "$1"' keeper "$dir" &
exec 9>"$dir/hold"

fail()
{
	printf 'README.md: %s\n0 passed, 1 failed\n' "$1"
	exit 1
}

# expect CODE TEXT: what the example says the next time.
expect()
{
	local code=0 text
	text=$(./example 2>&1) || code=$?
	[ "$code" = "$1" ] || fail "the example ends with $code: $text"
	case $text in
	*"$2"*) ;;
	*) fail "the example says '$text', not '$2'" ;;
	esac
}

awk '/^```$/ && inside { exit } inside { print } /^```c$/ { inside = 1 }' "$source/README.md" >"$dir/example.c"
[ -s "$dir/example.c" ] || fail 'there is no C example'
cd "$dir" || exit 99
"$@" -std=c11 -Wall -Wextra -Werror -g -I"$source/include" example.c -o example "$library" \
	-Wl,-rpath,"$(dirname "$library")" || fail 'the example does not compile'
expect 0 '970 + 30'
for ((i = 0; i < 31; i++)); do expect 0 ' + '; done
expect 0 '10 + 990'
expect 1 'out of range'
expect 1 'out of range'
printf '1 passed, 0 failed\n'
