"""What a `.pth` of VQ-Diffusion's release, its yaml and what lies beside them cannot be: each refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import vq_diffusion_original as original
from oracle import clip
from torch import Tensor
from vq_diffusion_original import diffusion, opened, written

import neblina
from neblina.core.errors import CheckpointError, SettingError


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: Any) -> tuple[Any, Any, Path]:
    place = tmp_path_factory.mktemp("clip")
    return (*clip(place), place)


def test_the_yaml_is_the_one_of_the_name_or_config_or_the_only_one(encoder: Any, tmp_path: Path) -> None:
    place = written(tmp_path, "none")
    for name in ("config.yaml", "imagenet.yaml"):
        (yaml,) = tmp_path.glob("*.yaml")
        yaml.rename(tmp_path / name)
        opened(place, "none", encoder)
    (tmp_path / "other.yaml").write_text("a: 1")
    with pytest.raises(CheckpointError, match=r"imagenet.yaml, other.yaml: put it there as model.yaml"):
        opened(place, "none", encoder)
    (tmp_path / "config.yaml").write_text("- 1")
    with pytest.raises(SettingError, match=r"config.yaml is a list"):
        opened(place, "none", encoder)
    for yaml in tmp_path.glob("*.yaml"):
        yaml.unlink()
    with pytest.raises(CheckpointError, match="there is no yaml"):
        opened(place, "none", encoder)


NET = "diffusion_config.transformer_config"


@pytest.mark.parametrize(
    ("kind", "path", "value", "message"),
    [
        ("none", NET, {"target": "x.GPTLikeTransformer"}, "target = GPTLikeTransformer is not opened"),
        ("none", f"{NET}.timestep_type", "adalayernorm_abs", "'adalayernorm_abs' is not opened; only 'adalayernorm'"),
        ("class", f"{NET}.class_type", "adainsnorm", "class_type = 'adainsnorm' is not opened"),
        ("none", f"{NET}.mlp_hidden_times", 2, "mlp_hidden_times = 2 is not opened"),
        ("text", f"{NET}.mlp_type", "conv_mlp", "mlp_type = 'conv_mlp' is not opened"),
        ("none", f"{NET}.n_head", 3, "n_head = 3 does not divide n_embd = 16"),
        ("none", f"{NET}.content_seq_len", 15, "content_seq_len = 15 is not opened; only 16"),
        ("none", f"{NET}.n_layer", None, r"line \d+: .*n_layer is missing"),
        ("none", f"{NET}.n_layer", "two", "n_layer = 'two' is not a positive whole number"),
        ("none", "diffusion_config.alpha_init_type", "cos", "alpha_init_type = 'cos' is not opened"),
        ("class", "diffusion_config.condition_emb_config.identity", False, "identity = False is not opened"),
        ("text", "diffusion_config.condition_emb_config.normalize", False, "normalize = False is not opened"),
        ("none", "content_codec_config", {"target": "x.TamingGumbelVQVAE"}, "target = TamingGumbelVQVAE is not opened"),
        ("none", "content_codec_config.token_shape", [8, 8], r"token_shape is \(8, 8\).*\(4, 4\)"),
        ("none", "content_codec_config.quantize_number", 9, "quantize_number = 9.*7 classes"),
    ],
)
def test_what_the_yaml_says_and_is_not_opened_is_refused_by_name(
    kind: str, path: str, value: Any, message: str, encoder: Any, tmp_path: Path
) -> None:
    settings = original.settings_of(kind)
    part = settings["model"]
    *outer, last = path.split(".")
    for name in outer:
        part = part["params"][name]
    if isinstance(value, dict):
        part["params"][last] |= value
    else:
        part["params"][last] = value
    place = original.write(tmp_path / "model.pth", {}, settings)
    with pytest.raises(SettingError, match=message):
        opened(place, kind, encoder)


def _lacking(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: state.pop(name)


def _holding(name: str, *shape: int) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: state.update({name: torch.zeros(shape)})


BLOCK, CODES = "transformer.transformer.blocks.1.", "content_codec.enc.quantize."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lacking(BLOCK + "attn.query.weight"), r"transformer\): the weights lack .*blocks.1.attn1.to_q.weight"),
        (_lacking(BLOCK + "ln2.emb.weight"), "lacks the tensor transformer.transformer.blocks.1.ln2.emb.weight"),
        (_lacking("transformer.transformer.content_emb.width_emb.weight"), "lacks the tensor .*width_emb.weight"),
        (_lacking("content_codec.dec.decoder.conv_out.weight"), "lacks the tensor decoder.conv_out.weight"),
        (_holding(BLOCK + "attn.gate.weight", 1), "holds blocks.1.attn.gate.weight|no place for"),
        (_holding(BLOCK + "ln3.weight", 1), "holds blocks.1.ln3.weight"),
        (_holding(BLOCK + "ln2.emb.weight", 9, 16), "knows 9 labels, and its yaml says 5"),
        (_holding("transformer.transformer.content_emb.height_emb.weight", 2, 16), "4 × 4 tokens.*places of 2 × 6"),
        (_holding(CODES + "embed.weight", 1), "a Gumbel codebook"),
        (_holding(CODES + "used", 1), "a remapped codebook"),
    ],
)
def test_tensors_that_do_not_make_the_model_are_refused_by_name(
    change: Callable[[dict[str, Tensor]], Any], message: str, encoder: Any, tmp_path: Path
) -> None:
    state = original.state_of(diffusion("class"), original.codec())
    change(state)
    place = original.write(tmp_path / "model.pth", state, original.settings_of("class"))
    with pytest.raises(CheckpointError, match=message):
        opened(place, "class", encoder)


def test_parts_that_were_made_apart_are_refused_with_both_sizes(encoder: Any, tmp_path: Path) -> None:
    state = original.state_of(diffusion("none"), original.codec(codes=9))
    place = original.write(tmp_path / "model.pth", state, original.settings_of("none"))
    with pytest.raises(CheckpointError, match=r"tokens of 7 classes.*9 codes"):
        opened(place, "none", encoder)
    torch.save({"state_dict": state}, place)
    with pytest.raises(CheckpointError, match="under 'model'"):
        opened(place, "none", encoder)


def test_a_model_of_text_says_which_text_encoder_it_needs(encoder: Any, tmp_path: Path) -> None:
    place = written(tmp_path, "text")
    with pytest.raises(CheckpointError, match=r"pass text_encoder=.*openai/clip-vit-base-patch32"):
        neblina.load_tokens(place)
    clip(tmp_path / "wide", hidden_size=24, num_attention_heads=3)
    with pytest.raises(CheckpointError, match=r"texts 16 wide, and .* writes them 24"):
        neblina.load_tokens(place, text_encoder=tmp_path / "wide")
    (tmp_path / "labelled").mkdir()
    plain = written(tmp_path / "labelled", "class")
    with pytest.raises(SettingError, match="reads none: leave text_encoder out"):
        neblina.load_tokens(plain, text_encoder=encoder[2])
