#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""report_page: the lines of `pheap-bench --json` as one page that needs nothing else.

usage: report_page.py RESULTS.jsonl PAGE.html

Beside the results the file may have lines with the key "about", which report_run.py writes: what a bench does, the
machine's facts, who was left out, what failed. Without gnuplot the page has its tables and says so.

How results become plots: those of one bench with one unit make at least one. Three or more numbers of threads, or
three or more parameters that differ in one number only, make lines; what is left makes bars.
"""
import html
import json
import re
import sys

sys.dont_write_bytecode = True
import report_plot  # noqa: E402 (its compiled form does not belong into the source tree)

# What the parameter of a bench counts; of all others it is just the parameter.
PARAMS = {
    'modify-words': 'words changed in a transaction', 'defer-words': 'words deferred in a transaction',
    'record-64': 'records of 64 bytes changed in a transaction', 'records-10x64': 'records of 64 bytes',
    'block-4k': 'bytes changed in a transaction', 'push-pop': 'bytes of a block', 'classic': 'locks',
    'churn-mixed': 'operations in a transaction', 'producer-consumer': 'operations in a transaction',
    'sync-commit': 'records changed in a transaction', 'attach': 'processes beside', 'fsck': 'size of the heap',
    'open-after-kill': 'size of the heap', 'hash-insert': 'keys in the map', 'hash-lookup': 'keys in the map',
    'hash-remove': 'keys in the map', 'many-ranges': 'ranges in the transaction', 'huge': 'size of a block',
}
LEVELS = {
    'PROCESS': 'commits survive the death of processes at any instruction', 'SYNC': 'and power cuts',
    'EPOCH': 'and power cuts, but for the last seconds',
}
SYSTEMS = {
    'pheap': 'this library', 'libpmemobj': 'heap with transactions, of PMDK', 'lmdb': 'ordered key-value store',
    'sqlite': 'SQL database, write-ahead log', 'bdb': 'Berkeley DB, a B-tree with transactions',
    'bdb-queue': 'Berkeley DB, a queue: records found by their place', 'boost': 'Boost.Interprocess: not crash-safe',
    'mimalloc': 'malloc in private memory: survives nothing', 'malloc': 'glibc, private memory: survives nothing',
    'floor': 'the least that a crash-safe store needs: a hand-written undo log',
    'limit': 'the same work without any safety (sync-commit: the bare flush)',
    'pheap-one': 'pheap with one thread and one record, in the same run', 'process': 'pheap at level PROCESS',
    'pheap-bare': 'pheap, read without a transaction that keeps changes off',
}
MULTIPLES = {'': 1, 'k': 1e3, 'K': 1e3, 'M': 1e6, 'G': 1e9, 'KiB': 2 ** 10, 'MiB': 2 ** 20, 'GiB': 2 ** 30}
RESULT_KEYS = {'bench', 'system', 'param', 'min', 'max'}
MACHINE_EMPTY = [('facts', 'not recorded: the results were saved without them')]


class Saved:
    """What a file of results says."""

    def __init__(self, lines):
        self.rows, self.what, self.machine, self.skips, self.failures, self.bad = [], {}, [], [], [], 0
        for line in lines:
            if line.strip():
                self.line_add(line)
        self.benches = list(dict.fromkeys([row['bench'] for row in self.rows]
                                          + [failure['bench'] for failure in self.failures]))

    def line_add(self, line):
        try:
            entry = json.loads(line, parse_constant=lambda name: float('nan'))
            about = entry.get('about')
            if about == 'bench':
                self.what[entry['bench']] = entry['what']
            elif about == 'machine':
                self.machine = [(str(name), str(value)) for name, value in entry['facts']]
            elif about == 'skip':
                self.skips.append({k: str(entry[k]) for k in ('bench', 'param', 'system', 'why')})
            elif about == 'failure':
                self.failures.append({k: str(entry[k]) for k in ('bench', 'why', 'text')})
            elif about is None and RESULT_KEYS <= entry.keys():
                self.rows.append(row_of(entry))
            else:
                self.bad += 1
        except (ValueError, TypeError, KeyError, AttributeError):
            self.bad += 1


def row_of(entry):
    """One result, with what plots and tables ask for."""
    row = dict(entry)
    value = entry.get('ns_per_op')
    row['unit'] = entry.get('unit') or ('ns' if value is not None else str(entry['param']).rpartition('-')[2])
    row['value'] = float(entry['value'] if value is None else value)
    row['min'], row['max'] = float(entry['min']), float(entry['max'])
    if not all(abs(row[k]) < 1e300 for k in ('value', 'min', 'max')):
        raise ValueError('no number')
    row['bench'], row['system'], row['param'] = str(entry['bench']), str(entry['system']), str(entry['param'])
    row['level'] = str(entry.get('level') or 'PROCESS')
    row['threads'] = int(entry.get('threads') or 1)
    # a parameter that says the number of threads is the one before it
    match = re.fullmatch(r'(?:(.*)-)?(\d+)-threads', row['param'])
    row['at'] = (match[1] or '' if match else row['param'], int(match[2]) if match else row['threads'])
    return row


# ---- from results to plots

def number_in(param):
    """(what stands before a number, the number, as it is written, what stands behind); None: there is none."""
    match = re.fullmatch(r'(\D*)(\d+(?:\.\d+)?)(KiB|MiB|GiB|[kKMG](?![A-Za-z]))?(\D*)', param)
    multiple = match and (match[3] or '')
    return match and (match[1], float(match[2]) * MULTIPLES[multiple], match[2] + multiple, match[4])


def line_families(rows):
    """Rows that could be one plot with lines: [key, {id of row: (x, its name)}]."""
    families = {}
    for row in rows:
        param, threads = row['at']
        families.setdefault(('threads', param), {})[id(row)] = (threads, str(threads))
        parts = number_in(param)
        if parts:
            families.setdefault(('param', parts[0], parts[3], threads), {})[id(row)] = (parts[1], parts[2])
    return families


def family_rank(rows, xs):
    """How many rows lines would show; 0: bars say as much."""
    chosen = [row for row in rows if id(row) in xs]
    points = {}
    for row in chosen:
        points.setdefault((row['system'], row['level']), set()).add(xs[id(row)][0])
    return len(chosen) if max(len(p) for p in points.values()) >= 3 else 0


def series_of(rows):
    """The rows of each system; the level is in the name where a system has several."""
    levels = {}
    for row in rows:
        levels.setdefault(row['system'], []).append(row['level'])
    series = {}
    for row in rows:
        system, level = row['system'], row['level']
        several = len(set(levels[system])) > 1
        series.setdefault((system, level), {
            'system': system, 'name': f'{system} {level}' if several else system,
            'variant': list(dict.fromkeys(levels[system])).index(level), 'rows': []})['rows'].append(row)
    return list(series.values())


def lines_make(rows, key, xs):
    chosen = [row for row in rows if id(row) in xs]
    bench = chosen[0]['bench']
    for row in chosen:
        row['x'], row['x_name'] = xs[id(row)]
    name = PARAMS.get(bench, 'parameter')
    if key[0] == 'threads':
        title, x_name = (f'{name}: {key[1]}' if key[1] else ''), 'threads'
    else:
        title = threads_text(key[3]) if key[3] > 1 else ''
        words = ' '.join(word.strip('-') for word in (key[1], key[2]) if word.strip('-'))
        x_name = f'{words} ({name})' if words and bench in PARAMS else words or name
    return {'kind': 'lines', 'title': title, 'x_name': x_name, 'rows': chosen}


def threads_text(count):
    return f'{count} thread' + 's' * (count > 1)


def bars_make(rows):
    threads = {}
    for row in rows:
        threads.setdefault((row['param'], row['system']), set()).add(row['threads'])
    for row in rows:
        row['category'] = row['param']
        if any(len(threads[key]) > 1 for key in threads if key[0] == row['param']):
            row['category'] += f'\n{threads_text(row["threads"])}'
    categories = list(dict.fromkeys(row['category'] for row in rows))
    title = '' if len(categories) > 1 else f'{PARAMS.get(rows[0]["bench"], "parameter")}: {rows[0]["param"]}'
    return {'kind': 'bars', 'title': title, 'categories': categories, 'rows': rows}


def plots_of(rows):
    """The plots of one bench."""
    plots = []
    for unit in dict.fromkeys(row['unit'] for row in rows):
        left = [row for row in rows if row['unit'] == unit]
        made = []
        while left:
            families = line_families(left)
            key = max(families, key=lambda k: family_rank(left, families[k]))
            if not family_rank(left, families[key]):
                made.append(bars_make(left))
                break
            made.append(lines_make(left, key, families[key]))
            left = [row for row in left if id(row) not in families[key]]
        for plot in made:
            plot['unit'] = unit
            plot['what'] = 'time per operation' if unit == 'ns' else unit
            plot['series'] = series_of(plot['rows'])
        plots += made
    return plots


# ---- ratios and targets

def pheap_of(row, rows):
    """The result of pheap that belongs beside this one."""
    same = [r for r in rows if r['system'] == 'pheap' and r['unit'] == row['unit'] and r['param'] == row['param']]
    close = [r for r in same if r['threads'] == row['threads']] or same
    return next((r for r in close if r['level'] == row['level']), close[0] if close else None)


def ratio_of(row, rows):
    pheap = pheap_of(row, rows)
    if pheap is None or pheap is row or pheap['value'] <= 0 or row['value'] < 0:
        return None
    return row['value'] / pheap['value']


def measured(text, row):
    """A target that says only its bound, with what was measured before it."""
    match = re.fullmatch(r'(instructions |p99 |)([<>]=) (\S+)', text)
    if match is None:
        return text
    key = {'instructions ': 'instructions_per_op', 'p99 ': 'p99', '': 'value'}[match[1]]
    unit = '' if key == 'instructions_per_op' else row['unit']
    value, bound = (report_plot.quantity(float(v), unit).strip() for v in (row[key], match[3]))
    return f'{match[1]}{value} ({match[2]} {bound})'


def targets_of(row):
    """[text, met] of what pheap should reach here."""
    out = []
    for text in str(row.get('targets') or '').split('  '):
        words = text.split()
        if words and words[-1] in ('ok', 'MISSED'):
            try:
                text = measured(' '.join(words[:-1]), row)
            except (ValueError, KeyError, TypeError):
                text = ' '.join(words[:-1])
            out.append((text.replace('>=', '≥').replace('<=', '≤'), words[-1] == 'ok'))
    return out


# ---- the page

def esc(text):
    return html.escape(str(text), quote=True)


def table(head, rows, left=1):
    """Rows of cells, HTML already; the first `left` columns are text. A row may begin with a class in a tuple."""
    def cells(row, tag):
        return ''.join(f'<{tag}{" class=n" if i >= left else ""}>{cell}</{tag}>' for i, cell in enumerate(row))
    body = []
    for row in rows:
        name, row = row if isinstance(row, tuple) else ('', row)
        body.append(f'<tr{f" class={name}" if name else ""}>{cells(row, "td")}</tr>')
    return (f'<div class=scroll><table><thead><tr>{cells(head, "th")}</tr></thead>\n<tbody>'
            + '\n'.join(body) + '</tbody></table></div>\n')


def verdict(met):
    return '<span class=met>✓ met</span>' if met else '<span class=missed>✗ missed</span>'


def swatch(system):
    colour, own = report_plot.colour_of(system)
    return f'<span class=swatch style="background:{colour}{"" if own else "88"}"></span>{esc(system)}'


def times(ratio):
    return '–' if ratio is None else f'{report_plot.number(ratio)}×'


def figures(plot, rows):
    """The table under a plot."""
    unit = plot['unit']
    shown = [('param', PARAMS.get(plot['rows'][0]['bench'], 'parameter'), lambda r: esc(r['param']))]
    if len({r['threads'] for r in plot['rows']}) > 1 or plot['rows'][0]['threads'] > 1:
        shown.append(('threads', 'threads', lambda r: str(r['threads'])))
    shown.append(('system', 'system', lambda r: swatch(r['system'])))
    if len({r['level'] for r in plot['rows']}) > 1 or plot['rows'][0]['level'] != 'PROCESS':
        shown.append(('level', 'level', lambda r: esc(r['level'])))
    left = len(shown)

    def measure(key):
        return lambda r: esc(report_plot.quantity(float(r[key]), unit)) if r.get(key) is not None else '–'
    shown += [
        ('value', 'median', measure('value')),
        ('range', 'min – max', lambda r: esc(f'{report_plot.quantity(r["min"], unit)} – '
                                             f'{report_plot.quantity(r["max"], unit)}'))]
    if any(r['system'] != 'pheap' for r in plot['rows']):
        shown.append(('ratio', 'to pheap', lambda r: '1×' if pheap_of(r, rows) is r else times(ratio_of(r, rows))))
    if any(r.get('instructions_per_op') is not None for r in plot['rows']):
        shown.append(('instructions', 'instructions', lambda r: report_plot.number(float(r['instructions_per_op']))
                      if r.get('instructions_per_op') is not None else '–'))
    for key in ('p50', 'p90', 'p99'):
        if any(r.get(key) is not None for r in plot['rows']):
            shown.append((key, key, measure(key)))
    if any(r.get('per_second') is not None for r in plot['rows']):
        shown.append(('rate', 'per second', lambda r: report_plot.number(float(r.get('per_second') or 0))))
    shown.append(('reps', 'repetitions', lambda r: esc(r.get('reps', '–'))))
    return table([name for _, name, _ in shown],
                 [('own' if r['system'] == 'pheap' else '', [show(r) for _, _, show in shown]) for r in plot['rows']],
                 left)


def case_of(row, bench_rows):
    """How a result is called beside others of its bench."""
    several = len({r['threads'] for r in bench_rows if r['param'] == row['param'] and r['system'] == 'pheap'}) > 1
    return f'{row["param"]}, {threads_text(row["threads"])}' if several else row['param']


def targets_table(rows, everything, with_bench):
    out = []
    for row in rows:
        for text, met in targets_of(row):
            case = esc(case_of(row, [r for r in everything if r['bench'] == row['bench']]))
            first = [f'<a href="#{esc(row["bench"])}">{esc(row["bench"])}</a>', case] if with_bench else [case]
            out.append(('' if met else 'bad', first + [esc(text), verdict(met)]))
    head = (['bench'] if with_bench else []) + ['parameter', 'measured (target)', '']
    return table(head, out, len(head)) if out else ''


def overview(saved):
    """How many times pheap's time each system takes."""
    timed = [row for row in saved.rows if row['unit'] == 'ns']
    systems = [s for s in dict.fromkeys(r['system'] for r in timed) if not report_plot.is_pheap(s)]
    systems.sort(key=lambda s: (s in ('floor', 'limit'), list(SYSTEMS).index(s) if s in SYSTEMS else 99))
    out = []
    for row in (r for r in timed if r['system'] == 'pheap'):
        bench_rows = [r for r in timed if r['bench'] == row['bench']]
        beside = {r['system']: ratio_of(r, bench_rows) for r in bench_rows if pheap_of(r, bench_rows) is row}
        if not any(s in beside for s in systems):
            continue
        level = '' if row['level'] == 'PROCESS' else f' ({row["level"]})'
        out.append([f'<a href="#{esc(row["bench"])}">{esc(row["bench"])}</a>',
                    esc(case_of(row, bench_rows) + level), esc(report_plot.quantity(row['value'], 'ns'))]
                   + [times(beside[s]) if s in beside else '' for s in systems])
    if not out:
        return ''
    return ('<h2 id=overview>pheap beside the others</h2>\n<p>How many times as long as pheap each takes for one '
            'operation: above 1× it is slower than pheap. The last columns, floor and limit, are bounds, not '
            'peers.</p>\n'
            + table(['bench', 'parameter', 'pheap', *[esc(s) for s in systems]], out, 2))


