"""Bad input: one clear sentence before any compute, and nothing is written."""

import json

import fake_run
import numpy as np
import pytest

from klip_jax import reference_law
from klip_jax.data.base import in_memory
from klip_jax.run import detect, job, law, look
from klip_jax.run.settings import detectors

A = dict(name="fake_run:Brightness")


@pytest.fixture(autouse=True)
def weights(monkeypatch):
    fake_run.install(monkeypatch)


def test_a_job_is_built(tmp_path):
    made = job.prepare(fake_run.settings(), tmp_path / "run")
    assert made.shape == fake_run.SHAPE and len(made.inputs) == 10
    assert made.scene.operator.out_shape == fake_run.SHAPE
    assert list(made.detectors) == ["bright", "distance", "misfit"]
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.json"]
    meta = json.loads((tmp_path / "run/config.json").read_text())
    assert (meta["main"], meta["total"], meta["chunk"]) == ("bright", 10, 4)
    assert meta["posterior_calls"] == 12 and meta["image_shape"] == [8, 8, 1]
    assert meta["detectors"]["bright"] == {
        "class": "fake_run:Brightness",
        "about": "The brightest blocks of the picture",
        "control": False,
        "unit": "",
        "network_calls": 0,
        "classifier_calls": 0,
        "has_map": True,
        "extras": {"rows": [8]},
        "block": 4,
        "curves": [],
        "fits": False,
    }
    distance = meta["detectors"]["distance"]
    assert distance["fits"] and distance["unit"] == "sd" and not distance["has_map"]


def bytes_as_floats():
    grey = fake_run.images(4)
    return in_memory(255 * grey.images, grey.ids, grey.groups)


def refused(settings, folder, words, error=ValueError):
    """Check that nothing is made, and that the one line says `words`."""
    with pytest.raises(error, match=words) as caught:
        job.prepare(settings, folder / "run")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert not (folder / "run").exists()


