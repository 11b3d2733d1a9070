"""What a store says of its images, a row an image: the scores of all detectors."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from klip_jax.run.store import Store

PER_IMAGE = ("image_id", "group", "patient", "misfit", "first_bad_step")
PER_DETECTOR = (
    "score",
    "stderr",
    "p_value",
    "p_conformal",
    "network_calls",
    "seconds",
)


@dataclasses.dataclass(frozen=True)
class Table:
    """The scores of N images, in the order of the data.

    Attributes:
      index: which images of the data these are.
      ids, groups, patients: texts; group "id" is in-distribution, "" is unknown, every
        other is anomalous; patient "" is unknown.
      misfit: of the posterior samples, NaN without a scanner.
      first_bad_step: of the posterior, -1 if none.
      columns: the columns `PER_DETECTOR` [N] of each detector, by its name.
      detectors: what config.json says of each detector, by its name.
      main: name of the detector that the others are compared with.
    """

    index: Int[np.ndarray, " n"]
    ids: Shaped[np.ndarray, " n"]
    groups: Shaped[np.ndarray, " n"]
    patients: Shaped[np.ndarray, " n"]
    misfit: Float[np.ndarray, " n"]
    first_bad_step: Int[np.ndarray, " n"]
    columns: dict[str, dict[str, np.ndarray]]
    detectors: dict[str, dict[str, Any]]
    main: str

    @property
    def scores(self) -> dict[str, Float[np.ndarray, " n"]]:
        """The scores of each detector."""
        return {name: columns["score"] for name, columns in self.columns.items()}

    @property
    def sides(self) -> dict[str, Bool[np.ndarray, " n"]]:
        """Which images are in-distribution, anomalous, of unknown group."""
        own, unknown = self.groups == "id", self.groups == ""
        return {"id": own, "ood": ~own & ~unknown, "unknown": unknown}

    @property
    def clusters(self) -> Shaped[np.ndarray, " n"]:
        """Labels of what is resampled together: patients where known, else images."""
        pairs = zip(self.patients, self.ids, strict=True)
        return np.array([f"patient {p}" if p else f"image {i}" for p, i in pairs])

    def with_map(self) -> list[str]:
        """Return the names of the detectors that have a heat map."""
        return [name for name, about in self.detectors.items() if about["has_map"]]


def read_table(store: Store) -> Table:
    """Read the scores of all finished images.

    Raises:
      ValueError: if a part is broken, or an image lacks a detector of the config.
    """
    detectors = store.meta["detectors"]
    rows = store.scores(("index", "detector", *PER_IMAGE, *PER_DETECTOR))
    of = {name: np.flatnonzero(rows["detector"] == name) for name in detectors}
    index, first = np.unique(rows["index"], return_index=True)
    for name, own in of.items():
        if not np.array_equal(rows["index"][own], index):
            raise ValueError(
                f"{store.folder}: {len(own)} rows of detector {name!r} for "
                f"{len(index)} images; delete scores/ and run again"
            )
    return Table(
        index=index,
        ids=rows["image_id"][first],
        groups=rows["group"][first],
        patients=rows["patient"][first],
        misfit=rows["misfit"][first],
        first_bad_step=rows["first_bad_step"][first],
        columns={
            name: {column: rows[column][own] for column in PER_DETECTOR}
            for name, own in of.items()
        },
        detectors=detectors,
        main=store.meta["main"],
    )
