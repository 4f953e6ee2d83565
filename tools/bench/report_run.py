#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""report_run: runs benches and makes a page of what they say. `tools/dev bench --report DIR` calls it.

usage: report_run.py --check DIR
       report_run.py --build BUILD --packages "NAME..." --report DIR [OPTION of pheap-bench]... [NAME]...

Each bench is a process of its own (but see TOGETHER), so one that fails costs no other: the page is made from what
there is and says what failed. DIR/results.jsonl gets all lines as they come (under another name until the end),
DIR/index.html is made from it. Status 0: all went well; 1: a bench failed; 2: nothing was run; 130: it was stopped,
and the page is made all the same.
"""
import ctypes
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
import report_page  # noqa: E402 (its compiled form does not belong into the source tree)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FLAGS = {'--json', '--quick'}
VALUED = {'--reps', '--memory', '--system', '--seed', '--param', '--records'}
TOGETHER = {'hash-insert', 'hash-lookup', 'hash-remove'}
TEXT_LINES = 30  # of what a failed bench said
PR_SET_PDEATHSIG = 1


def note(text):
    print(f'bench: {text}', file=sys.stderr, flush=True)


class Refused(Exception):
    """Nothing can be run; why."""


# ---- the machine

def said(*words):
    """The output of a command; '' where there is none."""
    try:
        run = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return run.stdout.strip() if run.returncode == 0 else ''


def read(path):
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read()
    except OSError:
        return ''


def introspect(build, name):
    try:
        return json.loads(read(os.path.join(build, 'meson-info', f'intro-{name}.json')))
    except ValueError:
        return []


def processor():
    match = re.search(r'^(?:model name|Processor|cpu model)\s*:\s*(.+)$', read('/proc/cpuinfo'), re.M)
    return match[1] if match else os.uname().machine


def cores():
    count = len(os.sched_getaffinity(0))
    virtual = ', a virtual machine' if re.search(r'^flags.*\bhypervisor\b', read('/proc/cpuinfo'), re.M) else ''
    return f'{count} of {os.cpu_count()} may be used{virtual}'


def memory():
    match = re.search(r'^MemTotal:\s*(\d+)', read('/proc/meminfo'), re.M)
    return f'{int(match[1]) / 2 ** 20:.1f} GiB' if match else 'unknown'


def scratch():
    """The file system that files go to: the one mounted deepest above the folder."""
    folder = os.path.realpath(os.environ.get('TMPDIR') or '/tmp')
    best = ('', 'unknown')
    for line in read('/proc/self/mountinfo').splitlines():
        left, _, right = line.partition(' - ')
        place = left.split()[4].encode().decode('unicode_escape')
        if (folder + '/').startswith(place.rstrip('/') + '/') and len(place) >= len(best[0]):
            best = (place, right.split()[0])
    room = os.statvfs(folder)
    return f'{best[1]}, {room.f_bavail * room.f_frsize / 2 ** 30:.1f} GiB free'


def compiler(build):
    try:
        command = json.loads(read(os.path.join(build, 'compile_commands.json')))[0]['command']
        name = next(word for word in shlex.split(command) if not word.endswith('ccache'))
    except (ValueError, LookupError, StopIteration):
        return 'unknown'
    kind = next((o['value'] for o in introspect(build, 'buildoptions') if o['name'] == 'buildtype'), '')
    return f'{(said(name, "--version").splitlines() or [name])[0]}, buildtype {kind}'


def peers(build, packages):
    """Versions: of what meson found, and of packages that it cannot ask."""
    found = {d['name']: d.get('version', 'unknown') for d in introspect(build, 'dependencies')}
    out = [f'{name} {version}' for name, version in found.items() if re.match(r'[0-9]', version)
           and name not in ('liburcu', 'criterion')]
    for name in packages:
        if not any(name.removeprefix('lib').startswith(known.removeprefix('lib')) for known in found):
            version = said('dpkg-query', '-W', '-f=${Version}', name)
            out += [f'{name} {version}'] if version else []
    return ', '.join(out) or 'none'


def pheap_version(build):
    project = introspect(build, 'projectinfo')
    version = project.get('version', 'unknown') if project else 'unknown'
    commit = said('git', '-C', ROOT, 'describe', '--always', '--dirty', '--abbrev=12')
    return f'{version}, commit {commit}' if commit else version


def facts(build, packages, words):
    return [
        ('pheap', pheap_version(build)), ('peers', peers(build, packages)), ('processor', processor()),
        ('cores', cores()), ('memory', memory()),
        ('kernel', ' '.join(os.uname()[i] for i in (0, 2, 4))), ('files', scratch()), ('compiler', compiler(build)),
        ('date', time.strftime('%Y-%m-%d %H:%M %Z')), ('load at the start', f'{os.getloadavg()[0]:.1f}'),
        ('command', ' '.join(['pheap-bench', '--json', *[word for word in words if word != '--json']])),
    ]


# ---- running

def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Reader(threading.Thread):
    """What a bench says on stderr: shown, looked through for who is left out, and the end of it kept."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.stream, self.skips, self.last = stream, [], []

    def run(self):
        for line in self.stream:
            match = re.match(r'(\S+)\s+(\S+)\s+(\S+)\s+skipped: (.*)', line)
            if match:
                self.skips.append(dict(zip(('bench', 'param', 'system', 'why'), match.groups()), about='skip'))
            else:
                self.last = (self.last + [line])[-TEXT_LINES:]
            sys.stderr.write(line)
            sys.stderr.flush()


