"""Training: it learns, it resumes bit for bit, it says what is wrong."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from klip_jax import error_table, training
from klip_jax.data.base import Source, image_source
from klip_jax.nets.unet import UNet
from klip_jax.priors.analytic import Gaussian
from klip_jax.priors.edm import EDM
from klip_jax.recipe import Cast, Recipe, optimiser
from klip_jax.run import steps

SHAPE = (6, 6, 1)
RECIPE = Recipe(
    steps=12, batch=4, learning_rate=3e-3, warmup=2, ema=0.9, checkpoint_every=4
)


class TwoLayers(nn.Module):
    """A network that compiles at once; its output starts at zero."""

    @nn.compact
    def __call__(self, x, noise_level):
        h = nn.silu(nn.Dense(64)(jnp.append(x.ravel(), noise_level)))
        return nn.Dense(x.size, kernel_init=nn.initializers.zeros)(h).reshape(x.shape)


NET = TwoLayers()
SEED = jax.random.key(0)


@pytest.fixture(scope="module", autouse=True)
def programs():
    """Trainings by one recipe share a program."""
    known = {}

    def compiled(source, loss, recipe, make=steps._compiled):
        given = source.draw, loss, recipe
        if given not in known:
            known[given] = make(source, loss, recipe)
        return known[given]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "_compiled", compiled)
        yield


def make_prior(params):
    return EDM(params, NET, sigma_data=0.5)


@pytest.fixture(scope="module")
def params():
    return jax.jit(NET.init)(jax.random.key(0), jnp.zeros(SHAPE), jnp.float32(0))


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(0)
    return image_source(np.float32(rng.uniform(0.2, 0.8, (7, *SHAPE))))


def run(folder, params, source, recipe=RECIPE):
    return steps.train(folder, params, source, denoising, recipe, progress=False)


def denoising(params, images, key):
    return make_prior(params).loss(images, key, log_mean=-1.2, log_std=1.2), {}


def log_of(folder):
    lines = (folder / "train.csv").read_text().splitlines()
    assert lines[0] == "step,loss"
    return [(int(a), float(b)) for a, b in (line.split(",") for line in lines[1:])]


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def straight(params, source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return run(folder, params, source), folder


def test_a_training_leaves_its_states_and_its_log(straight, params):
    state, folder = straight
    assert int(state.step) == RECIPE.steps
    assert [step for step, _ in log_of(folder)] == [4, 8, 12]
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"8", "12"}  # the newest two
    # The buffers of the caller are its own still.
    assert bool(jnp.isfinite(params["params"]["Dense_0"]["kernel"]).all())


def test_it_learns_a_set_of_one_image(params, tmp_path):
    recipe = RECIPE._replace(steps=200, learning_rate=1e-2, checkpoint_every=10)
    one = image_source(np.full((1, *SHAPE), 0.9, np.float32))
    state = run(tmp_path, params, one, recipe)
    losses = [loss for _, loss in log_of(tmp_path)]
    assert losses[-1] < 0.6 * losses[0]
    x = jnp.full(SHAPE, 0.9) + 0.3 * jax.random.normal(jax.random.key(0), SHAPE)
    error = jnp.abs(make_prior(state.ema)(x, jnp.float32(0.3)) - 0.9).mean()
    assert error < 0.1 < jnp.abs(x - 0.9).mean()


@pytest.mark.parametrize("calls", [2, 3])
def test_a_killed_training_goes_on_bit_for_bit(
    straight, params, source, tmp_path, monkeypatch, calls
):
    state, folder = straight
    count = iter(range(1, 9))

    def write(path, rows, write=steps._write_log):
        write(path, rows)
        if next(count) == calls:  # the log is there, the checkpoint is not yet
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "_write_log", write)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, params, source)
    assert len(log_of(tmp_path)) == calls
    same(run(tmp_path, params, source), state)
    assert (tmp_path / "train.csv").read_bytes() == (folder / "train.csv").read_bytes()


def test_a_finished_training_is_not_repeated(straight, params, source, monkeypatch):
    state, folder = straight
    monkeypatch.setattr(steps, "_compiled", lambda *given: None)
    same(run(folder, params, source), state)


def test_another_seed_is_another_training(straight, params, source, tmp_path):
    other = run(tmp_path, params, source, RECIPE._replace(seed=1))
    a, b = (s.params["params"]["Dense_1"]["kernel"] for s in (straight[0], other))
    assert float(jnp.abs(a - b).max()) > 1e-4


def test_a_loss_that_is_not_finite_stops_it(params, tmp_path):
    bad = Source(lambda arrays, key: jnp.full(SHAPE, jnp.nan))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
        run(tmp_path, params, bad)
    assert not (tmp_path / "train.csv").exists()


def test_a_step_averages_its_weights(params, source):
    step = jax.jit(
        functools.partial(
            training.train_step, draw=source.draw, loss=denoising, recipe=RECIPE
        )
    )
    state = training.init_state(params, RECIPE)
    for i, decay in enumerate((0.1, 2 / 11, 3 / 12)):
        new, loss = step(state, source.arrays)
        assert int(new.step) == i + 1 and loss.shape == ()
        expected = jax.tree.map(
            lambda a, b, decay=decay: decay * a + (1 - decay) * b, state.ema, new.params
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new.ema, expected
        )
        state = new
    late = state._replace(step=jnp.int32(10_000))
    new, _ = step(late, source.arrays)
    ema = optax.incremental_update(new.params, late.ema, 1 - RECIPE.ema)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8),
        new.ema,
        ema,
    )


def test_a_step_of_a_recipe_of_before_is_what_it_was(params, source):
    """Adam with clipped gradients, spelled out: the same numbers, bit for bit."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 2, 12)
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    @jax.jit
    def step_of_before(params, opt_state, step, arrays):
        key_data, key_loss = jax.random.split(jax.random.fold_in(SEED, step))
        keys = jax.random.split(key_data, RECIPE.batch)
        batch = jax.vmap(source.draw, (None, 0))(arrays, keys)
        grads = jax.grad(lambda p: denoising(p, batch, key_loss)[0])(params)
        updates, opt_state = adam.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state

    step = functools.partial(
        training.train_step, draw=source.draw, loss=denoising, recipe=RECIPE
    )
    step, state = jax.jit(step), training.init_state(params, RECIPE)
    own, opt_state = params, adam.init(params)
    for i in range(3):
        state, _ = step(state, source.arrays)
        own, opt_state = step_of_before(own, opt_state, i, source.arrays)
    same(state.params, own)
    same(state.opt_state, opt_state)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_kernels_decay_and_biases_do_not(kind):
    recipe = Recipe(optimiser=kind, weight_decay=0.1, learning_rate=0.5, warmup=0)
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    zeros, own = jax.tree.map(jnp.zeros_like, params), optimiser(recipe)
    updates, _ = own.update(zeros, own.init(params), params)
    # A step of Nesterov's momentum without history is 1 + 0.9 gradients long.
    lost = 0.1 * 0.5 * 3 * (1.9 if kind == "sgd" else 1.0)
    np.testing.assert_allclose(updates["kernel"], -lost, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_what_a_loss_moves_is_taken_as_it_is(source):
    params = {"params": {"a": jnp.float32(1.0)}, "batch_stats": {"mean": jnp.zeros(())}}

    def loss(params, images, key):
        moved = {"batch_stats": {"mean": params["batch_stats"]["mean"] + 1}}
        return jnp.mean(images) * params["params"]["a"], moved

    state = training.init_state(params, RECIPE)
    new, _ = training.train_step(
        state, source.arrays, draw=source.draw, loss=loss, recipe=RECIPE
    )
    assert float(new.params["batch_stats"]["mean"]) == 1
    np.testing.assert_allclose(new.ema["batch_stats"]["mean"], 0.9, rtol=1e-6)


@pytest.mark.slow
def test_half_precision_is_near_and_leaves_weights_whole():
    net = UNet((8, 16), groups=2, norm_over="image")
    x = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))
    params = jax.jit(net.init)(jax.random.key(1), x[0], jnp.float32(0))
    # The last layer starts at zero, where every precision agrees.
    params = jax.tree.map(
        lambda a: a + 0.05 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), params
    )

    def loss(params, dtype):
        prior = EDM(params, Cast(net, dtype), sigma_data=0.5)
        return prior.loss(x, jax.random.key(2), log_mean=-1.2, log_std=1.2)

    of = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (whole, grads), (half, half_grads) = of(params, "float32"), of(params, "bfloat16")
    assert 0 < abs(half - whole) < 0.01 * whole  # bfloat16 has 8 bits
    assert half.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(half_grads)} == {jnp.dtype("float32")}
    flat, half_flat = (np.array(ravel_pytree(g)[0]) for g in (grads, half_grads))
    assert np.linalg.norm(half_flat - flat) < 0.05 * np.linalg.norm(flat)


