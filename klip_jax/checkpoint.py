"""Weights and training states on disk: nothing here executes anything it reads.

Released weights are one safetensors file: the parameter tree with '/'-joined names, in
float16 to halve the file, and a JSON record (network, prior, data, training, error
table) as its metadata. Training states are Orbax checkpoints.
"""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from klip_jax.files import write_atomically


def save_weights(path, params: Any, record: dict, *, dtype="float16") -> None:
    """Write `params` and its JSON `record` to one safetensors file, atomically.

    Args:
      path: file to write; its folder is made.
      params: a nested dict of arrays.
      record: JSON-serialisable description of what the weights are.
      dtype: storage type; float16 keeps 11 bits of each weight.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    arrays = {k: np.ascontiguousarray(v, dtype) for k, v in flat.items()}
    write_atomically(path, save(arrays, {"record": json.dumps(record)}))


def load_weights(path) -> tuple[dict, dict]:
    """Read (params as float32, record) from a file of `save_weights`.

    Raises:
      FileNotFoundError: if there is no such file.
      PermissionError: if it may not be read.
      ValueError: if it is not a whole safetensors file with a record.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such weights; train them with --mode=train, or convert "
            "those of others with --mode=convert"
        )
    with path.open("rb"):
        pass  # safetensors would say of an unreadable file that it is not there
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            flat = {
                k: jnp.asarray(file.get_tensor(k), jnp.float32) for k in file.keys()
            }
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
    if "record" not in metadata:
        raise ValueError(
            f"{path}: no 'record' in its metadata; not weights of klip_jax"
        )
    try:
        record = json.loads(metadata["record"])
    except ValueError as error:
        raise ValueError(f"{path}: its record is no JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path}: its record is no JSON object")
    return traverse_util.unflatten_dict(flat, sep="/"), record


def check_fit(path, params: Any, expected: Any) -> None:
    """Raise a ValueError naming the first leaf of `params` that `expected` lacks.

    Args:
      path: where the weights came from, for the message.
      params: the tree that was read.
      expected: the network's own tree of arrays or `ShapeDtypeStruct`.
    """
    read = traverse_util.flatten_dict(params, sep="/")
    wanted = traverse_util.flatten_dict(expected, sep="/")
    for name in sorted(wanted.keys() | read.keys()):
        have = read[name].shape if name in read else "nothing"
        want = wanted[name].shape if name in wanted else "nothing"
        if have != want:
            raise ValueError(
                f"{path}: weights do not fit the network: {name} is {have}, the "
                f"network has {want}"
            )


def check_finite(path, params: Any) -> None:
    """Raise a ValueError naming the first leaf of `params` that is not finite.

    Args:
      path: where the weights came from, for the message.
      params: the tree that was read.
    """
    for name, leaf in traverse_util.flatten_dict(params, sep="/").items():
        bad = int(np.sum(~np.isfinite(leaf)))
        if bad:
            raise ValueError(
                f"{path}: {bad} of {np.size(leaf)} numbers of the weights {name} are "
                "NaN or infinite; train or fetch them again"
            )


def training_checkpoints(folder, *, keep: int = 2) -> ocp.CheckpointManager:
    """Return an Orbax manager of atomic, asynchronous training checkpoints.

    Args:
      folder: where they are.
      keep: how many of the newest stay; 0 keeps all.
    """
    options = ocp.CheckpointManagerOptions(max_to_keep=keep or None)
    return ocp.CheckpointManager(pathlib.Path(folder).absolute(), options=options)


def restore(
    manager: ocp.CheckpointManager, like: Any, step: int | None = None
) -> Any | None:
    """Return a checkpoint as a tree like `like`, or None if there is none.

    Args:
      manager: of `training_checkpoints`.
      like: a tree of the same structure, shapes and types.
      step: which one; None takes the newest.
    """
    step = manager.latest_step() if step is None else step
    if step is None:
        return None
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return manager.restore(step, args=ocp.args.StandardRestore(target))
