"""`klip`: from your images or measurements to a page that says which need a look.

    klip detect --images=DIR --masks=DIR --prior=abdomen_ct_64 \\
        --operator=ct.ParallelBeam --views=24 --noise_std=0.1
    klip detect --measurements=y.npz --prior=phantom_ct
    klip detect --images=DIR --prior=own.safetensors --operator=my.scan:Slab --width=3
    klip train --images=DIR --minutes=30 --licence="CC BY 4.0"
    klip convert --source=google/ddpm-celebahq-256
    klip report --workdir=runs/DIR
    klip export runs/DIR --to=nifti
    klip list operators

The settings are those of a config file: `python -m klip_jax.main --config=...` runs the
same code. What broke off goes on where it was when the same command is given again.
Exit status: 0; 1 if images failed or the run broke off; 2 if nothing was run; 130 after
Ctrl-C.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import klip_jax
from klip_jax import process
from klip_jax.cli import listing

WORDS = {
    "detect": "images or measurements -> maps, scores, p-values, a page",
    "calibrate": "only the reference law of a prior and a scanner",
    "train": "a prior of your own images",
    "convert": "weights or data of others into files of ours",
    "report": "rewrite the page of a workdir",
    "export": "maps of a workdir as NIfTI, DICOM or PNG",
    "list": "what there is, with its settings",
}
_DETECT = """\
examples:
  klip detect --images=slices --prior=abdomen_ct_64
  klip detect --images=slices --prior=phantom_ct --operator=ct.ParallelBeam --views=12
  klip detect --measurements=y.npz --prior=phantom_ct --out=runs/mine
  klip detect --images=x.npz --prior=faces_gray_64 --scan=inpaint --detectors=klip
  klip detect --images=x --prior=own.safetensors --operator=my.scan:Slab --width=3 \\
      --noise_std=0.02

Images are measured by simulation with the operator and noise of that name;
measurements, an array y [N, ...], are taken as they are. Without --operator the scan is
the one that the prior was calibrated for.
"""
_TRAIN = """\
examples:
  klip train --images=slices --minutes=30 --licence="CC BY 4.0"
  klip train --images=slices --init=phantom_ct --minutes=10    fine-tune weights
  klip train --images=slices --export                          weights as they are now

A tenth of the patients (of the files, where patients are not known) is held out.
Ctrl-C ends it with weights; the same command goes on, also with another --minutes.
"""


class _Parser(argparse.ArgumentParser):
    """One whose errors are ours: a line, status 2."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"command line: {message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        asked, more = _parse(arguments)
        if asked.command == "list":
            print("\n".join(_listed(asked.kind, asked.name)))
            return 0
    except ValueError as error:
        return process.complain(error, 2)
    process.set_environment()
    # The folder one stands in holds one's own classes, my.module:Class.
    sys.path.insert(0, str(Path.cwd()))
    return process.run(lambda: _begin(asked, more, arguments))


def script() -> None:
    """Run the console command."""
    sys.excepthook = process.short_interrupt
    try:
        sys.exit(main())
    except BrokenPipeError:
        # Of `klip list operators | head`: nobody reads on. Nor is there a last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _parse(arguments) -> tuple[argparse.Namespace, dict[str, str]]:
    """Return (what is known, other settings as texts)."""
    parser = _parser(arguments)
    if not arguments:
        arguments = ["--help"]
    asked, rest = parser.parse_known_args(arguments)
    more: dict[str, str] = {}
    rest = list(rest)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--") or len(name) < 3:
            raise ValueError(
                f"command line: what is {word!r}? settings are --name=value"
            )
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"command line: {name} has no value, give {name}=...")
            value = rest.pop(0)
        name = name[2:].removeprefix("config.").replace("-", "_")
        if name in more:
            raise ValueError(f"command line: --{name} is given twice")
        more[name] = value
    if more and asked.command not in ("detect", "calibrate", "train"):
        raise ValueError(
            f"command line: klip {asked.command} has no --{next(iter(more))}; see klip "
            f"{asked.command} --help"
        )
    return asked, more


