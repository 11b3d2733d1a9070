import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import save_file

from klip_jax import checkpoint

RNG = np.random.default_rng(0)
PARAMS = {
    "params": {
        "Conv_0": {"kernel": np.float32(RNG.standard_normal((3, 3, 1, 4)))},
        "Dense_0": {"bias": np.float32(RNG.standard_normal(4)), "scale": np.ones(())},
    }
}
CARD = dict(net=dict(name="unet.UNet"), steps=3)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "deep" / "w.safetensors"
    checkpoint.save_weights(path, PARAMS, CARD)
    return path


def test_weights_round_trip(weights):
    params, card = checkpoint.load_weights(weights)
    assert card == CARD
    assert jax.tree.structure(params) == jax.tree.structure(PARAMS)
    for found, expected in zip(
        jax.tree.leaves(params), jax.tree.leaves(PARAMS), strict=True
    ):
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, np.float16(expected))


def test_weights_in_full(tmp_path):
    checkpoint.save_weights(tmp_path / "w", PARAMS, CARD, dtype="float32")
    params, _ = checkpoint.load_weights(tmp_path / "w")
    jax.tree.map(np.testing.assert_array_equal, params, PARAMS)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights_are_named(weights, keep):
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"w\.safetensors: not a readable safetensors"):
        checkpoint.load_weights(weights)


def test_other_files_are_no_weights(weights):
    with pytest.raises(FileNotFoundError, match=r"nope: no such weights"):
        checkpoint.load_weights(weights.parent / "nope")
    save_file({"a": np.zeros(3)}, weights)
    with pytest.raises(ValueError, match="no 'record' in its metadata"):
        checkpoint.load_weights(weights)
    weights.write_bytes(b"PK\3\4 something else entirely")
    with pytest.raises(ValueError, match="not a readable safetensors"):
        checkpoint.load_weights(weights)


WRONG = {
    "Conv_0": (
        {"kernel": np.ones((5, 5, 1, 4))},
        r"Conv_0/kernel is \(5, 5, 1, 4\), the",
    ),
    "Dense_0": ({}, r"Dense_0/bias is nothing, the network has \(4,\)"),
    "A": ({"b": np.ones(2)}, r"A/b is \(2,\), the network has nothing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_first_leaf_that_does_not_fit_is_named(name):
    shapes = jax.eval_shape(lambda: PARAMS)
    checkpoint.check_fit("w", PARAMS, shapes)
    part, words = WRONG[name]
    tree = {"params": PARAMS["params"] | {name: part}}
    with pytest.raises(ValueError, match=f"w: weights do not fit.*params/{words}"):
        checkpoint.check_fit("w", tree, shapes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_by_leaf(value):
    checkpoint.check_finite("w", PARAMS)
    bias = np.float32([1, value, 2, value])
    tree = {"params": PARAMS["params"] | {"Dense_0": {"bias": bias}}}
    words = r"w: 2 of 4 numbers of the weights params/Dense_0/bias are NaN or infinite"
    with pytest.raises(ValueError, match=words):
        checkpoint.check_finite("w", tree)


@pytest.mark.parametrize("record", ["{", "[1]", "3"])
def test_a_record_that_is_none_is_named(tmp_path, record):
    save_file({"a": np.zeros(3)}, tmp_path / "w", {"record": record})
    with pytest.raises(ValueError, match="w: its record is no JSON"):
        checkpoint.load_weights(tmp_path / "w")


def test_training_states_keep_the_newest(tmp_path):
    manager = checkpoint.training_checkpoints(tmp_path / "c", keep=2)
    state = (jnp.int32(0), {"w": jnp.arange(3.0)})
    assert checkpoint.restore(manager, state) is None
    for step in (1, 2, 3):
        new = (jnp.int32(step), {"w": jnp.arange(3.0) + step / 3})
        manager.save(step, args=ocp.args.StandardSave(new))
    manager.wait_until_finished()
    manager.close()
    again = checkpoint.training_checkpoints(tmp_path / "c", keep=2)
    assert sorted(again.all_steps()) == [2, 3]
    step, tree = checkpoint.restore(again, state)
    assert step == 3 and step.dtype == jnp.int32
    np.testing.assert_array_equal(tree["w"], new[1]["w"])
    again.close()
