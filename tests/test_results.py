import numpy as np
import pytest
from fake_results import fake_result

from klip_jax import results


def test_round_trip(tmp_path):
    written = fake_result("a.b-c_1", "lesion", patient=np.array("p7"))
    results.write_image(tmp_path, written)
    (read,) = results.read_images(tmp_path)
    assert read[:8] == written[:8]
    assert read.arrays.keys() == written.arrays.keys()
    for name, array in read.arrays.items():
        expected = np.asarray(written.arrays[name])
        kind = np.float32 if expected.dtype.kind == "f" else expected.dtype
        assert array.dtype == kind, name
        np.testing.assert_array_equal(array, expected.astype(kind))
    assert results.map_controls(read).keys() == {"intensity", "gradient"}
    assert results.score_controls(read).keys() == {"intensity", "gradient"}


def test_images_come_in_natural_order_and_are_finished(tmp_path):
    names = ["ood_10", "ood_2", "id_1", "7", "ood_2b"]
    for name in names:
        results.write_image(tmp_path, fake_result(name))
    (tmp_path / "maps" / ".ood_9.npz.tmp").write_bytes(b"killed here")
    read = results.read_images(tmp_path, ())
    assert [r.image_id for r in read] == ["7", "id_1", "ood_2", "ood_2b", "ood_10"]
    assert results.finished(tmp_path) == set(names)
    assert read[0].arrays == {}
    assert results.read_images(tmp_path / "elsewhere") == []


def test_scores_are_made_from_the_images(tmp_path):
    failed = fake_result("x_2")._replace(score=float("nan"), first_bad_step=3)
    for result in (failed, fake_result("x_1", 'comma, "quote"')):
        results.write_image(tmp_path, result)
    results.write_scores(tmp_path)
    first = (tmp_path / "scores.csv").read_text()
    header, one, two = first.splitlines()
    assert header == (
        "image_id,group,score,stderr,p_value,network_calls,seconds,first_bad_step"
    )
    assert one.startswith('x_1,"comma, ""quote""",')
    assert two.startswith("x_2,id,nan,") and two.endswith(",328,4.2,3")
    results.write_scores(tmp_path)
    assert (tmp_path / "scores.csv").read_text() == first


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a b", "a\n", "é", "x" * 201],
)
def test_hostile_ids_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="image id"):
        results.write_image(tmp_path, fake_result(name))
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_broken_file_is_named(tmp_path, keep):
    results.write_image(tmp_path, fake_result("x_1"))
    path = tmp_path / "maps" / "x_1.npz"
    data = path.read_bytes()
    path.write_bytes(data[: keep if keep > 1 else int(keep * len(data))])
    with pytest.raises(ValueError, match=r"maps/x_1\.npz: not a whole result"):
        results.read_images(tmp_path)


def test_foreign_files_are_named(tmp_path):
    results.write_image(tmp_path, fake_result("x_1"))
    path = tmp_path / "maps" / "x_1.npz"
    path.rename(path.with_stem("x_2"))
    with pytest.raises(ValueError, match=r"x_2\.npz.*holds image 'x_1'"):
        results.read_images(tmp_path)
    np.savez(tmp_path / "maps" / "x_2.npz", heatmap=np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"x_2\.npz"):
        results.read_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("heatmap", None),
        ("heatmap", np.zeros(4)),
        ("mask", np.zeros((3, 3), bool)),
        ("mean", np.zeros((32, 32))),
        ("control_x", np.zeros(3)),
        ("control_score_x", np.zeros(3)),
        ("levels", np.zeros(5)),
        ("score", np.zeros(())),
        ("naive", np.zeros((32, 32, 1), complex)),
    ],
)
def test_wrong_arrays_are_refused_and_named(tmp_path, name, array):
    with pytest.raises(ValueError, match=name):
        results.write_image(tmp_path, fake_result("x_1", **{name: array}))
    assert not results.finished(tmp_path)


def test_metrics_never_hold_nan(tmp_path):
    results.write_metrics(tmp_path, {"a": 1.5})
    with pytest.raises(ValueError):
        results.write_metrics(tmp_path, {"a": float("nan")})
    assert results.read_metrics(tmp_path) == {"a": 1.5}
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json"):
        results.read_metrics(tmp_path)
