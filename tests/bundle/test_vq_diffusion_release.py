"""A `.pth` of VQ-Diffusion's release with its yaml: the same logits as the original modules, and what is refused."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import vq_diffusion_original as original
from oracle import clip
from torch import Tensor
from vq_diffusion_original import CLASSES, SIDE, STEPS, TOKENS, WORDS, Diffusion

import neblina
from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.errors import CheckpointError, SettingError
from neblina.nets.learned_null import LearnedNull
from neblina.tasks.token_model import TokenModel

KINDS = ("text", "class", "none")
Settings = dict[str, Any]


@cache
def diffusion(kind: str, labels: int = CLASSES, seed: int = 0) -> Diffusion:
    torch.manual_seed(seed)
    return Diffusion(kind, labels).eval()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: Any) -> tuple[Any, Any, Path]:
    place = tmp_path_factory.mktemp("clip")
    return (*clip(place), place)


def written(folder: Path, kind: str, *, labels: int = CLASSES, **more: Any) -> Path:
    state = original.state_of(diffusion(kind, labels), original.codec())
    return original.write(folder / "model.pth", state, original.settings_of(kind), **more)


def opened(place: Path, kind: str, encoder: tuple[Any, Any, Path]) -> TokenModel:
    text = encoder[2] if kind == "text" else None
    return neblina.load_tokens(place, device="cpu", text_encoder=text)


def some(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens with masks among them, a step of its own for each, and a text."""
    dice = torch.Generator().manual_seed(seed)
    x = torch.randint(0, TOKENS + 1, (3, SIDE**2), generator=dice)
    return x, torch.tensor([0, 4, STEPS - 1]), torch.randn(3, 5, original.WIDTH, generator=dice)


def both(model: TokenModel, theirs: Diffusion, kind: str, label: int = 2) -> tuple[Tensor, Tensor]:
    """Our logits and the original's; of the null for the label that is called so here."""
    x, steps, text = some()
    ours = model.bundle.null_label if label == original_null(theirs) else label
    condition = {"text": {"text": text}, "class": {"labels": torch.full((3,), ours or 0)}, "none": {}}[kind]
    told = {"text": text, "class": torch.full((3,), label), "none": text}[kind]
    with torch.no_grad():
        return model.bundle.net(x, steps.double(), **condition), theirs.transformer(x, told, steps)


def original_null(theirs: Diffusion) -> int:
    rows = getattr(theirs.transformer.blocks[0].ln2, "emb", None)
    return 1000 if rows is None or len(rows.weight) == CLASSES else CLASSES


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_originals_and_stay_so_through_a_folder(kind: str, encoder: Any, tmp_path: Path) -> None:
    model = opened(written(tmp_path, kind), kind, encoder)
    found, wanted = both(model, diffusion(kind), kind)
    assert wanted.std() > 0.3
    assert torch.allclose(found, wanted, atol=1e-4)
    model.save(tmp_path / "folder")
    again = neblina.load_tokens(tmp_path / "folder", device="cpu")
    assert torch.equal(both(again, diffusion(kind), kind)[0], found)
    assert (again.bundle.sampling, again.bundle.null_label) == (model.bundle.sampling, model.bundle.null_label)


@pytest.mark.parametrize("kind", KINDS)
def test_averaged_weights_go_before_the_last_ones(kind: str, encoder: Any, tmp_path: Path) -> None:
    other = diffusion(kind, seed=1)
    model = opened(written(tmp_path, kind, ema=other.state_dict()), kind, encoder)
    found, wanted = both(model, other, kind)
    assert torch.allclose(found, wanted, atol=1e-4)
    if kind == "text":
        assert isinstance(model.bundle.null, LearnedNull)
        assert torch.equal(model.bundle.null.embeddings, other.empty_text_embed.float())


@pytest.mark.parametrize("labels", [CLASSES, CLASSES + 1], ids=["mean", "own row"])
def test_the_null_is_the_mean_of_all_labels_or_the_row_behind_them(labels: int, encoder: Any, tmp_path: Path) -> None:
    theirs = diffusion("class", labels)
    model = opened(written(tmp_path, "class", labels=labels), "class", encoder)
    found, wanted = both(model, theirs, "class", label=original_null(theirs))
    assert torch.allclose(found, wanted, atol=1e-4)
    assert model.bundle.label_names == tuple("01234")
    x, t = some()[0], torch.full((3,), 5 / STEPS, dtype=torch.float64)
    with torch.no_grad():
        belief = model.bundle.denoiser().posterior(x.reshape(3, SIDE, SIDE), t, Condition(torch.full((3,), NULL_LABEL)))
        logits = theirs.transformer(x, torch.full((3,), original_null(theirs)), torch.full((3,), 4))
    assert torch.allclose(belief.log_probs.flatten(1, 2), logits.log_softmax(2), atol=1e-4)


