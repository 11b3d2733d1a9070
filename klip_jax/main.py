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

Without a config file, for your own images: `klip --help`.

Exit status: 0; 1 if images failed or the run broke off; 2 if nothing was run; 130 after
Ctrl-C. Whatever broke off goes on where it was when the same command is given again;
several workers may be given it at once.
"""

import shlex
import sys
from pathlib import Path

from absl import flags

from klip_jax import process

process.set_environment()
if __name__ == "__main__":
    sys.excepthook = process.short_interrupt

from ml_collections import config_flags  # noqa: E402

from klip_jax import assets, commands  # noqa: E402
from klip_jax.run import convert, overrides  # noqa: E402

FLAGS = flags.FLAGS
_DEFAULT = str(Path(assets.__file__).parent / "default_config.py")
config_flags.DEFINE_config_file("config", None, "The experiment, a name or a file.")
flags.DEFINE_string("workdir", "", "Where results go; default runs/<config name>.")
flags.DEFINE_enum("mode", "detect", list(commands.MODES), "What to do.")
for _name, _value in convert.Request._field_defaults.items():
    _define = flags.DEFINE_integer if isinstance(_value, int) else flags.DEFINE_string
    _define(_name, _value, "Of --mode=convert; see klip_jax.run.convert.Request.")


def main() -> int:
    """Run the command line; returns the exit status."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__)
        return 0
    return process.run(_begin)


def _begin():
    """Check everything; return the function that does what is asked for."""
    command = shlex.join(["python", "-m", "klip_jax.main", *sys.argv[1:]])
    settings = _parse()
    process.cache_compilations()
    folder = Path(FLAGS.workdir or _workdir())
    names = convert.Request._fields
    request = convert.Request(*(FLAGS[name].value for name in names))
    return commands.begin(FLAGS.mode, settings, folder, request, command=command)


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


if __name__ == "__main__":
    sys.exit(main())