def section(saved, bench, bench_number):
    rows = [row for row in saved.rows if row['bench'] == bench]
    out = [f'<section><h2 id="{esc(bench)}">{esc(bench)}</h2>\n']
    if bench in saved.what:
        out.append(f'<p>{esc(saved.what[bench][:1].upper() + saved.what[bench][1:])}.</p>\n')
    for failure in saved.failures:
        if failure['bench'] == bench:
            out.append(f'<div class=alarm><b>{esc(bench)} failed:</b> {esc(failure["why"])}'
                       f'<pre>{esc(failure["text"])}</pre></div>\n')
    for i, plot in enumerate(plots_of(rows)):
        title = f'{bench}, {plot["title"]}' if plot['title'] else bench
        if plot['title']:
            out.append(f'<h3>{esc(plot["title"])}</h3>\n')
        svg, why = report_plot.draw(plot, f'p{bench_number}-{i}', esc(title)) if report_plot.available() else ('', '')
        out.append(f'<figure>{svg}</figure>\n' if svg else f'<p class=alarm>No plot: {esc(why)}</p>\n' if why else '')
        out.append(figures(plot, rows))
    judged = targets_table(rows, saved.rows, False)
    out.append(f'<h3>Targets</h3>\n{judged}' if judged else '')
    for skip in saved.skips:
        if skip['bench'] == bench:
            case = '' if skip['param'] == 'all' else f' ({esc(skip["param"])})'
            out.append(f'<p>Left out: {esc(skip["system"])}{case}: {esc(skip["why"])}.</p>\n')
    return ''.join(out) + '</section>\n'


