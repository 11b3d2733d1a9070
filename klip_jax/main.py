"""`python -m klip_jax.main`: from measurements to a map of what does not belong.

    python -m klip_jax.main                              the default experiment
    python -m klip_jax.main --config=abdomen_ct          another one, or a file of yours
    ... --config.posterior.samples=16 --workdir=runs/a   with changes
    ... --config.detectors=klip,controls,msma.MSMA       with other detectors
    ... --config.detectors.mine="dict(name='my.file:Mine', width=3)"     and your own

--mode=detect     images or measurements -> maps, scores, p-values, report (default)
--mode=calibrate  only the reference law, and law.npz to ship with weights
--mode=report     rewrite the report of a workdir
--mode=train      train the config's prior, or its classifier
--mode=convert    weights or data of others, --source, into a file of ours, --target:
                  a folder or hub id of diffusers, a checkpoint of EDM, PaDIS (--patch,
                  --pad), score_sde (--size), guided or latent diffusion, DiffNB, a
                  ResNet of torchvision or OpenOOD, the .npy files of the KLIP release

Exit status: 0; 1 if images failed or the run broke off; 2 if nothing was run; 130 after
Ctrl-C. Whatever broke off goes on where it was when the same command is given again;
several workers may be given it at once.
"""

import os
import sys
from importlib.metadata import version
from pathlib import Path

from absl import flags

_INTERRUPTED = "klip_jax: interrupted; the same command goes on where it was"
_YNN = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
# Convolutions on CPU are up to twice as fast so; XLA aborts on flags that it does not
# know, hence only for versions that were tried.
if "XLA_FLAGS" not in os.environ and version("jaxlib") in ("0.10.0", "0.10.1"):
    os.environ["XLA_FLAGS"] = _YNN
# Programs from the compilation cache are greeted with pages about CPU features.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _short_interrupt(kind, error, traceback):
    """Say in one line that Ctrl-C came, also while modules are imported."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    print(_INTERRUPTED, file=sys.stderr)
    os._exit(130)


if __name__ == "__main__":
    sys.excepthook = _short_interrupt

import jax  # noqa: E402
from ml_collections import config_flags  # noqa: E402

import klip_jax  # noqa: E402
from klip_jax import assets  # noqa: E402
from klip_jax.report.finish import finish  # noqa: E402
from klip_jax.report.verdict import lines  # noqa: E402
from klip_jax.run import convert, detect, law, overrides, train  # noqa: E402
from klip_jax.run.job import Job, prepare  # noqa: E402
from klip_jax.run.lease import lease  # noqa: E402
from klip_jax.run.provenance import versions  # noqa: E402
from klip_jax.run.store import Store  # noqa: E402

FLAGS = flags.FLAGS
_DEFAULT = str(Path(assets.__file__).parent / "default_config.py")
_WRONG = {"0.10.2": "jax-ml/jax#39103", "0.11.0": "jax-ml/jax#40633"}
_LONGEST = 1000  # characters of a message
config_flags.DEFINE_config_file("config", None, "The experiment, a name or a file.")
flags.DEFINE_string("workdir", "", "Where results go; default runs/<config name>.")
_MODES = ["detect", "train", "calibrate", "report", "convert"]
flags.DEFINE_enum("mode", "detect", _MODES, "What to do.")
for _name, _value in convert.Request._field_defaults.items():
    _define = flags.DEFINE_integer if isinstance(_value, int) else flags.DEFINE_string
    _define(_name, _value, "Of --mode=convert; see klip_jax.run.convert.Request.")


def main() -> int:
    """Run the command line; returns the exit status."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__)
        return 0
    try:
        return _run()
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        return 130


def _run() -> int:
    _warn_of_wrong_jax()
    try:
        settings = _parse()
        _cache_compilations()
        start = _begin(settings, Path(FLAGS.workdir or _workdir()))
    except (ValueError, OSError) as error:
        return _complain(error, 2)
    try:
        return start()
    except (ValueError, OSError, FloatingPointError) as error:
        # A full disk, a folder that was deleted, a store that somebody broke.
        return _complain(error, 1)


def _begin(settings, folder):
    """Check everything; return the function that does what is asked for."""
    if FLAGS.mode == "report":
        Store(folder)
        return lambda: _report(folder)
    if FLAGS.mode == "train":
        return _announce_training(train.prepare(settings, folder))
    if FLAGS.mode == "convert":
        names = convert.Request._fields
        request = convert.Request(*(FLAGS[name].value for name in names))
        path = convert.convert(request, weights=settings["prior"]["weights"])
        print(f"{request.source} is now {path}")
        return lambda: 0
    job = prepare(settings, folder)
    return _announce(job, FLAGS.mode)


