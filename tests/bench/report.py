# SPDX-License-Identifier: MIT
"""The report of the benches. Usage: report.py [PHEAP_BENCH]

Without an argument: pages are made from saved results, from bad ones, and by a run of a stand-in for pheap-bench that
fails in one bench. With one: that program prints what report_page.py reads, for one small bench.
What is not there to be tested (gnuplot) is named, and left out.
"""
import html.parser
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.path.join(os.path.dirname(os.path.dirname(HERE)), 'tools', 'bench')
RUN = os.path.join(TOOLS, 'report_run.py')
SAVED = os.path.join(HERE, 'saved.jsonl')
# elements without an end
VOID = {'meta', 'br', 'path', 'rect', 'circle', 'use'}
STAND_IN = '''#!/bin/sh
for last; do :; done
case $last in
--list) printf 'good\\tworks\\nbad\\tfails\\nslow\\tnever ends\\n' ;;
good) echo '{"bench":"good","system":"pheap","level":"PROCESS","threads":1,"param":1,"ns_per_op":5,"unit":"ns",\
"instructions_per_op":7,"min":4,"max":6,"reps":3,"targets":"  <= 9 ok"}'
	echo 'good            all                lmdb       skipped: not here' >&2 ;;
bad) echo 'the disk is full' >&2; exit 3 ;;
slow) echo $$ >"$PID_FILE"; exec sleep 60 ;;
esac
'''
passed = failed = 0


def check(what, good):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print(f'FAILED: {what}')


class Page(html.parser.HTMLParser):
    """Elements that match, text, identifiers, and whatever would be fetched."""

    def __init__(self, path):
        super().__init__()
        self.open, self.words, self.ids, self.fetched, self.svgs, self.error = [], [], [], [], 0, ''
        with open(path, encoding='utf-8') as file:
            self.text = file.read()
        self.feed(self.text)
        self.close()
        if self.open:
            self.error = self.error or f'{self.open} is not ended'

    def handle_starttag(self, tag, attrs):
        self.svgs += tag == 'svg'
        for name, value in attrs:
            if name == 'id':
                self.ids.append(value)
            if name in ('src', 'href', 'xlink:href', 'srcset', 'action') and not value.startswith('#'):
                self.fetched.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.error = self.error or f'</{tag}> at {self.getpos()}'

    def handle_data(self, data):
        self.words.append(data)


def run(*words, **more):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, check=False, **more)


def page_check(name, path, plots):
    """What holds for every page; the page."""
    page = Page(path)
    check(f'{name}: {page.error}', not page.error)
    check(f'{name} fetches {page.fetched}', not page.fetched)
    for word in ('http:', 'https:', '//www', 'url(', '@import', '<script', '<link', '<img'):
        check(f'{name} has {word}', word not in page.text)
    check(f'{name}: two elements have one id', len(page.ids) == len(set(page.ids)))
    if plots is not None and shutil.which('gnuplot'):
        check(f'{name} has {page.svgs} plots, not {plots}', page.svgs == plots)
    return page


def saved_test(folder):
    path = os.path.join(folder, 'saved.html')
    made = run(os.path.join(TOOLS, 'report_page.py'), SAVED, path)
    check(f'page of saved results: {made.stderr}', made.returncode == 0)
    page = page_check('page of saved results', path, 4)
    words = ' '.join(page.words)
    with open(SAVED, encoding='utf-8') as file:
        for entry in map(json.loads, file):
            if 'bench' in entry:
                check(f'{entry["bench"]} is not on the page', entry['bench'] in page.ids)
            if 'system' in entry:
                check(f'{entry["system"]} is not on the page', entry['system'] in words)
    for text in ('A <processor> & more', '110 µs', 'no room on <disk>', 'ended with status 1', 'not in this build',
                 '4 of 5 met', '✗ missed', '200 (≤ 200)', '7.73×', '4.10 '):
        check(f'"{text}" is not on the page', text in words)
    if not shutil.which('gnuplot'):
        print('SKIPPED: plots: gnuplot is not installed')
        check('the page does not say that gnuplot is missing', 'gnuplot is not installed' in words)


def bad_test(folder):
    """Lines that are none cost themselves only."""
    source, path = os.path.join(folder, 'bad.jsonl'), os.path.join(folder, 'bad.html')
    with open(SAVED, encoding='utf-8') as file:
        good = file.read()
    with open(source, 'w', encoding='utf-8') as file:
        file.write('{"bench":"cut off","sys\n[]\n7\n{"bench":"no-number","system":"pheap","param":1,"ns_per_op":nan}\n'
                   '{"bench":"x<b>y\\"&","system":"</table>","param":"<1>","ns_per_op":NaN,"min":1,"max":1}\n'
                   '{"bench":"x<b>y\\"&","system":"</table>","param":"<1>","ns_per_op":1,"min":0,"max":1}\n' + good)
    made = run(os.path.join(TOOLS, 'report_page.py'), source, path)
    check(f'page of bad lines: {made.stderr}', made.returncode == 0)
    page = page_check('page of bad lines', path, 5)
    check('it does not say how many lines were bad', '5 lines of the results could not be read' in page.text)
    with open(source, 'w', encoding='utf-8'):
        pass
    check('a page of nothing is no success',
          run(os.path.join(TOOLS, 'report_page.py'), source, path).returncode == 1)
    page_check('page of nothing', path, 0)
    check('a file that is not there',
          run(os.path.join(TOOLS, 'report_page.py'), source + '-not', path).returncode == 1)


