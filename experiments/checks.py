"""What every checking script prints: one JSON object with `checks`.

A check is {name, value, target, tolerance, ok} and whatever else is worth keeping.
"""

import json
import sys


def check(name, value, target, tolerance, **more):
    """Check |value - target| <= tolerance."""
    value, target, tolerance = float(value), float(target), float(tolerance)
    ok = abs(value - target) <= tolerance
    return dict(
        name=name, value=value, target=target, tolerance=tolerance, ok=ok, **more
    )


def at_least(name, value, bound, **more):
    """Check value >= bound."""
    value, bound = float(value), float(bound)
    ok = value >= bound
    return dict(name=name, value=value, target=bound, tolerance=0, ok=ok, **more)


def finish(report):
    """Print the report; exit 1 if one of its checks is not ok."""
    print(json.dumps(report, indent=1))
    sys.exit(not all(found["ok"] for found in report["checks"]))
