#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""run_spin.py [-v] [--long] [-j N] MODEL.pml...: every search that the models name, each one case.

A search is a line of a model's opening comment, KIND NAME: DEFINES:
  @whole NAME: DEFINES     every state: no assertion fails, and every state has a way on
  @ends NAME: DEFINES      every state: no cycle without progress, if all that can run do run now and then
  @finds WHAT NAME: ...    a broken variant, in which spin must find WHAT: an assertion that fails, a state without
                           a way on (stuck), or a cycle without progress (cycle)
  @long NAME: DEFINES      as @whole, larger; only with --long
-v prints the way to what is found. Exit: 0 all as said, 1 not, 77 spin is not installed.
"""
import argparse
import ctypes
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SEARCH = re.compile(r"^ \* @(whole|long|ends|finds (assertion|stuck|cycle)) ([^:]+):(.*)$", re.M)
LIMIT_S = 240  # hang limit of one search, of a long one ten times that
MEMORY_MB = 1000  # of a long one four times that
DEPTH = 200000
KINDS = {
    "assertion": re.compile(r"^pan:\d+: assertion violated", re.M),
    "stuck": re.compile(r"^pan:\d+: invalid end state", re.M),
    "cycle": re.compile(r"^pan:\d+: non-progress cycle", re.M),
}


def die_with_parent(number=signal.SIGKILL):
    ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


def run(args, folder, limit_s=LIMIT_S):
    try:
        done = subprocess.run(
            args,
            cwd=folder,
            env={**os.environ, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
            preexec_fn=die_with_parent,
        )
    except subprocess.TimeoutExpired:
        return 1, f"stopped after {limit_s} s"
    return done.returncode, done.stdout.decode(errors="replace")


def judge(want, output):
    """None if the search came out as it should, else why not."""
    found = [kind for kind, sign in KINDS.items() if sign.search(output)]
    if not re.search(r"errors: \d+", output):
        return "the search did not end"
    if want:
        return None if found == [want] else f"found {found or 'nothing'} where it should find {want}"
    if found or not re.search(r"errors: 0\b", output):
        return f"found {found}"
    if "Search not completed" in output or "max search depth too small" in output:
        return "the search is not complete: memory or depth ran out"
    return None


def search(model, kind, want, defines, compiler, folder, verbose):
    """(why it failed or None, what it cost)"""
    shutil.copy(model, os.path.join(folder, "model.pml"))
    with open(model, encoding="utf-8") as file:
        for name in re.findall(r'^#include "(.+)"$', file.read(), re.M):
            shutil.copy(os.path.join(os.path.dirname(model), name), folder)
    code, output = run(["spin", *defines, "-a", "model.pml"], folder)
    if code or re.search(r"\berror\b", output, re.I):
        return "spin does not take the model:\n" + output, ""
    cycles = kind == "ends" or want == "cycle"
    long = kind == "long"
    flags = ["-DNP"] if cycles else ["-DSAFETY"]
    # found soon (sooner with the last choice tried first): compiling well would cost more than it gives
    flags += ["-O0", "-DT_REVERSE"] if want else ["-O2" if long else "-Og"]
    flags += ["-DCOLLAPSE", f"-DMEMLIM={4 * MEMORY_MB}"] if long else [f"-DMEMLIM={MEMORY_MB}"]
    code, output = run([*compiler, "-w", *flags, "-o", "pan", "pan.c"], folder)
    if code:
        return "the search does not compile:\n" + output, ""
    start = time.monotonic()
    code, output = run(["./pan", f"-m{DEPTH}", "-w22", *(["-l", "-f"] if cycles else [])],
                       folder, LIMIT_S * 10 if long else LIMIT_S)
    why = judge(want, output)
    states = re.search(r"(\d+) states, stored", output)
    trail = os.path.exists(os.path.join(folder, "model.pml.trail"))
    if trail and (verbose or why):
        _, way = run(["spin", *defines, "-t", "-p", "-g", "model.pml"], folder)
        print("\n".join(way.splitlines()[-150:]))
    if why and not trail:
        why += "\n" + output
    return why, f"{int(states[1]) if states else 0} states, {time.monotonic() - start:.1f} s"


def case(job):
    model, kind, want, name, defines, compiler, verbose = job
    with tempfile.TemporaryDirectory(prefix="pheap-spin-") as folder:
        why, cost = search(model, kind, want, defines.split(), compiler, folder, verbose)
    title = f"{os.path.basename(model)[:-4]}, {kind.split()[0]} {name}: {cost}"
    return why, f"{'not ok' if why else 'ok'} - {title}" + (f"\n{why}" if why else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-v", action="store_true", help="print the way to what was found")
    parser.add_argument("--long", action="store_true", help="the long searches too")
    parser.add_argument("--compiler", action="append", help="a word of the C compiler's command")
    parser.add_argument("--only", default="", help="searches whose name has this in it")
    parser.add_argument("-j", type=int, default=2, metavar="N", help="searches beside each other (%(default)s)")
    parser.add_argument("model", nargs="+")
    args = parser.parse_args()
    if not shutil.which("spin"):
        print("SKIPPED: spin is not installed (Debian: apt-get install spin)")
        return 77
    passed = failed = 0
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(1))
    jobs = []
    for model in args.model:
        with open(model, encoding="utf-8") as file:
            searches = SEARCH.findall(file.read())
        if not searches:
            print(f"not ok - {model} names no search")
            failed += 1
        for kind, want, name, defines in searches:
            if args.only in name and (kind != "long" or args.long):
                jobs.append((model, kind, want, name, defines, args.compiler or ["cc"], args.v))
    # A worker that is told to end, or whose parent has died, ends its search and removes its folder.
    with multiprocessing.Pool(args.j, die_with_parent, (signal.SIGTERM,)) as pool:
        for why, line in pool.imap(case, jobs):
            print(line, flush=True)
            passed += not why
            failed += bool(why)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main())