def flush_fact(saved):
    """The bare flush, where sync-commit measured it."""
    for row in saved.rows:
        if row['bench'] == 'sync-commit' and row['system'] == 'limit' and row['param'] == '1':
            return [('bare flush', f'{report_plot.quantity(row["value"], "ns")} (64 bytes and fdatasync, median)')]
    return []


def legend(saved):
    used = dict.fromkeys(row['system'] for row in saved.rows)
    systems = [[swatch(s), esc(SYSTEMS.get(s, ''))] for s in sorted(used, key=lambda s: list(SYSTEMS).index(s)
                                                                     if s in SYSTEMS else 99)]
    levels = ', '.join(f'{level}: {LEVELS[level]}' for level in LEVELS if level in {r['level'] for r in saved.rows})
    return ('<h2>The systems</h2>\n' + table(['system', ''], systems, 2)
            + f'<p>Levels of durability: {esc(levels)}. In bars and lines: the median of the repetitions; the thin '
            'marks are minimum and maximum. All systems of a bench took turns in one run.</p>\n')


def summary(saved):
    judged = [met for row in saved.rows for _, met in targets_of(row)]
    out = []
    if saved.failures:
        names = ', '.join(dict.fromkeys(failure['bench'] for failure in saved.failures))
        out.append(f'<div class=alarm><b>Failed:</b> {esc(names)}. What was measured is below all the same.</div>\n')
    if saved.bad:
        out.append(f'<div class=alarm>{saved.bad} line{"s" * (saved.bad > 1)} of the results could not be read.</div>\n')
    if not report_plot.available():
        out.append('<div class=alarm>gnuplot is not installed: there are no plots, only the figures.</div>\n')
    if judged:
        out.append(f'<h2 id=targets>Targets: {sum(judged)} of {len(judged)} met</h2>\n'
                   + targets_table(saved.rows, saved.rows, True))
    return ''.join(out)


