"""NCSN++ of the score_sde code in Flax, and of KLIP's CT experiments, which use it.

Parameters come from an .npz with '/'-joined names, a msgpack checkpoint of Flax, or an
Orbax folder. The exponential average is taken where a checkpoint has one. GroupNorm
parameters may be (C,) or (1, 1, 1, C).

The shapes say everything about the network but two things: the size of the images, and
at which grid there is self-attention. The authors put it at 16 pixels.

Reference: Song et al. 2021, appendix H.
"""

import pathlib
import re
from collections.abc import Mapping

import jax
import msgpack
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization, traverse_util

from klip_jax.convert.base import Converted, record

ATTENTION_SIZE = 16
NAMES = {
    r"ResnetBlockBigGANpp_(\d+)": r"BigGANBlock_\1",
    r"AttnBlockpp_(\d+)": r"Attention_\1",
    r"NIN_(\d+)/W": r"Dense_\1/kernel",
    r"NIN_(\d+)/b": r"Dense_\1/bias",
    r"Combine_(\d+)/Conv_0": r"combine_\1",
    r"GaussianFourierProjection_0/W": "frequencies",
}


def load(path, size: int) -> Converted:
    """Read an .npz, a msgpack checkpoint or an Orbax folder; see `convert`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is broken or holds no NCSN++.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        if path.is_dir():
            tree = _orbax(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                flat = {name: archive[name] for name in archive.files}
            tree = traverse_util.unflatten_dict(flat, sep="/")
        else:
            tree = serialization.msgpack_restore(path.read_bytes())
    except (
        *(ValueError, TypeError, KeyError, OSError, EOFError),
        msgpack.exceptions.UnpackException,
    ) as error:
        raise ValueError(f"{path}: not a readable checkpoint ({error})") from None
    return convert(_parameters(tree, path), size, str(path))


def convert(params: Mapping, size: int, source: str = "") -> Converted:
    """Return the weights of an NCSN++.

    Args:
      params: its nested parameters.
      size: side of the images, pixels.
      source: where they come from, for the record and messages.

    Raises:
      ValueError: if they are not those of an NCSN++ that we have.
    """
    flat = {}
    for name, array in traverse_util.flatten_dict(params, sep="/").items():
        for theirs, ours in NAMES.items():
            name = re.sub(theirs, ours, name)
        array = np.asarray(array, np.float32)
        norm = "GroupNorm" in name
        flat[name] = array.reshape(array.shape[-1:]) if norm else array
    needed = ["Conv_0/kernel", "frequencies", "BigGANBlock_0/Conv_0/kernel"]
    if missing := [name for name in needed if name not in flat]:
        raise ValueError(f"{source}: not an NCSN++: it has no {missing[0]}")
    net = _architecture(flat, size, source)
    if size % 2 ** (len(net["multipliers"]) - 1):
        raise ValueError(f"{source}: its grids do not divide images of {size} pixels")
    shape = (size, size, flat["Conv_0/kernel"].shape[2])
    tree = {"params": traverse_util.unflatten_dict(flat, sep="/")}
    return Converted(tree, record(net, {"name": "score.Score"}, shape, source))


def _architecture(flat, size, source):
    def count(kind):
        numbers = [re.match(rf"{kind}_(\d+)", name) for name in flat]
        return len({m[1] for m in numbers if m})

    def features(block):
        return flat[f"BigGANBlock_{block}/Conv_1/kernel"].shape[-1]

    # 2 L b + 3 L residual blocks: b at each of L grids going down and b + 1 going up, L
    # - 1 that resample on each way, and two in the middle.
    levels, total = count("combine") + 1, count("BigGANBlock")
    blocks, rest = divmod(total - 3 * levels, 2 * levels)
    if rest or blocks < 1:
        raise ValueError(
            f"{source}: {total} residual blocks at {levels} grids are no NCSN++ with "
            "input and output skips"
        )
    width = flat["Conv_0/kernel"].shape[-1]
    firsts = [features(level * (blocks + 1)) for level in range(levels)]
    attended, rest = divmod(count("Attention") - 1, blocks + 1)
    level = int(np.log2(size / ATTENTION_SIZE)) if size >= ATTENTION_SIZE else -1
    if rest or attended > 1 or (attended and not 0 <= level < levels):
        raise ValueError(
            f"{source}: {count('Attention')} self-attentions, but at images of {size} "
            f"pixels there can only be those at {ATTENTION_SIZE} pixels and the middle"
        )
    joined = flat["BigGANBlock_0/Conv_0/kernel"].shape[2]
    if levels > 1:
        joined = flat[f"BigGANBlock_{blocks + 1}/Conv_0/kernel"].shape[2]
        plain = joined == features(blocks)
    return {
        "name": "ncsnpp.NCSNpp",
        "width": width,
        "multipliers": [n // width for n in firsts],
        "blocks": blocks,
        "attention": [level] if attended else [],
        "combine": "sum" if levels == 1 or plain else "cat",
    }


def _parameters(tree, path):
    """Return the parameters in a training state, the exponential average if any."""
    for route in (("params_ema",), ("optimizer", "target"), ("target",), ("params",)):
        inner = tree
        for name in route:
            inner = inner.get(name, {}) if isinstance(inner, Mapping) else {}
        if inner:
            tree = inner
            break
    while isinstance(tree, Mapping) and set(tree) == {"params"}:
        tree = tree["params"]
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path}: holds no tree of parameters")
    return tree


def _orbax(path):
    """Restore a folder as numpy arrays, on whatever devices it was written."""
    path = path / "default" if (path / "default").is_dir() else path
    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path.absolute()).item_metadata
        if metadata is None:
            raise ValueError("not a checkpoint of Orbax")
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata.tree
        )
        return checkpointer.restore(path.absolute(), restore_args=as_numpy)
