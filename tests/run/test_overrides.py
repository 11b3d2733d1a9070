"""Whole dicts, None and lists of detectors on the command line; nothing is ever run."""

import pytest

from klip_jax.run import overrides


def applied(*arguments, **changes):
    settings = dict(
        scan=dict(noise_std=0.1),
        posterior=dict(sampler=dict(name="a.A")),
        detectors=dict(klip=dict(name="klip.KLIP", block=2)),
        calibration=dict(healthy=None),
    )
    rest, ours = overrides.split(arguments)
    overrides.apply(settings, ours)
    return rest, settings


def test_a_list_of_detectors():
    rest, found = applied("--mode=detect", "--config.detectors=klip,controls.Random")
    assert rest == ["--mode=detect"]
    assert found["detectors"] == dict(
        klip=dict(name="klip.KLIP", block=2), random=dict(name="controls.Random")
    )


def test_one_more_detector_whatever_the_order():
    _, found = applied(
        "--config.detectors.mine=dict(name='my.file:Mine', window=(0.1, -2), "
        "inner={'name': 'a.B', 'flags': [True, None]})",
        "--config.detectors=klip",
    )
    assert list(found["detectors"]) == ["klip", "mine"]
    assert found["detectors"]["mine"] == dict(
        name="my.file:Mine",
        window=(0.1, -2),
        inner=dict(name="a.B", flags=(True, None)),
    )


def test_all_detectors_as_one_dict():
    _, found = applied("--config.detectors={'a': dict(name='klip.KLIP')}")
    assert found["detectors"] == dict(a=dict(name="klip.KLIP"))


def test_other_parts():
    _, found = applied(
        "--config.scan=None",
        "--config.posterior.sampler=dict(name='ddim.DDIM', eta=1.0)",
        "--config.calibration.healthy=dict(name='npz.load')",
    )
    assert found["scan"] is None
    assert found["posterior"]["sampler"] == dict(name="ddim.DDIM", eta=1.0)
    assert found["calibration"]["healthy"] == dict(name="npz.load")


def test_what_absl_takes_stays():
    arguments = ["--config=a.py", "--config.scan.noise_std=0.2", "--workdir=w", "x"]
    assert applied(*arguments)[0] == arguments


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.skan=None", "the config has no setting 'skan'"),
        ("--config.scan.noise=None", "the config has no setting 'scan.noise'"),
        ("--config.a.b.c=None", "the config has no setting 'a.b.c'"),
        ("--config.scan=dict(a=__import__('os'))", "is no literal such as dict"),
        ("--config.scan=dict(a=open('x'))", "is no literal"),
        ("--config.scan=dict(a=1", "is no literal"),
        ("--config.scan=dict(a=1)(2)", "is no literal"),
        ("--config.scan=dict([('a', 1)])", "dict takes names only"),
        ("--config.scan=dict(**{'a': 1})", "None is no name"),
        ("--config.scan={1: 2}", "1 is no name"),
        ("--config.detectors={'a': {}, 'a': {}}", "two of the name 'a'"),
        ("--config.detectors=klip,klip", "two of the name 'klip'"),
        ("--config.detectors=klap", "detectors: no 'klap'; there are"),
        ("--config.detectors=", "give at least one"),
        ("--config.scan={" + "(" * 10**5, "is no literal"),
    ],
)
def test_what_is_refused(argument, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")) as caught:
        applied(argument)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