def test_expected_errors_of_an_exact_denoiser():
    prior = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(36), jnp.linspace(0.01, 0.05, 36))
    images = jax.vmap(prior.sample)(jax.random.split(jax.random.key(0), 300))
    levels = np.array([0.02, 0.2, 2.0])
    errors = error_table.denoising_errors(prior, np.asarray(images), levels)
    expected = [float(prior.variance(s)) for s in levels]
    # The last part of 32 is not full, and counts for what it has.
    np.testing.assert_allclose(errors, expected, rtol=4 * np.sqrt(2 / images.size))
    again = error_table.denoising_errors(prior, np.asarray(images), levels)
    np.testing.assert_array_equal(errors, again)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(steps=0), "steps=0: need at least 1"),
        (dict(batch=0), "batch=0"),
        (dict(learning_rate=0.0), "learning_rate=0.0: must be positive"),
        (dict(learning_rate=float("nan")), "learning_rate=nan"),
        (dict(warmup=-1), "warmup=-1"),
        (dict(ema=1.0), r"ema=1.0: must be in \[0, 1\)"),
        (dict(log_std=0.0), "log_std=0.0"),
        (dict(checkpoint_every=0), "checkpoint_every=0"),
        (dict(seed=2**40), r"seed=1099511627776: must be in \[0, 2\^32\)"),
        (dict(dtype="float16"), "dtype='float16': must be one of"),
        (dict(optimiser="lion"), "optimiser='lion': must be one of"),
        (dict(weight_decay=-0.1), "weight_decay=-0.1: must be >= 0"),
        (dict(label_dropout=1.0), r"label_dropout=1.0: must be in \[0, 1\)"),
        (dict(label_smoothing=-0.1), "label_smoothing=-0.1"),
    ],
)
def test_numbers_that_cannot_work(change, words):
    with pytest.raises(ValueError, match=f"train.recipe: {words}"):
        Recipe(**change).check()


def test_a_log_that_is_none_is_named(params, source, tmp_path):
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"train\.csv: not a log of a training"):
        run(tmp_path, params, source)


def test_one_step_is_traced_without_computing(params, source):
    training.check_step(jax.eval_shape(lambda: params), source, denoising, RECIPE)

    def refuses(params, images, key):
        raise NotImplementedError("this prior has no loss")

    with pytest.raises(NotImplementedError, match="has no loss"):
        training.check_step(params, source, refuses, RECIPE)
