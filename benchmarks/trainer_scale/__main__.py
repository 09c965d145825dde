"""Prints the tables of docs/scale.md, "The trainer".

python -m benchmarks.trainer_scale [--measure 2 4 8] [--ranks 8 64 512 4096] [--billions 7 70 405]
                                   [--node-to-storage 2.5e9] [..]     every rate of `rates.Rates` has an option
"""

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields

from benchmarks.trainer_scale import costs, measured, operations
from benchmarks.trainer_scale.operations import model_of
from benchmarks.trainer_scale.rates import Rates, measured_here


def main() -> None:
    given = _arguments()
    rates = Rates(**{field.name: getattr(given, field.name) for field in fields(Rates)})
    if given.measure:
        here = ", ".join(f"{name} {value:.3g}" for name, value in measured_here().items())
        print(f"Measured on one of {os.cpu_count()} cores: {here}\n")
        _print(
            ("operation", "ranks", "bytes sent", "predicted", "error", "time", "CPU of a rank"), _checked(given.measure)
        )
    _print(
        ("ranks", "exchange: messages", "CPU", "time", "before: messages", "CPU", "time", "action: messages", "time",
         "before: messages", "time"),
        (_agreement(ranks, rates) for ranks in given.ranks),
    )  # fmt: skip
    scales = [(billions, ranks) for billions in given.billions for ranks in given.ranks]
    _print(
        ("parameters", "ranks", "state of a rank", "copy (loop)", "agreement (loop)", "SHA-256", "write", "messages",
         "own index", "manifest", "before: items at rank 0", "bytes", "time", "index of all"),
        (_save(billions, ranks, rates) for billions, ranks in scales),
    )  # fmt: skip
    _print(
        ("parameters", "ranks", "read", "SHA-256", "CRC-32", "copy", "index", "before: index", "messages"),
        (_restore(billions, ranks, rates) for billions, ranks in scales),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=int, nargs="*", default=[2, 4, 8], help="processes; none: only the model")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64, 512, 4096])
    parser.add_argument("--billions", type=float, nargs="+", default=[7.0, 70.0, 405.0], help="parameters, in 1e9")
    for field in fields(Rates):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=type(field.default), default=field.default, help=f"default {field.default:g}")
    return parser.parse_args()


def _checked(sizes: Iterable[int]) -> Iterator[tuple[str, ...]]:
    for ranks in sizes:
        for found in measured.measure(ranks):
            predicted = measured.PREDICTED[found.name](ranks).sent
            error = f"{100 * (predicted / found.sent - 1):+.1f} %"
            times = _seconds(found.seconds), _seconds(found.cpu_seconds)
            yield found.name, str(ranks), f"{found.sent:,.0f}", f"{predicted:,}", error, *times


def _agreement(ranks: int, rates: Rates) -> tuple[str, ...]:
    exchange, before = (
        costs.agreement(each(ranks), rates) for each in (operations.boundary, operations.boundary_before)
    )
    action, earlier = (
        costs.agreement(each(ranks), rates) for each in (operations.run_on_all, operations.run_on_all_before)
    )
    exchanges = [(each.messages, _seconds(each.cpu_seconds), _seconds(each.seconds)) for each in (exchange, before)]
    actions = [(each.messages, _seconds(each.seconds)) for each in (action, earlier)]
    return tuple(map(str, (f"{ranks:,}", *(cell for cells in (*exchanges, *actions) for cell in cells))))


def _save(billions: float, ranks: int, rates: Rates) -> tuple[str, ...]:
    cost = costs.save(model_of(billions), ranks, rates)
    if not cost.fits:
        return _name(billions), f"{ranks:,}", f"{_bytes(cost.state_bytes)}: does not fit", *[""] * 11
    parts = (cost.copy, cost.agreement, cost.hash, cost.write, cost.messages)
    planned = f"{cost.planned_items:,}", _bytes(cost.planned_bytes), _seconds(cost.planned_seconds)
    sizes = _bytes(cost.index_bytes), _bytes(cost.manifest_bytes)
    state = _bytes(cost.state_bytes)
    return (
        _name(billions),
        f"{ranks:,}",
        state,
        *map(_seconds, parts),
        *sizes,
        *planned,
        _bytes(cost.planned_index_bytes),
    )


def _restore(billions: float, ranks: int, rates: Rates) -> tuple[str, ...]:
    model = model_of(billions)
    if not costs.save(model, ranks, rates).fits:
        return _name(billions), f"{ranks:,}", "does not fit", *[""] * 6
    cost = costs.restore(model, ranks, rates)
    parts = (cost.read, cost.sha256, cost.crc32, cost.copy, cost.index, cost.index_by_torch, cost.messages)
    return _name(billions), f"{ranks:,}", *map(_seconds, parts)


def _name(billions: float) -> str:
    return f"{billions:g}B"


def _seconds(value: float) -> str:
    if value >= 0.995:
        return f"{value:,.0f} s" if value >= 9.95 else f"{value:.1f} s"
    return f"{1e3 * value:.0f} ms" if value >= 0.00995 else f"{1e3 * value:.2g} ms"


def _bytes(value: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if value >= 0.995 * size:
            return f"{value / size:,.0f} {unit}" if value >= 9.95 * size else f"{value / size:.1f} {unit}"
    return f"{value / 1e3:,.0f} kB"


def _print(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


if __name__ == "__main__":
    main()