def _parse():
    """Return the settings that the command line asks for."""
    sys.argv[1:], ours = overrides.split(sys.argv[1:])
    named = [a for a in sys.argv[1:] if a.lstrip("-").split("=")[0] == "config"]
    if not named:
        sys.argv.insert(1, f"--config={_DEFAULT}")
    elif "=" in named[0]:
        file = _find_config(named[0].split("=", 1)[1])
        sys.argv[sys.argv.index(named[0])] = f"--config={file}"
    try:
        extra = FLAGS(sys.argv)[1:]
    except (AttributeError, KeyError) as error:
        # The text is the repr of a text, or of its repr.
        text = str(error).replace("\\n", ". ").replace("\\", "").replace("'", "")
        message = f"command line: the config has no setting {text}"
        raise ValueError(message) from None
    except Exception as error:
        # A config is anybody's code, and fails in any way; its own words come last.
        text = str(error).rstrip().splitlines() or [type(error).__name__]
        text = " ".join(text[-1:] if "Traceback" in str(error) else text)
        if not isinstance(error, flags.Error | TypeError | ValueError):
            text = f"the config fails, {type(error).__name__}: {text}"
        raise ValueError(f"command line: {text}") from None
    if extra:
        raise ValueError(
            f"command line: what is {extra[0]!r}? settings are --config.a=b"
        )
    settings = FLAGS.config.to_dict()
    overrides.apply(settings, ours)
    return settings


def _find_config(name):
    """Return the file, with its variant, of "faces", "faces:inpaint" or "a/b.py"."""
    path, variant = _file_and_variant(name)
    if not path.is_file() and path.suffix != ".py" and len(path.parts) == 1:
        own = Path("configs") / f"{path}.py"
        path = own if own.is_file() else assets.config_path(str(path))
    if not path.is_file():
        raise FileNotFoundError(
            f"--config={name}: no such file; there are {assets.config_names()}"
        )
    return f"{path}:{variant}" if variant else str(path)


def _file_and_variant(config):
    """Split "configs/faces.py:inpaint"; most configs have one variant only, ""."""
    file, colon, variant = config.rpartition(":")
    return (Path(file), variant) if colon else (Path(config), "")


def _workdir():
    config = config_flags.get_config_filename(FLAGS["config"])
    path, variant = _file_and_variant(config)
    name = "phantom_ct" if config == _DEFAULT else path.stem
    name += variant and f"_{variant}"
    return f"runs/{name}_train" if FLAGS.mode == "train" else f"runs/{name}"


def _cache_compilations():
    """Keep compiled programs between runs, unless the user chose where."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if jax.config.jax_compilation_cache_dir:
        return
    try:
        home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError:
        return  # a user without a home: programs are compiled again each time
    jax.config.update("jax_compilation_cache_dir", f"{home}/klip_jax")


def _warn_of_wrong_jax():
    if reason := _WRONG.get(version("jax")):
        print(
            f"klip_jax: jax {version('jax')} computes wrong results ({reason}); "
            "install another version",
            file=sys.stderr,
        )


def _announce(job: Job, mode: str):
    """Print what will be done and for how long; return the function that does it."""
    draws, images = law.draws_to_do(job), 0
    calls = detect.network_calls(job, job.detectors)
    if mode == "detect":
        images = detect.images_to_do(job)
    # A draw of the model first takes its own chain down the noise levels.
    per_draw = 2 * job.settings["calibration"]["steps"] + 1
    per_draw += detect.network_calls(job, job.drawn)
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
    print(f"  expected time   {_duration(seconds)}, besides compiling")
    print(f"  results in      {job.folder}", flush=True)

    def start():
        viewer = job.viewer()
        references = law.references(job, viewer)
        law.save(job, references)
        for line in law.failures(references):
            print(f"klip_jax: {line}", file=sys.stderr)
        if mode == "calibrate":
            return 0
        detect.detect(job, references, viewer)
        return _report(job.folder)

    return start


def _law_in_words(job, draws):
    if draws:
        return f"{draws} draws of the model to do, by {', '.join(job.drawn)}"
    if job.laws or job.drawn:
        return "cached"
    return "none asked for"


def _announce_training(job):
    recipe = job.recipe
    print(f"klip_jax {klip_jax.__version__}, {versions()['device']}")
    print(f"  training        {recipe.steps} steps of {recipe.batch} images")
    print(f"  results in      {job.folder}", flush=True)

    def start():
        print(f"weights: {train.train_weights(job)}")
        return 0

    return start


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


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _complain(error: BaseException, status: int) -> int:
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    print(f"klip_jax: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
