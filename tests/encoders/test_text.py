"""Text encoders on disk: read, written back, and refused where they do not fit."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import PROMPTS, bert_tokenizer, clip, clip_tokenizer, loud, opened
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from neblina.core.errors import CheckpointError
from neblina.encoders.ldm_bert import LDMBertConfig
from neblina.encoders.text import TextEncoder, make_text_encoder


def tokens(encoder: TextEncoder) -> torch.Tensor:
    return torch.tensor([encoder.tokenizer.window_of(encoder.tokenizer.cut(one)[0], 77) for one in PROMPTS])


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    place = folder / "text_encoder" / "model.safetensors"
    save_file(change(load_file(place)), place, metadata={"format": "pt"})


def configure(folder: Path, **changes: Any) -> None:
    place = folder / "text_encoder" / "config.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **changes}))


# -- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projected", [False, True])
def test_what_is_saved_transformers_opens_and_reads_the_same(tmp_path: Path, projected: bool) -> None:
    theirs, _ = clip(tmp_path / "theirs", projected=projected)
    ours = opened(tmp_path / "theirs")
    ours.save(tmp_path / "ours/text_encoder", tmp_path / "ours/tokenizer")
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    back, told = kind.from_pretrained(tmp_path / "ours/text_encoder", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in back.state_dict().items())
    cut = CLIPTokenizer.from_pretrained(tmp_path / "ours/tokenizer")
    padded = cut(PROMPTS, padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert torch.equal(padded, tokens(ours))
    with torch.no_grad():
        assert (back(padded).last_hidden_state - ours.read(padded).last).abs().max() <= 1e-5
    again = opened(tmp_path / "ours")
    assert torch.equal(again.read(padded).last, ours.read(padded).last)


def test_what_is_saved_carries_the_prefix_that_older_versions_read(tmp_path: Path) -> None:
    clip(tmp_path, projected=True)
    opened(tmp_path).save(tmp_path / "ours", tmp_path / "tokenizer")
    names = set(load_file(tmp_path / "ours" / "model.safetensors"))
    assert {name for name in names if not name.startswith("text_model.")} == {"text_projection.weight"}
    clip(tmp_path / "plain")
    opened(tmp_path / "plain").save(tmp_path / "ours", tmp_path / "tokenizer")
    assert all(name.startswith("text_model.") for name in load_file(tmp_path / "ours" / "model.safetensors"))


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_whatever_it_is_stored_in_transformers_opens_it_in_float32_as_diffusers_does_the_rest(
    tmp_path: Path, key: str, stored: torch.dtype
) -> None:
    clip(tmp_path)
    place = tmp_path / "text_encoder/config.json"
    config = {name: value for name, value in json.loads(place.read_text()).items() if name != "dtype"}
    place.write_text(json.dumps({**config, key: "float16"}))
    opened(tmp_path, dtype=stored).save(tmp_path / "ours", tmp_path / "tokenizer")
    assert CLIPTextModel.from_pretrained(tmp_path / "ours").dtype == torch.float32


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("prefix", [False, True])
def test_names_with_and_without_the_prefix_are_read(tmp_path: Path, projected: bool, prefix: bool) -> None:
    theirs, _ = clip(tmp_path, projected=projected)
    expected = opened(tmp_path)

    def renamed(name: str) -> str:
        plain = name.removeprefix("text_model.")
        return "text_model." + plain if prefix and not plain.startswith("text_projection") else plain

    positions = {renamed("embeddings.position_ids"): torch.arange(77)[None]}  # older files hold them
    rewrite(tmp_path, lambda state: {renamed(name): value for name, value in state.items()} | positions)
    assert torch.equal(opened(tmp_path).read(tokens(expected)).last, expected.read(tokens(expected)).last)
    with torch.no_grad():
        assert (theirs(tokens(expected)).last_hidden_state - expected.read(tokens(expected)).last).abs().max() <= 1e-5


def test_shards_and_tensors_only_bin_files_are_read(tmp_path: Path) -> None:
    model, _ = clip(tmp_path)
    whole = opened(tmp_path)
    (tmp_path / "text_encoder/model.safetensors").unlink()
    model.save_pretrained(tmp_path / "text_encoder", max_shard_size="20KB")
    assert len(list((tmp_path / "text_encoder").glob("*.safetensors"))) > 1
    assert torch.equal(opened(tmp_path).read(tokens(whole)).last, whole.read(tokens(whole)).last)
    for file in (tmp_path / "text_encoder").glob("model*"):
        file.unlink()
    torch.save(model.state_dict(), tmp_path / "text_encoder/pytorch_model.bin")
    assert torch.equal(opened(tmp_path).read(tokens(whole)).last, whole.read(tokens(whole)).last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_come_in_the_dtype_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    clip(tmp_path)
    encoder = opened(tmp_path, dtype=dtype)
    assert {value.dtype for value in encoder.net.parameters()} == {dtype}
    reading = encoder.read(tokens(encoder))
    assert reading.last.dtype == dtype
    exact = opened(tmp_path).read(tokens(encoder)).last
    assert (reading.last.float() - exact).abs().max() <= 0.1 * exact.abs().max()


def test_the_window_is_the_smaller_of_the_tokenizers_and_the_networks(tmp_path: Path) -> None:
    clip(tmp_path, max_position_embeddings=20)
    assert opened(tmp_path).window == 20
    clip(tmp_path, max_position_embeddings=90)
    assert opened(tmp_path).window == 77


# -- the configuration -----------------------------------------------------------------------------------------------

HONOURED: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 20,
    "projection_dim": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 80,
    "hidden_act": "gelu",
    "layer_norm_eps": 0.1,
    "eos_token_id": 2,
    "vocab_size": 600,
}
IDLE: dict[str, Any] = {
    "attention_dropout": 0.5,
    "initializer_range": 3.0,
    "initializer_factor": 3.0,
    "pad_token_id": 3,
    "bos_token_id": 3,
    "output_hidden_states": True,
    "return_dict": False,
    "dtype": "float16",
    "chunk_size_feed_forward": 2,
    "is_encoder_decoder": False,
    "problem_type": None,
    "id2label": {"0": "a"},
    "label2id": {"a": 0},
    "transformers_version": "4.0.0",
    "architectures": ["CLIPTextModelWithProjection"],
}


def test_every_field_of_the_configuration_is_told_of_here() -> None:
    assert set(inspect.signature(CLIPTextConfig).parameters) - {"kwargs"} == set(HONOURED) | set(IDLE)


@pytest.mark.parametrize("field", HONOURED)
def test_every_field_of_the_configuration_is_honoured(tmp_path: Path, field: str) -> None:
    theirs, _ = clip(tmp_path, projected=True, **{field: HONOURED[field]})
    ours = opened(tmp_path)
    with torch.no_grad():
        expected = theirs(tokens(ours), output_hidden_states=True)
    reading = ours.read(tokens(ours))
    assert reading.pooled is not None
    assert (reading.pooled - expected.text_embeds).abs().max() <= 1e-5
    assert (reading.last - expected.last_hidden_state).abs().max() <= 1e-5
    assert len(reading.states) == len(expected.hidden_states)
    for mine, other in zip(reading.states, expected.hidden_states, strict=True):
        assert (mine - other).abs().max() <= 1e-5


@pytest.mark.parametrize("field", IDLE)
def test_the_other_fields_change_nothing(tmp_path: Path, field: str) -> None:
    theirs, _ = clip(tmp_path, projected=True)
    configure(tmp_path, **{field: IDLE[field]})
    ours = opened(tmp_path)
    with torch.no_grad():
        expected = theirs(tokens(ours)).text_embeds
    found = ours.read(tokens(ours)).pooled
    assert found is not None
    assert (found - expected).abs().max() <= 1e-5


# -- what is refused -------------------------------------------------------------------------------------------------


def without(name: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda state: {key: value for key, value in state.items() if name not in key}


def spoilt(value: float) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda state: state | {"final_layer_norm.bias": torch.full_like(state["final_layer_norm.bias"], value)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("layers.1.mlp.fc1.bias"), "lack encoder.layers.1.mlp.fc1.bias"),
        (lambda state: state | {"extra.weight": torch.zeros(2)}, "hold extra.weight"),
        (
            lambda state: state | {"text_model.final_layer_norm.bias": state["final_layer_norm.bias"] + 1},
            "final_layer_norm.bias twice",
        ),
        (lambda state: state | {"final_layer_norm.bias": torch.zeros(3)}, r"final_layer_norm.bias has shape \(3,\)"),
        (spoilt(float("nan")), "final_layer_norm.bias holds values that are not finite"),
        (spoilt(float("inf")), "final_layer_norm.bias holds values that are not finite"),
        (
            lambda state: state | {"final_layer_norm.bias": state["final_layer_norm.bias"].to(torch.int8)},
            "final_layer_norm.bias is int8; quantised weights are not read here",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, change: Any, says: str) -> None:
    clip(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(CheckpointError, match=says) as refused:
        opened(tmp_path)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_siez": 16}, "Did you mean hidden_size"),
        ({"use_attention_mask": True}, "use_attention_mask"),
        ({"architectures": ["CLIPTextModell"]}, "Did you mean CLIPTextModel"),
        ({"architectures": None}, "does not say"),
        ({"hidden_size": 18, "num_attention_heads": 4}, "hidden size|hidden_size"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hidden_act": "gleu"}, "Did you mean gelu"),
        ({"num_hidden_layers": 4}, "lack encoder.layers.3"),
        ({"num_hidden_layers": 2}, "hold encoder.layers.2"),
        ({"eos_token_id": [1, 2]}, "a list"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    clip(tmp_path)
    configure(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=says):
        opened(tmp_path)


def test_a_tokenizer_with_more_tokens_than_the_network_has_vectors_is_refused(tmp_path: Path) -> None:
    clip(tmp_path, vocab_size=300)
    with pytest.raises(CheckpointError, match="vectors for 300 tokens and its tokenizer knows"):
        opened(tmp_path)


def test_an_end_that_the_tokenizer_does_not_write_is_refused_where_the_whole_text_is_read_there(tmp_path: Path) -> None:
    clip(tmp_path, projected=True, eos_token_id=7)
    with pytest.raises(CheckpointError, match="eos_token_id"):
        opened(tmp_path)
    clip(tmp_path, eos_token_id=7)
    opened(tmp_path)


def test_values_that_the_dtype_cannot_hold_are_refused(tmp_path: Path) -> None:
    clip(tmp_path)
    rewrite(tmp_path, spoilt(1e6))
    opened(tmp_path)
    with pytest.raises(CheckpointError, match=r"beyond the largest number of torch\.float16"):
        opened(tmp_path, dtype=torch.float16)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", b"{", "damaged"),
        ("config.json", b"[]", "holds a list"),
        ("model.safetensors", None, "holds no weights"),
        ("model.safetensors", b"x" * 100, "damaged"),
    ],
)
def test_files_that_are_missing_or_damaged_are_refused(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    clip(tmp_path)
    place = tmp_path / "text_encoder" / name
    place.unlink() if content is None else place.write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        opened(tmp_path)


def test_a_pickle_that_is_more_than_tensors_is_refused(tmp_path: Path) -> None:
    clip(tmp_path)
    (tmp_path / "text_encoder/model.safetensors").unlink()
    torch.save({"a": Path("x")}, tmp_path / "text_encoder/pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        opened(tmp_path)


# -- the BERT-like one -----------------------------------------------------------------------------------------------

SMALL = {"vocab_size": 40, "d_model": 16, "encoder_layers": 2, "encoder_ffn_dim": 24, "encoder_attention_heads": 3}
BERT_HONOURED: dict[str, Any] = {
    "vocab_size": 50,
    "max_position_embeddings": 80,
    "encoder_layers": 1,
    "encoder_ffn_dim": 20,
    "encoder_attention_heads": 2,
    "head_dim": 6,
    "activation_function": "relu",
    "d_model": 12,
}
BERT_IDLE: dict[str, Any] = {
    "encoder_layerdrop": 0.5,
    "dropout": 0.5,
    "attention_dropout": 0.5,
    "activation_dropout": 0.5,
    "init_std": 0.3,  # of the oracle's own beginning: larger weights only make more of rounding
    "classifier_dropout": 0.5,
    "use_cache": False,
    "pad_token_id": 3,
}


def ldm_bert(place: Path, **changes: Any) -> Any:
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    model = loud(lambda: LDMBertModel(LDMBertConfig(**{**SMALL, "head_dim": 4, **changes})), 0)
    model.save_pretrained(place / "text_encoder")
    bert_tokenizer(place / "tokenizer", model_max_length=512)
    return model


def test_every_field_of_ldm_berts_configuration_is_told_of_here() -> None:
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig as Theirs

    told = set(BERT_HONOURED) | set(BERT_IDLE) | {"scale_embedding"}
    assert set(inspect.signature(Theirs).parameters) - {"kwargs"} == told
    assert set(inspect.signature(LDMBertConfig).parameters) == told


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *BERT_HONOURED.items(),
        *BERT_IDLE.items(),
        *(("activation_function", name) for name in ("gelu_new", "quick_gelu", "silu", "swish", "tanh")),
    ],
)
def test_every_field_of_ldm_berts_configuration_is_honoured(tmp_path: Path, field: str, value: Any) -> None:
    theirs = ldm_bert(tmp_path, **{field: value})
    ours = opened(tmp_path)
    with torch.no_grad():
        expected = theirs(tokens(ours), output_hidden_states=True)
    reading = ours.read(tokens(ours))
    assert (reading.last - expected[0]).abs().max() <= 1e-5
    for mine, other in zip(reading.states[:-1], expected.hidden_states[: len(reading.states) - 1], strict=True):
        assert (mine - other).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scale_embedding": True}, "scale_embedding"),
        ({"activation_function": "gelo"}, "Did you mean gelu"),
        ({"encoder_layer": 2}, "Did you mean encoder_layers"),
        ({"num_hidden_layers": 9}, "the same number"),
    ],
)
def test_a_ldm_bert_that_cannot_be_honoured_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    ldm_bert(tmp_path)
    configure(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=says):
        opened(tmp_path)


def test_a_saved_ldm_bert_is_the_same_to_diffusers(tmp_path: Path) -> None:
    theirs = ldm_bert(tmp_path / "theirs")
    ours = opened(tmp_path / "theirs")
    ours.save(tmp_path / "ours", tmp_path / "tokenizer")
    back, told = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    with torch.no_grad():
        assert (back(tokens(ours))[0] - ours.read(tokens(ours)).last).abs().max() <= 1e-5


# -- what is made of parts, and what is imported ---------------------------------------------------------------------


def test_an_encoder_is_made_of_its_parts(tmp_path: Path) -> None:
    model, _ = clip(tmp_path)
    loaded = opened(tmp_path)
    made = make_text_encoder(json.loads(model.config.to_json_string()), model.state_dict(), loaded.tokenizer)
    assert torch.equal(made.read(tokens(made)).last, loaded.read(tokens(made)).last)
    assert not made.net.training
    assert not any(value.requires_grad for value in made.net.parameters())


def test_nothing_heavy_is_imported_before_it_is_used(tmp_path: Path) -> None:
    clip_tokenizer(tmp_path)
    code = (
        "import sys; import neblina.encoders.families; from pathlib import Path;"
        "assert 'tokenizers' not in sys.modules;"
        "from neblina.encoders.tokens import load_tokenizer;"
        f"load_tokenizer(Path({str(tmp_path)!r}));"
        "assert 'transformers' not in sys.modules and 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_encoder_of_latent_diffusion_is_built_without_torchs_compiler(tmp_path: Path) -> None:
    ldm_bert(tmp_path)
    code = (
        "import sys; from pathlib import Path; from neblina.bundle.components import Opening;"
        "from neblina.bundle.texts import read_text_encoder; from neblina.encoders.tokens import load_tokenizer;"
        f"place = Path({str(tmp_path)!r});"
        "read_text_encoder(place / 'text_encoder', load_tokenizer(place / 'tokenizer'), Opening());"
        "assert 'transformers' not in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
