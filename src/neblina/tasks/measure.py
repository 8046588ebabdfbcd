"""Two honest numbers about a class-conditional model of small pictures, each against pictures held out of training.

1. Agreement: the share of generated pictures that an independent reader (scikit-learn's support vector classifier on
   pixels, fitted on real training pictures only) reads as the class asked for.
2. Fréchet ratio: the Fréchet distance of generated to held-out pictures, divided by that of real training pictures to
   the same held-out ones, at equal counts, class by class. 1 is what fresh real pictures would get. The features come
   from a small classifier fitted on the *other* training pictures: on pictures it was fitted on, its features are too
   sure of themselves, which would make the real distance large and the ratio flattering.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from neblina.core.errors import DataError
from neblina.data.pictures import Pictures, Subset, to_uint8
from neblina.evaluation.classifier import fit_classifier
from neblina.evaluation.frechet import frechet_distance
from neblina.evaluation.readers import PixelReader
from neblina.tasks.model import Model


@dataclass(frozen=True)
class Measured:
    """The numbers with what they depend on.

    Attributes:
        agreement: share read as the class asked for.
        agreement_real: the same reader's share on the held-out pictures themselves.
        frechet_ratio: generated over real; 1 is ideal.
        frechet_generated, frechet_real: the two distances, means over `repeats` draws.
        extractor: name of the feature space.
        count: pictures a set.
        repeats: extractors fitted and sets drawn.
    """

    agreement: float
    agreement_real: float
    frechet_ratio: float
    frechet_generated: float
    frechet_real: float
    extractor: str
    count: int
    repeats: int

    def to_dict(self) -> dict[str, float | int | str]:
        """Plain values for JSON."""
        return asdict(self)


def measure(
    model: Model,
    training: Pictures,
    held: Pictures,
    *,
    data_name: str,
    repeats: int = 4,
    most: int = 2000,
    generate: Callable[[Tensor, int], Tensor] | None = None,
) -> Measured:
    """Measure a model against pictures held out of its training.

    Args:
        model: class-conditional.
        training: the real pictures it was trained on; reader and features are fitted on these alone.
        held: real pictures it never saw.
        data_name: names the feature space.
        repeats: how many extractors, generated sets and real sets the numbers are means over.
        most: pictures a set at most.
        generate: pictures in [−1, 1] for labels (N,) and a seed; the model's own defaults when left out.
    Raises:
        DataError: pictures without labels, or too few to train on.
    """
    if training.labels is None or held.labels is None:
        raise DataError("measuring needs labelled pictures")
    count = min(len(held), len(training) // 3, most)
    make = generate or (
        lambda labels, seed: model.generate(labels=labels.tolist(), n=len(labels), seed=seed, batch=256)
    )
    reader = PixelReader(training)
    generator = torch.Generator().manual_seed(0)
    agreements, distances, references = [], [], []
    for seed in range(repeats):
        chosen = torch.randperm(len(held), generator=generator)[:count].tolist()
        real, labels = held.read(chosen), held.labels[chosen]
        shuffled = torch.randperm(len(training), generator=generator)
        alike = _alike(training.labels[shuffled], labels)
        others = tuple(shuffled[~alike].tolist())
        extractor = fit_classifier(Subset(training, others), data_name, seed=seed)
        made = to_uint8(make(labels, 1000 + seed))
        agreements.append(reader.agreement(made, labels))
        distances.append(frechet_distance(made, real, extractor).value)
        references.append(frechet_distance(training.read(shuffled[alike].tolist()), real, extractor).value)
    distance, reference = sum(distances) / repeats, sum(references) / repeats
    everything = held.read(range(len(held)))
    return Measured(
        agreement=sum(agreements) / repeats,
        agreement_real=reader.agreement(everything, held.labels),
        frechet_ratio=distance / reference,
        frechet_generated=distance,
        frechet_real=reference,
        extractor=extractor.name,
        count=count,
        repeats=repeats,
    )


def _alike(labels: Tensor, wanted: Tensor) -> Tensor:
    """The first of `labels` that are as many of each class as `wanted` holds: a mask, shape of labels.

    Raises:
        DataError: a class has too few.
    """
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label, count in zip(*torch.unique(wanted, return_counts=True), strict=True):
        places = (labels == label).nonzero()[:, 0]
        if len(places) <= count:
            raise DataError(
                f"training has {len(places)} pictures of class {int(label)}; more than {int(count)} are needed"
            )
        mask[places[:count]] = True
    return mask
