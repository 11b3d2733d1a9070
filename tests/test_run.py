"""Runs of tiny images: complete, resumable, and independent of how they are split."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from klip_jax import calibration, job, parallel, results, run

DRAWS = 12
SETTINGS = dict(calibration__draws=DRAWS)


class DEVICES:
    count = 8


@pytest.fixture(scope="module", autouse=True)
def compile_once(compile_fast):
    """Keep the programs of a run: the jobs here differ in their data alone."""
    programs = {}

    def remembering(f, *, shared):
        def call(*args):
            # Jobs on images and on measurements differ in the shape of these.
            shapes = str(jax.tree.map(jnp.shape, args[shared:]))
            key = f.__name__, shared, DEVICES.count, shapes
            if key not in programs:
                devices = jax.devices()[: DEVICES.count]
                programs[key] = parallel.shard_vmap(f, shared=shared, devices=devices)
            return programs[key](*args)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "shard_vmap", remembering)
        patch.setattr(run.jax, "device_count", lambda: DEVICES.count)
        yield


@pytest.fixture
def devices(monkeypatch):
    return lambda count: monkeypatch.setattr(DEVICES, "count", count)


@pytest.fixture(scope="module")
def settings(files):
    return functools.partial(tiny.settings, files, **SETTINGS)


@pytest.fixture(scope="module")
def straight(files, tmp_path_factory):
    """A run of 12 images on 8 devices that nothing disturbed."""
    made = job.prepare(
        tiny.settings(files, **SETTINGS), tmp_path_factory.mktemp("straight")
    )
    law = run.reference_law(made, progress=False)
    run.detect(made, law, progress=False)
    return made, law, results.read_images(made.folder)


def check_equal(found, expected, *, exact=True):
    """Compare lists of `ImageResult` in everything but seconds."""
    assert [r.image_id for r in found] == [r.image_id for r in expected]
    same = np.testing.assert_array_equal
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4)
    for a, b in zip(found, expected, strict=True):
        assert a.arrays.keys() == b.arrays.keys()
        for name in set(results.COLUMNS) - {"seconds"}:
            loose = not exact and name in ("score", "stderr")
            (close if loose else same)(getattr(a, name), getattr(b, name), err_msg=name)
        for name, array in a.arrays.items():
            loose = not exact and array.dtype.kind == "f"
            (close if loose else same)(array, b.arrays[name], err_msg=name)


def test_every_image_is_written_with_all_that_is_known(straight, files):
    made, law, images = straight
    assert made.error_ratio == pytest.approx(1.2)  # of the record in tiny.py
    assert [r.image_id for r in images[:2]] == ["id_0000", "id_0001"]
    assert [r.group for r in images] == ["id"] * 6 + ["lesion"] * 6
    with np.load(files / "data.npz") as data:
        lesion = images[8].arrays
        np.testing.assert_allclose(
            lesion["truth"][..., 0], data["lesion_images"][2] / 255, rtol=1e-6
        )
        np.testing.assert_array_equal(lesion["mask"], data["lesion_masks"][2] > 0)
        np.testing.assert_array_equal(lesion["eligible"], data["lesion_eligible"][2])
        assert str(lesion["patient"]) == "101"
    for r in images:
        assert r.first_bad_step == -1 and r.seconds > 0 and r.stderr > 0
        assert r.network_calls == 3 * (3 + 2 * 2)
        assert 0 < r.p_value <= 1
        wider = calibration.scaled(law, made.error_ratio).scores
        assert r.p_value == calibration.p_value(r.score, wider)
        for name, array in r.arrays.items():
            assert array.dtype.kind != "f" or np.isfinite(array).all(), name
        controls = results.score_controls(r)
        assert controls.keys() == results.map_controls(r).keys() and len(controls) == 7
    np.testing.assert_allclose(images[0].arrays["levels"], [0.04, 0.4], rtol=1e-6)
    assert run.remaining(made) == []


def test_scores_csv_has_a_line_an_image(straight):
    made, _, images = straight
    results.write_scores(made.folder)
    lines = (made.folder / "scores.csv").read_text().splitlines()
    assert lines[0] == (
        "image_id,group,score,stderr,p_value,network_calls,seconds,first_bad_step"
    )
    assert len(lines) == 13 and lines[1].startswith(f"id_0000,id,{images[0].score!r},")


def test_score_is_the_top_of_the_map(straight):
    made, _, images = straight
    for r in images:
        blocks = r.arrays["heatmap"].reshape(4, 4, 4, 4).sum((1, 3))
        top = np.sort(blocks.ravel())[-round(made.estimator.top * 16) :]
        np.testing.assert_allclose(r.score, top.mean(), rtol=1e-4, atol=1e-5)


def test_a_run_that_was_stopped_goes_on(straight, settings, tmp_path, monkeypatch):
    _, law, images = straight
    made = job.prepare(settings(), tmp_path)

    def write_three(folder, result, write=run.write_image):
        if len(results.finished(folder)) == 3:
            raise KeyboardInterrupt
        write(folder, result)

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_image", write_three)
        with pytest.raises(KeyboardInterrupt):
            run.detect(made, law, progress=False)
    first = results.read_images(tmp_path)
    assert len(first) == 3
    again = job.prepare(settings(), tmp_path)
    assert len(run.remaining(again)) == 9
    run.detect(again, law, progress=False)
    found = results.read_images(tmp_path)
    check_equal(found, images)
    # What was there is not made again.
    assert [r.seconds for r in found[:3]] == [r.seconds for r in first]


def test_results_do_not_depend_on_the_other_images(straight, settings, tmp_path):
    _, law, images = straight
    made = job.prepare(settings(data__groups=("lesion",), data__per_group=3), tmp_path)
    run.detect(made, law, progress=False)
    check_equal(results.read_images(tmp_path), images[6:9])


SLOW = [pytest.param(*split, marks=pytest.mark.slow) for split in [(1, 1), (4, 1)]]


@pytest.mark.parametrize(("count", "at_once"), [(1, 5), *SLOW])
def test_results_do_not_depend_on_devices(
    straight, settings, tmp_path, devices, monkeypatch, count, at_once
):
    _, law, images = straight
    devices(count)
    made = job.prepare(settings(images_at_once=at_once, data__per_group=3), tmp_path)
    run.detect(made, law, progress=False)
    expected = images[:3] + images[6:9]
    check_equal(results.read_images(tmp_path), expected, exact=False)


def test_each_image_has_a_key_of_its_own(settings, tmp_path, monkeypatch, devices):
    seen = {}

    def keys_of(count, at_once):
        def recording(f, *, shared):
            def call(*args):
                for key, x in zip(*args[3:5], strict=True):
                    pair = {np.asarray(x).tobytes(): jax.random.key_data(key).tolist()}
                    seen.setdefault(count, {}).update(pair)
                raise KeyboardInterrupt

            return call

        devices(count)
        monkeypatch.setattr(run, "shard_vmap", recording)
        made = job.prepare(settings(images_at_once=at_once), tmp_path / str(count))
        with pytest.raises(KeyboardInterrupt):
            run.detect(made, None, progress=False)

    keys_of(8, 1)
    keys_of(1, 5)
    # The noise is a function of the key, however the images are split.
    assert len(seen[8]) == 8 and len(seen[1]) == 5
    assert seen[1].items() < seen[8].items()
    assert len({tuple(key) for key in seen[8].values()}) == 8


def test_another_seed_gives_other_noise(straight, settings, tmp_path):
    _, _, images = straight
    made = job.prepare(settings(seed=1, data__per_group=1), tmp_path)
    run.detect(made, None, progress=False)
    found = results.read_images(tmp_path)
    assert np.isnan(found[0].p_value)
    assert found[0].score != images[0].score
    np.testing.assert_array_equal(found[0].arrays["truth"], images[0].arrays["truth"])


def write_measurements(path, straight, **changes):
    """Measure the first three images of `straight` anew, and write y to `path`."""
    made, _, _ = straight
    rng = np.random.default_rng(3)
    x = made.images.images[:3]
    y = np.stack([made.operator(image) for image in x])
    y = y + made.noise_std * rng.standard_normal(y.shape)
    np.savez(path, **(dict(y=y) | changes))
    return y


def test_measurements_alone(straight, settings, tmp_path):
    made, law, images = straight
    ids = np.array(["scan_b", "scan_a", "scan_10"])
    write_measurements(tmp_path / "y.npz", straight, ids=ids)
    changes = dict(data__measurements=str(tmp_path / "y.npz"))
    made = job.prepare(settings(**changes), tmp_path / "run")
    run.detect(made, law, progress=False)
    found = results.read_images(tmp_path / "run")
    assert [r.image_id for r in found] == ["scan_10", "scan_a", "scan_b"]
    for r in found:
        assert r.group == "" and 0 < r.p_value <= 1 and np.isfinite(r.score)
        missing = {"truth", "mask", "eligible", "body", "patient"}
        assert not missing & r.arrays.keys()
        assert r.arrays.keys() | missing == images[0].arrays.keys() | missing
    # scan_b is the first image with other noise: about the same reconstruction.
    gap = found[2].arrays["mean"] - images[0].arrays["mean"]
    assert np.abs(gap).mean() < np.abs(gap + 0.2).mean() / 2


def test_measurements_lie_under_the_root(straight, settings, tmp_path):
    y = write_measurements(tmp_path / "y.npz", straight)
    changes = dict(data__measurements="y.npz", data__root=str(tmp_path))
    made = job.prepare(settings(**changes), tmp_path / "run")
    np.testing.assert_array_equal(made.measurements, np.float32(y))
    assert made.images is None and made.ids == ("y_0000", "y_0001", "y_0002")
    # One measurement alone may come without the leading axis.
    np.savez(tmp_path / "y.npz", y=y[0])
    made = job.prepare(settings(**changes), tmp_path / "one")
    assert made.measurements.shape == (1, *y[0].shape)


def test_reference_law_goes_on_where_it_stopped(
    straight, settings, tmp_path, monkeypatch
):
    _, law, _ = straight
    assert law.scores.shape == (DRAWS,) and law.block_maps.shape == (DRAWS, 4, 4)
    assert len(set(law.scores.tolist())) == DRAWS
    first = job.prepare(settings(), tmp_path)

    def save_once(path, law, save=calibration.save_law):
        save(path, law)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run.calibration, "save_law", save_once)
        with pytest.raises(KeyboardInterrupt):
            run.reference_law(first, progress=False)
    assert len(run.find_law(first).scores) == 8
    again = run.reference_law(job.prepare(settings(), tmp_path), progress=False)
    np.testing.assert_array_equal(again.scores, law.scores)
    np.testing.assert_array_equal(again.block_maps, law.block_maps)
    # Whole, it is read and nothing is drawn.
    monkeypatch.setattr(run, "shard_vmap", lambda f, shared: None)
    run.reference_law(job.prepare(settings(), tmp_path), progress=False)


def test_the_law_that_went_further_is_taken(straight, settings, tmp_path):
    _, law, _ = straight
    short = law._replace(scores=law.scores[:3], block_maps=law.block_maps[:3])
    calibration.save_law(tmp_path / "short.npz", short)
    changes = dict(calibration__law=str(tmp_path / "short.npz"))
    mine = job.prepare(settings(**changes), tmp_path / "run")
    assert len(run.find_law(mine).scores) == 3
    calibration.save_law(tmp_path / "run/reference_law.npz", law)
    assert len(run.find_law(mine).scores) == DRAWS


@pytest.mark.parametrize(
    "change",
    [
        dict(noise_std=0.11),
        dict(seed=1),
        dict(operator__views=9),
        dict(estimator__steps=4),
        dict(calibration__steps=4),
        "weights",
    ],
    ids=str,
)
def test_a_law_of_something_else_is_not_used(straight, settings, tmp_path, change):
    _, law, _ = straight
    if change == "weights":
        params = tiny.random_params(1)
        path = tiny.write_weights(tmp_path / "other.safetensors", params)
        change = dict(prior__weights=str(path))
    same = job.prepare(settings(), tmp_path / "same")
    other = job.prepare(settings(**change), tmp_path / "other")
    calibration.save_law(tmp_path / "same/reference_law.npz", law)
    calibration.save_law(tmp_path / "other/reference_law.npz", law)
    assert run.find_law(same) is not None
    assert run.find_law(other) is None


def test_a_truncated_law_is_named(straight, tmp_path):
    made, _, _ = straight
    data = (made.folder / "reference_law.npz").read_bytes()
    mine = made._replace(folder=tmp_path)
    for keep in (0, 100, len(data) - 1):
        (tmp_path / "reference_law.npz").write_bytes(data[:keep])
        with pytest.raises(ValueError, match=r"reference_law\.npz: not a whole refere"):
            run.find_law(mine)


def test_map_by_position(straight, settings, tmp_path):
    made, law, images = straight
    mine = job.prepare(
        settings(calibration__per_position=True, data__per_group=2), tmp_path
    )
    # The choice is made after the draws, so their law still fits.
    assert mine.law_fingerprint == made.law_fingerprint
    run.detect(mine, law, progress=False)
    wider = calibration.scaled(law, made.error_ratio)
    mean, spread = calibration.position_law(wider)
    held_out = calibration.score_law(wider, made.estimator.top, (mean, spread))
    found = results.read_images(tmp_path)
    for r, plain in zip(found, images[:2] + images[6:8], strict=True):
        blocks = plain.arrays["heatmap"].reshape(4, 4, 4, 4).sum((1, 3))
        expected = np.kron((blocks - mean) / spread, np.ones((4, 4)))
        np.testing.assert_allclose(r.arrays["heatmap"], expected, rtol=1e-2, atol=1e-2)
        assert r.p_value == calibration.p_value(r.score, held_out)
        assert r.p_value * (DRAWS // 2 + 1) == pytest.approx(
            round(r.p_value * (DRAWS // 2 + 1))
        )


def test_an_image_that_fails_says_so(straight, settings, tmp_path):
    _, law, _ = straight
    y = write_measurements(tmp_path / "y.npz", straight)
    changes = dict(data__measurements=str(tmp_path / "y.npz"))
    mine = job.prepare(settings(**changes), tmp_path / "run")
    y = np.float32(y)
    y[1] = np.nan  # as an estimate may end, whatever the reason
    run.detect(mine._replace(measurements=y), law, progress=False)
    found = results.read_images(tmp_path / "run")
    assert [r.first_bad_step for r in found] == [-1, 0, -1]
    assert np.isnan(found[1].score) and np.isnan(found[1].p_value)
    assert np.isfinite([found[0].score, found[2].score]).all()


def test_config_json_tells_how_to_repeat_it(straight, settings):
    made, _, _ = straight
    record = json.loads((made.folder / "config.json").read_text())
    assert record["config"] == json.loads(json.dumps(settings()))
    assert {"jax", "jaxlib", "numpy", "klip_jax", "device"} <= record["versions"].keys()
    assert job.prepare(record["config"], made.folder).ids == made.ids
