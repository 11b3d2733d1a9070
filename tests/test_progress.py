"""A bar in a file is lines."""

import io
import sys

from klip_jax import progress


def test_a_file_gets_lines(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.bar(total=3, desc="draws", unit="image") as bar:
        for _ in range(3):
            bar.update()
    lines = stream.getvalue().splitlines()
    assert lines and all("draws" in line for line in lines) and len(lines) < 5
    assert "\r" not in stream.getvalue() and "100%" in lines[-1]


def test_nothing_is_shown_where_nothing_is_asked_for(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress.bar(range(3), disable=True)) == [0, 1, 2]
    assert stream.getvalue() == ""
