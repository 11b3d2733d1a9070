"""What `detect` says of one measurement, and how it is shown: in words, as a figure.

A `Result` is a pytree: under `vmap` its arrays have one axis more.
"""

import base64
import io
from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float
from PIL import Image as Pillow

from klip_jax import struct
from klip_jax.calibration import ALARM, BORDERLINE, FITS

_SIDE = 256  # pixels of a picture in a notebook


@struct.dataclass
class Result:
    """What a detector says of one measurement, and what it was drawn from.

    Attributes:
      score: of the image; bigger is more out of distribution.
      stderr: its Monte Carlo standard error, NaN where the detector has none.
      heatmap: where the evidence lies; None where the detector has no map.
      p_value: how often a draw of the model scores as high; NaN without a law.
      misfit: |y - A x|^2 of the posterior samples over the energy of the noise; 1 is
        right.
      reconstruction, spread: mean and standard deviation of the posterior samples.
      law: what the p-value is under, in words; "" without a law.
    """

    score: Float[Array, "..."]
    stderr: Float[Array, "..."]
    heatmap: Float[Array, "..."] | None
    p_value: Float[Array, "..."]
    misfit: Float[Array, "..."]
    reconstruction: Float[Array, "..."]
    spread: Float[Array, "..."]
    law: str = struct.field(pytree_node=False, default="")

    @property
    def verdict(self) -> str:
        """One of a few words, for one measurement.

        "measurement does not fit" where the misfit is outside [0.5, 2], "no finite
        score", "flagged" up to p = 0.05, "borderline" up to 0.10, "clear"; "no law"
        where there is none.
        """
        if not FITS[0] <= self.misfit <= FITS[1]:
            return "measurement does not fit"
        if not np.isfinite(self.score):
            return "no finite score"
        if not self.law or np.isnan(self.p_value):
            return "no law"
        if self.p_value <= ALARM:
            return "flagged"
        return "borderline" if self.p_value <= BORDERLINE else "clear"

    @property
    def peak(self) -> tuple[int, int] | None:
        """(row, column) of the map's largest pixel; None without a map."""
        if self.heatmap is None or not np.isfinite(self.heatmap).any():
            return None
        flat = int(np.nanargmax(np.asarray(self.heatmap)))
        row, column = np.unravel_index(flat, np.shape(self.heatmap))
        return int(row), int(column)

    def rows(self) -> dict[str, str]:
        """Return what is said of one measurement, by name, as texts."""
        score = f"{float(self.score):.4g}"
        if np.isfinite(self.stderr):
            score += f" +- {float(self.stderr):.2g}"
        said = {"verdict": self.verdict, "score": score}
        if self.law:
            said["p-value"] = f"{float(self.p_value):.3g} ({self.law})"
        said["misfit"] = f"{float(self.misfit):.3g} (1 is right)"
        if self.peak is not None:
            said["peak"] = f"row {self.peak[0]}, column {self.peak[1]}"
        return said

    def __repr__(self) -> str:
        if not self._is_one():
            shapes = (f"{k}={np.shape(v)}" for k, v in self._leaves().items())
            return f"Result({', '.join(shapes)}, law={self.law!r})"
        return f"Result({', '.join(f'{k}: {v}' for k, v in self.rows().items())})"

    def _repr_html_(self) -> str | None:
        """Return a table and both pictures, for a notebook."""
        if not self._is_one():
            return None
        rows = "".join(
            f"<tr><th style='text-align:left'>{k}</th><td>{v}</td></tr>"
            for k, v in self.rows().items()
        )
        pictures = "".join(
            f"<figure style='display:inline-block;margin:0 1em 0 0'><img width={_SIDE} "
            f"style='image-rendering:pixelated' alt='{name}' "
            f"src='data:image/png;base64,{_png(array, _highest(name, array))}'>"
            f"<figcaption>{name}</figcaption></figure>"
            for name, array in self._pictures().items()
        )
        return f"<table>{rows}</table>{pictures}"

    def plot(self) -> Any:
        """Return a `matplotlib.figure.Figure`: reconstruction, spread and map."""
        from matplotlib.figure import Figure

        if not self._is_one():
            raise ValueError(
                f"these are results of many, {np.shape(self.score)}: take one by "
                "jax.tree.map(lambda a: a[0], result)"
            )
        pictures = self._pictures()
        figure = Figure(figsize=(3.2 * len(pictures), 3.4), layout="constrained")
        for ax, (name, array) in zip(
            np.atleast_1d(figure.subplots(1, len(pictures))),
            pictures.items(),
            strict=True,
        ):
            grey = name == "reconstruction"
            high = _highest(name, array)
            colours = "gray" if grey else "viridis"
            shown = ax.imshow(array, cmap=colours, vmin=0.0, vmax=high)
            if not grey:
                figure.colorbar(shown, ax=ax, shrink=0.8)
            ax.set_title(name, fontsize=9)
            ax.set_axis_off()
        words = "   ".join(f"{k}: {v}" for k, v in self.rows().items())
        figure.suptitle(words, fontsize=8)
        return figure

    def _is_one(self) -> bool:
        return not isinstance(self.score, jax.core.Tracer) and np.ndim(self.score) == 0

    def _leaves(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if v is not None and k != "law"}

    def _pictures(self) -> dict[str, np.ndarray]:
        """Return what is shown, [H, W] or RGB, by name."""
        image = np.asarray(self.reconstruction, np.float64)
        rgb = image.shape[-1] == 3
        shown = {"reconstruction": image if rgb else image.mean(-1)}
        shown["spread"] = np.asarray(self.spread, np.float64).mean(-1)
        if self.heatmap is not None:
            shown["map"] = np.asarray(self.heatmap, np.float64)
        return {k: np.clip(v, 0, 1) if k[0] == "r" else v for k, v in shown.items()}


def _highest(name: str, array: np.ndarray) -> float:
    """Return the value that is white: images are in [0, 1], maps have no unit."""
    finite = array[np.isfinite(array)]
    return 1.0 if name == "reconstruction" else float(finite.max(initial=0.0)) or 1.0


def _png(array: np.ndarray, highest: float) -> str:
    """Return an array from 0 to `highest` as a PNG, in base64."""
    greys = np.clip(np.nan_to_num(array, posinf=0.0, neginf=0.0) / highest, 0, 1)
    file = io.BytesIO()
    Pillow.fromarray(np.uint8(np.round(255 * greys))).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
