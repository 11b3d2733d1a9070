"""Compare our compositions with the saved runs of the KLIP release, number by number.

    python experiments/parity.py [--only song22_n20 ...]

Reads ../shared/golden beside the repository. Prints one JSON object with `checks`;
exits 1 if one is not ok. About three minutes on one core, most of them for the networks
and PaDIS.
"""

import argparse
import sys
import time
from pathlib import Path

import replays
import replays_song22
from checks import check, finish

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"
PARTS = {
    part.__name__: part
    for part in (
        replays.scoring,
        replays.ddpm_given_eps,
        replays.ddpm_with_network,
        replays_song22.song22_pieces,
        replays_song22.song22_n20,
        replays_song22.song22_n200,
        replays_song22.song22_with_network,
        replays.padis_chain,
    )
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parts = parser.parse_args().only
    if not FOLDER.is_dir():
        sys.exit(f"{FOLDER} is absent: parity needs the release's saved runs")
    report = dict(checks=[], seconds={})
    for part in parts:
        start = time.time()
        report["checks"] += checks([part])
        report["seconds"][part] = round(time.time() - start, 1)
    finish(report)


def checks(parts):
    """Yield the checks of some of `PARTS`."""
    for part in parts:
        for name, error, tolerance in PARTS[part](FOLDER):
            yield check(name, error, 0, tolerance)


if __name__ == "__main__":
    main()
