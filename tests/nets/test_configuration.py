"""Configurations: sizes that are none are refused by name, and 8.0 is 8."""

from typing import Any

import pytest
from models import CONFIG

from neblina.core.errors import SettingError
from neblina.nets.autoencoder import AutoencoderKLConfig
from neblina.nets.dit import DiTConfig
from neblina.nets.unet import UNetConfig
from neblina.nets.unet_condition_config import UNetConditionConfig
from neblina.nets.vq_autoencoder import VQConfig

DIT = {"sample_size": 8, "num_embeds_ada_norm": 3}
KINDS: list[tuple[Any, dict[str, Any]]] = [
    (UNetConfig, CONFIG),
    (UNetConditionConfig, {"cross_attention_dim": 8}),
    (DiTConfig, DIT),
    (AutoencoderKLConfig, {}),
    (VQConfig, {}),
]


@pytest.mark.parametrize(("kind", "config"), KINDS, ids=[kind.__name__ for kind, _ in KINDS])
def test_a_size_of_nothing_or_less_is_refused(kind: Any, config: dict[str, Any]) -> None:
    squares = kind is DiTConfig
    for size in (0, -8) if squares else (0, -8, [8, 0], [-8, 8]):
        with pytest.raises(SettingError, match=r"config: sample_size = .* is not 1 or more"):
            kind.from_dict({**config, "sample_size": size})
    for size in (8,) if squares else (8, [8, 16]):
        kind.from_dict({**config, "sample_size": size})


@pytest.mark.parametrize(("kind", "config"), KINDS, ids=[kind.__name__ for kind, _ in KINDS])
def test_a_whole_number_with_a_point_is_one(kind: Any, config: dict[str, Any]) -> None:
    """As some tools write JSON; a fraction, or what is no number at all, is refused."""
    plain = kind.from_dict({**config, "sample_size": 8})
    pointed = kind.from_dict({**config, "sample_size": 8.0, "in_channels": float(plain.in_channels)})
    assert pointed == plain
    assert type(pointed.sample_size) is type(pointed.in_channels) is int
    for size in (8.5, float("nan"), float("inf")):
        with pytest.raises(SettingError, match=r"sample_size = .* is not a whole number"):
            kind.from_dict({**config, "sample_size": size})


def test_whole_numbers_in_lists_are_counted_too_and_numbers_that_may_be_fractions_are_left() -> None:
    config = UNetConfig.from_dict(
        {**CONFIG, "block_out_channels": [16.0, 32.0], "sample_size": [8.0, 8], "freq_shift": 1.0}
    )
    assert config.block_out_channels == (16, 32)
    assert all(type(each) is int for each in (*config.block_out_channels, *config.sample_size))  # type: ignore[misc]
