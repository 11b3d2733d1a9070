"""What can be asked for: it is checked, announced, and done when it is started.

Both command lines, `python -m klip_jax.main --config=...` and `klip`, come here with
the same tree of settings (`run.settings`).
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import klip_jax
from klip_jax.export import finished
from klip_jax.report.finish import finish
from klip_jax.report.verdict import lines
from klip_jax.run import (
    convert,
    detect,
    geometry_hint,
    law,
    scan_card,
    steps,
    train,
)
from klip_jax.run.job import Job, prepare
from klip_jax.run.lease import lease
from klip_jax.run.provenance import versions
from klip_jax.run.store import Store

MODES = ("detect", "train", "calibrate", "report", "convert")


def begin(
    mode: str,
    settings: Mapping[str, Any],
    folder: Path,
    request: convert.Request | None = None,
    *,
    command: str = "",
) -> Callable[[], int]:
    """Check everything; return the function that does what is asked for.

    Args:
      mode: one of `MODES`.
      settings: the resolved config as nested dicts; of no use to a report.
      folder: the workdir.
      request: of a conversion.
      command: the command line that asks for it, to be told in config.json.

    Raises:
      ValueError, OSError: one sentence on what is wrong and what to do; nothing was
        computed or written.
    """
    if mode == "report":
        Store(folder)
        return lambda: _report(folder)
    if mode == "train":
        return begin_training(settings, folder, command=command)
    if mode == "convert":
        asked = convert.Request() if request is None else request
        path = convert.convert(asked, weights=settings["prior"]["weights"])
        print(f"{asked.source} is now {path}")
        return lambda: 0
    return _announce(prepare(settings, folder, command=command), mode)


def _announce(job: Job, mode: str) -> Callable[[], int]:
    """Print what will be done and for how long; return the function that does it."""
    draws, images = law.draws_to_do(job), 0
    calls = detect.network_calls(job, job.detectors)
    if mode == "detect":
        images = detect.images_to_do(job)
    # A draw of the model first takes its own chain down the noise levels.
    per_draw = job.scene.drawer.calls_per_step * job.settings["calibration"]["steps"]
    per_draw += 1 + detect.network_calls(job, job.drawn)
    healthy = law.healthy_to_do(job)
    seconds = detect.seconds_per_call(job) * (
        calls * (images + healthy) + draws * per_draw
    )
    print(f"klip_jax {klip_jax.__version__}, {versions()['device']}")
    if mode == "detect":
        print(f"  images          {images} to do of {len(job.inputs)}", end="")
        print(f", {calls} network calls each")
    print(f"  detectors       {', '.join(job.detectors)}")
    print(f"  reference law   {_law_in_words(job, draws)}")
    if job.healthy is not None:
        print(f"  healthy images  {healthy} to do of {len(job.healthy)}")
    print(f"  expected time   {duration(seconds)}, besides compiling")
    print(f"  results in      {job.folder}", flush=True)

    def start():
        viewer = job.viewer()
        references = law.references(job, viewer)
        law.save(job, references)
        scan_card.save(job)
        for line in law.failures(references):
            print(f"klip_jax: {line}", file=sys.stderr)
        if mode == "calibrate":
            return 0
        detect.detect(job, references, viewer)
        for line in geometry_hint.lines(job):
            print(f"  geometry        {line}", flush=True)
        return _report(job.folder)

    return start


def _law_in_words(job, draws):
    if draws:
        return f"{draws} draws of the model to do, by {', '.join(job.drawn)}"
    if job.laws.healthy:
        count = max(map(len, job.laws.healthy.values()))
        return f"{count} healthy images, which ship with the weights"
    if job.laws.draws or job.drawn:
        return "cached"
    return "none asked for"


def begin_training(
    settings: Mapping[str, Any],
    folder: Path,
    *,
    minutes: float = 0.0,
    export: bool = False,
    command: str = "",
) -> Callable[[], int]:
    """Check and announce a training; return the function that does it.

    Args:
      settings, folder, command: see `begin`.
      minutes: how long from now on; 0 goes to the end of the recipe.
      export: only write the weights of the newest checkpoint.
    """
    job = train.prepare(settings, folder, command=command)
    print(f"klip_jax {klip_jax.__version__}, {versions()['device']}", flush=True)
    if export:
        return lambda: _said(train.export_newest(job))
    each, done = train.seconds_per_step(job), steps.done(job.folder)
    if minutes:
        job = train.lasting(job, minutes, each)
    recipe = job.recipe
    print(f"  training        {recipe.steps} steps of {recipe.batch} images", end="")
    print(f", {done} done" if done else "")
    print(f"  held out        {len(job.test)} images")
    print(f"  expected time   {duration(each * max(0, recipe.steps - done))}", end="")
    print(", besides compiling and a minute or two for the record")
    print(f"  results in      {job.folder}", flush=True)

    def start():
        weights = train.train_weights(job)
        print(f"next: klip detect --images=... --prior={weights} --operator=...")
        return _said(weights)

    return start


def begin_export(folder: str, to: str, detector: str = "") -> Callable[[], int]:
    """Return the function that writes the maps of a run as files of others.

    Args:
      folder: the workdir.
      to: one of `export.finished.KINDS`.
      detector: whose maps; "" takes the main detector's.
    """
    Store(Path(folder))

    def start() -> int:
        for path in finished.export(folder, to, detector=detector):
            print(path)
        return 0

    return start


def _said(weights: Path) -> int:
    print(f"weights: {weights}")
    return 0


def _report(folder) -> int:
    """Write the report and say what it says; returns 1 if images failed."""
    store = Store(folder)
    with lease(
        folder, "report", store.meta["settings"]["run"]["lease_minutes"]
    ) as mine:
        if mine:
            metrics, page = finish(folder)
            print("\n".join(lines(metrics)))
            print(f"report: {page}")
        else:
            print(f"report: another worker is writing it in {folder}")
    failures = detect.failures(store)
    for line in failures:
        print(f"klip_jax: {line}", file=sys.stderr)
    return 1 if failures else 0


def duration(seconds: float) -> str:
    """Return a time in words."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
