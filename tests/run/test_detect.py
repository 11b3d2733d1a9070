"""Runs in small: complete, resumable, and independent of how they are split."""

import json
import threading

import fake_run
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import calibration, parallel, reference_law
from klip_jax.run import chunks, detect, job, law, look
from klip_jax.run.claim import first_difference
from klip_jax.run.store import Store

DRAWS = 12
TIMES = "seconds", "posterior_seconds"
UNSEEN = dict(factor=1.5, shift=0.2)  # of draws, told by the record of the weights


class DEVICES:
    count = 8


@pytest.fixture(scope="module", autouse=True)
def weights():
    """Keep the programs of a run: the jobs here differ in their data alone."""
    programs, compiled = {}, {}

    def remembering(f, *, shared):
        key = str(f).split(" at ")[0], str(getattr(f, "keywords", "")), DEVICES.count
        if key not in programs:
            devices = jax.devices()[: DEVICES.count]
            programs[key] = parallel.shard_vmap(f, shared=shared, devices=devices)
        return programs[key]

    def make(self, *args, make=look.Viewer.__init__, **settings):
        make(self, *args, **settings)
        self._compiled = compiled

    with pytest.MonkeyPatch.context() as patch:
        fake_run.install(patch, record=fake_run.RECORD | UNSEEN)
        patch.setattr(jax, "device_count", lambda: DEVICES.count)
        patch.setattr(look, "shard_vmap", remembering)
        patch.setattr(look.Viewer, "__init__", make)
        yield


@pytest.fixture
def devices(monkeypatch):
    return lambda count: monkeypatch.setattr(DEVICES, "count", count)


