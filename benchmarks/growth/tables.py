"""The curves of an axis as a Markdown table, in the format of docs/scale.md."""

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.growth.curve import Curve


def lines(name: str, sizes: Sequence[int], curves: Iterable[Curve]) -> Iterator[str]:
    """`name`: of what the sizes count."""
    yield f"| {name} | store | " + " | ".join(f"{size:,}" for size in sizes) + " | for ten times as many | growth |"
    yield "|---|---|" + "---|" * len(sizes) + "---|---|"
    for curve in curves:
        values = " | ".join(f"{rounded(curve.values[size])} {curve.unit}" for size in sizes)
        factors = f"x {curve.per_tenfold:.2f}, at last x {curve.last_tenfold:.2f}"
        yield f"| {curve.cost} | {curve.store} | {values} | {factors} | {curve.growth} |"


def rounded(value: float) -> str:
    """In three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