BAD = {
    "unknown detector": (
        dict(detectors__bright=dict(name="klap.KLIP")),
        r"detectors.bright: detectors: no module 'klap'; there are \[.*'klip'",
    ),
    "unknown class": (
        dict(detectors__bright=dict(name="controls.Brightness")),
        r"'controls' has no 'Brightness'.*it has \[.*'Intensity'",
    ),
    "unknown sampler": (
        dict(posterior__sampler=dict(name="magic.Magic")),
        "samplers: no module 'magic'; there are .*'resampling'",
    ),
    "unknown guidance": (
        dict(posterior__guidance=dict(name="dps.DSP")),
        "guidance: 'dps' has no 'DSP'",
    ),
    "unknown operator": (dict(scan__operator=dict(name="ct.Fan")), "'ct' has no 'Fan'"),
    "unknown reader": (dict(data__name="magic.load"), "data: no module 'magic'"),
    "operator setting": (
        dict(scan__operator=dict(name="identity.Identity", tilt=3)),
        "identity.Identity: no setting 'tilt'",
    ),
    "detector setting": (
        dict(detectors__bright=A | dict(gian=2.0)),
        r"detectors.bright: .*fake_run:Brightness: no setting 'gian'; .*'gain'",
    ),
    "detector type": (dict(detectors__bright=A | dict(block="a")), "block='a': give"),
    "no detector": (
        dict(detectors__bright=dict(name="fake_run:White")),
        r"detectors.bright: fake_run:White is no detector, it lacks \['needs'",
    ),
    "of flax": (
        dict(detectors__bright=dict(name="fake_run:OfFlax")),
        "fake_run:OfFlax is a dataclass of flax.struct; make it one of klip_jax.struct",
    ),
    "a closure": (
        dict(detectors__bright=dict(name="fake_run:Closure")),
        "fake_run:Closure is not made of arrays and numbers; make it a klip_jax.struct",
    ),
    "no name": (dict(detectors__bright=dict(gain=1.0)), r"detectors.bright=.*name="),
    "detectors empty": (dict(detectors={}, main=""), "detectors={}: give at least one"),
    "detector's name": (
        {"detectors": {"../bright": A}, "main": "../bright"},
        "'../bright' cannot be a name",
    ),
    "reserved name": (
        {"detectors": {"reconstruction": A}, "main": "reconstruction"},
        "'reconstruction' cannot be a name",
    ),
    "twice": (
        dict(detectors="fake_run:Brightness,fake_run:Brightness"),
        "there are two of the name 'brightness'",
    ),
    "main": (dict(main="klip"), r"main='klip': choose one of \['bright', 'dist"),
    "no scanner": (
        dict(scan=None),
        "detectors.misfit: fake_run:Misfit needs 'scan', but this run looks at images",
    ),
    "no classifier": (
        dict(detectors__bright=dict(name="fake_run:Asks", what="classifier")),
        "needs 'classifier', but none is given: set config.classifier",
    ),
    "no image": (
        dict(detectors__bright=dict(name="fake_run:Asks", what="image")),
        "needs 'image', but this run looks at measurements",
    ),
    "unknown need": (
        dict(detectors__bright=dict(name="fake_run:Asks", what="weather")),
        r"needs 'weather', which is not one of \['classifier', 'eligible', ",
    ),
    "broken detector": (
        dict(detectors__bright=dict(name="fake_run:Asks", what="picture")),
        "detectors.bright: fake_run:Asks: .*'Given' object has no attribute 'pikture'",
    ),
    "nothing to fit on": (
        dict(calibration__draws=0),
        "detectors.distance: fake_run:Distance must be fitted, and .*draws=0",
    ),
    "too few to fit on": (
        dict(detectors__distance=dict(name="diffpath.DiffPath6D")),
        r"DiffPath6D: cannot be fitted to 6 images \(.*\); raise calibration.draws or",
    ),
    "pixels of bytes": (
        dict(data=dict(name="test_job:bytes_as_floats", measurements="")),
        "has pixels that are NaN or outside",
    ),
    "noise zero": (dict(scan__noise_std=0.0), r"scan.noise_std=0.0: must be in"),
    "noise nan": (dict(scan__noise_std=float("nan")), "noise_std=nan: must be in"),
    "noise inf": (dict(scan__noise_std=float("inf")), "noise_std=inf: must be in"),
    "noise tiny": (dict(scan__noise_std=1e-25), "noise_std=1e-25: must be in"),
    "noise text": (dict(scan__noise_std="loud"), "noise_std='loud': must be in"),
    "samples": (dict(posterior__samples=0), "posterior: samples=0: need an integer"),
    "samples text": (dict(posterior__samples="a"), "posterior: samples='a': give"),
    "posterior setting": (dict(posterior__sample=3), "posterior: no setting 'sample'"),
    "levels": (dict(posterior__sigma_min=30.0), "sigma_min=30.0.*need 0 < lowest"),
    "seed 2^40": (dict(seed=2**40), r"seed=1099511627776: a whole number of 0"),
    "seed negative": (dict(seed=-1), "seed=-1: a whole number"),
    "seed true": (dict(seed=True), "seed=True: a whole number"),
    "draws": (dict(calibration__draws=-1), "calibration.draws=-1: a whole number"),
    "steps": (dict(calibration__steps=1), "calibration.steps=1: .* at least 2"),
    "chunk": (dict(run__chunk=0), "run.chunk=0: a whole number of at least 1"),
    "at once": (dict(run__images_at_once=0), "run.images_at_once=0: .* at least 1"),
    "lease": (dict(run__lease_minutes=0), "run.lease_minutes=0: .* at least 0.05"),
    "field": (dict(noise=0.1), "config: no setting 'noise'; there are"),
    "scan field": (dict(scan__noise=0.1), "scan: no setting 'noise'"),
    "part": (dict(run=3), "run=3: give a dict"),
    "law": (dict(calibration__law=3), "calibration.law=3: give a text"),
    "no images": (dict(data__count=0), "data: there is nothing to look at"),
    "nan pixels": (
        dict(data__bad=3),
        "data: image 'image 3/ü' has pixels that are NaN",
    ),
    "not images": (
        dict(data=dict(name="fake_run:not_images", measurements="")),
        "data: fake_run:not_images gives int, not an ImageSet",
    ),
    "other size": (
        dict(data__side=16),
        r"data: the images are \(16, 16, 1\), the prior is for \(8, 8, 1\)",
    ),
    "two of one id": (dict(data__id="same"), "image id 'same' occurs twice"),
    "healthy ones tested": (
        dict(calibration__healthy=dict(name="fake_run:images", count=10)),
        "calibration.healthy: these are the images that are tested",
    ),
    "few healthy": (
        dict(calibration__healthy=dict(name="fake_run:images", count=3, seed=5)),
        "calibration.healthy: 3 images; at least 4",
    ),
    "healthy what": (dict(calibration__healthy=3), "calibration.healthy=3: give dict"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(tmp_path, case):
    changes, words = BAD[case]
    refused(fake_run.settings(**changes), tmp_path, words)


def test_a_missing_setting_is_named(tmp_path):
    settings = fake_run.settings()
    del settings["scan"]["noise_std"]
    refused(settings, tmp_path, "scan: the setting 'noise_std' is missing")
    del settings["scan"]
    refused(settings, tmp_path, "config: the setting 'scan' is missing")


def test_measurements_that_do_not_fit(tmp_path):
    path = tmp_path / "y.npz"
    settings = fake_run.settings(data__measurements=str(path))
    refused(settings, tmp_path, "y.npz: no such measurements", FileNotFoundError)
    y = np.ones((2, 8, 8, 1), np.float32)
    for arrays, words in (
        (
            dict(y=y[:, :7]),
            r"y is \(2, 7, 8, 1\).*measures \[N, 8, 8, 1\]; check its g",
        ),
        (dict(y=np.where(y > 0, np.nan, y)), "y holds values that are NaN"),
        (dict(sinogram=y), r"no array 'y'; it has \['sinogram'\]"),
        (dict(y=y * 1j), "y is complex64, but the operator measures float32"),
        (dict(y=y[:0]), "y.npz: there is nothing to look at"),
        (dict(y=y, ids=np.array(["a", "a"])), "'a' occurs twice"),
        (dict(y=y, ids=np.array(["a"])), "2 measurements but 1 ids"),
    ):
        np.savez(path, **arrays)
        refused(settings, tmp_path, words)
    path.write_bytes(path.read_bytes()[:50])
    refused(settings, tmp_path, r"y\.npz: not a whole")
    np.savez(path, y=y)
    refused(settings | dict(scan=None), tmp_path, "no scan.operator says what measured")


def test_other_images_under_the_same_name(tmp_path, monkeypatch):
    settings = fake_run.settings()
    job.prepare(settings, tmp_path)
    before = fake_run.images(10)
    for change in (dict(masks=True), dict(images=True)):
        x, masks = before.images.copy(), before.masks.copy()
        if "masks" in change:
            masks[0, 0, 0] = ~masks[0, 0, 0]
        else:
            x[3, 2, 2] += 0.1
        other = in_memory(x, before.ids, before.groups, masks=masks,
                          eligible=before.eligible)  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(fake_run, "images", lambda count, other=other: other)
            with pytest.raises(ValueError, match="same config with other images"):
                job.prepare(settings, tmp_path)
    job.prepare(settings, tmp_path)


def test_another_prior_or_measurements_of_the_same_name(tmp_path, monkeypatch):
    y = np.ones((2, 8, 8, 1), np.float32)
    np.savez(tmp_path / "y.npz", y=y)
    settings = fake_run.settings(data__measurements=str(tmp_path / "y.npz"))
    job.prepare(settings, tmp_path / "run")
    np.savez(tmp_path / "y.npz", y=2 * y)
    with pytest.raises(ValueError, match="same config with other measurements"):
        job.prepare(settings, tmp_path / "run")
    np.savez(tmp_path / "y.npz", y=y)
    fake_run.install(monkeypatch, fake_run.White(0.5, 0.02))
    with pytest.raises(ValueError, match="same config with other prior"):
        job.prepare(settings, tmp_path / "run")


def test_a_mask_of_the_same_name(tmp_path):
    path, seen = tmp_path / "seen.npy", np.ones((8, 8), bool)
    prints = set()
    for hidden in (0, 1):
        seen[0, :hidden] = False
        np.save(path, seen)
        settings = fake_run.settings()
        settings["scan"]["operator"] = dict(name="mask.Mask", seen=str(path))
        made = job.prepare(settings, tmp_path / str(hidden))
        prints.add(made.fingerprints.draws["bright"])
    assert len(prints) == 2
    with pytest.raises(ValueError, match="same config with other"):
        job.prepare(settings, tmp_path / "0")


def test_a_file_named_like_a_setting_is_no_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = job.prepare(fake_run.settings(), tmp_path / "run").fingerprints
    for name in ("identity.Identity", "white"):
        (tmp_path / name).write_text("no operator")
    after = job.prepare(fake_run.settings(), tmp_path / "run")
    assert after.fingerprints == before


def test_settings_survive_json(tmp_path):
    settings = fake_run.settings()
    first = job.prepare(settings, tmp_path)
    second = job.prepare(json.loads(json.dumps(settings)), tmp_path)
    assert second.fingerprints == first.fingerprints


@pytest.mark.slow
def test_one_that_needs_many_images_is_fitted_and_run(tmp_path):
    """On half of the draws, of which it has enough."""
    path = dict(diffpath=dict(name="diffpath.DiffPath6D"))
    settings = fake_run.settings(detectors=path, main="diffpath", scan=None)
    settings["calibration"]["draws"] = 64
    made = job.prepare(settings, tmp_path / "run")
    viewer = made.viewer()
    references = law.references(made, viewer, progress=False)
    store = detect.detect(made, references, viewer, progress=False)
    scores = store.scores(["score", "p_value"])
    assert len(scores["score"]) == 10 and np.all(np.isfinite(scores["p_value"]))


def test_a_law_is_of_one_detector_and_its_numbers(tmp_path):
    def both(**changes):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return job.prepare(fake_run.settings(**changes), folder).fingerprints

    def prints(**changes):
        return both(**changes).draws

    before = prints()
    assert len(set(before.values())) == 3
    for change in (
        dict(scan__noise_std=0.06),
        dict(seed=1),
        dict(posterior__steps=5),
        dict(calibration__steps=5),
    ):
        after = prints(**change)
        assert all(after[name] != before[name] for name in before)
    after = prints(detectors__bright=A | dict(gain=2.0))
    assert [after[n] == before[n] for n in before] == [False, True, True]
    # How the model's draws are made is nothing to healthy images.
    churned = dict(name="heun.Heun", churn=0.2)
    drawn, healthy = both(calibration__sampler=churned)
    assert all(drawn[name] != before[name] for name in before)
    assert healthy == both().healthy != both(scan__noise_std=0.06).healthy
    # Images, chunks and the number of draws are no part of a law.
    same = prints(data__count=4, run__chunk=2, calibration__draws=9)
    assert same == before


def test_a_broken_law_is_named(tmp_path, monkeypatch):
    path = tmp_path / "w_law.npz"
    fake_run.install(monkeypatch, laws=[path])
    path.write_bytes(b"PK")
    refused(fake_run.settings(), tmp_path, "w_law.npz: not a whole reference law")
    prints = {"bright": "f"}
    broken = np.array([1.0, np.nan], np.float32)
    with pytest.raises(ValueError, match=r"1 of 2 scores of 'bright' are NaN"):
        reference_law.Law({"bright": broken}, prints)
    fake_run.install(monkeypatch)
    settings = fake_run.settings(calibration__law="absent")
    refused(settings, tmp_path, "calibration.law='absent': no such", FileNotFoundError)


def test_detectors_by_a_list_of_names():
    known = dict(mine=A | dict(gain=3.0))
    chosen = detectors("mine, fake_run:Distance,controls", known)
    assert chosen["mine"]["gain"] == 3.0
    assert chosen["distance"] == dict(name="fake_run:Distance")
    assert chosen["intensity_inverted"] == dict(name="controls.IntensityInverted")
    with pytest.raises(ValueError, match=r"detectors: no 'klap'; there are \['mine'\]"):
        detectors("klap", known)
    with pytest.raises(ValueError, match="'controls' has no 'Best'"):
        detectors("controls.Best", known)
    with pytest.raises(ValueError, match="give at least one"):
        detectors(" , ", known)


def test_nothing_is_computed_before_all_is_checked(tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("something was computed")

    monkeypatch.setattr(look.Viewer, "__call__", never)
    monkeypatch.setattr(law, "references", never)
    job.prepare(fake_run.settings(), tmp_path / "run")
