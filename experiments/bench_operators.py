"""Time and accuracy of the CT operators, beside other projectors where installed.

    python experiments/bench_operators.py [--quick] [--scico_python=PATH]

Prints one JSON object. `rows`: milliseconds of the forward operator, its adjoint and
the gradient of 1/2 |A x - y|^2, wall clock and CPU time, medians of several calls, and
the relative error of the sinogram of an ellipse against its exact one. `checks`:
accuracy, and speed at 256x256 with 24 views against scico and astra-toolbox.

The others run on the same image: scikit-image and astra-toolbox (CPU) if they can be
imported, scico in an environment of its own, which `--scico_python` names, because it
needs an older jax. (It wants bins wider than pixels: in this geometry it warns and
loses accuracy, not time.) Everything runs on one core, because astra's CPU code does,
and speeds are compared in CPU time, which does not count what other programs on the
machine take. --quick leaves out 512x512 and 180 views.
"""

import argparse
import functools
import importlib.util
import json
import os
import subprocess
import sys
import time

import ellipses
import numpy as np

SIZES, VIEWS, BATCHES = (64, 128, 256, 512), (24, 180), (1, 8)
SCICO = """
import sys, numpy as np, jax, jax.numpy as jnp
sys.path.insert(0, sys.argv[1])
import bench_operators as bench
from scico.linop.xray import XRayTransform2D
bench.run_scico(XRayTransform2D, *map(int, sys.argv[2:]))
"""


def shape(size):
    """An ellipse that fills most of the image."""
    return (0.026 * size, -0.041 * size), (0.43 * size, 0.31 * size), 0.4


def error(found, expected):
    found = np.asarray(found, np.float64).reshape(expected.shape)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def clock(call, seconds=1.0):
    """Return medians (wall, cpu) in ms over calls for about `seconds`, at least 3."""
    call()
    walls, cpus, start = [], [], time.perf_counter()
    while len(walls) < 3 or (
        time.perf_counter() - start < seconds and len(walls) < 100
    ):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return dict(ms=1e3 * float(np.median(walls)), cpu_ms=1e3 * float(np.median(cpus)))


def time_jax(apply, adjoint, x, y):
    """Time forward, adjoint and gradient, jitted, of functions of one image."""
    import jax
    import jax.numpy as jnp

    def gradient(x, y):
        return jax.grad(lambda x: 0.5 * jnp.sum((apply(x) - y) ** 2))(x)

    calls = dict(forward=(apply, x), adjoint=(adjoint, y), gradient=(gradient, x, y))
    for name, (function, *given) in calls.items():
        batch = jax.jit(jax.vmap(function) if len(x) > 1 else function)
        given = [a if len(x) > 1 else a[0] for a in given]
        call = functools.partial(batch, *given)
        yield name, clock(lambda call=call: jax.block_until_ready(call()))


def run_scico(transform, size, views, batch):
    """Print the row of scico's projector; called in its own environment."""
    import jax

    angles = np.arange(views) * np.pi / views + np.pi / 2  # it counts from the rows
    op = transform((size, size), angles, dx=(1.0, 1.0))
    x = jax.random.normal(jax.random.key(0), (batch, size, size))
    y = jax.random.normal(jax.random.key(1), (batch, *op.output_shape))
    times = dict(time_jax(op.__call__, op.T.__call__, x, y))

    class Geometry:
        angles, pitch, out_shape = np.arange(views) * 180 / views, 1.0, op.output_shape

    found = op(ellipses.draw(size, *shape(size))[..., 0])
    found = error(found, ellipses.parallel(Geometry, *shape(size)))
    print(json.dumps(dict(times, error=found)))


