"""The numbers of docs/scanners.md."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "scanners.md"


def test_its_examples_run():
    ran = doctest.testfile(str(PAGE), module_relative=False)
    assert ran.attempted >= 6 and not ran.failed
