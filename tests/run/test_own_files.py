"""A user's own detector, sampler, operator and reader: one file each, nothing else."""

import fake_run
import jax
import numpy as np
import pytest

from klip_jax.report.finish import finish
from klip_jax.run import detect, job, law

DETECTOR = '''
"""How far the brightest pixel is above the median."""

import jax.numpy as jnp
from klip_jax import struct

from klip_jax.detectors.base import Detector
from klip_jax.detectors.base_map import map_detection


@struct.dataclass
class Peak(Detector):
    """How far each pixel is above the median."""

    power: float = 1.0

    def look(self, key, given):
        return given.posterior.mean[..., 0]

    def judge(self, looked):
        above = jnp.maximum(looked - jnp.median(looked), 0) ** self.power
        return map_detection(above, block=4, top_share=0.0)
'''
SAMPLER = '''
"""Ancestral steps whose noise is halved."""

from klip_jax import struct

from klip_jax.samplers.ancestral import Ancestral


@struct.dataclass
class Cold:
    warmth: float = 0.5

    @property
    def calls_per_step(self):
        return 1

    def init(self, key, shape, sigma):
        return Ancestral(eta=self.warmth).init(key, shape, sigma)

    def step(self, key, x, denoiser, guidance, scan, sigma, sigma_next):
        step = Ancestral(eta=self.warmth).step
        return step(key, x, denoiser, guidance, scan, sigma, sigma_next)
'''
OPERATOR = '''
"""A filter before the camera: y = a x."""

from klip_jax.operators.base import Operator


class Filter(Operator):
    def __init__(self, in_shape, *, transmission=0.5):
        self.in_shape = self.out_shape = tuple(in_shape)
        self.transmission = transmission

    def __call__(self, x):
        return self.transmission * x
'''
READER = '''
"""Stripes, every second with a bright square."""

import numpy as np

from klip_jax.data.base import in_memory


def load(count, level=0.5):
    rng = np.random.default_rng(1)
    x = np.clip(level + 0.1 * rng.standard_normal((count, 8, 8, 1)), 0, 1)
    masks = np.zeros((count, 8, 8), bool)
    masks[1::2, :4, 4:] = True
    x = np.where(masks[..., None], 0.95, x).astype(np.float32)
    groups = ["square" if i % 2 else "id" for i in range(count)]
    return in_memory(x, [f"stripes ({i}).png" for i in range(count)], groups,
                     masks=masks, eligible=np.ones_like(masks))
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "mypackage"
    folder.mkdir()
    files = dict(detector=DETECTOR, sampler=SAMPLER, operator=OPERATOR, reader=READER)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "__init__.py").write_text("")
    (folder / "broken.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    fake_run.install(monkeypatch)
    return folder


def test_one_file_each_runs_by_config_with_report_and_p_value(package, tmp_path):
    settings = fake_run.settings()
    settings |= dict(
        data=dict(name="mypackage.reader:load", count=8, level=0.4, measurements=""),
        scan=dict(
            operator=dict(name="mypackage.operator:Filter", transmission=0.7),
            noise_std=0.02,
        ),
        detectors=dict(
            peak=dict(name="mypackage.detector:Peak", power=1.5),
            intensity=dict(name="controls.Intensity"),
        ),
        main="peak",
    )
    settings["posterior"]["sampler"] = dict(name="mypackage.sampler:Cold", warmth=0.3)
    made = job.prepare(settings, tmp_path / "run")
    assert made.scene.operator.transmission == 0.7
    assert made.scene.posterior.sampler.warmth == 0.3
    viewer = made.viewer()
    references = law.references(made, viewer, progress=False)
    store = detect.detect(made, references, viewer, progress=False)
    found = store.scores()
    peak = found["detector"] == "peak"
    assert found["score"][peak][1::2].min() > found["score"][peak][::2].max()
    np.testing.assert_allclose(found["p_value"][peak][1::2], 1 / 13)
    metrics, page = finish(tmp_path / "run")
    assert metrics["detectors"]["peak"]["detection_auroc"]["value"] == 1.0
    text = page.read_text()
    assert "peak" in text and "stripes (1).png" in text
    assert len(jax.tree.leaves(references["peak"].detector)) == 1


def test_a_file_that_cannot_be_imported_is_named(package, tmp_path):
    settings = fake_run.settings(
        detectors__bright=dict(name="mypackage.broken:Peak"),
    )
    words = "'mypackage.broken' cannot be imported .ModuleNotFoundError: No module nam"
    with pytest.raises(ValueError, match=words):
        job.prepare(settings, tmp_path / "run")
