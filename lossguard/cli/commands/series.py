"""`lossguard series` and `lossguard export`: metrics of a run as sparklines or in buckets, and a run as a file."""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple
from urllib.parse import urlencode

from lossguard.cli.connection import add_options, connected
from lossguard.cli.errors import CommandError, ExitCode
from lossguard.cli.named_run import Found, add_run, find
from lossguard.cli.terminal import BLOCKS, Style, Terminal, Text, print_json
from lossguard.client.client import Client
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import is_step
from lossguard.vocabulary.wording import count, number, plural

POINTS = 1500
MAX_POINTS = 20_000
MAX_DISCARDED = 3
"""Discarded branches that are named."""
COLUMNS = ("first_step", "last_step", "min", "max", "mean", "first", "last", "count", "non_finite")
FORMATS = ("parquet", "csv")
"""Formats of an exported file."""
Series = dict[str, list[Any]]


def add_to(commands: Any) -> None:
    parser = commands.add_parser("series", help="metrics of a run over its steps: sparklines, or buckets as JSON")
    add_run(parser)
    parser.add_argument("metrics", metavar="METRIC", nargs="*", default=["loss"], help="default: loss")
    parser.add_argument("--from", dest="first", type=int, metavar="STEP", help="first step (default: the first one)")
    parser.add_argument("--to", dest="last", type=int, metavar="STEP", help="last step (default: the newest one)")
    parser.add_argument("--points", type=int, default=POINTS, metavar="N", help=f"buckets, about (default: {POINTS})")
    add_options(parser)
    parser.set_defaults(run=series)
    parser = commands.add_parser("export", help="download a run as a file")
    add_run(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="where to; - is standard output")
    parser.add_argument("--format", choices=FORMATS, help="default: by the ending of FILE; parquet without one")
    add_options(parser)
    parser.set_defaults(run=export)


# series


def series(options: argparse.Namespace) -> int:
    _check(options)
    with connected(options) as client:
        found = find(client, options.which_run)
        for name in options.metrics:
            if name not in found["metrics"]:
                known = ", ".join(found["metrics"]) or "none yet"
                sentence = f"run {found['id']} has no metric {name!r:.200}; it has: {known}"
                raise CommandError(sentence, ExitCode.NOT_FOUND)
        read = {
            name: of_metric(client, found["id"], name, options.first, options.last, points=options.points)
            for name in options.metrics
        }
        left = {} if options.json else {name: _discarded(client, found, name, options) for name in options.metrics}
    if options.json:
        print_json([{"run": found["id"], "metric": name} | fields(each) for name, each in read.items()])
        return 0
    terminal = Terminal()
    for name, each in read.items():
        _draw(terminal, name, each)
        for line in left[name]:
            terminal.say(Text(line, Style.DIM))
    return 0


def _discarded(client: Client, run: Found, name: str, options: argparse.Namespace) -> list[str]:
    """Describe what rollbacks discarded of the metric, in a line for each of the newest branches."""
    branches = []
    for each in run["segments"]:
        begin, end = each["first_step"] if each["live_from"] is None else each["live_to"], each["last_step"]
        if begin is None or end is None:
            continue
        first, last = max(begin, options.first or 0), end if options.last is None else min(end, options.last)
        if first <= last:
            branches.append((each["number"], first, last))
    lines = []
    for segment, first, last in branches[-MAX_DISCARDED:]:
        found = fields(of_metric(client, run["id"], name, first, last, points=options.points, segment=segment))
        extremes = f"min {number(found['min'])}  max {number(found['max'])}"
        lines.append(f"discarded: steps {count(first)} to {count(last)}  {extremes}")
    return lines


def of_metric(
    client: Client,
    run_id: str,
    metric: str,
    first: int | None,
    last: int | None,
    *,
    points: int,
    segment: int | None = None,
) -> Series:
    """A metric over the live line, or over one segment, in columns."""
    query = {"metric": metric, "from": first, "to": last, "points": points, "segment": segment}
    given = urlencode({name: value for name, value in query.items() if value is not None})
    found: Series = client.get(f"/runs/{run_id}/series?{given}")
    return found


def fields(series: Series) -> dict[str, Any]:
    """A series as `--json` prints it: figures of all its steps, and its buckets."""
    rows = zip(*(series[name] for name in COLUMNS), strict=True)
    finite = [each for each in series["last"] if each is not None]
    return {
        "min": min((each for each in series["min"] if each is not None), default=None),
        "max": max((each for each in series["max"] if each is not None), default=None),
        "last": finite[-1] if finite else None,
        "count": sum(series["count"]),
        "non_finite": sum(series["non_finite"]),
        "buckets": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
    }


def _check(options: argparse.Namespace) -> None:
    for name, value in (("--from", options.first), ("--to", options.last)):
        if value is not None and not is_step(value):
            raise ConfigurationError(f"{name} {value} must be a step, from 0")
    if options.first is not None and options.last is not None and options.first > options.last:
        raise ConfigurationError(f"--from {options.first} must not come after --to {options.last}")
    if not 1 <= options.points <= MAX_POINTS:
        raise ConfigurationError(f"--points {options.points} must be from 1 to {MAX_POINTS}")