STYLE = '''
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --line: #ddd; --quiet: #666; --own: #0072b214;
	--good: #00704f; --bad: #b3400a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --paper: #17181a; --line: #3a3c40; --quiet: #a0a0a0;
	--own: #0072b240; --good: #3cc79b; --bad: #ff8f55; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 960px;
	margin: 0 auto; padding: 24px 16px 64px; }
h1 { margin: 0 0 4px; } h2 { margin: 48px 0 4px; border-bottom: 1px solid var(--line); } h3 { margin: 24px 0 4px; }
p { margin: 6px 0 12px; } a { color: inherit; } nav a { margin-right: 12px; white-space: nowrap; }
figure { margin: 12px 0; } svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; margin: 8px 0 16px; }
th, td { padding: 2px 12px 2px 4px; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; } .n { text-align: right; font-variant-numeric: tabular-nums; }
.own { background: var(--own); font-weight: 600; } .met { color: var(--good); } .missed { color: var(--bad);
	font-weight: 600; } .facts td { white-space: normal; }
.swatch { display: inline-block; width: 10px; height: 10px; margin-right: 6px; border-radius: 2px; }
.alarm { border-left: 4px solid var(--bad); padding: 6px 12px; margin: 12px 0; } pre { white-space: pre-wrap;
	font-size: 12px; margin: 4px 0; }
'''


