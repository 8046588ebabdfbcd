"""A denoiser of latents and its text encoder are trained as one, and diffusers opens what comes out."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from beside import CLOSE, SEED, far, latents_of, noise_of
from learners import KINDS, captioned, gaussian_codec

import neblina
from neblina.bundle.codec import save_codec
from neblina.core.errors import CheckpointError, DataError, SettingError
from neblina.data.pictures import to_float
from neblina.data.sheets import to_image
from neblina.tasks.train import train_recipe
from neblina.training.encoded import encoded
from neblina.training.examples import divided
from neblina.training.joint import JointNetwork, parted
from neblina.training.optimizers import learning_rate
from neblina.training.recipe import Recipe, build_recipe, load_recipe
from neblina.training.run import Report
from neblina.training.text import TextTrainer

KIND = KINDS["text"]


def trainer_of(folder: Path, recipe: Recipe | None = None) -> TextTrainer:
    recipe = recipe or KIND.recipe()
    pictures, _ = divided(recipe, captioned())
    codec = gaussian_codec()
    return TextTrainer(recipe, encoded(pictures, codec, folder), codec, device="cpu")


def test_the_two_as_one_are_the_one_reading_what_the_other_says(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    joint = trainer.bundle.net.eval()
    assert isinstance(joint, JointNetwork)
    seen = trainer.examples(0)
    assert seen.text is not None
    apart = parted(trainer.bundle, joint)
    assert apart.text is not None
    (encoder,) = apart.text.encoders.values()
    time = torch.full((len(seen.x0),), 300.0)
    with torch.no_grad():
        together = joint(seen.x0, time, text=seen.text.float())
        assert together.equal(apart.net(seen.x0, time, text=encoder.read(seen.text).last))


def test_captions_are_drawn_anew_by_seed_and_step_alone(tmp_path: Path) -> None:
    one, other = trainer_of(tmp_path), trainer_of(tmp_path)
    again, later = one.examples(3).text, one.examples(4).text
    assert again is not None
    assert again.equal(other.examples(3).text)
    assert not again.equal(later)


def test_a_share_of_the_captions_is_hidden(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, KIND.recipe(label_dropout=0.25))
    texts = [trainer.examples(step).text for step in range(100)]
    hidden = torch.cat([(text == trainer.empty).all(1) for text in texts if text is not None])
    assert abs(float(hidden.double().mean()) - 0.25) < 4 * (0.25 * 0.75 / len(hidden)) ** 0.5


@pytest.mark.training
def test_both_learn(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    joint = trainer.bundle.net
    assert isinstance(joint, JointNetwork)
    before = {name: value.clone() for name, value in joint.encoder.named_parameters()}
    losses = []
    for _ in range(60):
        trainer.advance()
        losses.append(trainer.mean_loss())
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])
    moved = [name for name, value in joint.encoder.named_parameters() if not value.equal(before[name])]
    assert len(moved) == len(before)


@pytest.mark.training
def test_diffusers_opens_the_folder_and_makes_the_same_pictures(tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    folder = KIND.run(KIND.recipe(images=10 * 8), tmp_path / "run")
    model = neblina.load(folder, device="cpu")
    theirs = StableDiffusionPipeline.from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    asked: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 2.0, "latents": noise_of(model, 2)}
    prompts = ["red apple 0", "a white boat"]
    wanted = theirs(prompts, **asked, output_type="latent").images
    ours = latents_of(lambda: model.generate(prompts, seed=SEED))
    assert far(ours, wanted) < CLOSE
    others = latents_of(lambda: model.generate(prompts[::-1], seed=SEED))
    assert far(others, wanted) > 100 * CLOSE  # the words matter


@pytest.mark.training
def test_words_that_no_caption_had_are_named(tmp_path: Path) -> None:
    model = neblina.load(KIND.run(KIND.recipe(images=8), tmp_path / "run"), device="cpu")
    with pytest.warns(UserWarning, match="knows none of the words of 'zebra crossing'"):
        model.generate("zebra crossing", steps=2)
    with pytest.warns(UserWarning, match="never read zebra"):
        model.generate("red zebra", steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate(["red apple", ""], steps=2)


def archive(folder: Path, count: int = 12, side: int = 8, **changes: Any) -> Path:
    """A folder of captioned pictures."""
    folder.mkdir()
    pictures = captioned(count, side)
    assert pictures.records is not None
    lines = []
    for number, record in enumerate(pictures.records):
        to_image(pictures.pixels[number]).save(folder / str(record["file_name"]))
        lines.append(json.dumps({**record, **changes.get(str(record["file_name"]).removesuffix(".png"), {})}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def staged(tmp_path: Path, source: Path, **more: Any) -> Recipe:
    """A recipe whose codec is there already."""
    codec = tmp_path / "codec"
    if not codec.exists():
        save_codec(gaussian_codec().net, codec, {})
    content = {**KIND.content, "data": {"source": str(source)}, "latents": {"codec": str(codec)}, **more}
    return KIND.recipe(images=16).model_copy(
        update={name: getattr(Recipe.model_validate(content), name) for name in content}
    )


@pytest.mark.training
def test_pictures_without_a_caption_are_refused_or_left_out_and_counted(tmp_path: Path) -> None:
    source = archive(tmp_path / "pictures", **{"3": {"text": ""}, "7": {"text": None}})
    recipe = staged(tmp_path, source)
    with pytest.raises(DataError, match=r"2 of 12 pictures have no caption.*3\.png, 7\.png"):
        train_recipe(recipe, tmp_path / "one", device="cpu")
    assert not (tmp_path / "one" / "checkpoints").exists()
    told: list[Report] = []
    train_recipe(recipe, tmp_path / "two", device="cpu", skip_bad=True, on_report=told.append)
    assert "Pictures without a caption are left out, 2 of them: 3.png, 7.png." in [report.note for report in told]


@pytest.mark.training
def test_one_picture_under_two_captions_is_said(tmp_path: Path) -> None:
    source = archive(tmp_path / "pictures")
    (source / "4.png").write_bytes((source / "2.png").read_bytes())
    told: list[Report] = []
    train_recipe(staged(tmp_path, source), tmp_path / "run", device="cpu", on_report=told.append)
    notes = [report.note or "" for report in told]
    assert any("several times under different captions, 1 of them" in note for note in notes)


@pytest.mark.training
def test_captions_that_are_longer_than_the_window_are_counted(tmp_path: Path) -> None:
    long = "a boat " * 30
    source = archive(tmp_path / "pictures", **{"3": {"text": long}, "5": {"text": f"another {long}"}})
    told: list[Report] = []
    train_recipe(staged(tmp_path, source), tmp_path / "run", device="cpu", on_report=told.append)
    notes = [report.note for report in told if report.note and "longer" in report.note]
    assert len(notes) == 1
    assert notes[0].startswith("2 of 12 captions are longer than the 22 tokens that are read of one")
    assert repr(long.strip()) in notes[0]


def test_a_codec_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    source = archive(tmp_path / "pictures")
    with pytest.raises(CheckpointError, match="is not a codec's folder"):
        train_recipe(staged(tmp_path, source, latents={"codec": str(source)}), tmp_path / "run", device="cpu")
    save_codec(gaussian_codec(channels=1).net, tmp_path / "grey", {})
    with pytest.raises(SettingError, match="reads pictures of 1 channels"):
        train_recipe(
            staged(tmp_path, source, latents={"codec": str(tmp_path / "grey")}), tmp_path / "run", device="cpu"
        )
    with pytest.raises(SettingError, match=r"2 pixels wide.*data\.resolution"):
        train_recipe(staged(tmp_path, archive(tmp_path / "odd", side=9)), tmp_path / "run", device="cpu")


def test_latents_and_text_go_together(tmp_path: Path) -> None:
    source = archive(tmp_path / "pictures")
    with pytest.raises(SettingError, match="give both or neither"):
        train_recipe(staged(tmp_path, source, text={"layers": 0}), tmp_path / "run", device="cpu")
    with pytest.raises(SettingError, match="give both or neither"):
        train_recipe(staged(tmp_path, source, latents={}), tmp_path / "run", device="cpu")


def test_a_network_that_never_reads_the_text_is_refused(tmp_path: Path) -> None:
    recipe = KIND.recipe()
    network = recipe.network.model_copy(update={"attention": 1})
    with pytest.raises(SettingError, match=r"network\.attention = 1 leaves no level.*2 or more"):
        trainer_of(tmp_path, recipe.model_copy(update={"network": network}))


@pytest.mark.training
def test_a_codec_that_is_trained_is_not_trained_again(tmp_path: Path) -> None:
    source = archive(tmp_path / "pictures")
    (tmp_path / "codec.yaml").write_text(
        "kind: codec\ncodec: {latents: gaussian, channels: 2}\n"
        "network: {channels: [4, 4], groups: 2, blocks: 1, attention: 0}\n"
        "training: {images: 16, batch: 8, sample_every: 0, checkpoint_every: 1}\n"
    )
    recipe = staged(tmp_path, source, latents={"codec_recipe": str(tmp_path / "codec.yaml")})
    run, generator = tmp_path / "run", torch.Generator().manual_seed(0)
    train_recipe(recipe, run, device="cpu")
    kept = (run / "codec" / "model" / "vae" / "config.json").stat().st_mtime_ns
    config = json.loads((run / "codec" / "model" / "vae" / "config.json").read_text())
    codec = neblina.load(run / "model", device="cpu").bundle.codec
    with torch.no_grad():
        latents = codec.encode(to_float(captioned(12).pixels), torch.randn(12, 2, 4, 4, generator=generator))
    assert config["scaling_factor"] != 1.0
    assert abs(float(latents.std()) - 1) < 0.1
    train_recipe(recipe, run, device="cpu", resume=True)
    assert (run / "codec" / "model" / "vae" / "config.json").stat().st_mtime_ns == kept


def test_the_packaged_recipe_holds_together() -> None:
    recipe, codec = load_recipe("emoji"), load_recipe("emoji-codec")
    assert recipe.latents.codec_recipe == codec.name
    shared = {"resolution", "channels", "holdout", "apart", "styles"}
    assert recipe.data.model_dump(include=shared) == codec.data.model_dump(include=shared)
    assert codec.codec.latents == "gaussian"


@pytest.mark.training
def test_a_transformer_is_one_field_and_its_folder_opens_again(tmp_path: Path) -> None:
    kind = KINDS["text by a transformer"]
    model = neblina.load(kind.run(kind.recipe(images=16), tmp_path / "run"), device="cpu")
    assert model.bundle.pipeline.name == "TextDiTPipeline"
    one, other = (model.generate(prompt, seed=1) for prompt in ("red apple", "white boat"))
    assert one.shape == (1, 3, 8, 8)
    assert not torch.allclose(one, other)
    with pytest.raises(SettingError, match=r"network\.channels means nothing"):
        kind.run(build_recipe({**kind.content, "network": {"kind": "dit", "channels": [8]}}, "this"), tmp_path / "two")
    with pytest.raises(SettingError, match=r"network\.patch = 3 does not cut"):
        kind.run(build_recipe({**kind.content, "network": {"kind": "dit", "patch": 3}}, "this"), tmp_path / "three")


def test_the_text_encoder_learns_at_its_share_of_the_rate(tmp_path: Path) -> None:
    """The first step of Adam moves every parameter by the learning rate, whatever its gradient."""
    recipe = KIND.recipe()
    recipe = recipe.model_copy(update={"text": recipe.text.model_copy(update={"pace": 0.25})})
    trainer = trainer_of(tmp_path, recipe)
    joint = trainer.bundle.net
    assert isinstance(joint, JointNetwork)
    parts = {"network": joint.net, "encoder": joint.encoder}
    before = {name: {key: value.clone() for key, value in part.named_parameters()} for name, part in parts.items()}
    trainer.advance()
    moved = {
        name: max(float((value - before[name][key]).abs().max()) for key, value in part.named_parameters())
        for name, part in parts.items()
    }
    rate = learning_rate(recipe, 0)
    assert moved["network"] == pytest.approx(rate, rel=1e-2)
    assert moved["encoder"] == pytest.approx(rate / 4, rel=1e-2)
