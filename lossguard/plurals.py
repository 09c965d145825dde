"""A count and its noun: "1 step", "1,200 steps", "2 batches"."""


def plural(count: int, noun: str, several: str | None = None) -> str:
    return f"{count:,} {form(count, noun, several)}"


def form(count: int, noun: str, several: str | None = None) -> str:
    """The noun as it stands after the count; `several`: after other counts than one, if that is more than an s."""
    return noun if count == 1 else several or f"{noun}s"
