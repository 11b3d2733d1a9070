"""What the tests cost: CPU seconds of every folder of tests/.

    python experiments/test_costs.py [tests/run tests/test_kl.py ...]

Runs the fast tests that are named, all without names, in this process, and adds up what
it and its children compute for each test and each import. CPU seconds hardly depend on
who else uses the machine, as those of a clock do. Prints one JSON object: `seconds` by
folder, `files` by file, the dearest `tests`, and `checks`, that none failed. With all
of them it writes the table in CONTRIBUTING.md.
"""

import collections
import contextlib
import re
import resource
import sys
from pathlib import Path

import pytest
from checks import check, finish
from lab import tables

ROOT = Path(__file__).resolve().parent.parent
MOST = 20  # tests that are named
TABLE = re.compile(r"(?<=<!-- costs -->\n).*(?=<!-- end of costs -->)", re.DOTALL)


class Costs:
    """A plugin of pytest: seconds by test, its fixtures among them."""

    def __init__(self):
        self.seconds = collections.Counter()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        start = cpu_seconds()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] += cpu_seconds() - start

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self, collector):
        start = cpu_seconds()
        try:
            return (yield)
        finally:
            if isinstance(collector, pytest.Module):
                self.seconds[f"{collector.nodeid}::import"] += cpu_seconds() - start

    def by(self, name):
        """Return seconds by name(file), the largest first."""
        sums = collections.Counter()
        for test, seconds in self.seconds.items():
            sums[name(Path(test.partition("::")[0]))] += seconds
        return {key: round(seconds, 1) for key, seconds in sums.most_common()}


def cpu_seconds():
    """Return the CPU seconds of this process and of its children that ended."""
    whose = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    usages = [resource.getrusage(one) for one in whose]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main():
    asked, costs = sys.argv[1:], Costs()
    arguments = ["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    with contextlib.redirect_stdout(sys.stderr):
        status = pytest.main([*arguments, *(asked or [str(ROOT / "tests")])], [costs])
    seconds = costs.by(lambda file: str(file.parent) if file.parent.name else str(file))
    whole = sum(seconds.values())
    if not asked:
        rows = [[f"`{folder}`", f"{s:.0f}"] for folder, s in seconds.items()]
        table = tables.markdown(["tests", "CPU s"], [*rows, ["all", f"{whole:.0f}"]])
        page = ROOT / "CONTRIBUTING.md"
        page.write_text(TABLE.sub(f"\n{table}\n", page.read_text()))
    dearest = dict(costs.seconds.most_common(MOST))
    finish(
        dict(
            seconds=seconds,
            files=costs.by(str),
            tests={test: round(s, 2) for test, s in dearest.items()},
            checks=[check("status of pytest", int(status), 0, 0)],
        )
    )


if __name__ == "__main__":
    main()
