# SPDX-License-Identifier: MIT
"""report_plot: a plot of a bench as an SVG element that can stand in a page, drawn by gnuplot.

Why gnuplot: its package without a window is a few MB, its SVG keeps text as text. What it writes is then made
fit for a page: no namespaces (HTML needs none), identifiers of its own for each plot, and text in the page's colour,
so that a dark page stays legible.

A system has one colour in all plots. The colours can be told apart by the colour-blind; a second mark (shape of the
points, order and names of the bars) says the same.
"""
import math
import re
import shutil
import subprocess

WIDTH, HEIGHT = 900, 380
BARS_LABELLED_MAX = 26  # more bars than this have no room for a number each
BARS_NARROW = 8  # fewer bars than this do not get wider
LOG_FROM, LOG_FROM_OTHER = 20, 100  # largest value / smallest value, of times and of all else

COLOURS = {
    'pheap': '#0072b2', 'libpmemobj': '#d55e00', 'lmdb': '#009e73', 'sqlite': '#cc79a7', 'bdb': '#e69f00',
    'boost': '#882255', 'mimalloc': '#56b4e9', 'malloc': '#999933', 'floor': '#777777', 'limit': '#aaaaaa',
}
SPARE_COLOURS = ['#44aa99', '#ddaa33', '#aa4499', '#bb5566']
POINTS = [7, 5, 9, 11, 13, 4, 6, 8, 10, 12, 2, 1]
INK, GRID = '#010203', '#040506'  # found again in what gnuplot writes
# What belongs to a system and is not the thing itself.
KIN = {'pheap-one': 'pheap', 'process': 'pheap', 'bdb-queue': 'bdb'}


def available():
    return shutil.which('gnuplot') is not None


def is_pheap(system):
    """It, or what is akin to it."""
    return KIN.get(system, system).split('-')[0] == 'pheap'


def colour_of(system):
    """The colour, and whether it is the system's own: what is only akin is drawn lighter."""
    name = system.lower()
    own = name in COLOURS
    name = KIN.get(name, name)
    if name not in COLOURS:
        name = next((known for known in COLOURS if name.startswith(known + '-')), name)
    if name in COLOURS:
        return COLOURS[name], own
    return SPARE_COLOURS[sum(name.encode()) % len(SPARE_COLOURS)], True


def number(value):
    """Three digits that count."""
    if value == 0 or not math.isfinite(value):
        return '0' if value == 0 else '-'
    if abs(value) >= 1000:
        return f'{value:,.0f}'
    return f'{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}' if abs(value) >= 0.01 else f'{value:.2g}'


SCALES = [(1e9, 's'), (1e6, 'ms'), (1e3, 'µs'), (0, 'ns')]


def quantity(value, unit, short=False):
    """A value with its unit, times in what reads best; short: where the unit is known, only times have it."""
    if unit != 'ns':
        return number(value) if short else f'{number(value)} {unit}'
    for scale, name in SCALES:
        if abs(value) >= scale * 0.9995:
            return f'{number(value / (scale or 1))} {name}'
    return f'{number(value)} ns'


def tick(value, unit):
    """The label of a round number on an axis."""
    if unit != 'ns':
        return f'{value:,.10g}'
    scale, name = next(s for s in SCALES if abs(value) >= s[0])
    return f'{value / (scale or 1):.10g} {name}'


def quoted(text):
    """A string of gnuplot's; in double quotes a backslash and a line's end have a meaning."""
    return '"' + text.replace('\\', '\\\\').replace('"', "''").replace('\n', '\\n') + '"'


