"""`python -m klip_jax.main`: from measurements to a map of what does not belong.

    python -m klip_jax.main                                   the default experiment
    python -m klip_jax.main --config=configs/abdomen_ct.py    another one
    ... --config.estimator.samples=16 --workdir=runs/sixteen  with changes

--mode=detect     images or measurements -> maps, scores, p-values, report (default)
--mode=calibrate  only the reference law
--mode=report     rewrite the report of a workdir
--mode=train      train the config's prior
--mode=convert    weights or data of others, --source, into a file of ours, --target:
                  a folder or hub id of diffusers, a checkpoint of EDM, PaDIS (--patch,
                  --pad) or score_sde (--size), the .npy files of the KLIP release
"""

import os
import sys
from importlib.metadata import version
from pathlib import Path

from absl import flags

_YNN = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
# Convolutions on CPU are up to twice as fast so; XLA aborts on flags that it does not
# know, hence only for versions that were tried.
if "XLA_FLAGS" not in os.environ and version("jaxlib") in ("0.10.0", "0.10.1"):
    os.environ["XLA_FLAGS"] = _YNN
# Programs from the compilation cache are greeted with pages about CPU features.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax  # noqa: E402
from ml_collections import config_flags  # noqa: E402

import klip_jax  # noqa: E402
from klip_jax import run, run_convert, run_train, workdir  # noqa: E402
from klip_jax.job import prepare  # noqa: E402
from klip_jax.report import finish  # noqa: E402

FLAGS = flags.FLAGS
_DEFAULT = str(Path(klip_jax.__file__).parent / "default_config.py")
config_flags.DEFINE_config_file("config", None, "The experiment, a file.")
flags.DEFINE_string("workdir", "", "Where results go; default runs/<config name>.")
_MODES = ["detect", "train", "calibrate", "report", "convert"]
flags.DEFINE_enum("mode", "detect", _MODES, "What to do.")
for _name, _value in run_convert.Request._field_defaults.items():
    _define = flags.DEFINE_integer if isinstance(_value, int) else flags.DEFINE_string
    _define(_name, _value, "Of --mode=convert; see klip_jax.run_convert.Request.")


def main() -> int:
    """Run the command line; returns the exit status (2: nothing was run)."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__)
        return 0
    try:
        _parse()
        _cache_compilations()
        settings, folder = FLAGS.config.to_dict(), Path(FLAGS.workdir or _workdir())
        if FLAGS.mode == "train":
            start = _announce_training(run_train.prepare(settings, folder))
        elif FLAGS.mode == "report":
            workdir.read_config(folder)
            _report(folder)
            return 0
        elif FLAGS.mode == "convert":
            _convert(settings)
            return 0
        else:
            start = _announce(prepare(settings, folder), FLAGS.mode)
    except (ValueError, OSError) as error:
        print(f"klip_jax: {_one_line(error)}", file=sys.stderr)
        return 2
    start()
    return 0


def _parse():
    named = [a for a in sys.argv[1:] if a.lstrip("-").split("=")[0] == "config"]
    if not named:
        sys.argv.insert(1, f"--config={_DEFAULT}")
    elif "=" in named[0]:
        path, _ = _file_and_variant(named[0].split("=", 1)[1])
        if not path.is_file():
            raise FileNotFoundError(f"{named[0]}: no such file; configs/ holds some")
    try:
        extra = FLAGS(sys.argv)[1:]
    except (AttributeError, KeyError) as error:
        # The text is the repr of a text, or of its repr.
        text = str(error).replace("\\n", ". ").replace("\\", "").replace("'", "")
        message = f"command line: the config has no setting {text}"
        raise ValueError(message) from None
    except (flags.Error, TypeError) as error:
        text = str(error)
        if "Traceback" in text:
            # That of a config; its own words are the last line.
            text = text.rstrip().splitlines()[-1]
        raise ValueError(f"command line: {' '.join(text.split())}") from None
    if extra:
        raise ValueError(
            f"command line: what is {extra[0]!r}? settings are --config.a=b"
        )


def _file_and_variant(config):
    """Split "configs/faces.py:inpaint"; most configs have one variant only, ""."""
    file, colon, variant = config.rpartition(".py:")
    return (Path(f"{file}.py"), variant) if colon else (Path(config), "")


def _workdir():
    config = config_flags.get_config_filename(FLAGS["config"])
    path, variant = _file_and_variant(config)
    name = "phantom_ct" if config == _DEFAULT else path.stem
    name += variant and f"_{variant}"
    return f"runs/{name}_train" if FLAGS.mode == "train" else f"runs/{name}"


def _cache_compilations():
    """Keep compiled programs between runs, unless the user chose where."""
    if not jax.config.jax_compilation_cache_dir:
        home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", f"{home}/klip_jax")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _announce(job, mode):
    """Print what will be done and for how long; return the function that does it."""
    law = run.find_law(job)
    wanted = job.settings["calibration"]["draws"]
    draws = max(0, wanted - (0 if law is None else len(law.scores)))
    images = len(run.remaining(job)) if mode == "detect" else 0
    calls = job.estimator.network_calls
    # A draw of the model first takes its own chain down the noise levels.
    per_draw = 1 + (2 * job.settings["calibration"]["steps"] + 1) / calls
    seconds = run.seconds_per_image(job) * (images + draws * per_draw)
    print(f"klip_jax {klip_jax.__version__}, {workdir.versions()['device']}")
    if mode == "detect":
        todo = f"{images} to do of {len(job.ids)}, {calls} network calls each"
        print(f"  images          {todo}")
    cached = f"{draws} draws of the model to do" if draws else "cached"
    wider = f"{cached}, times {job.error_ratio:.2f} for the prior's error on new images"
    print(f"  reference law   {wider if wanted else 'none asked for'}")
    print(f"  expected time   {_duration(seconds)}, besides compiling")
    print(f"  results in      {job.folder}", flush=True)

    def start():
        law = run.reference_law(job) if wanted else None
        if mode == "detect":
            run.detect(job, law)
            _report(job.folder)

    return start


def _announce_training(job):
    recipe = job.recipe
    print(f"klip_jax {klip_jax.__version__}, {workdir.versions()['device']}")
    print(f"  training        {recipe.steps} steps of {recipe.batch} images")
    print(f"  results in      {job.folder}", flush=True)
    return lambda: print(f"weights: {run_train.train_prior(job)}")


def _convert(settings):
    names = run_convert.Request._fields
    request = run_convert.Request(*(FLAGS[name].value for name in names))
    path = run_convert.convert(request, weights=settings["prior"]["weights"])
    print(f"{request.source} is now {path}")


def _report(folder):
    metrics, page = finish(folder)
    for name in ("localization_auroc", "detection_auroc"):
        if name in metrics:
            found = metrics[name]
            interval = f"[{found['low']:.3f}, {found['high']:.3f}]"
            print(f"{name:20s}{found['value']:.3f} {interval}")
    print(f"report: {page}")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