def test_prompts_are_padded_with_token_0_and_a_model_that_learned_no_null_takes_the_empty_text(
    encoder: Any, tmp_path: Path
) -> None:
    theirs, _, _ = encoder
    state = original.state_of(diffusion("text"), original.codec())
    del state["transformer.empty_text_embed"]
    place = original.write(tmp_path / "model.pth", state, original.settings_of("text"))
    model = opened(place, "text", encoder)
    assert model.bundle.text is not None
    words = model.bundle.text.encoders["text_encoder"].tokenizer
    condition = model.bundle.encode(["a red boat"], None)
    unsaid = condition.unsaid
    assert unsaid is not None
    for prompt, vectors in (("a red boat", condition.text), ("", unsaid.text)):
        ids = words.window_of(words.cut(prompt)[0], WORDS)
        assert ids[-1] == 0
        with torch.no_grad():
            wanted = theirs(torch.tensor([ids])).last_hidden_state
        assert vectors is not None
        assert torch.allclose(vectors, wanted / wanted.norm(dim=-1, keepdim=True), atol=1e-5)
    assert model.bundle.sampling.guidance == 1


def test_the_schedule_is_linear_in_the_cumulative_probabilities(encoder: Any, tmp_path: Path) -> None:
    said = opened(written(tmp_path, "none"), "none", encoder).bundle.kernel.config()
    step = torch.arange(STEPS, dtype=torch.float64) / (STEPS - 1)
    assert torch.allclose(torch.tensor(said["alphas"]).double(), 0.99999 + step * (0.000009 - 0.99999), atol=1e-7)
    assert torch.allclose(
        1 - torch.tensor(said["unmasked"]).double(), 0.000009 + step * (0.99999 - 0.000009), atol=1e-7
    )


@pytest.mark.parametrize("averaged", [False, True])
def test_pictures_of_tokens_are_the_codecs(averaged: bool, encoder: Any, tmp_path: Path) -> None:
    frozen = original.codec()
    state = original.state_of(diffusion("none"), frozen)
    if averaged:  # a codebook that moving averages trained is a buffer of another name
        for half in ("enc", "dec"):
            codes = state.pop(f"content_codec.{half}.quantize.embedding.weight")
            state |= {f"content_codec.{half}.quantize.{name}": codes for name in ("embedding", "embedding_avg")}
            state[f"content_codec.{half}.quantize.cluster_size"] = torch.ones(TOKENS)
    place = original.write(tmp_path / "model.pth", state, original.settings_of("none"))
    model = opened(place, "none", encoder)
    tokens = torch.arange(16).reshape(1, 4, 4) % TOKENS
    assert torch.allclose(pictures(model, tokens), theirs_of(frozen, tokens), atol=1e-5)
    assert model.generate(n=1, steps=2).shape == (1, 3, 8, 8)


def test_of_the_codes_that_are_one_token_the_first_is_decoded(encoder: Any, tmp_path: Path) -> None:
    frozen = original.codec(codes=2 * TOKENS)
    token_of = (torch.arange(2 * TOKENS) * 3) % TOKENS
    torch.save(token_of, tmp_path / "codes.pt")
    settings = original.settings_of("class")
    settings["model"]["params"]["content_codec_config"]["params"] |= {
        "quantize_number": TOKENS,
        "mapping_path": "./help_folder/statistics/codes.pt",
    }
    place = original.write(tmp_path / "model.pth", original.state_of(diffusion("class"), frozen), settings)
    tokens = torch.arange(16).reshape(1, 4, 4) % TOKENS
    first = torch.tensor([token_of.tolist().index(token) for token in range(TOKENS)])
    found = pictures(opened(place, "class", encoder), tokens)
    assert torch.allclose(found, theirs_of(frozen, first[tokens]), atol=1e-5)
    (tmp_path / "codes.pt").unlink()
    with pytest.raises(CheckpointError, match=r"codes.pt is missing.*7 tokens.*14 codes"):
        opened(place, "class", encoder)
    torch.save(token_of.clamp(max=5), tmp_path / "codes.pt")
    with pytest.raises(CheckpointError, match="of every token one"):
        opened(place, "class", encoder)


def pictures(model: TokenModel, tokens: Tensor) -> Tensor:
    assert model.bundle.codec is not None
    with torch.no_grad():
        return model.bundle.codec.decode_codes(tokens)


def theirs_of(frozen: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = frozen.decode(frozen.quantize.embedding(tokens).movedim(3, 1), force_not_quantize=True).sample
    return found


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