def _draw(terminal: Terminal, name: str, series: Series) -> None:
    found = fields(series)
    if not series["count"]:
        terminal.say(Text(name, Style.BOLD), ": no steps here")
        return
    steps = f"steps {count(series['first_step'][0])} to {count(series['last_step'][-1])}"
    terminal.say(Text(name, Style.BOLD), Text(f"  {steps}", Style.DIM))
    terminal.say(*sparkline(cells(series, terminal.chart_width)))
    figures = "  ".join(f"{each} {number(found[each])}" for each in ("min", "max", "last"))
    num_bad = found["non_finite"]
    terminal.say(figures, Text(f"  NaN or infinite at {plural(num_bad, 'step')}" if num_bad else "", Style.RED))


# Sparklines: a metric over steps in one line of characters. Pure.
#
# A column shows the mean of its steps. What lies far outside of the rest does not flatten it: such a column is a
# triangle at the edge. A column with a value that is not finite is a cross.

FAR = 3.0
"""The largest value of a column is drawn at the edge if it lies further above those of the other columns than so many
times the spread of their middle 90%; the smallest likewise."""

LARGEST = 1e300
"""Larger values are drawn as this one: their differences are no numbers."""


class Cell(NamedTuple):
    """The steps of one column: None where no value is finite."""

    min: float | None
    max: float | None
    mean: float | None
    num_non_finite: int


def cells(series: Mapping[str, Sequence[Any]], width: int) -> list[Cell]:
    """The buckets of a series, as the API answers, in at most `width` columns."""
    buckets = list(zip(*(series[name] for name in ("min", "max", "mean", "count", "non_finite")), strict=True))
    size = max(1, -(-len(buckets) // width))
    return [_cell(buckets[first : first + size]) for first in range(0, len(buckets), size)]


def _cell(buckets: Sequence[tuple[Any, ...]]) -> Cell:
    """`buckets`: min, max, mean, count and non_finite of each; the first three are None where no value is finite."""
    finite = [(*map(_clamped, figures), count) for *figures, count, _ in buckets if figures[0] is not None]
    total = sum(count for *_, count in finite)
    return Cell(
        min=min((least for least, *_ in finite), default=None),
        max=max((most for _, most, *_ in finite), default=None),
        mean=sum(mean * (count / total) for _, _, mean, count in finite) if finite else None,
        num_non_finite=sum(non_finite for *_, non_finite in buckets),
    )


def _clamped(value: float) -> float:
    return max(-LARGEST, min(LARGEST, value))


def sparkline(columns: Sequence[Cell]) -> list[Text]:
    """One character for each column."""
    low, high = bounds(each.mean for each in columns)
    # An extreme stands out among the extremes of the other columns: even of quiet steps, it is no mean.
    least_max, most_max = bounds(each.max for each in columns)
    least_min, most_min = bounds(each.min for each in columns)
    highest = most_max + FAR * max(high - low, most_max - least_max)
    lowest = least_min - FAR * max(high - low, most_min - least_min)
    drawn = []
    for each in columns:
        if each.num_non_finite:
            drawn.append(Text("✕", Style.RED))
        elif each.mean is None or each.max is None or each.min is None:
            drawn.append(Text(" "))
        elif each.max > highest:
            drawn.append(Text("▲", Style.YELLOW))
        elif each.min < lowest:
            drawn.append(Text("▼", Style.YELLOW))
        else:
            share = (each.mean - low) / (high - low) if high > low else 0.0
            drawn.append(Text(BLOCKS[min(len(BLOCKS) - 1, max(0, int(share * len(BLOCKS))))]))
    return drawn


def bounds(found: Iterable[float | None]) -> tuple[float, float]:
    """Return the values of the lowest and the highest block: the range of all values but extreme ones."""
    values = [each for each in found if each is not None]
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    low, *_, high = quantiles(values, n=20, method="inclusive")
    spread = high - low
    within = [each for each in values if low - FAR * spread <= each <= high + FAR * spread]
    return min(within, default=low), max(within, default=high)


# export


def export(options: argparse.Namespace) -> int:
    kind = options.format or Path(options.output).suffix[1:] or FORMATS[0]
    if kind not in FORMATS:
        raise ConfigurationError(f"{options.output}: the file name must end in .parquet or .csv, or give --format")
    to_stdout = options.output == "-"
    if to_stdout and options.json:
        raise ConfigurationError("--json would be mixed with the file: give another FILE than -")
    with connected(options) as client:
        run_id = find(client, options.which_run)["id"]
        path = f"/runs/{run_id}/export?format={kind}"
        if to_stdout:
            client.download(path, sys.stdout.buffer)
            return 0
        num_bytes = _downloaded(client, path, Path(options.output))
    if options.json:
        print_json({"run": run_id, "file": options.output, "format": kind, "bytes": num_bytes})
    else:
        Terminal().say(f"{options.output}: {count(num_bytes)} bytes")
    return 0


def _downloaded(client: Client, path: str, target: Path) -> int:
    """The bytes that were written; a regular file is there only once all of it has come."""
    try:
        if target.exists() and not target.is_file():  # a pipe or a device, which a file must not replace
            with target.open("wb") as file:
                return client.download(path, file)
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        with part.open("xb") as file:
            try:
                num_bytes = client.download(path, file)
                file.close()  # what is left in its buffer may not fit the disk
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return num_bytes
    except OSError as problem:
        raise CommandError(f"{target} cannot be written: {problem.strerror or problem}") from None
