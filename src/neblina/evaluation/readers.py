"""An independent reader of small pictures: scikit-learn's support vector classifier on raw pixels."""

import numpy as np
import torch
from torch import Tensor

from neblina.core.errors import DataError
from neblina.data.pictures import Pictures


class PixelReader:
    """Reads the class off uint8 pictures; fitted on real training pictures only."""

    def __init__(self, pictures: Pictures, *, most: int = 10_000) -> None:
        """Fit on at most `most` pictures, spread evenly over the set (the fit is quadratic in their number)."""
        from sklearn.svm import SVC

        if pictures.labels is None:
            raise DataError("a reader needs labelled pictures")
        self._model = SVC(gamma="scale", C=10.0)
        chosen = list(range(0, len(pictures), -(-len(pictures) // most)))
        self._model.fit(_rows(pictures.read(chosen)), pictures.labels[chosen].numpy())

    def read(self, pictures: Tensor) -> Tensor:
        """Class of each picture of shape (N, C, H, W), shape (N,)."""
        return torch.from_numpy(np.asarray(self._model.predict(_rows(pictures)), dtype=np.int64))

    def agreement(self, pictures: Tensor, labels: Tensor) -> float:
        """Share of pictures that are read as their label."""
        return float((self.read(pictures) == labels).double().mean())


def _rows(pictures: Tensor) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    rows: np.ndarray[tuple[int, int], np.dtype[np.float64]] = pictures.flatten(1).numpy().astype(np.float64) / 255
    return rows
