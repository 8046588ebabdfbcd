"""Networks over tokens as components of a folder: diffusers opens ours and we open theirs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel, Transformer2DModel
from torch import nn

from neblina.bundle.components import Opening, kinds, read_component, write_component
from neblina.bundle.files import read_json, write_json
from neblina.nets.autoregressive import AutoregressiveTransformer
from neblina.nets.dit import DiT
from neblina.nets.learned_null import LearnedNull
from neblina.nets.token_transformer import TokenTransformer

TOKENS: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 1,
    "cross_attention_dim": 6,
    "sample_size": 4,
    "num_vector_embeds": 11,
    "num_embeds_ada_norm": 10,
}
PATCHES: dict[str, Any] = {
    **{name: TOKENS[name] for name in ("num_attention_heads", "attention_head_dim", "num_layers", "sample_size")},
    "num_embeds_ada_norm": 3,
}
OWN: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "SequenceTransformer": (TokenTransformer, {"num_vector_embeds": 5, "sample_size": [2, 3], "convolutional": True}),
    "AutoregressiveTransformer": (AutoregressiveTransformer, {"num_categories": 5, "sample_size": 6}),
    "LearnedClassifierFreeSamplingEmbeddings": (LearnedNull, {"learnable": True, "hidden_size": 3, "length": 2}),
}


def test_a_transformer_over_tokens_goes_to_diffusers_and_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = Transformer2DModel(**TOKENS).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_component(tmp_path / "theirs", Opening())
    assert isinstance(ours, TokenTransformer)
    write_component(ours, tmp_path / "ours")
    back = Transformer2DModel.from_pretrained(tmp_path / "ours").eval()
    x, text = torch.randint(11, (1, 16)), torch.randn(1, 3, 6)
    with torch.no_grad():
        wanted = theirs(x, encoder_hidden_states=text, timestep=torch.tensor(4)).sample
        assert torch.equal(back(x, encoder_hidden_states=text, timestep=torch.tensor(4)).sample, wanted)
        answer = ours(x, torch.tensor([4.0]), text=text).log_softmax(2)
    assert torch.allclose(answer.transpose(1, 2), wanted, atol=1e-5)


def test_a_transformer_of_patches_is_still_opened_by_its_former_name(tmp_path: Path) -> None:
    DiTTransformer2DModel(**PATCHES).save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**config, "_class_name": "Transformer2DModel", "num_vector_embeds": None})
    assert isinstance(read_component(tmp_path, Opening()), DiT)


@pytest.mark.parametrize("name", OWN)
def test_what_is_written_is_what_is_read(name: str, tmp_path: Path) -> None:
    kind, given = OWN[name]
    torch.manual_seed(0)
    module = kinds[name].build(kinds[name].config(given))
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    write_component(module, tmp_path)
    read = read_component(tmp_path, Opening())
    assert isinstance(read, kind)
    assert read_json(tmp_path / "config.json")["_class_name"] == name
    for (key, value), (other, wanted) in zip(read.state_dict().items(), module.state_dict().items(), strict=True):
        assert key == other
        assert torch.equal(value, wanted)
