#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# info.sh: pheap info --members and --resources: who is there, who has what; also as JSON.
# shellcheck source=tests/pheap/common
. "$(dirname "${BASH_SOURCE[0]}")/common"

# json_says PYTHON: of the list `lines` of objects that the last command printed.
json_says()
{
	if ! command -v python3 >/dev/null; then return; fi
	check "JSON: $1" python3 -c "import json; lines = [json.loads(line) for line in open('out')]; assert $1, lines"
}

# ---- members

member h permits slots 8 permits gate 1 permits none 0 block
gives 0 info --members h
says '^h: clean$'
says '^0 of [0-9]+ slots taken'
gives 0 info --members --json h
check "no object for nobody" test ! -s out

joined h a concurrent lock 1 say ready sleep
a=$started
joined h b say ready sleep
b=$started
gives 0 info --members h
says '^h: in use$'
says "^ +0 +[0-9]+ +$a member +[0-9]+ +1 - +[0-9-]{10} [0-9:]{8} alive$"
says "^ +1 +[0-9]+ +$b member +[0-9]+ +0 - +[0-9-]{10} [0-9:]{8} alive$"
says '^2 of [0-9]+ slots taken, [0-9]+ of [0-9]+ lanes taken, 1 in a transaction$'
gives 0 info --members --json h
json_says "[l['pid'] for l in lines] == [$a, $b]"
json_says 'all(l["alive"] and l["kind"] == "member" and l["command"] == "member" for l in lines)'
json_says 'abs(lines[0]["started"] - __import__("time").time()) < 3600'
json_says '[l["lanes_active"] for l in lines] == [1, 0]'

killed "$a"
gives 0 info --members h
says "$a member .* dead, not yet recovered$"
says '^1 dead, not yet recovered: the next process that meets what it holds'
gives 0 info h
says 'and 1 dead, not yet recovered: see pheap info --members'
gives 0 info --members --json h
json_says 'lines[0]["alive"] is False and lines[1]["alive"] is True'
json_says 'lines[0]["to_roll_back"] == 0 and lines[0]["lanes_active"] == 1'
killed "$b"
gives 0 info --members h
says '^h: not closed cleanly$'
says '^2 dead, not yet recovered: the next process that opens the heap recovers it'
member h nap 0
gives 0 info --members h
says '^h: clean$'
says_not dead

# of a lane that will be rolled back
started c member h exclusive change signal 9
wait "$started" 2>/dev/null
gives 0 info --members --json h
json_says 'lines[0]["to_roll_back"] == 1 and lines[0]["to_complete"] == 0'
member h nap 0

# ---- held references and permits

gives 0 info --resources h
says '^held references: none$'
says "^  0x[0-9a-f]+ 'slots': 8 in all, 8 available$"
says "^  0x[0-9a-f]+ 'gate': 1 in all, 1 available$"
joined h a hold hold take slots 3 say ready sleep
a=$started
joined h b hold lend slots 5 take gate 1 say ready sleep
b=$started
gives 0 info --resources h
says "^  0x[0-9a-f]+ +2 \\(thing\\) +2 attachment [0-9]+, pid $a \\(member\\)$"
says "^  0x[0-9a-f]+ +2 \\(thing\\) +1 attachment [0-9]+, pid $b \\(member\\)$"
says "'slots': 8 in all, 10 available$"
says "^    taken 3: attachment [0-9]+, pid $a \\(member\\)$"
says "^    lent  5: attachment [0-9]+, pid $b \\(member\\)$"
says "'gate': 1 in all, 0 available$"
says "^    taken 1: attachment [0-9]+, pid $b"
says "'none': 0 in all, 0 available$"
gives 0 info --members h
says "$a member .* holds "
gives 0 info --resources --json h
json_says 'sorted(l["count"] for l in lines if l["kind"] == "hold") == [1, 2]'
json_says 'all(l["type_name"] == "thing" and not l["void"] and l["alive"] for l in lines if l["kind"] == "hold")'
json_says '[(l["total"], l["available"]) for l in lines if l.get("names") == ["slots"]] == [(8, 10)]'
json_says "[(p['pid'], p['balance']) for l in lines if l.get('names') == ['slots'] for p in l['holders']] == [($a, 3), ($b, -5)]"
gives 0 info --members --resources --json h
json_says 'len(lines) == 2 + 2 + 3'

killed "$b"
gives 0 info --resources h
says "pid $b \\(member\\), dead, not yet recovered$"
gives 0 info --resources --json h
json_says "[(l['pid'], l['alive'], l['void']) for l in lines if l['kind'] == 'hold' and not l['alive']] == [($b, False, False)]"
gives 0 watch --once h
gives 0 info --resources h
says_not "pid $b"
says "'slots': 8 in all, 5 available$"
says "'gate': 1 in all, 1 available$"

# a record whose member is gone, as it is seen before somebody clears up
word=$(pheap dump h head | grep -o 'holds .*' | grep -o '0x[0-9a-f]*' | head -n 1)
printf '\377\377\377\0\0\0\0\0' | dd of=h bs=1 seek=$((word + 16)) conv=notrunc 2>/dev/null
gives 0 info --resources h
says 'attachment 16777215, gone: void$'
says '^  void: the holder is gone'
gives 0 info --resources --json h
json_says '[(l["void"], l["alive"], l["pid"]) for l in lines if l["kind"] == "hold"] == [(True, False, 0)]'
killed "$a"
member h nap 0
gives 0 info --resources h
says '^held references: none$'

# two names, and none
member k permits one 3 permits two 4
gives 0 info --resources --json k
json_says '[l["names"] for l in lines] == [["one"], ["two"]]'

# ---- others

export MEMBER_EPHEMERAL=1
joined e first say ready sleep
gives 0 info e
says 'ephemeral: it goes with its last user'
killed "$started"
gives 0 info e
says 'whoever opens it next removes it'
gives 0 info --members e
says 'the next process that opens the heap removes it'
gives 2 info --members
gives 2 info --frob h
gives 0 info --help
says --resources
gives 1 info --members none
says 'No such file'
gives 0 dump k
says phd_permit_cell
gives 0 dump k block "$(pheap dump k root one | awk '$2 == "off" { print $3 }')"
says phd_permits
says '0x000 total +3'

finish
