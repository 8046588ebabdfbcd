"""A `.pth` of VQ-Diffusion's release with its yaml: the same logits, null, texts and pictures as the original's."""

from pathlib import Path
from typing import Any

import pytest
import torch
import vq_diffusion_original as original
from oracle import clip
from torch import Tensor
from transformers import CLIPConfig, CLIPModel
from vq_diffusion_original import CLASSES, SIDE, STEPS, TOKENS, WORDS, Diffusion, diffusion, opened, written

import neblina
from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.errors import CheckpointError
from neblina.nets.learned_null import LearnedNull
from neblina.tasks.token_model import TokenModel

KINDS = ("text", "class", "none")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: Any) -> tuple[Any, Any, Path]:
    place = tmp_path_factory.mktemp("clip")
    return (*clip(place), place)


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


@pytest.mark.parametrize("has", [False, True], ids=["none in the file", "none by the yaml"])
def test_prompts_are_padded_with_token_0_and_a_model_that_learned_no_null_takes_the_empty_text(
    has: bool, encoder: Any, tmp_path: Path
) -> None:
    theirs, _, _ = encoder
    state = original.state_of(diffusion("text"), original.codec())
    settings = original.settings_of("text")
    if has:  # what is there was never trained
        settings["model"]["params"]["learnable_cf"] = False
    else:
        del state["transformer.empty_text_embed"]
    place = original.write(tmp_path / "model.pth", state, settings)
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


def test_a_whole_clip_is_read_as_its_half_for_texts(encoder: Any, tmp_path: Path) -> None:
    theirs, tokenizer, _ = encoder
    eyes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    texts = {**theirs.config.to_dict(), "projection_dim": 16}
    whole = CLIPModel(CLIPConfig(text_config=texts, vision_config={**eyes, "image_size": 4, "patch_size": 2}))
    whole.text_model.load_state_dict(getattr(theirs, "text_model", theirs).state_dict())
    whole.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    place = written(tmp_path, "text")
    one, other = (opened(place, "text", (None, None, folder)) for folder in (encoder[2], tmp_path / "whole"))
    said, wanted = (model.bundle.encode(["a red boat"], None).text for model in (other, one))
    assert said is not None
    assert wanted is not None
    assert torch.equal(said, wanted)