def scico(python, size, views, batch):
    """Return the row of scico, measured by another Python."""
    here = os.path.dirname(os.path.abspath(__file__))
    arguments = [python, "-c", SCICO, here, *map(str, (size, views, batch))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{python}: scico failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(operator, exact, size, batch):
    """Return the row of one of our operators."""
    import jax

    x = jax.random.normal(jax.random.key(0), (batch, *operator.in_shape))
    y = jax.random.normal(jax.random.key(1), (batch, *operator.out_shape))
    row = dict(time_jax(operator, operator.adjoint, x, y))
    drawn = ellipses.draw(size, *shape(size))
    held = "matrix" if operator.dense else "weights" if operator.stored else "computed"
    return dict(row, error=error(operator(drawn), exact), held=held)


def astra_rows(size, views, geometry, exact, kinds):
    """Yield rows of astra-toolbox's CPU projectors."""
    import astra

    volume = astra.create_vol_geom(size, size)
    beams = astra.create_proj_geom(*geometry)
    x = ellipses.draw(size, *shape(size))[..., 0]
    y = np.zeros((views, geometry[2]), np.float32)
    back = np.zeros_like(x)
    for kind in kinds:
        projector = astra.create_projector(kind, beams, volume)
        ids = [
            astra.data2d.link(*given)
            for given in (
                ("-vol", volume, x),
                ("-sino", beams, y),
                ("-vol", volume, back),
            )
        ]
        forward, adjoint = astra.astra_dict("FP"), astra.astra_dict("BP")
        forward.update(ProjectorId=projector, VolumeDataId=ids[0])
        adjoint.update(ProjectorId=projector, ReconstructionDataId=ids[2])
        runs = {}
        for name, settings in (("forward", forward), ("adjoint", adjoint)):
            settings["ProjectionDataId"] = ids[1]
            algorithm = astra.algorithm.create(settings)
            run = functools.partial(astra.algorithm.run, algorithm)
            runs[name] = clock(run)
        yield dict(runs, projector=f"astra {kind}", error=error(y, exact), sinogram=y)


def scikit_image(size, views, exact):
    """Return the row of scikit-image; its adjoint is unfiltered back-projection."""
    from skimage.transform import iradon, radon

    x = ellipses.draw(size, *shape(size))[..., 0]
    theta = np.arange(views) * 180 / views
    transform = functools.partial(radon, x, theta=theta, circle=True)
    y = transform()
    back = functools.partial(iradon, y, theta=theta, filter_name=None, circle=True)
    middle = exact.shape[1] - size  # it keeps a circle of the image's width
    inside = exact[:, middle // 2 : middle // 2 + size]
    row = dict(forward=clock(transform, 0), adjoint=clock(back, 0))
    return dict(row, error=min(error(y.T, inside), error(y.T[:, ::-1], inside)))


def measure(sizes, counts, scico_python):
    """Yield a row for each projector, size, number of views and batch."""
    from klip_jax.operators import ct, fan

    def has(name):
        return importlib.util.find_spec(name) is not None

    for size in sizes:
        for views in counts:
            parallel = ct.ParallelBeam((size, size, 1), views=views)
            fans = fan.FanBeam((size, size, 1), views=views)
            flat = ellipses.parallel(parallel, *shape(size))
            wedge = ellipses.fan(fans, *shape(size))
            for batch in BATCHES:
                case = dict(size=size, views=views, batch=batch)
                row = ours(parallel, flat, size, batch)
                yield dict(projector="klip_jax parallel", **case, **row)
                row = ours(fans, wedge, size, batch)
                yield dict(projector="klip_jax fan", **case, **row)
                if scico_python:
                    row = scico(scico_python, size, views, batch)
                    yield dict(projector="scico", **case, **row)
            case = dict(size=size, views=views, batch=1)
            if has("skimage"):
                row = scikit_image(size, views, flat)
                yield dict(projector="scikit-image", **case, **row)
            if has("astra"):
                beams = (1.0, parallel.out_shape[1], np.deg2rad(parallel.angles))
                kinds = ("line", "linear", "strip")
                found = astra_rows(size, views, ("parallel", *beams), flat, kinds)
                yield from (dict(case, **row) for row in found)
                distances = fans.source, fans.magnified - fans.source
                beams = (fans.pitch, fans.out_shape[1], np.deg2rad(fans.angles))
                beams = ("fanflat", *beams, *distances)
                kinds = ("line_fanflat", "strip_fanflat")
                y = np.asarray(fans(ellipses.draw(size, *shape(size))))
                for row in astra_rows(size, views, beams, wedge, kinds):
                    row["gap"] = error(y, row["sinogram"].astype(np.float64))
                    yield dict(case, **row)


def use_one_core():
    """Keep this process and its children on one core, before jax counts them."""
    if hasattr(os, "sched_setaffinity"):  # elsewhere jax takes all there are
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def judge(rows):
    """Yield the checks at 256x256, 24 views."""
    from checks import at_least, check

    def find(projector, batch=1):
        case = dict(projector=projector, size=256, views=24, batch=batch)
        return next((r for r in rows if case.items() <= r.items()), None)

    def pair(row):
        return row["forward"]["cpu_ms"] + row["adjoint"]["cpu_ms"]

    mine = find("klip_jax parallel")
    yield check("error, parallel beam", mine["error"], 0, 2e-3)
    yield check("error, fan beam", find("klip_jax fan")["error"], 0, 2e-3)
    if find("scico"):
        ratio = pair(find("scico")) / pair(mine)
        yield at_least("forward + adjoint, times faster than scico", ratio, 2)
        eight = [find(name, 8) for name in ("scico", "klip_jax parallel")]
        ratio = np.divide(*(row["gradient"]["cpu_ms"] for row in eight))
        yield at_least("gradient of 8, times faster than scico", ratio, 1.5)
    for kind in ("line", "linear", "strip"):
        if row := find(f"astra {kind}"):
            what = f"forward + adjoint, times faster than astra's {kind} on CPU"
            yield at_least(what, pair(row) / pair(mine), 1)
    for kind in ("line_fanflat", "strip_fanflat"):
        if row := find(f"astra {kind}"):
            yield check(f"fan beam - astra's {kind}", row["gap"], 0, 1e-2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--scico_python", help="a Python that can import scico")
    arguments = parser.parse_args()
    use_one_core()
    sizes, counts = (SIZES[:3], VIEWS[:1]) if arguments.quick else (SIZES, VIEWS)
    import jax
    from checks import finish

    rows = []
    for row in measure(sizes, counts, arguments.scico_python):
        row.pop("sinogram", None)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    device = dict(jax=jax.__version__, platform=jax.default_backend(), cores=len(cores))
    finish(dict(device, rows=rows, checks=list(judge(rows))))


if __name__ == "__main__":
    main()
