"""Classifier-free guidance: away from no class, toward one,

    D_y = D_null + w m (D_label - D_null),    g = (D_y - D_null) / sigma^2,

with m = 1, or a mask m in {0, 1} where the class is seen (DiffGuard: the class
activation map of the classifier above a cut). w = 1 is the conditional model itself.
Its `scan` is a `Label`; the denoiser must know classes (`types.Conditional`).

Reference: Ho and Salimans 2022, eq. 6 (there w is one less); Gao et al. 2023
(DiffGuard), eq. 5 and section 3.2.2 (the mask); docs/theory.md, section 15.
"""

from typing import Any, NamedTuple

from jax import Array
from jaxtyping import Bool, Int

from klip_jax import struct
from klip_jax.classifiers.base import cam_mask, grad_cam
from klip_jax.types import Denoiser, Image, PRNGKey, Scalar


class Label(NamedTuple):
    """What to guide to.

    Attributes:
      label: of a class.
      mask: where [h, w] of the denoiser's images; None is everywhere.
    """

    label: Int[Array, ""] | int
    mask: Bool[Array, "h w"] | None = None


@struct.dataclass
class ClassifierFree:
    """The difference of one network with a label and without.

    Attributes:
      weight: w; the release takes 10.
      cut: in (-1, 1), of the class activation map whose mask `aim` makes, see
        `classifiers.base.cam_mask`; None is no mask. The release takes 0.3.

    Raises:
      ValueError: if the cut is outside (-1, 1).
    """

    weight: Scalar = 10.0
    cut: float | None = struct.field(pytree_node=False, default=None)

    network_calls = 2
    """Of one score."""
    conditional = True
    """Whether the denoiser must know classes."""

    def __post_init__(self):
        if self.cut is not None and not -1 < self.cut < 1:
            raise ValueError(
                f"cut={self.cut}: must be in (-1, 1), as the map is in [0, 1]; None "
                "guides everywhere"
            )

    @property
    def classifier_calls(self) -> int:
        """Of `aim`, forward or backward."""
        return 0 if self.cut is None else 2

    def calls_of_score(self) -> int:
        """Return the classifier calls of one score."""
        return 0

    def score(
        self, denoiser: Denoiser, scan: Label, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D_null, w m (D_label - D_null) / sigma^2); see `types.Guidance`.

        Raises:
          ValueError: if the denoiser knows no classes.
        """
        known: Any = denoiser
        prior = getattr(known, "denoiser", known)
        if not hasattr(prior, "given"):
            raise ValueError(
                f"{type(prior).__name__} knows no classes: classifier-free guidance "
                "needs a prior with `given(label)`, such as labelled.Labelled"
            )
        null = known.given(None)(x, sigma)
        shift = self.weight * (known.given(scan.label)(x, sigma) - null)
        if scan.mask is not None:
            shift = shift * scan.mask[..., None]
        return null, shift / sigma**2

    def aim(
        self,
        key: PRNGKey,
        classifier: Any,
        label: Int[Array, ""] | int,
        picture: Image,
        shape: tuple[int, int],
    ) -> Label:
        """Return what guides to a label, seen where the classifier sees it.

        Args:
          key: not used.
          classifier: see `classifiers.base.Classifier`.
          label: of the class.
          picture: image in [0, 1] that the classifier looks at.
          shape: (h, w) of the denoiser's images.
        """
        if self.cut is None:
            return Label(label)
        cam = grad_cam(classifier, picture, label)
        size = picture.shape[0], picture.shape[1]
        return Label(label, cam_mask(cam, size, shape, self.cut))
