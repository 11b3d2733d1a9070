import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import blocks, localization, metrics
from klip_jax.release.scoring import klip_reference
from klip_jax.types import StepInfo


def fold(shifts, reducer, axis=None):
    """Reduce the shifts of samples [B, T, H, W, C], whose sigma is the step's index."""

    def one(shifts):
        def step(acc, inputs):
            sigma, shift = inputs
            info = StepInfo(sigma, sigma, shift, shift, shift, sigma)
            return reducer.update(acc, info), None

        sigmas = jnp.arange(len(shifts), dtype=jnp.float32)
        acc = reducer.init(shifts.shape[1:])
        return reducer.finalize(jax.lax.scan(step, acc, (sigmas, shifts))[0])

    return jax.vmap(one, axis_name=axis)(shifts)


@pytest.fixture(scope="module")
def shifts():
    return jax.random.normal(jax.random.key(0), (3, 12, 4, 6, 2))


def g(sigma):
    return 1 + sigma


def test_it_is_the_mean_over_the_window(shifts):
    normal = np.asarray(shifts) / (1 + np.arange(12.0))[:, None, None, None]
    found = fold(shifts, klip_reference((2, 5), g))
    np.testing.assert_allclose(found, (normal[:, 2:5] ** 2).sum(-1).mean(1), 1e-6)
    found = fold(shifts, klip_reference((1, 3), g, every=4))
    expected = (normal[:, [4, 8]] ** 2).sum(-1).mean(1)
    np.testing.assert_allclose(found, expected, 1e-6)


def test_runs_are_averaged_before_they_are_squared(shifts):
    normal = np.asarray(shifts) / (1 + np.arange(12.0))[:, None, None, None]
    reducer = klip_reference((2, 5), g, runs_axis="runs")
    found = fold(shifts, reducer, "runs")
    expected = (normal.mean(0)[2:5] ** 2).sum(-1).mean(0)
    for one in found:
        np.testing.assert_allclose(one, expected, 1e-5)


def test_a_window_beyond_the_chain_is_not_a_score(shifts):
    assert np.isnan(fold(shifts, klip_reference((12, 20), g))).all()
    cut, whole = klip_reference((10, 20), g), klip_reference((10, 12), g)
    np.testing.assert_array_equal(fold(shifts, cut), fold(shifts, whole))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(window=(5, 5)), r"window=\(5, 5\)"),
        (dict(window=(-1, 5)), r"window=\(-1, 5\)"),
        (dict(window=(0, 5), every=0), "every=0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        klip_reference(g=g, **settings)


@pytest.fixture
def golden(shared_data):
    with np.load(shared_data / "golden" / "scoring.npz") as kept:
        yield kept


def test_scores_of_the_release(golden):
    # [images, T, B, C, H, W], stored for the window [65, 85) alone.
    updates = np.moveaxis(golden["updates_window"], 3, -1).swapaxes(1, 2)
    reducer = klip_reference((0, 20), jnp.ones_like)
    maps = np.asarray(jax.jit(jax.vmap(lambda u: fold(u, reducer)))(updates).mean(1))
    labels, body = golden["labels"] > 1, golden["body"] > 0
    for block in (2, 4, 8):
        scores = blocks.block_sum(jnp.asarray(maps), block)
        expected = golden[f"score_b{block}"]
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
        for regions, name in ((body, ""), (np.ones_like(body), "_nobody")):
            triples = zip(maps, labels, regions, strict=True)
            found = [localization.block_auroc(*image, block) for image in triples]
            expected = golden[f"image_auroc{name}_b{block}"]
            # The counts agree; the last bit is that of a sum in another order.
            np.testing.assert_allclose(found, expected, rtol=1e-15)
        found = localization.localization(maps, labels, body, block)
        np.testing.assert_allclose(found, golden[f"image_mean_b{block}"], rtol=1e-14)


def test_auroc_between_images_of_the_release(golden):
    ood, own = golden["score_b4"], golden["id_scores_b4"]
    scores = [blocks.top_mean(jnp.asarray(m), 0.0) for m in (*own, *ood)]
    is_ood = np.arange(len(scores)) >= len(own)
    assert metrics.auroc(jnp.stack(scores), is_ood) == golden["dataset_auroc_b4"]
