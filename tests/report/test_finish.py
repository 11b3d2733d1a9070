import csv
import io
import json

from fake_results import data_of, fake_set, write

from klip_jax.report import finish, p_values
from klip_jax.report.finish import scores_csv
from klip_jax.report.table import read_table


def test_finish_makes_everything_from_the_store(tmp_path, monkeypatch):
    images = fake_set(2)
    store, data = write(tmp_path / "run", images)
    asked = []
    monkeypatch.setattr(
        finish.config, "build", lambda room, given: asked.append((room, given)) or data
    )
    metrics, path = finish.finish(store.folder)
    assert asked == [("data", {"name": "fake"})]
    assert metrics == json.loads((store.folder / "metrics.json").read_text())
    assert "localization_auroc" in metrics["detectors"]["klip"]
    lines = (store.folder / "scores.csv").read_text().splitlines()
    assert len(lines) == 1 + 4
    for said in ("noise_std 0.1", "1.2.3", "not a checkout"):
        assert said in path.read_text()


def test_data_that_are_gone_or_changed_are_left_out(tmp_path, monkeypatch):
    images = fake_set(2)
    store, data = write(tmp_path / "run", images)
    config = store.folder / "config.json"
    digest = {"contents": {"images": data.digest()}}
    config.write_text(json.dumps(json.loads(config.read_text()) | digest))

    def left_out(build):
        monkeypatch.setattr(finish.config, "build", build)
        return " ".join(finish.finish(store.folder)[0]["left_out"])

    def gone(room, given):
        raise FileNotFoundError("no such folder: /gone")

    assert "PSNR" not in left_out(lambda room, given: data)
    assert "/gone" in left_out(gone)
    assert "other images" in left_out(lambda room, given: data.take([1, 0, 2, 3]))
    assert "other images" in left_out(lambda room, given: data.take([0]))
    images[0]["masks"] = images[0]["body"]
    assert "masks now" in left_out(lambda room, given: data_of(images))


def test_scores_survive_the_round_trip(tmp_path):
    images = fake_set(2)
    store, _ = write(tmp_path / "run", images)
    table = read_table(store)
    text = scores_csv(table, p_values.judge(table, {}))
    rows = list(csv.DictReader(io.StringIO(text)))
    for row, image in zip(rows, images, strict=True):
        assert row["image_id"] == image["image_id"]
        assert float(row["score"]) == image["score"]["klip"]
        assert float(row["msma/score"]) == image["score"]["msma"]
        assert float(row["p_value"]) == image["p_value"]["klip"] == float(row["p"])
        assert row["law"] == "p_value"
        flagged = image["p_value"]["klip"] <= 0.05
        assert (row["verdict"] == "flagged") == flagged
