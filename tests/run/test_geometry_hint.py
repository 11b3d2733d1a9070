"""Measurements that do not fit are told which geometry would."""

import json

import numpy as np

from klip_jax import geometry
from klip_jax.posterior import PosteriorSampler
from klip_jax.run import geometry_hint
from klip_jax.run.inputs import of_measurements
from klip_jax.run.job import Job
from klip_jax.run.look import Scene
from klip_jax.run.rehearse import Shapes

IDS = ("a", "b", "c")


class Measured(Job):
    """A job of three measurements, as far as a hint looks at it."""

    def __init__(self, folder, measurements="y.npz"):
        scene = Scene(None, operator=object(), noise_std=0.1)
        vars(self).update(
            folder=folder,
            shapes=Shapes((4, 4, 1), (4, 4, 1)),
            settings={
                "seed": 0,
                "data": {"measurements": measurements},
                "scan": {"operator": {"name": "ct.ParallelBeam"}},
            },
            scene=scene._replace(posterior=PosteriorSampler()),
            inputs=of_measurements(np.arange(3.0).reshape(3, 1, 1), IDS, 0),
        )


class Scores:
    def __init__(self, folder):
        pass

    def scores(self, names):
        misfit = np.array([1.05, np.nan, 1.5, 1.05, np.nan, 1.5])
        return {"image_id": np.array([*IDS, *IDS]), "misfit": misfit}


def fits(key, y, *settings):
    configured = geometry.Convention("as configured", {})
    negated = geometry.Convention("angles negated", {"direction": -1})
    assert y.ravel().tolist() == [2.0]  # "c" alone does not fit
    return [[geometry.Fit(negated, 1.08), geometry.Fit(configured, 1.5)]]


def test_only_what_does_not_fit_is_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(geometry_hint, "Store", Scores)
    monkeypatch.setattr(geometry, "fits", fits)
    sentence = "misfit 1.50 as configured, 1.08 with angles negated (direction=-1)"
    assert geometry_hint.lines(Measured(tmp_path)) == [f"'c': {sentence}"]
    kept = json.loads((tmp_path / geometry_hint.FILE).read_text())
    assert kept == {"c": sentence}


def test_simulated_measurements_ask_for_no_hint(tmp_path):
    assert geometry_hint.lines(Measured(tmp_path, measurements="")) == []
    assert not list(tmp_path.iterdir())