def report(folder, out, *words, **more):
    return run(RUN, '--build', folder, '--packages', '', '--report', out, *words, **more)


def run_test(folder):
    program, out = os.path.join(folder, 'tools', 'bench', 'pheap-bench'), os.path.join(folder, 'out', 'deep')
    os.makedirs(os.path.dirname(program))
    with open(program, 'w', encoding='utf-8') as file:
        file.write(STAND_IN)
    os.chmod(program, 0o755)
    made = report(folder, out, '--quick', '--reps', '2', 'bad', 'good')
    check(f'a run with a failure ends with {made.returncode}', made.returncode == 1)
    check('it does not name what failed', 'failed: bad' in made.stderr)
    page = page_check('page of a run with a failure', os.path.join(out, 'index.html'), 1)
    for text in ('ended with status 3', 'the disk is full', 'not here', '1 of 1 met'):
        check(f'"{text}" is not on the page of a run', text in ' '.join(page.words))
    check('files of the report', sorted(os.listdir(out)) == ['index.html', 'results.jsonl'])
    check('a run without failure', report(folder, out, 'good').returncode == 0)
    for words in (['nonesuch'], ['--nonesuch']):
        check(f'{words} is not refused', report(folder, out, *words).returncode == 2)
    # a file in the way: root may write where permissions forbid it
    made = report(folder, os.path.join(program, 'x'), 'good')
    check('a folder that cannot be', made.returncode == 2 and 'cannot write the report' in made.stderr)
    os.makedirs(os.path.join(folder, 'taken', 'index.html'))
    check('a page that cannot be replaced', report(folder, os.path.join(folder, 'taken'), 'good').returncode == 2)
    stop_test(folder, out)


def alive(pid):
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def stop_test(folder, out):
    """Stopped, it makes the page all the same; killed, it leaves no bench behind."""
    for sig in (signal.SIGTERM, signal.SIGKILL):
        pid_file = os.path.join(folder, f'pid-{sig}')
        with subprocess.Popen([sys.executable, RUN, '--build', folder, '--packages', '', '--report', out, 'good',
                               'slow'], stderr=subprocess.DEVNULL, env={**os.environ, 'PID_FILE': pid_file}) as process:
            end = time.monotonic() + 30
            while not (os.path.exists(pid_file) and os.path.getsize(pid_file)) and time.monotonic() < end:
                time.sleep(0.05)
            process.send_signal(sig)
            process.wait(30)
        with open(pid_file, encoding='utf-8') as file:
            pid = int(file.read())
        while alive(pid) and time.monotonic() < end:
            time.sleep(0.05)
        check(f'signal {sig} leaves a bench behind', not alive(pid))
        if sig == signal.SIGTERM:
            check(f'stopped, it ends with {process.returncode}', process.returncode == 130)
            page = page_check('page of a run that was stopped', os.path.join(out, 'index.html'), 1)
            check('the page says that it was stopped', 'it was stopped' in page.text)


KEYS = {'bench': str, 'system': str, 'level': str, 'threads': int, 'param': (int, str), 'ns_per_op': (float, int),
        'unit': str, 'instructions_per_op': (float, int, type(None)), 'min': (float, int), 'max': (float, int),
        'reps': int}


def driver_test(folder, program):
    made = subprocess.run([program, '--json', '--quick', '--reps', '1', 'modify-words'], capture_output=True, text=True,
                          timeout=280, check=False, env={**os.environ, 'TMPDIR': folder})
    check(f'pheap-bench ended with {made.returncode}: {made.stderr}', made.returncode == 0)
    seen = set()
    for line in made.stdout.splitlines():
        entry = json.loads(line)
        for key, kind in KEYS.items():
            check(f'{key} in {line}', key in entry and isinstance(entry[key], kind))
        check(f'order in {line}', entry['min'] <= entry['ns_per_op'] <= entry['max'])
        check(f'targets in {line}', isinstance(entry.get('targets', ''), str) and
              ('targets' in entry) == (entry['system'] == 'pheap'))
        seen.add((entry['system'], entry['param']))
    expected = {(system, param) for system in ('pheap', 'floor', 'limit') for param in (1, 4, 16, 64)}
    check(f'systems and parameters: {seen}', expected <= seen)
    listing = subprocess.run([program, '--list'], capture_output=True, text=True, timeout=30, check=False).stdout
    check('--list', all(len(line.split('\t')) == 2 for line in listing.splitlines()) and 'modify-words\t' in listing)
    check('it leaves files behind', not os.listdir(folder))


with tempfile.TemporaryDirectory() as top:
    if len(sys.argv) > 1:
        driver_test(top, sys.argv[1])
    else:
        saved_test(top)
        bad_test(top)
        run_test(top)
print(f'{passed} passed, {failed} failed')
sys.exit(failed != 0)
