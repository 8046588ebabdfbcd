"""A model of codes reads text through an encoder that is trained already, and so may a denoiser of latents."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learners import KINDS, captioned, codes_codec, gaussian_codec, reader
from test_text_training import archive

import neblina
from neblina.bundle.codec import save_codec, weights_digest
from neblina.bundle.tokens import unit
from neblina.core.errors import SettingError
from neblina.core.plan import Query, evaluate
from neblina.core.posterior import categorical
from neblina.data.tokens import Stacked
from neblina.encoders.prompts import PromptCut
from neblina.guidance.affine import classifier_free
from neblina.tasks.token_model import TokenModel
from neblina.tasks.train import train_recipe
from neblina.training.build_tokens import new_text_token_model, new_token_model, tokens_of
from neblina.training.checkpoint import newest_checkpoint
from neblina.training.encoded import encoded
from neblina.training.frozen import open_reader
from neblina.training.joint import JointNetwork
from neblina.training.recipe import Recipe, build_recipe, load_recipe
from neblina.training.text import TextTrainer
from neblina.training.text_tokens import TextTokenLearner

KIND, OF_LATENTS = KINDS["tokens of text"], KINDS["text by a trained encoder"]


def learner(recipe: Recipe | None = None) -> TextTokenLearner:
    pictures, codec = captioned(), codes_codec()
    rows = tokens_of(pictures, codec)
    return TextTokenLearner(recipe or KIND.recipe(), pictures, rows, codec, reader(), device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """A trained model of codes."""
    return KIND.run(KIND.recipe(images=10 * 8), tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def model(folder: Path) -> TokenModel:
    return neblina.load_tokens(folder, device="cpu")


def test_the_network_is_told_what_the_encoder_says_of_the_captions() -> None:
    one = learner()
    numbers = [3, 1, 4, 1, 5, 9, 2, 6]
    told, drawn = one.condition(numbers, torch.Generator()), one.drawn(numbers)
    assert told.text is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptCut)
        assert told.text.equal(one.bundle.encode(drawn, None, long="cut").text)
    assert torch.allclose(told.text.norm(dim=-1), torch.ones(()))


def test_captions_are_drawn_anew_by_seed_and_step_and_a_share_is_hidden() -> None:
    one, other = (learner(KIND.recipe(label_dropout=0.25)) for _ in range(2))
    numbers = list(range(8))
    assert one.drawn(numbers) == other.drawn(numbers)
    other.step = 1
    assert one.drawn(numbers) != other.drawn(numbers)
    texts = []
    for one.step in range(200):
        texts += one.drawn(numbers)
    share = texts.count("") / len(texts)
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / len(texts)) ** 0.5


@pytest.mark.training
@pytest.mark.parametrize("kind", ["tokens of text", "text by a trained encoder"])
def test_the_encoder_stays_as_it_is_and_no_checkpoint_holds_it(kind: str, tmp_path: Path) -> None:
    place = KINDS[kind].run(KINDS[kind].recipe(images=6 * 8), tmp_path / "run")
    assert open_reader(str(place)).digest == reader().digest
    found, _ = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert not any(name.startswith(("encoder", "text")) for name in found.net)


@pytest.mark.training
def test_it_learns_which_words_go_with_which_codes() -> None:
    """Pictures of an apple are all of one code, of a boat of another: from masks alone, only the words say which."""
    things = torch.arange(30) % 3
    rows = Stacked(things[:, None, None].expand(30, 4, 4), 6)
    tokens = {
        **KIND.content["tokens"],
        "kernel": "absorbing",
        "steps": 1,
        "evaluations": 1,
        "dropout": 0.0,
        "width": 32,
    }
    content = {**KIND.content, "tokens": tokens, "optimizer": {"lr": 1e-2, "warmup": 5}}
    one = TextTokenLearner(
        replace(KIND, content=content).recipe(label_dropout=0.0),
        captioned(),
        rows,
        codes_codec(),
        reader(),
        device="cpu",
    )
    for _ in range(80):
        one.advance()
    x, t = torch.full((3, 4, 4), 6), torch.ones(3, dtype=torch.float64)
    with torch.no_grad():
        believed = one.denoiser.posterior(x, t, one.said([0, 1, 2])).log_probs.exp().mean((1, 2))
    assert float(believed[:, :3].diagonal().mean()) > 0.5, believed  # at most a third without the words


@pytest.mark.training
def test_every_component_opens_in_diffusers_and_their_pipeline_believes_the_same(
    folder: Path, model: TokenModel
) -> None:
    """Diffusers 0.42 opens no folder of this pipeline whole, its own included: it is put together of its parts."""
    from diffusers import Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler, VQModel
    from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import (
        LearnedClassifierFreeSamplingEmbeddings,
    )
    from transformers import CLIPTextModel, CLIPTokenizer

    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "VQDiffusionPipeline"
    theirs = VQDiffusionPipeline(
        vqvae=VQModel.from_pretrained(folder, subfolder="vqvae"),
        text_encoder=CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        transformer=Transformer2DModel.from_pretrained(folder, subfolder="transformer"),
        scheduler=VQDiffusionScheduler.from_pretrained(folder, subfolder="scheduler"),
        learned_classifier_free_sampling_embeddings=LearnedClassifierFreeSamplingEmbeddings.from_pretrained(
            folder, subfolder="learned_classifier_free_sampling_embeddings"
        ),
    )
    x = torch.randint(0, 7, (1, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embeds = theirs._encode_prompt(["red apple"], 1, True)
        logs = theirs.transformer(x.repeat(2, 1), encoder_hidden_states=embeds, timestep=torch.tensor(4)).sample
        away, towards = logs.chunk(2)
        wanted = (away + 2.0 * (towards - away)).log_softmax(1).transpose(1, 2)
        plan = classifier_free(model.bundle.denoiser(), model.bundle.encode(["red apple"], None), 2.0)
        t = torch.full((1,), 0.5, dtype=torch.float64)
        found = categorical(evaluate(plan, Query(x.reshape(1, 4, 4), t))).log_probs.reshape(1, 16, 6)
    assert torch.allclose(found.exp(), wanted.exp(), atol=1e-5)
    assert theirs.scheduler.num_embed == 7


@pytest.mark.training
def test_the_words_matter_and_pictures_come_of_them(model: TokenModel) -> None:
    assert model.generate("red apple", steps=2).shape == (1, 3, 8, 8)
    told = model.bundle.encode(["red apple", "blue cat"], None)
    x, t = torch.full((2, 4, 4), 6), torch.ones(2, dtype=torch.float64)
    with torch.no_grad():
        one, other = model.bundle.denoiser().posterior(x, t, told).log_probs
    assert not torch.allclose(one, other, atol=1e-4)


@pytest.mark.training
def test_a_run_does_not_go_on_with_another_encoder_or_other_captions(tmp_path: Path) -> None:
    one = learner()
    one.advance()
    setting = one.stored().progress["setting"]
    assert setting["the text encoder"] == weights_digest(reader().encoder.net) != reader(seed=1).digest
    other = TextTokenLearner(
        one.recipe, captioned(29), tokens_of(captioned(29), codes_codec()), codes_codec(), reader()
    )
    assert other.stored().progress["setting"]["captions"] != setting["captions"]


def test_a_denoiser_of_latents_is_told_the_vectors_of_a_trained_encoder(tmp_path: Path) -> None:
    recipe, pictures = OF_LATENTS.recipe(), captioned()
    trainer = TextTrainer(
        recipe, encoded(pictures, gaussian_codec(), tmp_path), gaussian_codec(), reader(), device="cpu"
    )
    assert not isinstance(trainer.bundle.net, JointNetwork)
    text = trainer.examples(0).text
    assert text is not None
    assert text.shape == (8, 12, 16)
    assert trainer.empty.equal(reader().read([""])[0])


def staged(tmp_path: Path, source: Path, **tokens: Any) -> Recipe:
    """A recipe whose codec and text encoder are there already."""
    if not (tmp_path / "codec").exists():
        save_codec(codes_codec().net, tmp_path / "codec", {})
    own = {**KIND.content["tokens"], "codec": str(tmp_path / "codec"), **tokens}
    training = {"images": 16, "batch": 8, "sample_every": 1, "checkpoint_every": 4}
    data = {"source": str(source), "holdout": 0.2}
    return build_recipe({**KIND.content, "data": data, "tokens": own, "training": training}, "the test's recipe")


@pytest.mark.training
def test_a_recipe_names_the_model_whose_text_encoder_reads(folder: Path, tmp_path: Path) -> None:
    source = archive(tmp_path / "pictures")
    made = train_recipe(staged(tmp_path, source, text=str(folder)), tmp_path / "run", device="cpu")
    assert open_reader(str(made)).digest == reader().digest
    assert json.loads((made / "neblina.json").read_text())["measured"]["held_out"]


@pytest.mark.training
def test_what_has_no_use_for_a_text_encoder_or_lacks_one_is_refused(folder: Path, tmp_path: Path) -> None:
    source = archive(tmp_path / "pictures")
    with pytest.raises(SettingError, match=r"tokens\.text is for models of codes"):
        train_recipe(staged(tmp_path, source, text=str(folder), of="levels"), tmp_path / "run", device="cpu")
    wordless = KINDS["denoiser"].run(KINDS["denoiser"].recipe(images=8), tmp_path / "wordless")
    with pytest.raises(SettingError, match="reads no text: name a model that does"):
        train_recipe(staged(tmp_path, source, text=str(wordless)), tmp_path / "run", device="cpu")
    recipe = staged(tmp_path, source, text=str(folder))
    styled = recipe.model_copy(update={"data": recipe.data.model_copy(update={"styles": ("mosaic",)})})
    with pytest.raises(SettingError, match=r"data\.styles means nothing"):
        train_recipe(styled, tmp_path / "run", device="cpu")


def test_vectors_of_a_text_are_of_length_1() -> None:
    text = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(unit(text).norm(dim=-1), torch.ones(2, 3))


def test_the_packaged_recipe_holds_together() -> None:
    recipe, of_latents, codec = load_recipe("emoji-vq"), load_recipe("emoji"), load_recipe("emoji-vq-codec")
    assert recipe.tokens.codec_recipe == codec.name
    assert codec.codec.latents == "codes"
    shared = {"source", "resolution", "channels", "holdout", "apart"}
    assert recipe.data.model_dump(include=shared) == of_latents.data.model_dump(include=shared)
    rows = Stacked(torch.zeros(4, 8, 8, dtype=torch.int64), 512)
    bundle = new_text_token_model(recipe, rows, None, reader())
    assert bundle.denoiser().wants.text == 16
    with pytest.raises(SettingError, match=r"tokens\.text"):
        new_token_model(recipe, rows, None)