class Axis:
    """The vertical axis: from where to where, logarithmic or not."""

    def __init__(self, rows, unit):
        values = [v for row in rows for v in (row['min'], row['value'], row['max'])]
        positive = [v for v in values if v > 0]
        self.unit = unit
        self.log = (len(positive) == len(values)
                    and max(positive) / min(positive) >= (LOG_FROM if unit == 'ns' else LOG_FROM_OTHER))
        if self.log:
            self.low = 10 ** math.floor(math.log10(min(positive) * 0.8))
            self.high = max(positive) * (max(positive) / self.low) ** 0.12
        else:
            self.low = min(0, min(values) * 1.1)
            self.high = max(values) * 1.14 if max(values) > 0 else 1

    def commands(self, what):
        name = what + (', logarithmic' if self.log else '')
        out = [f'set yrange [{self.low:g}:{self.high:g}]', f'set ylabel {quoted(name)} textcolor rgb "{INK}"']
        if self.log:
            first, last = round(math.log10(self.low)), math.floor(math.log10(self.high))
            step = 1 + (last - first) // 8
            tics = [f'{quoted(tick(10 ** e, self.unit))} 1e{e}' for e in range(first, last + 1, step)]
            out += ['set logscale y', f'set ytics ({", ".join(tics)})']
        elif self.unit == 'ns':
            scale, name = next(s for s in SCALES if self.high >= s[0])
            step = 10 ** math.floor(math.log10(self.high))
            step *= next(m for m in (0.1, 0.2, 0.5, 1) if self.high / (step * m) <= 7 or m == 1)
            count = math.floor(self.high / step)
            tics = [f'{quoted(f"{i * step / (scale or 1):g} {name}")} {i * step:g}' for i in range(count + 1)]
            out.append(f'set ytics ({", ".join(tics)})')
        return out


def style_of(series, index, lines):
    colour, own = colour_of(series['system'])
    variant = series['variant'] + (not own)
    if lines:
        width = 2.6 if series['system'] == 'pheap' and not variant else 1.6
        return f'lc rgb "{colour}" lw {width} dt {1 + variant} pt {POINTS[index % len(POINTS)]} ps 0.7'
    density = (0.9, 0.45, 0.2)[min(variant, 2)]
    return f'fs solid {density} border lc rgb "{colour}" lc rgb "{colour}"'


def block(name, lines):
    return [f'${name} << EOD', *lines, 'EOD']


def bars(plot):
    """Groups of bars, one group a category, in each the series that have a value there."""
    data, parts, tics = [], [], []
    at = 0.0
    points = {id(s): [] for s in plot['series']}
    for category in plot['categories']:
        rows = [(s, row) for s in plot['series'] for row in s['rows'] if row['category'] == category]
        for i, (series, row) in enumerate(rows):
            points[id(series)].append((at + i, row))
        # one category: the systems' names are below the bars, and there is no legend
        if len(plot['categories']) == 1:
            tics += [f'{quoted(s["name"].replace(" ", chr(10)))} {at + i:g}' for i, (s, _) in enumerate(rows)]
        else:
            tics.append(f'{quoted(category)} {at + (len(rows) - 1) / 2:g}')
        at += len(rows) + 1
    labelled = sum(len(p) for p in points.values()) <= BARS_LABELLED_MAX
    for i, series in enumerate(plot['series']):
        data += block(f'd{i}', [
            f'{x:g} {row["value"]:.9g} {row["min"]:.9g} {row["max"]:.9g} '
            + quoted(quantity(row['value'], plot['unit'], True)) for x, row in points[id(series)]])
        title = quoted(series['name']) if len(plot['categories']) > 1 else '""'
        parts.append(f'$d{i} using 1:2:(0.86) with boxes {style_of(series, i, False)} title {title}')
    for i in range(len(plot['series'])):
        # not errorbars: those clear the place of their point, which here is the end of a bar
        parts.append(f'$d{i} using 1:3:(0):($4-$3) with vectors heads size screen 0.004,90 lw 1.2 '
                     f'lc rgb "{INK}" notitle')
        if labelled:
            parts.append(f'$d{i} using 1:4:5 with labels offset 0,0.55 font ",11" textcolor rgb "{INK}" notitle')
    margin = max(1, (BARS_NARROW - at) / 2)
    set_up = [f'set xtics ({", ".join(tics)}) scale 0', f'set xrange [{-margin:g}:{at - 2 + margin:g}]']
    if len(plot['categories']) == 1:
        set_up.append('unset key')
    if any('\\n' in name for name in tics):
        set_up.append('set bmargin 3.5')
    return data, set_up, parts


