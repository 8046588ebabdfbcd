"""Codecs: they learn, and diffusers opens what comes out."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from neblina.bundle.codec import load_codec, load_codec_bundle, wrapped
from neblina.codecs.kl import KLCodec
from neblina.codecs.vq import VQCodec
from neblina.core.errors import CheckpointError, DivergenceError, SettingError
from neblina.data.holding import split
from neblina.data.pictures import InMemory, Subset, to_float
from neblina.data.sheets import to_image
from neblina.evaluation.codec import measure_codec
from neblina.objectives.adversarial import adaptive_weight
from neblina.tasks.train import codec_figures, train_recipe
from neblina.training.codec import CodecLearner, train_codec
from neblina.training.journal import read_log
from neblina.training.recipe import Recipe, build_recipe, load_recipe, packaged

GAN = {"layers": 1, "channels": 4, "start": 3}


def tiny(
    discriminator: dict[str, Any] | None = None,
    codec: dict[str, Any] | None = None,
    reconstruction: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    **training: Any,
) -> Recipe:
    return build_recipe(
        {
            "kind": "codec",
            "data": {"flip": True},
            "network": {"channels": [8, 8], "groups": 4, "blocks": 1, "attention": 0, **(network or {})},
            "codec": {"entries": 8, "revive": 2, **(codec or {})},
            "reconstruction": reconstruction or {},
            "discriminator": discriminator or {},
            "optimizer": {"warmup": 5, "lr": 3e-3, "decay": "cosine"},
            "training": {
                "images": 6 * 4,
                "batch": 4,
                "log_every": 5,
                "sample_every": 0,
                "checkpoint_every": 4,
                **training,
            },
        },
        "the test's recipe",
    )


KL = {"latents": "gaussian", "channels": 3, "entries": 512, "revive": 100}


def pictures(count: int = 20, side: int = 16, channels: int = 1) -> InMemory:
    """Bars of all levels and places."""
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(0, side, (count, channels, 2, 1), generator=generator)
    inside = (torch.arange(side) - ends[:, :, 0]).abs() < 4
    return InMemory((inside[:, :, None, :] * 200).expand(-1, -1, side, -1).to(torch.uint8).contiguous())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A codec's folder of each kind of latents."""
    place = tmp_path_factory.mktemp("codecs")
    kinds = {"codes": tiny(), "gaussian": tiny(codec=KL)}
    return {kind: train_codec(recipe, pictures(), place / kind, device="cpu") for kind, recipe in kinds.items()}


def test_a_trained_codebook_opens_in_diffusers_and_makes_the_same_pictures(trained: dict[str, Path]) -> None:
    from diffusers import VQModel

    folder = trained["codes"]
    theirs = VQModel.from_pretrained(str(folder), subfolder="vqvae").eval()
    ours = load_codec(folder)
    assert isinstance(ours, VQCodec)
    x = to_float(pictures(5).pixels)
    with torch.no_grad():
        latents = theirs.encode(x).latents
        assert torch.allclose(ours.encode(x), latents * theirs.config.scaling_factor, atol=1e-5)
        assert torch.allclose(ours.decode(ours.encode(x)), theirs.decode(latents).sample, atol=1e-5)
        assert torch.allclose(ours.decode_codes(ours.codes(x)), theirs.decode(latents).sample, atol=1e-5)


def test_trained_gaussian_latents_open_in_diffusers_and_make_the_same_pictures(trained: dict[str, Path]) -> None:
    from diffusers import AutoencoderKL

    folder = trained["gaussian"]
    theirs = AutoencoderKL.from_pretrained(str(folder), subfolder="vae").eval()
    ours = load_codec(folder)
    assert isinstance(ours, KLCodec)
    x = to_float(pictures(5).pixels)
    with torch.no_grad():
        latents = theirs.encode(x).latent_dist.mode()
        assert torch.allclose(ours.encode(x), latents * theirs.config.scaling_factor, atol=1e-5)
        assert torch.allclose(ours.decode(ours.encode(x)), theirs.decode(latents).sample, atol=1e-5)


