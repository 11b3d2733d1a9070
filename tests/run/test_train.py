"""From a config to released weights."""

import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from klip_jax import hub, training
from klip_jax.checkpoint import load_weights
from klip_jax.config import build
from klip_jax.data.base import Source
from klip_jax.priors.edm import EDM
from klip_jax.recipe import Recipe
from klip_jax.run import card, steps, train, trained_prior, training_images
from klip_jax.run.lease import alone


@pytest.fixture
def untraced(monkeypatch):
    """A step is not traced before the claim: it takes a second, and is tried below."""
    monkeypatch.setattr(train, "_check_step", lambda job: None)


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """A training from random weights, and the state it ended in."""
    folder = tmp_path_factory.mktemp("train")
    start = str(files / "weights.safetensors")
    settings = tiny.settings(files, train__init=start, train__recipe__steps=6)
    states = []

    def keep(*args, train=steps.train, **settings):
        states.append(train(*args, **settings))
        return states[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "train", keep)
        patch.setattr(trained_prior, "ERROR_LEVELS", (0.01, 0.1, 1.0))
        patch.setattr(card, "prior_draw", functools.partial(card.prior_draw, steps=3))
        job = train.prepare(settings, folder)
        path = train.train_weights(job, progress=False)
    return job, path, states[0]


def test_it_starts_from_given_weights(trained, files):
    job, _, _ = trained
    expected, _ = load_weights(files / "weights.safetensors")
    jax.tree.map(np.testing.assert_array_equal, job.params, expected)


def test_weights_reproduce_the_average_to_float16(trained):
    job, path, state = trained
    prior, _ = hub.load(path)
    changed = 0.0
    for stored, ema, start in zip(
        *map(jax.tree.leaves, (prior.params, state.ema, job.params)), strict=True
    ):
        np.testing.assert_allclose(stored, ema, rtol=2**-11, atol=1e-7)
        changed = max(changed, float(jnp.abs(ema - start).max()))
    assert changed > 1e-3
    net = build("nets", tiny.NET)
    table = dict(levels=prior.levels, errors=prior.errors)
    own = EDM(state.ema, net, sigma_data=0.5, **table)
    x = jax.random.uniform(jax.random.key(0), tiny.SHAPE)
    denoise = jax.jit(lambda prior, x: prior(x, jnp.float32(0.2)))
    np.testing.assert_allclose(denoise(prior, x), denoise(own, x), atol=5e-3)


def test_the_record_says_what_the_weights_are(trained, files):
    _, path, _ = trained
    prior, card = hub.load(path)
    assert (
        card["net"] == json.loads(json.dumps(tiny.NET)) and card["prior"] == tiny.PRIOR
    )
    assert card["image_shape"] == list(tiny.SHAPE)
    errors = card["errors"]
    assert errors["errors"] == errors["train"] and len(errors["test"]) == 3
    np.testing.assert_allclose(prior.errors, errors["train"], rtol=1e-6)
    assert np.isfinite(errors["test"]).all() and min(errors["test"]) > 0
    training = card["training"]
    assert training["step"] == 6 and training["images"] == 48
    assert training["init"] == str(files / "weights.safetensors")
    assert training["data"]["name"] == "npz.load" and training["recipe"]["batch"] == 8
    assert "jax" in training["versions"] and training["before"] == []


@pytest.mark.slow
def test_a_continued_training_remembers_what_was_before(trained, files, tmp_path):
    _, first, _ = trained
    settings = tiny.settings(files, train__init=str(first))
    job = train.prepare(settings, tmp_path / "more")
    state = training.init_state(job.params, job.recipe)._replace(step=jnp.int32(12))
    _, record = load_weights(train.export(job, state))
    (before,) = record["training"]["before"]
    assert before["step"] == 6 and "before" not in before
    card = (tmp_path / "more/weights.md").read_text()
    assert "| 6 (48 images), then 12 (96 images) |" in card
    assert f"| started from | {files / 'weights.safetensors'} |" in card


