"""Names and numbers become objects, or one sentence says why not."""

import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import config, rooms, signatures, spelling
from klip_jax.nets.unet import UNet
from klip_jax.operators.ct import ParallelBeam
from klip_jax.recipe import Recipe


def test_names_are_paths():
    assert rooms.resolve("operators", "ct.ParallelBeam") is ParallelBeam
    made = config.build("operators", dict(name="ct.ParallelBeam", views=3), (8, 8, 1))
    assert isinstance(made, ParallelBeam) and made.out_shape[0] == 3


def test_lists_of_json_become_tuples():
    net = config.build("nets", dict(name="unet.UNet", channels=[8, 16]))
    assert net == UNet(channels=(8, 16)) and hash(net) == hash(UNet(channels=(8, 16)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pet.Ring", r"operators: no module 'pet'; there are \['blur', .*'ct', "),
        ("base.Operator", "no module 'base'"),
        ("base_ct.Strips", "no module 'base_ct'"),
        ("ct.Fan", r"'ct' has no 'Fan' .*it has \[.*'ParallelBeam'"),
        ("ct._strips", "'ct' has no '_strips'"),
        ("ct.np", "'ct' has no 'np'"),
        ("ct", "'ct' has no ''"),
        ("../checkpoint.load", "no module"),
        ("os.system", "no module 'os'"),
        ("no_such_package:Ring", "'no_such_package' cannot be imported"),
        ("math:Ring", "'math' has no 'Ring'"),
        (3, "name=3: give a text"),
        ("x" * 10**6, "no module 'xxx"),
    ],
)
def test_unknown_names(name, words):
    with pytest.raises(ValueError, match=words) as caught:
        config.build("operators", dict(name=name), (8, 8, 1))
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(tilt=3), "ct.ParallelBeam: no setting 'tilt'; there are .*'views'"),
        (dict(views="many"), "views='many': give a"),
        (dict(views=True), "views=True: give a"),
        (dict(span=float("nan")), "span=nan: give a number"),
        (dict(views=0), "views=0"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(ValueError, match=words):
        config.build("operators", dict(name="ct.ParallelBeam", **settings), (8, 8, 1))


def test_what_is_built_must_have_a_name():
    for settings in ("ct", dict(views=3), None):
        with pytest.raises(ValueError, match=r"operators: .*give dict\(name="):
            config.build("operators", settings, (8, 8, 1))


def test_settings_that_are_made_first():
    sampler = config.build(
        "detectors",
        dict(
            name="klip.KLIP",
            guidance=dict(
                name="conditional_gaussian.ConditionalGaussian", prior_inflation=2.0
            ),
        ),
    )
    assert sampler.guidance.prior_inflation == 2.0
    with pytest.raises(ValueError, match="guidance: no module 'magic'"):
        config.build("detectors", dict(name="klip.KLIP", guidance=dict(name="magic.M")))


def test_named_tuples_are_filled():
    assert signatures.fill(Recipe, dict(steps=3), "recipe") == Recipe(steps=3)
    with pytest.raises(ValueError, match=r"recipe: no setting 'step'; .*'steps'"):
        signatures.fill(Recipe, dict(step=3), "recipe")


def test_a_missing_setting_is_named():
    def scanner(in_shape, *, views: int, note: str = ""):
        return views, note

    with pytest.raises(ValueError, match="it: the setting 'views' is missing"):
        signatures.construct(scanner, "it", {}, (8, 8, 1))
    assert signatures.construct(scanner, "it", dict(views=2), (8, 8, 1)) == (2, "")


def test_a_type_error_inside_is_told_in_words():
    def scanner(weights=None):
        return weights + 1

    with pytest.raises(ValueError, match=r"it: .*concatenate"):
        signatures.construct(scanner, "it", dict(weights="a"))


def test_settings_survive_json():
    assert spelling.plain(dict(a=(1, 2), b=None)) == dict(a=[1, 2], b=None)
    with pytest.raises(ValueError, match="neither number, text, tuple nor dict"):
        spelling.plain(dict(a=np.ones(3)))


def test_classes_have_names_as_settings():
    names = (
        "KLIP",
        "BlockMSMA",
        "IntensityInverted",
        "AnoDDPM",
        "SinogramError",
        "ViM",
    )
    assert [spelling.snake(name) for name in names] == [
        "klip",
        "block_msma",
        "intensity_inverted",
        "ano_ddpm",
        "sinogram_error",
        "vim",
    ]


def test_none_passes_where_it_is_allowed():
    def scanner(lines: int | None = 3):
        return lines

    assert signatures.construct(scanner, "it", dict(lines=None)) is None
    assert jnp.ndim(signatures.construct(scanner, "it", dict(lines=4))) == 0