def lines(plot):
    """One line a series, against a number."""
    data, parts = [], []
    xs = sorted({row['x'] for s in plot['series'] for row in s['rows']})
    for i, series in enumerate(plot['series']):
        rows = sorted(series['rows'], key=lambda row: row['x'])
        data += block(f'd{i}', [f'{row["x"]:.9g} {row["value"]:.9g} {row["min"]:.9g} {row["max"]:.9g}' for row in rows])
        parts.append(f'$d{i} using 1:2:3:4 with yerrorlines {style_of(series, i, True)} title {quoted(series["name"])}')
    labels = [row for s in plot['series'] for row in s['rows']]
    tics = ', '.join(f'{quoted(next(r["x_name"] for r in labels if r["x"] == x))} {x:.9g}' for x in xs)
    set_up = [f'set xtics ({tics})', f'set xlabel {quoted(plot["x_name"])} textcolor rgb "{INK}"']
    if min(xs) > 0 and max(xs) / min(xs) >= 8:
        set_up += ['set logscale x', f'set xrange [{min(xs) / 1.15:g}:{max(xs) * 1.15:g}]']
    else:
        margin = (max(xs) - min(xs)) * 0.05
        set_up.append(f'set xrange [{min(xs) - margin:g}:{max(xs) + margin:g}]')
    return data, set_up, parts


def fit(svg, name, title):
    """What gnuplot wrote, as an element of a page."""
    svg = svg[svg.index('<svg'):]
    svg = re.sub(r'\s*xmlns(:xlink)?="[^"]*"', '', svg).replace('xlink:href', 'href')
    svg = re.sub(r'<filter.*?</filter>', '', svg, flags=re.S)
    svg = re.sub(r'<title>.*?</title>\s*<desc>.*?</desc>', '', svg, count=1, flags=re.S)
    svg = re.sub(r'''\bid=(['"])''', rf'id=\1{name}-', svg)
    svg = re.sub(r'''\bhref=(['"])#''', rf'href=\1#{name}-', svg)
    svg = re.sub(r'rgb\(\s*1,\s*2,\s*3\)', 'currentColor', svg)
    svg = re.sub(r'rgb\(\s*4,\s*5,\s*6\)', '#88888888', svg)
    svg = re.sub(r'\bcolor="(black|gray|white)"', 'color="currentColor"', svg)
    svg = re.sub(r'<g [^>]*>\s*</g>\n?', '', svg)
    return svg.replace('<svg', f'<svg role="img" aria-label="{title}"', 1)


def draw(plot, name, title):
    """The SVG of a plot: {kind, unit, what, series, categories or x_name}; None: gnuplot could not."""
    data, set_up, parts = (lines if plot['kind'] == 'lines' else bars)(plot)
    axis = Axis([row for s in plot['series'] for row in s['rows']], plot['unit'])
    script = [
        f'set term svg size {WIDTH},{HEIGHT} dynamic noenhanced font "sans-serif,13"',
        'set encoding utf8',
        f'set border 3 lc rgb "{INK}"',
        f'set tics nomirror textcolor rgb "{INK}"',
        f'set key outside top center horizontal textcolor rgb "{INK}"',
        f'set grid y lc rgb "{GRID}" lw 1 dt 1',
        'set errorbars small',
        *axis.commands(plot['what']), *set_up, *data, 'plot ' + ', '.join(parts), '']
    run = subprocess.run(['gnuplot'], input='\n'.join(script), capture_output=True, text=True, encoding='utf-8',
                         timeout=60, check=False)
    if run.returncode or '</svg>' not in run.stdout:
        return None, run.stderr.strip() or f'gnuplot ended with {run.returncode}'
    return fit(run.stdout, name, title), None