def _parser(arguments) -> _Parser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser("klip", description=__doc__, formatter_class=layout)
    parser.add_argument(
        "--version", action="version", version=f"klip_jax {klip_jax.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, epilog: str = ""):
        return commands.add_parser(
            name,
            help=WORDS[name],
            description=WORDS[name],
            epilog=epilog,
            formatter_class=layout,
            allow_abbrev=False,
        )

    wants_help = {"--help", "-h"} & set(arguments)
    settings = _settings_in_words(arguments) if wants_help else ""
    for name in ("detect", "calibrate"):
        own = command(name, _DETECT + settings)
        own.add_argument("--images", help="folder or file of images")
        own.add_argument("--masks", help="where they are odd, files of the same names")
        own.add_argument("--measurements", help="file with an array y")
        own.add_argument("--reader", help="of the images; klip list readers")
        _add_fit(own)
        own.add_argument("--healthy", help="images for conformal p-values")
        own.add_argument("--prior", help="weights, a name or a file; klip list weights")
        own.add_argument("--scan", help="which one, of a prior calibrated for several")
        own.add_argument("--operator", help="scanner, or none; klip list operators")
        own.add_argument("--noise_std", "--noise-std", type=float, help="of y")
        own.add_argument("--detectors", help="klip,controls; klip list detectors")
        own.add_argument("--classifier", help="weights, for detectors that ask")
        own.add_argument("--draws", type=int, help="of the model, for the law")
        own.add_argument("--seed", type=int, help="of everything random")
        own.add_argument("--images_at_once", type=int, help="on each device")
        _add_out(own)
    train = command("train", _TRAIN + (_training_in_words() if wants_help else ""))
    train.add_argument("--images", help="folder or file of images")
    train.add_argument("--masks", help="images with a mask are left out")
    train.add_argument("--test", help="held-out images, instead of a tenth of them")
    train.add_argument("--reader", help="of the images; klip list readers")
    _add_fit(train)
    train.add_argument("--minutes", type=float, help="how long; default 5000 steps")
    train.add_argument("--init", help="weights to start from, a name or a file")
    train.add_argument("--licence", help="of the images, for the card of the weights")
    train.add_argument("--export", action="store_true", help="weights as they are now")
    _add_out(train)
    convert = command("convert")
    for name, kind in (("source", str), ("target", str), ("revision", str)):
        convert.add_argument(f"--{name}", type=kind, default="")
    for name, default in (("size", 0), ("patch", 56), ("pad", 24)):
        convert.add_argument(f"--{name}", type=int, default=default)
    report = command("report")
    report.add_argument("--workdir", "--out", required=True)
    export = command("export")
    export.add_argument("workdir", help="of a run")
    export.add_argument("--to", choices=("nifti", "dicom", "png"), required=True)
    export.add_argument("--detector", default="", help="default the main one")
    listed = command("list", "kinds: " + ", ".join(listing.KINDS))
    listed.add_argument("kind", choices=[*listing.KINDS, ""], nargs="?", default="")
    listed.add_argument("name", nargs="?", default="", help="all that is said of one")
    return parser


def _add_out(parser) -> None:
    parser.add_argument(
        "--workdir", "--out", help="where results go; default runs/<name of the data>"
    )


def _add_fit(parser) -> None:
    parser.add_argument("--crop", help="middle of each image, pixels, 160,128")
    parser.add_argument("--resize", help="the long side, 64, or both, 64,48")
    parser.add_argument("--pad", help="to a size, 64,64, or to multiples of one, 8")
    parser.add_argument("--channels", type=int, help="1 makes grey of RGB, 3 RGB of it")


def _settings_in_words(arguments) -> str:
    """Return what can be set besides, with defaults, as text for --help."""
    said = [
        "every setting, by its place in the tree; --operator's and the reader's own"
    ]
    said.append("also by name alone, --views=24:")
    for place, file, name in (
        ("posterior", "posterior.py", "PosteriorSampler"),
        ("detectors.klip", "detectors/klip.py", "KLIP"),
    ):
        for field, default in listing.settings_of(file, name).items():
            if field != "law":
                said.append(f"  --{place}.{field}={default}")
    said.append("  --calibration.draws, .steps, .law; --run.chunk, .lease_minutes")
    named = [a.partition("=")[2] for a in arguments if a.startswith("--operator=")]
    for operator in named:
        if (known := listing.entry("operators", operator)) is not None:
            said += ["", *str(known).splitlines(), "", known.doc]
    return "\n".join(said)


def _training_in_words() -> str:
    said = ["settings of recipe, augmentation and reader by name, as --batch=16:"]
    for file, name in (("recipe.py", "Recipe"), ("data/augment.py", "Augment")):
        for field, default in listing.settings_of(file, name).items():
            said.append(f"  --{field}={default}")
    said.append("  --train.net.channels='(48, 64, 128)'")
    return "\n".join(said)


def _listed(kind: str, name: str):
    if not kind:
        return [f"klip list {kind}" for kind in listing.KINDS]
    if not name:
        return list(listing.lines(kind))
    if kind not in listing.ROOMS or not (
        known := listing.entry(listing.ROOMS[kind], name)
    ):
        raise ValueError(f"klip list {kind} {name}: there is none of that name")
    return [str(known).splitlines()[0], "", known.doc]


def _begin(asked: argparse.Namespace, more: dict[str, str], arguments):
    """Check everything; return the function that does what is asked for."""
    from klip_jax import commands
    from klip_jax.cli import tree
    from klip_jax.run.convert import Request

    process.cache_compilations()
    command, known = shlex.join(["klip", *arguments]), vars(asked)
    if asked.command == "report":
        return commands.begin("report", {}, Path(asked.workdir))
    if asked.command == "export":
        return commands.begin_export(asked.workdir, asked.to, asked.detector)
    if asked.command == "convert":
        request = Request(**{name: known[name] for name in Request._fields})
        return commands.begin("convert", {"prior": {"weights": ""}}, Path(), request)
    folder = Path(asked.workdir or _workdir(asked))
    if asked.command == "train":
        return commands.begin_training(
            tree.training(known, more),
            folder,
            minutes=asked.minutes or 0.0,
            export=asked.export,
            command=command,
        )
    settings = tree.detection(known, more)
    return commands.begin(asked.command, settings, folder, command=command)


def _workdir(asked) -> str:
    source = asked.images or getattr(asked, "measurements", None) or "klip"
    stem = Path(source).absolute().stem
    return f"runs/{stem}_train" if asked.command == "train" else f"runs/{stem}"