def run(settings, folder):
    """Return job, references and store of a whole run."""
    made = job.prepare(settings, folder)
    viewer = made.viewer()
    references = law.references(made, viewer, progress=False)
    law.save(made, references)
    return made, references, detect.detect(made, references, viewer, progress=False)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of 10 images on 8 devices that nothing disturbed."""
    return run(fake_run.settings(), tmp_path_factory.mktemp("straight"))


def check_equal(a: Store, b: Store, *, images=None, exact=True):
    """Compare two stores in everything but seconds."""
    same = np.testing.assert_array_equal if exact else close
    one, other = a.scores(), b.scores()
    keep = np.isin(other["image_id"], one["image_id"] if images is None else images)
    for name in one.keys() - {*TIMES, "index"}:
        text = one[name].dtype == object
        check = np.testing.assert_array_equal if text else same
        check(one[name], other[name][keep], err_msg=name)
    assert a.array_names() == b.array_names()
    index = np.unique(other["index"][keep])
    for name in a.array_names():
        same(a.array(name)[:], b.array(name)[:][index], err_msg=name)


def close(a, b, err_msg=""):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=err_msg)


def test_every_image_and_detector_has_a_row(straight):
    made, references, store = straight
    found, x = store.scores(), fake_run.images(10)
    assert found["image_id"][::3].tolist() == list(x.ids)
    assert found["group"][::3].tolist() == ["id", "lesion"] * 5
    assert found["detector"].tolist() == ["bright", "distance", "misfit"] * 10
    assert (found["first_bad_step"] == -1).all() and (found["seconds"] > 0).all()
    assert np.isnan(found["stderr"][found["detector"] != "distance"]).all()
    for name, reference in references.items():
        mine = found["detector"] == name
        expected = calibration.p_value(found["score"][mine], reference.law)
        np.testing.assert_array_equal(found["p_value"][mine], expected)
        assert ((expected > 0) & (expected <= 1)).all()
        assert np.isnan(found["p_conformal"][mine]).all()
    # The lesions are bright squares.
    bright = found["score"][found["detector"] == "bright"]
    assert bright[1::2].min() > bright[::2].max()
    assert store.array_names() == [
        "bright/heatmap",
        "bright/rows",
        "misfit/heatmap",
        "reconstruction/mean",
        "reconstruction/naive",
        "reconstruction/std",
    ]
    mean = store.array("reconstruction/mean")[:]
    assert np.abs(mean - x.images).mean() < np.abs(mean - 0.5).mean()
    np.testing.assert_allclose(
        store.array("bright/heatmap")[:], mean[..., 0], rtol=1e-5, atol=1e-6
    )
    assert detect.images_to_do(made) == 0 and law.draws_to_do(made) == 0
    assert detect.failures(store) == []


def test_a_detector_sees_the_posterior_of_the_image_s_own_noise(straight):
    # y = x + n with the noise of the image's key: the posterior of a white Gaussian is
    # known, mean (var y + noise^2 mean) / (var + noise^2).
    made, _, store = straight
    batch = made.inputs.read(np.arange(10))
    viewer = made.viewer()
    y = np.asarray(viewer._measure(viewer.scene, batch.key[:8], batch.image[:8]))
    assert 0.03 < (y - batch.image[:8]).std() < 0.07
    exact = (0.01 * y + 0.05**2 * 0.5) / (0.01 + 0.05**2)
    gap = store.array("reconstruction/mean")[:8] - exact
    assert np.abs(gap).mean() < 0.04  # three samples of standard deviation 0.045


def test_a_run_that_was_stopped_goes_on(straight, tmp_path, monkeypatch):
    _, _, expected = straight

    def stop_after(count):
        def write(self, chunk, *args, write=Store.write_chunk):
            if sum(1 for _ in tmp_path.rglob("part-*")) == count:
                raise KeyboardInterrupt
            write(self, chunk, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write_chunk", write)
            with pytest.raises(KeyboardInterrupt):
                run(fake_run.settings(), tmp_path)

    stop_after(1)  # of the law's three chunks
    made = job.prepare(fake_run.settings(), tmp_path)
    assert law.draws_to_do(made) == DRAWS - 4 and detect.images_to_do(made) == 10
    stop_after(4)
    made = job.prepare(fake_run.settings(), tmp_path)
    assert law.draws_to_do(made) == 0 and detect.images_to_do(made) == 6
    seconds = Store(tmp_path).scores(["seconds"])["seconds"]
    _, _, store = run(fake_run.settings(), tmp_path)
    check_equal(store, expected)
    check_equal(Store(tmp_path / "law"), Store(expected.folder / "law"))
    # What was there is not made again.
    np.testing.assert_array_equal(store.scores(["seconds"])["seconds"][:12], seconds)


def test_a_part_that_was_deleted_is_made_anew(straight, tmp_path):
    _, _, expected = straight
    run(fake_run.settings(), tmp_path)
    (tmp_path / "scores/part-00001.parquet").unlink()
    (tmp_path / "maps.zarr/bright/heatmap/c.1.0.0").unlink()
    _, _, store = run(fake_run.settings(), tmp_path)
    check_equal(store, expected)


def test_results_do_not_depend_on_the_other_images(straight, tmp_path):
    _, _, expected = straight
    settings = fake_run.settings(data__count=3, run__chunk=2)
    _, _, store = run(settings, tmp_path)
    check_equal(store, expected)


@pytest.mark.parametrize(
    ("count", "at_once"), [pytest.param(1, 3, marks=pytest.mark.slow), (2, 1)]
)
def test_results_do_not_depend_on_devices(straight, tmp_path, devices, count, at_once):
    _, _, expected = straight
    devices(count)
    _, _, store = run(fake_run.settings(run__images_at_once=at_once), tmp_path)
    check_equal(store, expected, exact=False)


def test_two_workers_share_a_workdir(straight, tmp_path, monkeypatch):
    _, _, expected = straight
    monkeypatch.setattr(chunks, "WAIT", 0.01)
    wrote = []

    def write(self, chunk, *args, write=Store.write_chunk):
        wrote.append((self.folder.name, chunk))
        write(self, chunk, *args)

    monkeypatch.setattr(Store, "write_chunk", write)
    settings = fake_run.settings(run__chunk=1)
    workers = [threading.Thread(target=run, args=(settings, tmp_path)) for _ in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(wrote) == len(set(wrote)) == DRAWS + 10  # each chunk once
    check_equal(Store(tmp_path), expected, exact=False)
    assert list((tmp_path / "claims").iterdir()) == []


def test_another_seed_gives_other_noise(straight, tmp_path):
    _, _, expected = straight
    settings = fake_run.settings(seed=1, data__count=2, calibration__draws=8)
    _, _, store = run(settings, tmp_path)
    a, b = (s.array("reconstruction/mean")[:2] for s in (store, expected))
    assert not np.allclose(a, b)


def test_the_law_is_of_the_half_that_nothing_was_fitted_on(straight):
    made, references, _ = straight
    store = Store(made.folder / "law")
    assert references["bright"].law.shape == references["misfit"].law.shape == (DRAWS,)
    scores = store.scores(["detector", "score"])
    mine = scores["detector"] == "bright"
    np.testing.assert_array_equal(references["bright"].law, scores["score"][mine])
    # The fitted one: its own first half, and its factor for images not seen.
    looked = UNSEEN["shift"] + store.array("distance/looked/0")[:]
    half = DRAWS // 2
    fitted = references["distance"].detector
    np.testing.assert_allclose(fitted.mean, looked[:half].mean(), rtol=1e-6)
    expected = np.abs(looked[half:] - looked[:half].mean()) / looked[:half].std()
    np.testing.assert_allclose(references["distance"].law, 1.5 * expected, rtol=1e-4)
    assert np.isnan(scores["score"][scores["detector"] == "distance"]).all()


def test_healthy_images_fit_and_give_conformal_p_values(tmp_path):
    healthy = dict(name="fake_run:images", count=9, seed=7, anomalous=False)
    settings = fake_run.settings(calibration__healthy=healthy, calibration__draws=4)
    _, references, store = run(settings, tmp_path)
    looked = Store(tmp_path / "healthy").array("distance/looked/0")[:]
    fitted = references["distance"].detector
    np.testing.assert_allclose(fitted.mean, looked[:4].mean(), rtol=1e-6)
    sizes = {n: (len(r.law), len(r.healthy)) for n, r in references.items()}
    assert sizes == dict(bright=(4, 9), distance=(4, 5), misfit=(4, 9))
    found = store.scores()
    for name, reference in references.items():
        mine = found["detector"] == name
        expected = (1 + np.sum(reference.healthy >= found["score"][mine, None], 1)) / (
            len(reference.healthy) + 1
        )
        np.testing.assert_allclose(found["p_conformal"][mine], expected)
        assert np.isfinite(found["p_value"][mine]).all()
    # Without draws there is no model's law, and the fit needs none.
    settings = fake_run.settings(calibration__healthy=healthy, calibration__draws=0)
    _, references, store = run(settings, tmp_path / "none")
    found = store.scores(["p_value", "p_conformal"])
    assert np.isnan(found["p_value"]).all() and np.isfinite(found["p_conformal"]).all()
    assert not (tmp_path / "none" / "law").exists()


def test_a_law_that_ships_serves_the_detectors_it_is_of(straight, tmp_path):
    made, references, expected = straight
    path = made.folder / "law.npz"
    shipped = reference_law.load_law(path)
    assert shipped.scores.keys() == {"bright", "misfit"}  # a fit needs more
    few = reference_law.Law(
        {"old name": shipped.scores["bright"]},
        {"old name": shipped.fingerprints["bright"]},
    )
    with pytest.MonkeyPatch.context() as patch:
        reference_law.save_law(tmp_path / "w_law.npz", few)
        record = fake_run.RECORD | UNSEEN
        fake_run.install(patch, record=record, laws=[tmp_path / "w_law.npz"])
        _, found, store = run(fake_run.settings(), tmp_path / "run")
        drawn = Store(tmp_path / "run/law").scores(["detector"])["detector"]
        assert set(drawn) == {"distance", "misfit"}
        np.testing.assert_allclose(found["bright"].law, references["bright"].law)
        check_equal(store, expected)
        # With no draws the shipped ones are all there is.
        settings = fake_run.settings(calibration__draws=0)
        del settings["detectors"]["distance"]
        made, found, store = run(settings, tmp_path / "none")
        assert len(found["bright"].law) == DRAWS and len(found["misfit"].law) == 0
        assert made.drawn == {}
        p = store.scores(["p_value"])["p_value"]
        assert np.isfinite(p[::2]).all() and np.isnan(p[1::2]).all()
        assert not (tmp_path / "none" / "law").exists()


def test_healthy_images_that_ship_need_neither_images_nor_draws(tmp_path):
    healthy = dict(name="fake_run:images", count=9, seed=7, anomalous=False)
    settings = fake_run.settings(calibration__healthy=healthy, calibration__draws=4)
    made, references, _ = run(settings, tmp_path / "calibrated")
    assert made.law_sizes() == {
        "draws": dict(bright=4, distance=4, misfit=4),
        "healthy": dict(bright=9, distance=5, misfit=9),
        "patients": 0,
    }
    path = made.folder / "law.npz"
    law_of = reference_law.load_law(path)
    assert law_of.healthy.keys() == {"bright", "misfit"}  # a fit needs more
    settings = fake_run.settings(calibration__steps=5)
    del settings["detectors"]["distance"]
    with pytest.MonkeyPatch.context() as patch:
        fake_run.install(patch, laws=[path])
        # How draws are made is nothing to healthy images.
        job_, found, store = run(settings, tmp_path / "run")
        assert job_.drawn == {} and not (tmp_path / "run/law").exists()
        columns = store.scores()
        for name in ("bright", "misfit"):
            np.testing.assert_array_equal(found[name].healthy, references[name].healthy)
            mine = columns["detector"] == name
            expected = calibration.conformal_p_value(
                columns["score"][mine], references[name].healthy
            )
            np.testing.assert_array_equal(columns["p_conformal"][mine], expected)
        assert np.isnan(columns["p_value"]).all()
        meta = json.loads((tmp_path / "run/config.json").read_text())
        assert meta["laws"]["healthy"] == dict(bright=9, misfit=9)
        # For the sake of a control alone nothing is drawn.
        settings["detectors"]["grey"] = dict(name="controls.Intensity")
        job_, found, _ = run(settings, tmp_path / "control")
        assert job_.drawn == {} and len(found["grey"].law) == 0
        # A law is made anew where it is asked for.
        settings["calibration"] |= dict(law="none", draws=4)
        job_, found, _ = run(settings, tmp_path / "anew")
        assert job_.drawn.keys() == {"bright", "misfit", "grey"}
        assert len(found["bright"].draws) == 4 and len(found["bright"].healthy) == 0


def test_the_names_of_the_law_s_draws_do_not_depend_on_their_number(straight, tmp_path):
    made, _, _ = straight
    few = fake_run.settings(calibration__draws=8)
    run(few, tmp_path)
    a = Store(tmp_path / "law").scores(["image_id", "score"])
    b = Store(made.folder / "law").scores(["image_id", "score"])
    assert a["image_id"].tolist() == b["image_id"][: len(a["image_id"])].tolist()
    np.testing.assert_array_equal(a["score"], b["score"][: len(a["score"])])


def test_measurements_alone(straight, tmp_path):
    made, _, expected = straight
    viewer, batch = made.viewer(), made.inputs.read(np.arange(8))
    y = np.asarray(viewer._measure(viewer.scene, batch.key, batch.image))
    np.savez(tmp_path / "y.npz", y=y[:3], ids=np.array(made.inputs.ids[:3]))
    settings = fake_run.settings(data__measurements=str(tmp_path / "y.npz"))
    _, _, store = run(settings, tmp_path / "run")
    found = store.scores()
    assert found["group"].tolist() == [""] * 9
    # Under its own name a measurement has the keys of the image.
    np.testing.assert_array_equal(found["score"], expected.scores()["score"][:9])
    # One measurement alone may come without the leading axis, and has a name.
    np.savez(tmp_path / "y.npz", y=y[0])
    made = job.prepare(settings, tmp_path / "one")
    assert made.inputs.ids == ("y_0000",)


def test_images_without_a_scanner(tmp_path):
    settings = fake_run.settings(scan=None)
    del settings["detectors"]["misfit"]
    settings["detectors"]["asks"] = dict(name="fake_run:Distance")
    made, _, store = run(settings, tmp_path)
    assert store.array_names() == [
        "bright/heatmap",
        "bright/rows",
        "reconstruction/mean",
    ]
    x = fake_run.images(10).images
    np.testing.assert_array_equal(store.array("reconstruction/mean")[:], x)
    found = store.scores()
    assert np.isnan(found["misfit"]).all() and (found["first_bad_step"] == -1).all()
    bright = found["detector"] == "bright"
    lesions, healthy = found["p_value"][bright][1::2], found["p_value"][bright][::2]
    assert lesions.max() == 1 / 13 < healthy.mean()
    assert detect.network_calls(made, made.detectors) == 0


def test_an_image_that_fails_says_so(tmp_path):
    y = np.full((3, *fake_run.SHAPE), 0.5, np.float32)
    y[1] = 3e38  # finite, and no number after it
    np.savez(tmp_path / "y.npz", y=y)
    settings = fake_run.settings(data__measurements=str(tmp_path / "y.npz"))
    _, _, store = run(settings, tmp_path / "run")
    found = store.scores()
    bad = found["image_id"] == "y_0001"
    assert (found["first_bad_step"][bad] == 0).all()
    assert np.isnan(found["p_value"][bad]).all()
    assert np.isfinite(found["p_value"][~bad]).all()
    assert detect.failures(store) == [
        f"{name} has no finite score and map of 1 of 3 images, 'y_0001' the first; it "
        "broke in the posterior, from step 0 on"
        for name in ("bright", "distance", "misfit")
    ]


@pytest.mark.parametrize("what", ["score", "map", "infinite"])
def test_a_detector_that_breaks_at_one_image_spoils_no_other(straight, tmp_path, what):
    _, _, whole = straight
    detectors = {
        "bright": dict(name="fake_run:Brightness"),
        "breaks": dict(name="fake_run:Breaks", what=what),
    }
    _, references, store = run(fake_run.settings(detectors=detectors), tmp_path)
    assert np.isfinite(references["breaks"].law).all()
    rows, expected = store.scores(), whole.scores()
    own, plain = (rows["detector"] == name for name in ("breaks", "bright"))
    bad = rows["score"][own] != rows["score"][plain]
    # The lesions are the brighter ones; images and posteriors are fine.
    assert bad.tolist() == [False, True] * 5
    assert (rows["first_bad_step"] == -1).all()
    for column in ("score", "p_value"):
        assert np.isnan(rows[column][own][bad]).all()
        same = expected[column][expected["detector"] == "bright"]
        np.testing.assert_array_equal(rows[column][own][~bad], same[~bad])
        np.testing.assert_array_equal(rows[column][plain], same)
    assert detect.failures(store) == [
        "breaks has no finite score and map of 5 of 10 images, 'image 1/ü' the first; "
        "it broke in the detector itself"
    ]


def test_a_law_of_nan_makes_nothing_significant(tmp_path):
    hollow = dict(name="fake_run:Hollow")
    _, references, store = run(fake_run.settings(detectors__misfit=hollow), tmp_path)
    assert np.isnan(references["misfit"].law).all()
    (line,) = law.failures(references)
    assert line.startswith("misfit has no score of 12 of 12 draws of the model")
    found = store.scores(["detector", "p_value"])
    mine = found["detector"] == "misfit"
    assert np.isnan(found["p_value"][mine]).all()
    assert np.isfinite(found["p_value"][~mine]).all()
    # Nor does it ship.
    assert reference_law.load_law(tmp_path / "law.npz").scores.keys() == {"bright"}


def test_numbers_of_a_detector_do_not_compile_anew(straight):
    made, references, _ = straight
    viewer = made.viewer()
    viewer._compiled = {}
    batch = made.inputs.read(np.arange(8))
    for gain in (1.0, 2.0, 3.0):
        detector = {"bright": fake_run.Brightness(gain=gain)}
        views = viewer(batch, detector, frozenset(detector))
        one = views.seen["bright"].detection.score
        base = references["bright"].detector.judge(
            {"picture": jnp.asarray(views.picture["mean"][0, ..., 0])}
        )
        np.testing.assert_allclose(one[0], gain * base.score, rtol=1e-5)
    assert len(viewer._compiled) == 4  # measure, sample, look, judge


def test_config_json_tells_how_to_repeat_it(straight):
    made, _, _ = straight
    meta = json.loads((made.folder / "config.json").read_text())
    again = job.prepare(meta["settings"], made.folder)
    assert again.inputs.ids == made.inputs.ids
    assert first_difference(meta["settings"], again.settings) == ""
    assert {"jax", "jaxlib", "numpy", "klip_jax", "device"} <= meta["versions"].keys()
