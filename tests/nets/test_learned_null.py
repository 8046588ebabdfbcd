"""The learned text that says nothing is filed as diffusers files it."""

from typing import Any

import pytest
import torch
from diffusers.pipelines.deprecated.vq_diffusion import LearnedClassifierFreeSamplingEmbeddings

from neblina.core.errors import SettingError
from neblina.nets.learned_null import LearnedNull, LearnedNullConfig

LEARNED: dict[str, Any] = {"learnable": True, "hidden_size": 6, "length": 4}


@pytest.mark.parametrize("config", [LEARNED, {"learnable": False}, {**LEARNED, "learnable": False}], ids=str)
def test_it_loads_both_ways(config: dict[str, Any]) -> None:
    theirs = LearnedClassifierFreeSamplingEmbeddings(**config)
    torch.nn.init.normal_(theirs.embeddings)
    ours = LearnedNull(LearnedNullConfig.from_dict(dict(theirs.config)))
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }
    ours.load_state_dict(theirs.state_dict(), strict=True)
    back = LearnedClassifierFreeSamplingEmbeddings.from_config(ours.config.to_dict())
    back.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(back.embeddings, theirs.embeddings)
    if config["learnable"]:
        # as their pipeline makes the other branch of a batch
        assert torch.equal(ours(3), theirs.embeddings.unsqueeze(0).repeat(3, 1, 1))


def test_what_was_not_learned_is_not_said() -> None:
    with pytest.raises(SettingError, match="encode an empty prompt"):
        LearnedNull(LearnedNullConfig(learnable=False))(2)


@pytest.mark.parametrize("field", ["hidden_size", "length"])
def test_a_learned_text_has_a_size(field: str) -> None:
    with pytest.raises(SettingError, match=f"{field} = None"):
        LearnedNullConfig.from_dict({name: value for name, value in LEARNED.items() if name != field})
    with pytest.raises(SettingError, match=f"{field} = 0"):
        LearnedNullConfig(**{**LEARNED, field: 0})
    with pytest.raises(SettingError, match="learnable is missing"):
        LearnedNullConfig.from_dict({})
