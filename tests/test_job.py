"""Bad input: one clear sentence before any compute, and nothing overwritten."""

import json

import numpy as np
import pytest
import tiny

from klip_jax import job


def test_a_job_is_built(files, tmp_path):
    made = job.prepare(tiny.settings(files), tmp_path / "run")
    assert made.images.images.shape == (12, *tiny.SHAPE) and made.measurements is None
    assert made.operator.in_shape == tiny.SHAPE and made.operator.out_shape[0] == 8
    assert made.estimator.samples == 3 and made.noise_std == 0.1
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.json"]


def refused(settings, folder, words, error=ValueError):
    """Check that nothing is made, and that the one line says `words`."""
    with pytest.raises(error, match=words) as caught:
        job.prepare(settings, folder / "run")
    assert "\n" not in str(caught.value)
    assert not (folder / "run").exists()


BAD = {
    "noise zero": (dict(noise_std=0.0), "noise_std=0.0: must be positive"),
    "noise nan": (dict(noise_std=float("nan")), "noise_std=nan: must be positive"),
    "views zero": (dict(operator__views=0), "views=0.*must be a whole number >= 1"),
    "pitch": (dict(operator__pitch=-1.0), "pitch=-1.0.*must be positive"),
    "operator field": (dict(operator__tilt=3), "ct.ParallelBeam.*'tilt'"),
    "operator name": (dict(operator__name="ct.Fan"), "'ct' has no 'Fan'"),
    "operator module": (
        dict(operator__name="pet.Ring"),
        "no module 'pet'.*'blur', .*'ct'",
    ),
    "block": (dict(estimator__block=5), r"block=5 does not divide.*\[1, 2, 4, 8, 16\]"),
    "block zero": (dict(estimator__block=0), "block=0 does not divide"),
    "window high": (dict(estimator__window=(0.04, 21.0)), r"window=.*\[0.01, 20.0\]"),
    "window low": (dict(estimator__window=(0.001, 0.4)), "window=.*need sigma_min <="),
    "window turned": (dict(estimator__window=(0.4, 0.04)), "window=.*lowest < highest"),
    "samples": (dict(estimator__samples=2), "samples=2: need at least 3"),
    "steps": (dict(estimator__steps=1), "steps=1: need at least 2"),
    "chunk": (dict(estimator__chunk=3), "chunk=3 does not divide levels=2"),
    "map": (dict(estimator__map="klip"), "map='klip': choose one of.*'coherent'"),
    "top": (dict(estimator__top=1.0), "top=1.0: a share in"),
    "scale": (dict(estimator__scale=-1.0), "scale=-1.0: must be >= 0"),
    "pooling": (dict(estimator__pooling=-1.0), "pooling=-1.0: must be >= 0"),
    "estimator field": (dict(estimator__sample=9), "estimator: no setting 'sample'"),
    "field": (dict(noise=0.1), "config: no setting 'noise'"),
    "prior field": (dict(prior__weigths=""), "prior: no setting 'weigths'"),
    "at once": (dict(images_at_once=0), "images_at_once=0: at least 1"),
    "draws": (dict(calibration__draws=-1), "draws=-1: must be >= 0"),
    "position": (dict(calibration__per_position=True), "per_position needs at least 4"),
    "prior steps": (dict(calibration__steps=1), "calibration: steps=1"),
    "group": (dict(data__groups=("id", "cat")), r"no group 'cat'; it has \['id', 'les"),
    "group twice": (dict(data__groups=("id", "id")), "'id_0000' occurs twice"),
    "data field": (dict(data__size=64), "npz.load.*'size'"),
    "inflation": (
        dict(estimator__inflation=0.0),
        "inflation=0.0: must be positive and finite",
    ),
    "emphasis": (dict(estimator__emphasis=1.1), r"emphasis=1.1: must be in \[0, 1\]"),
    "scale of greys": (
        dict(data__scale=100.0),
        "must lie in.*data.offset and data.sca",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_setting_is_refused(files, tmp_path, case):
    changes, words = BAD[case]
    refused(tiny.settings(files, **changes), tmp_path, words)


def test_a_missing_setting_is_named(files, tmp_path):
    settings = tiny.settings(files)
    del settings["noise_std"]
    refused(settings, tmp_path, "config: the setting 'noise_std' is missing")


def test_images_of_another_size(files, tmp_path):
    np.savez(tmp_path / "data.npz", id_images=np.zeros((2, 16, 24), np.uint8))
    settings = tiny.settings(files, data__root=str(tmp_path), data__groups=("id",))
    refused(settings, tmp_path, r"images are \(16, 24, 1\).*prior is for \(16, 16, 1\)")


def test_nan_pixels(files, tmp_path):
    images = np.full((2, 16, 16), 99.0)
    images[1, 3, 4] = np.nan
    np.savez(tmp_path / "data.npz", id_images=images)
    settings = tiny.settings(files, data__root=str(tmp_path), data__groups=("id",))
    refused(settings, tmp_path, r"1 pixels are NaN.*\[1, 3, 4, 0\]")


def test_a_law_knows_the_contents_of_a_mask(files, tmp_path):
    path, seen = tmp_path / "seen.npy", np.ones(tiny.SHAPE[:2], bool)
    found = set()
    for hidden in (0, 1):
        seen[0, :hidden] = False
        np.save(path, seen)
        settings = tiny.settings(files)
        settings["operator"] = dict(name="mask.Mask", seen=str(path))
        found.add(job.prepare(settings, tmp_path / str(hidden)).law_fingerprint)
    assert len(found) == 2


def test_missing_files(files, tmp_path):
    absent = str(tmp_path / "absent")
    for changes, words in (
        (dict(data__root=absent), "absent/data.npz: no such data.*KLIP_DATA"),
        (dict(prior__weights=absent), "absent: no such weights.*--mode=train"),
        (dict(data__measurements=absent), "absent: no such measurements"),
        (dict(calibration__law=absent), "calibration.law=.*absent': no such file"),
    ):
        settings = tiny.settings(files, **changes)
        refused(settings, tmp_path, words, FileNotFoundError)


@pytest.mark.parametrize("keep", [0, 7, 0.3, -1])
def test_truncated_files(files, tmp_path, keep):
    for name, changes, words in (
        ("data.npz", dict(data__root=str(tmp_path)), "data.npz: not a whole"),
        (
            "weights.safetensors",
            dict(prior__weights=str(tmp_path / "weights.safetensors")),
            "weights.safetensors: not a readable safetensors",
        ),
    ):
        whole = (files / name).read_bytes()
        part = int(keep * len(whole)) if isinstance(keep, float) else keep
        (tmp_path / name).write_bytes(whole[:part])
        refused(tiny.settings(files, **changes), tmp_path, words)


def test_flipped_bits_in_the_data_are_noticed(files, tmp_path):
    rng = np.random.default_rng(0)
    np.savez_compressed(
        tmp_path / "data.npz", id_images=rng.integers(0, 9, (9, 16, 16))
    )
    whole = bytearray((tmp_path / "data.npz").read_bytes())
    whole[len(whole) // 2] ^= 0x55
    (tmp_path / "data.npz").write_bytes(whole)
    settings = tiny.settings(files, data__root=str(tmp_path), data__groups=("id",))
    refused(settings, tmp_path, "data.npz: not a whole")


def test_weights_that_do_not_fit_their_network(files, tmp_path):
    path = tmp_path / "other.safetensors"
    tiny.write_weights(path, net=tiny.NET | dict(channels=(8, 16)))
    settings = tiny.settings(files, prior__weights=str(path))
    refused(settings, tmp_path, r"other.*do not fit.*params/\w+/\w+ is .*network has")
    tiny.write_weights(path, net=tiny.NET | dict(name="unet.VNet"))
    refused(settings, tmp_path, "'unet' has no 'VNet'")
    tiny.write_weights(path, net=tiny.NET | dict(depth=2))
    refused(settings, tmp_path, "unet.UNet.*'depth'")


def test_measurements_that_do_not_fit(files, tmp_path):
    path = tmp_path / "y.npz"
    settings = tiny.settings(files, data__measurements=str(path))
    y = np.ones((2, 8, 23), np.float32)
    nan = np.where(np.arange(23) == 3, np.nan, y)
    for arrays, words in (
        (dict(y=y[:, :7]), r"y is \(2, 7, 23\).*measures \[N, 8, 23\]; check its geom"),
        (dict(y=y[0, :, :5]), r"y is \(8, 5\)"),
        (dict(y=nan), "y holds values that are NaN"),
        (dict(y=np.where(np.isnan(nan), np.inf, 1)), "NaN or infinite"),
        (dict(sinogram=y), r"no array 'y'; it has \['sinogram'\]"),
        (dict(y=y * 1j), "y is complex"),
        (dict(y=y, ids=np.array(["a", "a"])), "'a' occurs twice"),
        (dict(y=y, ids=np.array(["a"])), "2 measurements but 1 ids"),
        (dict(y=y, ids=np.array(["a", "../b"])), r"image id '\.\./b': use"),
        (dict(y=y, ids=np.array(["a", "x" * 201])), "image id 'xxx.*: use 1 to 200"),
    ):
        np.savez(path, **arrays)
        refused(settings, tmp_path, words)
    np.savez(path, y=np.array([{"a": 1}], object), allow_pickle=True)
    refused(settings, tmp_path, r"y\.npz: not a whole, plain \.npz")
    np.save(tmp_path / "y.npy", y)
    (tmp_path / "y.npy").rename(path)
    refused(settings, tmp_path, r"y\.npz: not a whole, plain \.npz")


def test_workdir_of_another_config(files, tmp_path):
    job.prepare(tiny.settings(files), tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    words = "belongs to another config: estimator.samples was 3, is now 4"
    with pytest.raises(ValueError, match=words):
        job.prepare(tiny.settings(files, estimator__samples=4), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before
    (tmp_path / "config.json").write_bytes(before[:100])
    with pytest.raises(ValueError, match=r"config\.json: not whole"):
        job.prepare(tiny.settings(files), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before[:100]


def test_a_run_is_not_continued_with_other_contents(files, tmp_path):
    weights = tiny.write_weights(tmp_path / "weights.safetensors")
    y = np.ones((2, 8, 23), np.float32)
    np.savez(tmp_path / "y.npz", y=y)
    settings = tiny.settings(
        files, prior__weights=str(weights), data__measurements=str(tmp_path / "y.npz")
    )
    job.prepare(settings, tmp_path / "run")
    job.prepare(settings, tmp_path / "run")
    np.savez(tmp_path / "y.npz", y=2 * y)
    with pytest.raises(ValueError, match="same config with another set of measure"):
        job.prepare(settings, tmp_path / "run")
    np.savez(tmp_path / "y.npz", y=y)
    tiny.write_weights(weights, tiny.random_params(seed=1))
    with pytest.raises(ValueError, match="same config with another prior or operator"):
        job.prepare(settings, tmp_path / "run")


def test_unwritable_workdir(files, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PermissionError, match=r"file/run: cannot be made"):
        job.prepare(tiny.settings(files), tmp_path / "file" / "run")
    with pytest.raises(PermissionError, match=r"file: cannot be made"):
        job.prepare(tiny.settings(files), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    # The superuser may write anywhere, so it is the question that is answered here.
    job.prepare(tiny.settings(files), tmp_path / "begun")
    monkeypatch.setattr(job.workdir.os, "access", lambda path, mode: False)
    for name in ("begun", "new"):
        with pytest.raises(PermissionError, match=f"{name}: not writable; .*--workdir"):
            job.prepare(tiny.settings(files), tmp_path / name)


def test_settings_survive_json(files, tmp_path):
    settings = tiny.settings(files)
    first = job.prepare(settings, tmp_path)
    second = job.prepare(json.loads(json.dumps(settings)), tmp_path)
    assert second.estimator == first.estimator
    assert hash(second.estimator) == hash(first.estimator)
    assert second.law_fingerprint == first.law_fingerprint