def test_pictures_and_log(trained):
    job, _, _ = trained
    with Image.open(job.folder / "samples.png") as image:
        assert image.size == (96, 96) and image.mode == "L"
        assert len(np.unique(image)) > 10
    lines = (job.folder / "train.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "4", "6"]
    assert json.loads((job.folder / "config.json").read_text())["settings"]["train"]


def refused(settings, folder, words, error=ValueError):
    with pytest.raises(error, match=words):
        train.prepare(settings, folder / "run")
    assert not (folder / "run").exists()


BAD = {
    "recipe": (dict(train__recipe__batch=0), "batch=0: need at least 1"),
    "recipe field": (dict(train__recipe__lr=1.0), "train.recipe: no setting 'lr'"),
    "field": (dict(train__seed=1), "train: no setting 'seed'"),
    "net": (dict(train__net__name="vit.ViT"), "nets: no module 'vit'"),
    "net field": (dict(train__net__depth=1), "unet.UNet: .*'depth'"),
    "prior": (dict(train__prior__name="edm.VDM"), "'edm' has no 'VDM'"),
    "sigma": (dict(train__prior__sigma_data=0.0), "sigma_data=0.0: must be positive"),
    "prior field": (dict(train__prior__sigma=0.5), "edm.EDM: .*'sigma'"),
    "grid": (dict(train__net__fold=16), "16x16 image does not divide .* of 32"),
    "group": (dict(train__data__groups=("cat",)), "no group 'cat'"),
    "scale": (dict(train__test__scale=9.0), "must lie in"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_setting_is_refused(files, tmp_path, case):
    changes, words = BAD[case]
    start = str(files / "weights.safetensors")
    refused(tiny.settings(files, train__init=start, **changes), tmp_path, words)


def test_weights_that_do_not_fit_are_refused(files, tmp_path):
    start = str(files / "weights.safetensors")
    settings = tiny.settings(files, train__init=start, train__net__channels=(8, 16))
    refused(settings, tmp_path, r"do not fit the network: params/\w+/\w+ is .*has \(")
    settings = tiny.settings(files, train__init=str(tmp_path / "nope"))
    refused(settings, tmp_path, "nope: no such weights", FileNotFoundError)


def test_held_out_images_of_another_size_are_refused(files, tmp_path):
    np.savez(tmp_path / "data.npz", lesion_images=np.zeros((3, 16, 8), np.uint8))
    start = str(files / "weights.safetensors")
    changes = dict(train__init=start, train__test__root=str(tmp_path))
    words = r"train.test: the images are \(16, 8, 1\), .*train on are \(16, 16, 1\)"
    refused(tiny.settings(files, **changes), tmp_path, words)


def test_a_workdir_of_another_training_is_kept(trained, files, untraced):
    job, path, _ = trained
    before = path.read_bytes()
    start = str(files / "weights.safetensors")
    settings = tiny.settings(files, train__init=start, train__recipe__batch=7)
    with pytest.raises(ValueError, match=r"train.recipe.batch was 8, is now 7"):
        train.prepare(settings, job.folder)
    assert path.read_bytes() == before


def test_a_training_may_go_on_for_longer(trained, files, untraced):
    """Steps and checkpoints are no part of what a workdir is bound to."""
    job, _, state = trained
    start = str(files / "weights.safetensors")
    settings = tiny.settings(files, train__init=start, train__recipe__steps=9)
    settings["train"]["recipe"]["checkpoint_every"] = 5
    again = train.prepare(settings, job.folder)
    assert again.recipe.steps == 9 and steps.done(job.folder) == int(state.step) == 6
    longer = train.lasting(again, minutes=1.0, each=6.0)
    assert longer.recipe.steps == 6 + 10 and longer.recipe.warmup == 1
    assert longer.part["recipe"]["steps"] == 16  # what the record will say
    assert longer.recipe.checkpoint_every == 10  # one a minute


def test_ctrl_c_ends_after_a_step_with_a_checkpoint(tmp_path):
    params, pulled = {"a": jnp.ones(3)}, []

    def loss(params, examples, key):
        def pull(step):
            pulled.append(int(step))
            if len(pulled) == 3:
                os.kill(os.getpid(), signal.SIGINT)

        jax.debug.callback(pull, examples[0].astype(int), ordered=True)
        return jnp.square(params["a"] - 2).sum(), {}

    source = Source(lambda arrays, key: jnp.float32(1), ())
    recipe = Recipe(steps=50, batch=2, warmup=1, checkpoint_every=100)
    before = signal.getsignal(signal.SIGINT)
    state = steps.train(tmp_path, params, source, loss, recipe, progress=False)
    stopped = int(state.step)
    assert 3 <= stopped < 50 and steps.done(tmp_path) == stopped
    assert signal.getsignal(signal.SIGINT) is before
    # It goes on from there, to a step of another number too.
    recipe = recipe._replace(steps=stopped + 2)
    state = steps.train(tmp_path, params, source, loss, recipe, progress=False)
    assert int(state.step) == stopped + 2
    lines = (tmp_path / "train.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [
        str(stopped),
        str(stopped + 2),
    ]


def test_a_training_that_was_stopped_leaves_weights(trained, monkeypatch):
    job, path, state = trained
    monkeypatch.setattr(steps, "train", lambda *args, **settings: state)
    monkeypatch.setattr(train, "export", lambda job, state, progress: path)
    longer = job._replace(recipe=job.recipe._replace(steps=60))
    with pytest.raises(KeyboardInterrupt, match=r"stopped at step 6; its weights are"):
        train.train_weights(longer, progress=False)


def test_weights_of_the_newest_checkpoint(trained, monkeypatch, tmp_path):
    job, path, _ = trained
    exported = []
    monkeypatch.setattr(
        train, "export", lambda job, state, progress: exported.append(state) or path
    )
    assert train.export_newest(job) == path and int(exported[0].step) == 6
    with pytest.raises(ValueError, match="no checkpoint to export yet"):
        train.export_newest(job._replace(folder=tmp_path))


def test_phantoms_are_a_source():
    source = build("data", dict(name="phantom_set.source", size=32))
    assert training_images.as_source(source) is source
    shape = jax.eval_shape(source.draw, source.arrays, jax.random.key(0)).shape
    assert shape == (32, 32, 1)


def test_a_prior_without_a_loss_is_refused_before_the_claim(
    files, tmp_path, monkeypatch
):
    (tmp_path / "own_priors.py").write_text(
        "from klip_jax.priors.edm import EDM\n"
        "class Frozen(EDM):\n"
        "    def loss(self, images, key, *, log_mean, log_std):\n"
        "        raise NotImplementedError('its weights are those of others')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = tiny.settings(files, train__prior__name="own_priors:Frozen")
    words = "own_priors:Frozen cannot be trained: its weights are those of others"
    refused(settings, tmp_path, words)


@pytest.mark.parametrize(
    "prior",
    [
        dict(name="epsilon.Epsilon", betas=(0.1, 0.2)),
        pytest.param(
            dict(name="velocity.Velocity", betas=(0.1, 0.2)), marks=pytest.mark.slow
        ),
        dict(name="score.Score"),
    ],
    ids=lambda prior: prior["name"],
)
def test_every_parametrisation_trains(files, tmp_path, prior):
    start = str(files / "weights.safetensors")
    settings = tiny.settings(files, train__init=start, train__prior=prior)
    job = train.prepare(settings, tmp_path)
    assert job.trained.net_shape == tiny.SHAPE and (tmp_path / "config.json").is_file()


def test_a_network_of_patches_sees_their_places():
    prior = dict(name="patches.Patches", patch=8, pad=4)
    assert trained_prior.seen_by_network(prior, (16, 16, 1)) == (8, 8, 3)
    assert trained_prior.seen_by_network(tiny.PRIOR, (16, 16, 2)) == (16, 16, 2)
    with pytest.raises(ValueError, match="cannot cover a 17x16 image"):
        trained_prior.seen_by_network(prior | dict(pad=1), (17, 16, 1))


def test_other_images_under_the_same_name_are_refused(files, tmp_path, untraced):
    start = str(files / "weights.safetensors")
    for field, what in (("data", "training images"), ("test", "held-out images")):
        root = tmp_path / field
        tiny.write_data(root.with_suffix(".npz"))
        changes = {f"train__{field}__root": str(tmp_path)}
        changes[f"train__{field}__file"] = f"{field}.npz"
        settings = tiny.settings(files, train__init=start, **changes)
        train.prepare(settings, root)
        tiny.write_data(root.with_suffix(".npz"), 5)
        with pytest.raises(ValueError, match=f"the same config with other {what}"):
            train.prepare(settings, root)


def test_two_trainings_do_not_share_a_workdir(files, tmp_path, monkeypatch, untraced):
    start = str(files / "weights.safetensors")
    job = train.prepare(tiny.settings(files, train__init=start), tmp_path)
    monkeypatch.setattr(steps, "train", None)
    with alone(tmp_path, "train"):
        with pytest.raises(ValueError, match="another process is at work here"):
            train.train_weights(job)


def test_weights_that_are_not_finite_are_no_start(files, tmp_path):
    params = tiny.random_params()
    params["params"]["Conv_0"]["kernel"][:] = np.nan
    start = tiny.write_weights(tmp_path / "nan.safetensors", params)
    settings = tiny.settings(files, train__init=str(start))
    refused(settings, tmp_path, "params/Conv_0/kernel are NaN or infinite")
