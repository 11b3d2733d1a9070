"""Tables in markdown, as the results are written."""

from collections.abc import Iterable, Sequence


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with `head` above `rows` of as many cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def interval(numbers: dict, places: int = 3) -> str:
    """Return "0.732 [0.702, 0.766]" of {"value", "low", "high"}."""
    value, low, high = (f"{numbers[k]:.{places}f}" for k in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
