"""Many images over many devices: `jit(shard_map(vmap(f)))`, in this one place.

Images are independent, so the function of one image is vmapped within a device and
sharded over devices; nothing is communicated.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec


def shard_vmap(
    f: Callable, *, shared: int = 0, devices: Sequence[jax.Device] | None = None
) -> Callable:
    """Map `f` over the leading axis of its arguments, split over devices.

    Args:
      f: a function of `shared` replicated pytrees, then of one image's pytrees.
      shared: how many leading arguments are the same for every image (prior, operator).
      devices: where to run; default all.

    Returns:
      A jitted function; each mapped argument has a leading axis [B], and so have the
      results. B must be a multiple of the number of devices.
    """
    mesh = Mesh(np.asarray(devices or jax.devices()), ("images",))
    everywhere, split = PartitionSpec(), PartitionSpec("images")

    def mapped(*args):
        rest = len(args) - shared
        axes = (None,) * shared + (0,) * rest
        specs = (everywhere,) * shared + (split,) * rest
        # Without the check of varying axes a plain zeros carry is allowed in a scan.
        sharded = jax.shard_map(
            jax.vmap(f, axes),
            mesh=mesh,
            in_specs=specs,
            out_specs=split,
            check_vma=False,
        )
        return sharded(*args)

    return jax.jit(mapped)
