"""A small convolutional classifier; its last hidden layer serves as features where no pretrained extractor is at hand.

The recipe: two convolutions and two poolings, 64 features, dropout, AdamW on a one-cycle rate, pictures shifted by up
to a tenth. Trained on real training pictures only, so that a score never sees what it scores.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neblina.core.errors import DataError
from neblina.data.order import batch_numbers
from neblina.data.pictures import Pictures, to_float
from neblina.evaluation.frechet import Features


class SmallClassifier(nn.Module):
    """Class scores from pictures in [−1, 1], shape (B, C, H, W); `features` gives what they are read from."""

    def __init__(self, channels: int, classes: int, width: int = 32, features: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(4),
            nn.Flatten(),
            nn.Linear(2 * width * 16, features),
            nn.ReLU(),
        )
        self.head = nn.Linear(features, classes)

    def features(self, pictures: Tensor) -> Tensor:
        """Shape (B, 64)."""
        out: Tensor = self.body(pictures)
        return out

    def forward(self, pictures: Tensor) -> Tensor:
        """Shape (B, classes)."""
        out: Tensor = self.head(F.dropout(self.features(pictures), 0.3, self.training))
        return out


@dataclass(frozen=True)
class ClassifierFeatures:
    """The features of a fitted classifier, as an extractor.

    Attributes:
        name: what scores are called by: it says which classifier on which data.
        net: the classifier.
    """

    name: str
    net: SmallClassifier

    def __call__(self, pictures: Tensor) -> Features:
        return np.concatenate([self.net.features(part).numpy() for part in self._parts(pictures)]).astype(np.float64)

    def classify(self, pictures: Tensor) -> Tensor:
        """The class of each uint8 picture, shape (N,)."""
        return torch.cat([self.net(part).argmax(1) for part in self._parts(pictures)])

    def _parts(self, pictures: Tensor) -> list[Tensor]:
        return [to_float(part) for part in torch.split(pictures, 512)]


def fit_classifier(
    pictures: Pictures, name: str, *, images: int = 60_000, batch: int = 128, seed: int = 0
) -> ClassifierFeatures:
    """Fit the recipe to labelled pictures.

    Args:
        pictures: real training pictures with labels.
        name: of the data, for the extractor's name.
        images: training examples, repeats counted.
        batch: examples a step.
        seed: of weights, order and shifts.
    Raises:
        DataError: pictures without labels.
    """
    if pictures.labels is None:
        raise DataError("a classifier needs labelled pictures")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = SmallClassifier(pictures.shape[0], len(pictures.label_names))
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-3)
        steps = images // batch
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        most = max(1, pictures.shape[1] // 10)
        for step in range(steps):
            numbers = batch_numbers(seed, len(pictures), step * batch, batch)
            shift = [int(number) for number in torch.randint(-most, most + 1, (2,))]
            x = to_float(torch.roll(pictures.read(numbers), shift, (2, 3)))
            loss = F.cross_entropy(net(x), pictures.labels[numbers], label_smoothing=0.1)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            rate.step()
    return ClassifierFeatures(f"small-classifier-64@{name}", net.eval().requires_grad_(False))