def page(saved):
    facts = table(['', ''], [[esc(name), esc(value)] for name, value in
                             (saved.machine or MACHINE_EMPTY) + flush_fact(saved)], 2)
    nav = ' '.join(f'<a href="#{esc(bench)}">{esc(bench)}</a>' for bench in saved.benches)
    return (f'<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>\n'
            '<meta name=viewport content="width=device-width, initial-scale=1">\n'
            f'<title>pheap: benchmarks</title>\n<style>{STYLE}</style></head>\n<body>\n'
            '<h1>pheap: benchmarks</h1>\n<p>Crash-safe heaps and their peers, measured side by side in one run on '
            f'one machine.</p>\n<nav>{nav}</nav>\n' + summary(saved) + overview(saved)
            + f'<h2>The machine</h2>\n<div class=facts>{facts}</div>\n' + legend(saved)
            + ''.join(section(saved, bench, i) for i, bench in enumerate(saved.benches)) + '</body></html>\n')


def page_write(results_path, page_path):
    with open(results_path, encoding='utf-8', errors='replace') as results:
        saved = Saved(results)
    with open(page_path, 'w', encoding='utf-8') as out:
        out.write(page(saved))
    return saved


def main(args):
    if len(args) != 2 or args[0].startswith('-'):
        print('usage: report_page.py RESULTS.jsonl PAGE.html', file=sys.stderr)
        return 2
    try:
        saved = page_write(args[0], args[1])
    except OSError as error:
        print(f'report_page: {error.filename}: {error.strerror}', file=sys.stderr)
        return 1
    if not saved.rows:
        print(f'report_page: {args[0]} has no results', file=sys.stderr)
    return 0 if saved.rows else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
