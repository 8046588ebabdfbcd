"""The one Fréchet distance, against closed forms."""

import numpy as np
import pytest
import scipy.linalg
import torch

from neblina.core.errors import DataError
from neblina.data.pictures import InMemory
from neblina.data.sources import open_pictures
from neblina.evaluation.classifier import fit_classifier
from neblina.evaluation.frechet import Features, frechet, frechet_distance
from neblina.evaluation.readers import PixelReader
from neblina.tasks.measure import measure
from neblina.tasks.model import Model


def features(seed: int, count: int = 400, width: int = 6) -> Features:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, width)) @ generator.standard_normal((width, width)) + seed


def test_it_equals_the_textbook_form_with_the_matrix_square_root() -> None:
    one, other = features(1), features(2)
    c_1, c_2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = scipy.linalg.sqrtm(c_1 @ c_2).real
    textbook = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(c_1 + c_2 - 2 * root)
    assert frechet(one, other) == pytest.approx(textbook, rel=1e-9)


def test_it_is_zero_for_the_same_set_symmetric_and_the_squared_shift_for_a_shift() -> None:
    one, other = features(1), features(2)
    assert frechet(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet(one, other) == pytest.approx(frechet(other, one))
    shift = np.array([1.0, -2.0, 0.0, 0.5, 0.0, 0.0])
    assert frechet(one, one + shift) == pytest.approx((shift**2).sum(), rel=1e-6)
    assert frechet(one, (one - one.mean(0)) * 2 + one.mean(0)) == pytest.approx(np.trace(np.cov(one, rowvar=False)))


def test_it_is_finite_for_fewer_pictures_than_features() -> None:
    assert np.isfinite(frechet(features(1, count=4), features(2, count=4)))


class Pixels:
    name = "pixels"

    def __call__(self, pictures: torch.Tensor) -> Features:
        return pictures.flatten(1).numpy().astype(np.float64)


def test_what_would_make_a_score_meaningless_is_refused() -> None:
    pictures = torch.randint(0, 256, (10, 1, 2, 2), dtype=torch.uint8)
    assert frechet_distance(pictures, pictures, Pixels()).extractor == "pixels"
    with pytest.raises(DataError, match="uint8"):
        frechet_distance(pictures.float(), pictures, Pixels())
    with pytest.raises(DataError, match="equally many pictures, not of 10 and 9"):
        frechet_distance(pictures, pictures[:9], Pixels())
    with pytest.raises(DataError, match="at least two"):
        frechet_distance(pictures[:1], pictures[:1], Pixels())


@pytest.mark.slow
@pytest.mark.training
def test_the_measured_numbers_know_good_from_bad() -> None:
    """Real held-out digits score like real ones; noise, and digits of the wrong class, do not."""
    digits, _ = open_pictures("digits")
    everything = digits.read(range(len(digits)))
    assert digits.labels is not None
    parts = [
        InMemory(everything[start::3], digits.labels[start::3], digits.label_names) for start in range(3)
    ]  # training, held out, and "generated" by copying real digits of the class asked for

    def real(labels: torch.Tensor, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        third = parts[2].labels
        assert third is not None
        rows = [
            int((third == one).nonzero()[:, 0][torch.randint((third == one).sum(), (1,), generator=generator)])
            for one in labels
        ]
        return parts[2].read(rows).float() / 127.5 - 1

    def shifted(labels: torch.Tensor, seed: int) -> torch.Tensor:
        return real((labels + 1) % 10, seed)

    def noise(labels: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(seed))

    nobody: Model = None  # type: ignore[assignment]
    scores = {
        how.__name__: measure(nobody, parts[0], parts[1], data_name="digits", repeats=2, most=150, generate=how)
        for how in (real, shifted, noise)
    }
    assert scores["real"].agreement > 0.95
    assert scores["real"].frechet_ratio < 2.0
    assert scores["shifted"].agreement < 0.1
    assert scores["shifted"].frechet_ratio < 3.0  # the set as a whole is still real digits
    assert scores["noise"].agreement < 0.4
    assert scores["noise"].frechet_ratio > 5


@pytest.mark.training
def test_the_classifier_and_the_reader_read_digits_they_never_saw() -> None:
    digits, _ = open_pictures("digits")
    everything = digits.read(range(len(digits)))
    assert digits.labels is not None
    training = InMemory(everything[:1400], digits.labels[:1400], digits.label_names)
    extractor = fit_classifier(training, "digits", images=20_000)
    assert float((extractor.classify(everything[1400:]) == digits.labels[1400:]).double().mean()) > 0.9
    assert extractor(everything[:5]).shape == (5, 64)
    assert PixelReader(training).agreement(everything[1400:], digits.labels[1400:]) > 0.9
    again = fit_classifier(training, "digits", images=20_000)
    assert np.array_equal(again(everything[:5]), extractor(everything[:5]))
