"""The saved inputs and outputs of the reference, and how far a network is from them."""

import json

import jax
import numpy as np
from flax import traverse_util

from klip_jax.checkpoint import check_fit
from klip_jax.config import build
from klip_jax.hub import empty_params


def network(converted):
    """Return (net, params) of converted weights, which fit."""
    params, record = converted
    net = build("nets", record["net"])
    shape = record.get("net_shape", record["image_shape"])
    check_fit("converted", params, empty_params(net, shape))
    return net, params


def hwc(x):
    """Move the channels of [..., C, H, W] to the end."""
    return np.moveaxis(x, -3, -1)


def gap(found, expected):
    """Return the largest difference over the largest value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def assert_ok(checks):
    """Assert that every check of an experiment is ok, and that there is one."""
    checks = list(checks)
    assert checks, "nothing was compared"
    json.dumps(checks)  # as the experiment prints them: no numbers of numpy's
    failed = [check for check in checks if not check["ok"]]
    assert not failed, failed


def random_params(net, shape, seed=0):
    """Return parameters none of which is zero, of about the size that keeps variance.

    Norms stay near one.
    """
    rng = np.random.default_rng(seed)
    leaves, structure = jax.tree.flatten(empty_params(net, shape))
    found = []
    for leaf in leaves:
        fan_in = np.prod(leaf.shape[:-1]) or 1
        spread = fan_in**-0.5 if len(leaf.shape) > 1 else 0.3
        found.append(np.float32(spread * rng.standard_normal(leaf.shape)))
    return jax.tree.unflatten(structure, found)


def torch_arrays(params):
    """Return our parameters with the names and layout of torch."""
    flat = {}
    for name, array in traverse_util.flatten_dict(params["params"], sep=".").items():
        name, leaf = name.rsplit(".", 1)
        for kind in ("blocks", "resnets", "attentions", "samplers", "to_out"):
            name = name.replace(f"{kind}_", f"{kind}.")
        array = np.asarray(array)
        if leaf == "kernel":
            array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
        leaf = leaf if leaf == "bias" else "weight"
        flat[f"{name}.{leaf}"] = np.ascontiguousarray(array)
    return flat