def entry_write(out, entry):
    out.write(json.dumps(entry, ensure_ascii=False) + '\n')
    out.flush()


def ended(status):
    if status < 0:
        return f'killed by {signal.Signals(-status).name}'
    return f'ended with status {status}'


def batches_of(names):
    """Benches that are measured by the same loops share a process; all others have one each."""
    batches = []
    for name in names:
        if batches and name in TOGETHER and batches[-1][0] in TOGETHER:
            batches[-1].append(name)
        else:
            batches.append([name])
    return batches


class Run:
    """Runs benches one after the other. A signal ends the one that runs, and the whole; nothing is raised for it,
    because that could be anywhere, also where a process was just started and is known to nobody."""

    def __init__(self, program, options, out):
        self.program, self.options, self.out = program, options, out
        self.process, self.stopped, self.failed = None, False, []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.stop)

    def stop(self, _number, _frame):
        self.stopped = True
        if self.process is not None:
            self.process.kill()

    def batch(self, names):
        """One bench, or those that share a process."""
        self.process = subprocess.Popen([self.program, '--json', *self.options, *names], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, encoding='utf-8', errors='replace',
                                        preexec_fn=die_with_parent)
        if self.stopped:
            self.process.kill()
        reader = Reader(self.process.stderr)
        reader.start()
        seen = set()
        for line in self.process.stdout:
            seen.update(name for name in names if f'"bench":"{name}"' in line)
            self.out.write(line if line.endswith('\n') else line + '\n')
            self.out.flush()
        status = self.process.wait()
        reader.join(5)
        self.outcome(names, seen, status, reader)

    def outcome(self, names, seen, status, reader):
        """Writes down who was left out and what failed."""
        for skip in reader.skips:
            entry_write(self.out, skip)
        missing = [name for name in names if name not in seen]
        if status:
            failed, why = missing or names[-1:], 'it was stopped' if self.stopped else ended(status)
        else:
            # one of which everybody was left out may be silent
            skipped = {skip['bench'] for skip in reader.skips}
            failed, why = [name for name in missing if name not in skipped], 'it printed no result'
        for name in failed:
            entry_write(self.out, {'about': 'failure', 'bench': name, 'why': why, 'text': ''.join(reader.last)})
            note(f'{name} failed: {why}')
        self.failed += failed


def benches_of(program):
    """name: what it does."""
    listing = said(program, '--list')
    if not listing:
        raise Refused(f'{program} does not run')
    return dict(line.split('\t', 1) for line in listing.splitlines())


def words_split(words):
    """Options for pheap-bench, names."""
    options, names = [], []
    words = iter(words)
    for word in words:
        if word in VALUED:
            options += [word, next(words, '')]
        elif word in FLAGS:
            options += [word] * (word != '--json')
        elif word.startswith('-'):
            raise Refused(f'unknown option {word}')
        else:
            names.append(word)
    return options, names


def folder_check(folder):
    """It is there, and files can be made in it."""
    probe = os.path.join(folder, f'.write-{os.getpid()}')
    try:
        os.makedirs(folder, exist_ok=True)
        with open(probe, 'x', encoding='utf-8'):
            pass
        os.unlink(probe)
        for name in ('index.html', 'results.jsonl'):
            path = os.path.join(folder, name)
            if os.path.exists(path) and not (os.path.isfile(path) and os.access(path, os.W_OK)):
                raise Refused(f'cannot write the report: {path} cannot be replaced')
    except OSError as error:
        raise Refused(f'cannot write the report into {folder}: {error.strerror}') from error


def report(folder, build, packages, words):
    program = os.path.join(build, 'tools', 'bench', 'pheap-bench')
    options, names = words_split(words)
    known = benches_of(program)
    for name in names:
        if name not in known:
            raise Refused(f'no bench is called {name}; there are {" ".join(known)}')
    batches = batches_of(list(dict.fromkeys(names)) or list(known))
    part, saved = os.path.join(folder, 'results.jsonl.part'), os.path.join(folder, 'results.jsonl')
    with open(part, 'w', encoding='utf-8') as out:
        run = Run(program, options, out)
        entry_write(out, {'about': 'machine', 'facts': facts(build, packages, words)})
        for i, batch in enumerate(batches):
            if run.stopped:
                break
            note(f'{i + 1} of {len(batches)}: {" ".join(batch)}')
            for name in batch:
                entry_write(out, {'about': 'bench', 'bench': name, 'what': known[name]})
            run.batch(batch)
    os.replace(part, saved)
    report_page.page_write(saved, os.path.join(folder, 'index.html'))
    note(f'the report is {os.path.join(folder, "index.html")}')
    if run.failed:
        note(f'failed: {" ".join(run.failed)}')
    return 130 if run.stopped else 1 if run.failed else 0


def main(args):
    try:
        if len(args) == 2 and args[0] == '--check':
            folder_check(args[1])
            return 0
        if len(args) < 6 or args[0] != '--build' or args[2] != '--packages' or args[4] != '--report':
            raise Refused('usage: report_run.py --build BUILD --packages "NAME..." --report DIR [OPTION]... [NAME]...')
        folder_check(args[5])
        return report(args[5], args[1], args[3].split(), args[6:])
    except Refused as refusal:
        note(refusal)
        return 2
    except OSError as error:
        note(f'{error.filename}: {error.strerror}')
        return 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