@pytest.mark.parametrize("kind", ["codes", "gaussian"])
def test_the_latents_that_will_be_diffused_have_a_standard_deviation_of_one(
    kind: str, trained: dict[str, Path]
) -> None:
    opened = load_codec_bundle(trained[kind])
    noise = torch.randn(20, opened.codec.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = opened.codec.encode(to_float(pictures().pixels), noise)
    assert float(latents.std()) == pytest.approx(1, rel=0.05 if kind == "gaussian" else 1e-3)
    config = opened.codec.net.config  # type: ignore[attr-defined]
    assert config.scaling_factor == pytest.approx(1 / opened.card["measured"]["latent_std"])


def test_the_card_says_what_it_was_trained_on_and_how_held_out_pictures_are_kept(tmp_path: Path) -> None:
    training, held = split(pictures(), 0.25, 0)
    folder = train_codec(tiny(), training, tmp_path, held=held, device="cpu")
    opened = load_codec_bundle(folder)
    measured = opened.card["measured"]
    again = measure_codec(opened.codec, held)
    assert opened.card["trained_on"]["count"] == 15
    assert opened.card["recipe"]["codec"]["entries"] == 8
    assert (measured["held_out"], measured["pictures"]) == (True, 5)
    assert [measured[name] for name in ("psnr", "ssim", "perplexity")] == pytest.approx(
        [again.psnr, again.ssim, again.perplexity], rel=1e-6
    )
    assert f"5 held-out pictures: PSNR {again.psnr:.2f} dB" in codec_figures(folder)
    assert "codes used" in codec_figures(folder)


def test_the_log_tells_of_every_term_and_of_the_codebook(tmp_path: Path) -> None:
    seen: list[str] = []
    train_codec(tiny(GAN), pictures(), tmp_path, device="cpu", on_report=lambda report: seen.append(report.words))
    records = read_log(tmp_path / "log.jsonl")
    assert [record["step"] for record in records] == [5, 6]
    for record in records:
        assert record["loss"] == pytest.approx(record["reconstruction"] + 0.25 * record["commitment"])
        assert 0 < record["codebook_usage"] <= 1
        assert 1 <= record["perplexity"] <= 8 * record["codebook_usage"] + 1e-9
        assert {"fooling", "adaptive_weight", "discriminator", "lr"} <= record.keys()
    assert [line for line in seen if line] == [
        f"codes used {record['codebook_usage']:.0%}, perplexity {record['perplexity']:.1f}" for record in records
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_features_are_compared_too_and_another_extractor_is_another_run(tmp_path: Path) -> None:
    place = tmp_path / "features.pt"
    recipe = tiny(reconstruction={"loss": "l2", "perceptual": str(place), "perceptual_weight": 0.5}, images=5 * 4)
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = torch.jit.trace(torch.nn.Conv2d(1, 3, 3), torch.zeros(2, 1, 16, 16))  # type: ignore[no-untyped-call]
        torch.jit.save(net, place)  # type: ignore[no-untyped-call]
        if seed:
            with pytest.raises(SettingError, match="differs in extractor: "):
                train_codec(recipe, pictures(), tmp_path / "run", device="cpu", resume=True)
            continue
        train_codec(recipe, pictures(), tmp_path / "run", device="cpu")
        (record,) = read_log(tmp_path / "run" / "log.jsonl")
        expected = record["reconstruction"] + 0.5 * record["perceptual"] + 0.25 * record["commitment"]
        assert record["perceptual"] > 0
        assert record["loss"] == pytest.approx(expected)


def test_a_rival_waits_for_its_step() -> None:
    learner = CodecLearner(tiny(GAN), pictures(), Subset(pictures(), ()), device="cpu")
    assert learner.rival is not None
    before = [parameter.clone() for parameter in learner.rival.parameters()]
    for _ in range(3):
        learner.advance()
    assert all(torch.equal(*pair) for pair in zip(before, learner.rival.parameters(), strict=True))
    assert "fooling" not in learner.figures()
    learner.advance()
    assert not any(torch.equal(*pair) for pair in zip(before, learner.rival.parameters(), strict=True))
    assert "fooling" in learner.figures()


def test_fooling_pulls_at_the_last_layer_as_the_reconstruction_does_times_its_weight(monkeypatch: Any) -> None:
    """The gradient that arrives is ∇L + w λ ∇L_GAN, of which the second half is w times as long as ∇L_rec."""
    learner = CodecLearner(tiny({**GAN, "start": 0, "weight": 0.5}), pictures(), Subset(pictures(), ()), device="cpu")
    last = learner.net.decoder.conv_out.weight
    lengths: dict[str, Tensor] = {}

    def watched(reconstruction: Tensor, fooling: Tensor, layer: Tensor) -> Tensor:
        weight = adaptive_weight(reconstruction, fooling, layer)
        (lengths["rec"],) = torch.autograd.grad(reconstruction, layer, retain_graph=True)
        (lengths["gan"],) = torch.autograd.grad(fooling, layer, retain_graph=True)
        assert layer is last
        return weight

    monkeypatch.setattr("neblina.training.codec.adaptive_weight", watched)
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", lambda *given: torch.ones(()))
    learner.advance()
    assert last.grad is not None
    pulled = last.grad - lengths["rec"]
    assert float(pulled.norm() / lengths["rec"].norm()) == pytest.approx(0.5, rel=1e-3)
    assert float(torch.cosine_similarity(pulled.flatten(), lengths["gan"].flatten(), dim=0)) == pytest.approx(
        1, abs=1e-4
    )


@pytest.mark.training
@pytest.mark.parametrize("codec", [{"entries": 16}, KL], ids=["codes", "gaussian"])
def test_it_learns(codec: dict[str, Any]) -> None:
    """Bars are kept better than their mean level keeps them, by some decibel."""
    some = pictures(side=8)
    learner = CodecLearner(tiny(codec=codec, images=45 * 4, ema=0.8), some, Subset(some, ()), device="cpu")
    while learner.step < 45:
        learner.advance()
    flat = 20 * math.log10(255 / float(some.pixels.double().std()))
    kept = measure_codec(wrapped(learner.ema.net), some).psnr
    assert kept > flat + 3


def test_half_precision_trains_too(tmp_path: Path) -> None:
    folder = train_codec(tiny(GAN, precision="bf16"), pictures(), tmp_path, device="cpu")
    assert all(tensor.dtype == torch.float32 for tensor in load_codec(folder).net.state_dict().values())  # type: ignore[attr-defined]


def test_a_sample_sheet_shows_pictures_above_what_becomes_of_them(tmp_path: Path) -> None:
    recipe = tiny(sample_every=6)
    train_codec(recipe, pictures(), tmp_path, device="cpu")
    learner = CodecLearner(recipe, pictures(), Subset(pictures(), ()), device="cpu")
    rows = torch.split(learner.preview(), learner.columns)
    assert len(rows) == 4
    assert torch.equal(torch.cat(rows[::2]), pictures().pixels)
    assert not torch.equal(torch.cat(rows[1::2]), pictures().pixels)
    assert [file.name for file in (tmp_path / "samples").iterdir()] == ["step-00000006.png"]


def test_the_command_trains_on_a_folder_and_measures_what_was_held_out(tmp_path: Path) -> None:
    (tmp_path / "bars").mkdir()
    for number, picture in enumerate(pictures().pixels):
        to_image(picture).save(tmp_path / "bars" / f"{number}.png")
    recipe = tiny()
    recipe = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"source": str(tmp_path / "bars"), "holdout": 0.2, "channels": 1})
        }
    )
    folder = train_recipe(recipe, tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / "loss.png").exists()
    assert json.loads((folder / "neblina.json").read_text())["measured"]["pictures"] == 4
    assert Image.open(tmp_path / "bars" / "0.png").size == (16, 16)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (tiny(codec={"entries": 1}), r"codec\.entries = 1: a codebook of one code says nothing"),
        (tiny(network={"channels": [8] * 6}), r"6 levels, so a latent cell is 32 pixels wide, and pictures of 16x16"),
        (tiny({"layers": 2}), r"layers = 2 looks at patches of 34 pixels, .* 16x16 do not have: set it to 1"),
        (tiny({"layers": 1, "start": 6}), r"start = 6 never comes in a run of 6 steps"),
        (tiny(reconstruction={"perceptual": "nowhere.pt"}), r"nowhere\.pt does not exist"),
        (tiny(network={"groups": 3}), r"block_out_channels 8 cannot be split into norm_num_groups 3"),
        (tiny(precision="fp16"), "in fp32 or bf16, not fp16"),
        (tiny(codec={"kl": 0.1}), r"codec\.kl means nothing to a codec of codes"),
        (tiny(codec={**KL, "entries": 8}), r"codec\.entries means nothing to a codec of Gaussian latents"),
        (tiny(codec={"codebook": "gradient", "decay": 0.5}), r"codec\.decay means nothing to a codebook that follows"),
        (tiny(reconstruction={"perceptual_weight": 2}), r"perceptual_weight means nothing to a loss without"),
        (
            tiny({"start": 3, "weight": 1}),
            r"discriminator\.start, discriminator\.weight mean nothing to a codec without",
        ),
        (tiny(network={"dropout": 0.1}), r"network\.dropout means nothing to a codec"),
        (tiny(label_dropout=0.5), r"training\.label_dropout means nothing to a codec"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_recipe_that_no_codec_can_be_trained_by_is_refused(recipe: Recipe, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=said):
        train_codec(recipe, pictures(), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_pictures_too_small_for_any_patch_are_told_so() -> None:
    with pytest.raises(SettingError, match=r"leave the discriminator out \(0\)"):
        CodecLearner(tiny(GAN), pictures(side=8), Subset(pictures(), ()), device="cpu")
    with pytest.raises(SettingError, match="no pictures"):
        CodecLearner(tiny(), Subset(pictures(), ()), Subset(pictures(), ()), device="cpu")


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_does_harm() -> None:
    learner = CodecLearner(tiny(), pictures(), Subset(pictures(), ()), device="cpu")
    learner.advance()
    before = {name: tensor.clone() for name, tensor in learner.net.state_dict().items()}
    learner.net.encoder.conv_in.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(DivergenceError, match="at step 2"):
        learner.advance()
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.net.state_dict().items())


def test_a_folder_that_is_no_whole_codec_is_refused(tmp_path: Path, trained: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_codec(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"neblina\.json is missing"):
        load_codec(tmp_path)
    folder = tmp_path / "copy"
    shutil.copytree(trained["codes"], folder)
    (folder / "vae").mkdir()
    with pytest.raises(CheckpointError, match="holds both of vqvae and vae"):
        load_codec(folder)
    (folder / "vae").rmdir()
    (folder / "vqvae").rename(folder / "vae")
    with pytest.raises(CheckpointError, match="holds a VQModel, which does not belong there"):
        load_codec(folder)
    (folder / "vae").rename(folder / "vqvae")
    weights = folder / "vqvae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_codec(folder)
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is a model, not a codec"):
        load_codec(folder)


@pytest.mark.parametrize("name", [name for name in packaged() if load_recipe(name).kind == "codec"])
def test_every_packaged_recipe_builds_its_codec(name: str) -> None:
    channels, side, codes = (1, 28, 7) if "mnist" in name else (3, 64, 16 if name == "emoji-codec" else 8)
    some = pictures(4, side, channels)
    learner = CodecLearner(load_recipe(name), some, Subset(some, ()), device="cpu")
    assert learner.net.config.sample_size == side
    assert side // learner.net.config.factor == codes
