"""Every picture says what makes it again, and making it again gives it."""

import inspect
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pipelines
import pytest
import torch
from models import small_bundle
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from neblina.bundle.folder import save_bundle
from neblina.core.errors import DataError, SettingError, StorageError
from neblina.samplers import samplers
from neblina.tasks.describing import describe
from neblina.tasks.fingerprint import fingerprint
from neblina.tasks.keeping import keep, keep_sheet, ready
from neblina.tasks.making import make, open_model
from neblina.tasks.order import SHARED, Order, own_kinds
from neblina.tasks.preview import Preview
from neblina.tasks.provenance import Input, Provenance, read_provenance, save_picture
from neblina.tasks.recipe import Made
from neblina.tasks.reproducing import difference, order_from
from neblina.tasks.verbs import verbs


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, a photo and a mask."""
    place = tmp_path_factory.mktemp("shelf")
    sd1 = pipelines.sd1(place)
    sd1.save_pretrained(place / "sd1")
    sd1.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    save_file(
        {f"unet.{name}": value for name, value in get_peft_model_state_dict(sd1.unet).items()}, place / "a.safetensors"
    )
    pipelines.upscaler(place).save_pretrained(place / "upscaler")
    pipelines.inpainting(place).save_pretrained(place / "inpainting")
    save_bundle(small_bundle(classes=3, schedule="cosine", parameterisation="v"), place / "pixels")
    save_bundle(small_bundle(schedule="cosine", parameterisation="v", seed=4), place / "unconditional")
    save_bundle(small_bundle(classes=3, schedule="cosine", parameterisation="v", seed=5), place / "weaker")
    down, along = np.mgrid[0:9, 0:13]
    Image.fromarray(np.stack([20 * down, 18 * along, 7 * (down + along)], -1).astype(np.uint8)).save(
        place / "photo.png"
    )
    mask = np.zeros((9, 13), np.uint8)
    mask[2:6, 3:11] = 255
    Image.fromarray(mask).save(place / "mask.png")
    return place


LONG = "word " * 100


def orders(shelf: Path) -> dict[str, Order]:
    photo, quick = str(shelf / "photo.png"), {"steps": 3, "seed": 7, "n": 2}
    beside = {"unconditional": str(shelf / "unconditional"), "guidance": 2.0}
    return {
        "words": Order("generate", str(shelf / "sd1"), {"prompt": ["a cat", "a dog"], "negative": "x", **quick}),
        "labels": Order("generate", str(shelf / "pixels"), {"labels": ["1", "2"], **quick, "size": "16x8"}),
        "unconditional": Order("generate", str(shelf / "pixels"), {"labels": "1", **quick, **beside}),
        "autoguided": Order(
            "generate",
            str(shelf / "pixels"),
            {"labels": "1", **quick, "autoguidance": str(shelf / "weaker"), "guidance": 2.0},
        ),
        "start": Order("generate", str(shelf / "pixels"), {"start": photo, "t_start": 0.5, **quick}),
        "lora": Order(
            "generate", str(shelf / "sd1"), {"prompt": "a cat", "loras": [[str(shelf / "a.safetensors"), 0.7]], **quick}
        ),
        "bf16": Order("edit", str(shelf / "sd1"), {"photo": photo, "prompt": "a cat", "dtype": "bf16", **quick}),
        "edit": Order("edit", str(shelf / "sd1"), {"photo": photo, "prompt": "a cat", "strength": 0.7, **quick}),
        "inversion": Order("edit", str(shelf / "pixels"), {"photo": photo, "method": "inversion", "labels": [0, 1]}),
        "inpaint": Order(
            "inpaint", str(shelf / "sd1"), {"photo": photo, "mask": str(shelf / "mask.png"), "prompt": "a cat", **quick}
        ),
        "told mask": Order(
            "inpaint",
            str(shelf / "inpainting"),
            {"photo": photo, "mask": str(shelf / "mask.png"), "soften": 1, **quick},
        ),
        "outpaint": Order("outpaint", str(shelf / "sd1"), {"photo": photo, "left": 4, "bottom": 3, **quick}),
        "upscale": Order("upscale", str(shelf / "upscaler"), {"photo": photo, "noise_level": 30, **quick}),
        "in pieces": Order(
            "generate",
            str(shelf / "sd1"),
            {"prompt": ["a cat", LONG], "negative": [LONG, "x"], "long_prompt": "chunk", **quick},
        ),
        "later numbers": Order(
            "generate",
            str(shelf / "sd1"),
            {"prompt": ["a cat", "a dog", "a cow"], "negative": ["x", "y", "z"], **quick, "offset": 4},
        ),
        "repaint": Order(
            "inpaint",
            str(shelf / "pixels"),
            {"photo": photo, "mask": str(shelf / "mask.png"), "sampler": "repaint", "labels": "1", **quick},
        ),
        "adaptive": Order("generate", str(shelf / "pixels"), {"sampler": "adaptive", "labels": "1", "seed": 7, "n": 2}),
        "omega": Order("generate", str(shelf / "pixels"), {"labels": "1", "omega": 0.5, **quick}),
        "other sampler": Order("generate", str(shelf / "sd1"), {"prompt": "a cat", "sampler": "heun", **quick}),
        "nothing said": Order("generate", str(shelf / "sd1")),
        "no label said": Order("generate", str(shelf / "pixels")),
        "words inverted": Order("edit", str(shelf / "sd1"), {"photo": photo, "method": "inversion", "steps": 7}),
        "crops": Order("upscale", str(shelf / "sd1"), {"photo": photo, "factor": 3, "strength": 0.7, **quick}),
    }


NAMES = list(orders(Path()))


def made_and_kept(order: Order, folder: Path) -> list[Path]:
    return keep(make(order, open_model(order, device="cpu")), folder)


@pytest.mark.filterwarnings("error::neblina.tasks.settings.LeftOut")
@pytest.mark.parametrize("name", NAMES)
def test_every_picture_is_made_again_alone(name: str, shelf: Path, tmp_path: Path) -> None:
    """To a level where it was made in a batch, to the byte where it was made alone."""
    for place in made_and_kept(orders(shelf)[name], tmp_path / "first"):
        order, notes = order_from(place)
        assert notes == []
        assert order.arguments["n"] == 1
        (again,) = make(order, open_model(order, device="cpu"))
        off = again.picture.int() - torch.from_numpy(np.array(Image.open(place))).permute(2, 0, 1).int()
        assert int(off.abs().max()) <= (2 if name == "bf16" else 1)
        (kept,) = keep([again], tmp_path / "again")
        order, _ = order_from(kept)
        (third,) = make(order, open_model(order, device="cpu"))
        assert difference(kept, third.picture).startswith("the same picture, to the byte")
        json.dumps(describe(str(kept)))


def test_of_prompts_in_turn_a_picture_says_its_own(shelf: Path, tmp_path: Path) -> None:
    model = Order("generate", str(shelf / "sd1"), {"prompt": ["a cat", "a dog"], "negative": ["x", "y"], "n": 3})
    said = [read_provenance(place).arguments for place in made_and_kept(model, tmp_path)]
    assert [one["prompt"] for one in said] == ["a cat", "a dog", "a cat"]
    assert [one["negative"] for one in said] == ["x", "y", "x"]


def test_a_recipe_says_what_nobody_asked_for(shelf: Path, tmp_path: Path) -> None:
    """The grid of the model's own scheduler has no name."""
    order = Order("generate", str(shelf / "sd1"), {"prompt": "a cat"})
    (made,) = make(order, open_model(order, device="cpu"))
    (place,) = keep([made], tmp_path)
    assert describe(str(place))["arguments"]["grid"] == "the scheduler's own"
    said = made.provenance.arguments
    assert {name: said[name] for name in ("sampler", "steps", "grid", "guidance", "seed", "size", "dtype")} == {
        "sampler": "plms", "steps": 50, "grid": None, "guidance": 7.5, "seed": 0, "size": "16x16", "dtype": "fp32"
    }  # fmt: skip
    order = Order("edit", str(shelf / "pixels"), {"photo": str(shelf / "photo.png"), "sampler": "ddim", "steps": 2})
    (made,) = make(order, open_model(order, device="cpu"))
    said = made.provenance.arguments
    assert (said["grid"], said["strength"], said["settings"]["eta"]) == ("log_snr", 0.6, 0.0)


@pytest.mark.parametrize(("name", "said"), [("upscaler", {"noise_level": 20}), ("sd1", {"strength": 0.3})])
def test_a_recipe_says_how_much_an_enlargement_changed(name: str, said: dict[str, Any], shelf: Path) -> None:
    order = Order("upscale", str(shelf / name), {"photo": str(shelf / "photo.png"), "factor": 4, "steps": 4})
    (made,) = make(order, open_model(order, device="cpu"))
    found = made.provenance.arguments
    assert {each: found[each] for each in ("noise_level", "strength") if each in found} == said
    again = Order("upscale", order.model, found)
    (third,) = make(again, open_model(again, device="cpu"))
    assert torch.equal(third.picture, made.picture)


@pytest.mark.parametrize(
    ("name", "arguments", "changes"),
    [
        ("pixels", {"labels": "1"}, {"sampler": "heun", "steps": 3, "grid": "karras", "guidance": 3.0}),
        ("sd1", {"prompt": "a cat", "steps": 3}, {"steps": 4, "guidance": 2.0}),
        ("sd1", {"prompt": "a cat", "steps": 3, "sampler": "ddim"}, {"sampler": "heun", "steps": 4, "guidance": 2.0}),
    ],
)
def test_a_later_change_of_a_default_does_not_change_the_picture(
    name: str, arguments: dict[str, Any], changes: dict[str, Any], shelf: Path, tmp_path: Path
) -> None:
    (place,) = made_and_kept(Order("generate", str(shelf / name), arguments), tmp_path)
    order, _ = order_from(place)
    model = open_model(order, device="cpu")
    bundle = replace(model.bundle, sampling=replace(model.bundle.sampling, **changes))
    (again,) = make(order, replace(model, bundle=bundle))
    assert "to the byte" in difference(place, again.picture)
    assert again.provenance.arguments == read_provenance(place).arguments


@pytest.mark.parametrize("name", sorted({each.name for _, each in samplers.items()} - {"ddpm_learned", "repaint"}))
def test_every_samplers_settings_are_said_and_taken(name: str, shelf: Path) -> None:
    asked = {"labels": "1", "sampler": name, **({} if samplers[name].adaptive else {"steps": 4})}
    order = Order("generate", str(shelf / "pixels"), asked)
    (made,) = make(order, model := open_model(order, device="cpu"))
    (again,) = make(Order("generate", order.model, made.provenance.arguments), model)
    assert torch.equal(made.picture, again.picture)
    assert made.provenance == again.provenance
    numbers = {
        each for each, value in inspect.signature(samplers[name].function).parameters.items()
        if isinstance(value.default, int | float)
    }  # fmt: skip
    assert set(made.provenance.arguments.get("settings", {})) >= numbers


def test_a_recipe_names_no_sampler_that_did_not_walk(shelf: Path) -> None:
    order = orders(shelf)["words inverted"]
    (made,) = make(order, open_model(order, device="cpu"))
    assert made.provenance.arguments["sampler"] == "ddim"


def test_a_picture_is_made_again_from_another_folder(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shelf)
    arguments = {"photo": "photo.png", "mask": "mask.png", "loras": [["a.safetensors", 0.5]], "vae": "sd1/vae"}
    order = Order("inpaint", "sd1", {**arguments, "steps": 2})
    (place,) = made_and_kept(order, tmp_path)
    monkeypatch.chdir(tmp_path)
    again, notes = order_from(place)
    assert notes == []
    (made,) = make(again, open_model(again, device="cpu"))
    assert "to the byte" in difference(place, made.picture)
    assert made.provenance == read_provenance(place)


def test_a_model_of_the_hub_is_pinned(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the commit that made the picture, though its branch moves on; a local copy has none."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    first, second = "1" * 40, "2" * 40
    repository = tmp_path / "models--owner--name"
    shutil.copytree(shelf / "sd1", repository / "snapshots" / first)
    shutil.copytree(shelf / "sd1", repository / "snapshots" / second)
    (repository / "snapshots" / second / "unet" / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(first)
    asked = Order("generate", "owner/name", {"prompt": "a cat", "steps": 2, "vae": "owner/name"})
    (place,) = made_and_kept(asked, tmp_path / "made")
    said = read_provenance(place)
    assert (said.model, said.arguments["revision"]) == ("owner/name", first)
    assert said.arguments["vae"] == f"owner/name@{first}"
    assert said.fingerprint == fingerprint(shelf / "sd1")
    (repository / "refs" / "main").write_text(second)
    order, notes = order_from(place)
    assert notes == []
    (made,) = make(order, open_model(order, device="cpu"))
    assert "to the byte" in difference(place, made.picture)
    shutil.rmtree(repository / "snapshots" / first)
    shutil.copytree(shelf / "pixels", repository / "snapshots" / first)
    assert [note.split(" is not ")[0] for note in order_from(place)[1]] == ["owner/name", f"owner/name@{first}"]
    shutil.rmtree(repository / "snapshots" / first)
    shutil.copytree(shelf / "sd1", repository / "snapshots" / first)
    local, _ = order_from(place, model=str(shelf / "sd1"))
    (made,) = make(local, open_model(local, device="cpu"))
    assert "to the byte" in difference(place, made.picture)


def test_what_moved_is_found_and_what_changed_is_refused_or_said(shelf: Path, tmp_path: Path) -> None:
    for name in ("photo.png", "mask.png", "a.safetensors"):
        shutil.copy(shelf / name, tmp_path / name)
    shutil.copytree(shelf / "sd1", tmp_path / "sd1")
    arguments = {
        "photo": tmp_path / "photo.png",
        "mask": tmp_path / "mask.png",
        "loras": ((tmp_path / "a.safetensors", 0.5),),
        "steps": 2,
    }
    (picture,) = made_and_kept(Order("inpaint", str(tmp_path / "sd1"), arguments), tmp_path / "made")
    (tmp_path / "moved").mkdir()
    for name in ("photo.png", "mask.png", "a.safetensors"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    with pytest.raises(DataError, match=r"is not there: say where with --inputs"):
        order_from(picture)
    (tmp_path / "sd1").rename(tmp_path / "renamed")
    order, notes = order_from(picture, model=str(tmp_path / "renamed"), folder=tmp_path / "moved")
    assert notes == []
    assert order.arguments["loras"] == [[str(tmp_path / "moved" / "a.safetensors"), 0.5]]
    (again,) = make(order, open_model(order, device="cpu"))
    assert "to the byte" in difference(picture, again.picture)

    settings = json.loads((tmp_path / "renamed" / "scheduler" / "scheduler_config.json").read_text())
    changed = json.dumps({**settings, "beta_end": 0.013})
    (tmp_path / "renamed" / "scheduler" / "scheduler_config.json").write_text(changed)
    save_file({"unet.nothing": torch.zeros(1)}, tmp_path / "moved" / "a.safetensors")
    _, notes = order_from(picture, model=str(tmp_path / "renamed"), folder=tmp_path / "moved")
    assert [note.split(" is not ")[0].rsplit("/", 1)[1] for note in notes] == ["renamed", "a.safetensors"]
    Image.new("RGB", (13, 9), "red").save(tmp_path / "moved" / "photo.png")
    with pytest.raises(DataError, match=r"photo.png is not the file that the picture was made from \(photo\)"):
        order_from(picture, model=str(tmp_path / "renamed"), folder=tmp_path / "moved")


def test_a_lora_changes_the_picture(shelf: Path) -> None:
    with_it = orders(shelf)["lora"]
    without = Order("generate", with_it.model, {name: v for name, v in with_it.arguments.items() if name != "loras"})
    pictures = [make(order, open_model(order, device="cpu"))[0].picture for order in (with_it, without)]
    assert not torch.equal(*pictures)


def test_pictures_that_start_from_a_folder_are_made_again_together(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (80 * number, 40, 90)).save(tmp_path / "start" / f"{number}.png")
    order = Order("generate", str(shelf / "pixels"), {"start": str(tmp_path / "start"), "t_start": 0.3, "steps": 4})
    places = made_and_kept(order, tmp_path / "made")
    assert len(places) == 3
    for place in places:
        again, _ = order_from(place)
        (picture,) = make(again, open_model(again, device="cpu"))
        assert "to the byte" in difference(place, picture.picture)
        assert picture.number == int(place.stem.split("-")[1])
    Image.new("RGB", (8, 8)).save(tmp_path / "start" / "9.png")
    with pytest.raises(DataError, match=r"is not the file that the picture was made from \(start\)"):
        order_from(places[0])


AUTOMATIC = "a (cat:1.2)\nNegative prompt: a dog\nSteps: 4, Sampler: DDIM, CFG scale: 3, Seed: 9, Size: 16x16"
COMFY = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "some.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["1", 1]}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "a dog", "clip": ["1", 1]}},
    "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 16, "height": 16, "batch_size": 1}},
    "5": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0], "seed": 9,
            "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        },
    },
}  # fmt: skip


@pytest.mark.parametrize(("chunk", "text"), [("parameters", AUTOMATIC), ("prompt", json.dumps(COMFY))])
def test_another_programs_picture_is_made_with_a_model_given(
    chunk: str, text: str, shelf: Path, tmp_path: Path
) -> None:
    texts = PngInfo()
    texts.add_text(chunk, text)
    Image.new("RGB", (16, 16)).save(tmp_path / "theirs.png", pnginfo=texts)
    with pytest.raises(SettingError, match="say where it is with --model"):
        order_from(tmp_path / "theirs.png")
    order, _ = order_from(tmp_path / "theirs.png", model=str(shelf / "sd1"))
    (made,) = make(order, open_model(order, device="cpu"))
    assert made.picture.shape == (3, 16, 16)
    assert made.provenance.arguments["seed"] == 9
    json.dumps(describe(str(tmp_path / "theirs.png")))


def test_another_programs_loras_are_looked_up_by_name(shelf: Path, tmp_path: Path) -> None:
    """A LoRA that is found changes the picture; one that is not is left out and told."""
    comfy = json.loads(json.dumps(COMFY))
    comfy["6"] = {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": "styles\\a.safetensors",
            "strength_model": 0.5,
            "strength_clip": 0.5,
            "model": ["1", 0],
        },
    }
    comfy["5"]["inputs"]["model"] = ["6", 0]
    for name, chunk, text in (
        ("a.png", "parameters", f"<lora:a:0.5> <lora:gone:0.8> {AUTOMATIC}"),
        ("c.png", "prompt", json.dumps(comfy)),
    ):
        texts = PngInfo()
        texts.add_text(chunk, text)
        Image.new("RGB", (16, 16)).save(tmp_path / name, pnginfo=texts)
        order, notes = order_from(tmp_path / name, model=str(shelf / "sd1"), folder=shelf)
        assert order.arguments["loras"] == [[str(shelf / "a.safetensors"), 0.5]]
        assert [note for note in notes if note.startswith("lora")] == (
            [f"lora = gone:0.8: left out: {shelf} holds no such file"] if name == "a.png" else []
        )
        without, notes = order_from(tmp_path / name, model=str(shelf / "sd1"))
        assert any("with --inputs" in note for note in notes)
        assert "loras" not in without.arguments
        pictures = [make(one, open_model(one, device="cpu"))[0].picture for one in (order, without)]
        assert not torch.equal(*pictures)


@pytest.mark.parametrize("end", ["Denoising strength: 0.5", "CFG scale: 1"])
def test_what_has_no_effect_here_does_not_stand_in_the_way(end: str, shelf: Path, tmp_path: Path) -> None:
    texts = PngInfo()
    texts.add_text("parameters", f"a cat\nNegative prompt: a dog\nSteps: 4, Seed: 9, Size: 16x16, {end}")
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", pnginfo=texts)
    order, notes = order_from(tmp_path / "a.png", model=str(shelf / "sd1"))
    assert len(make(order, open_model(order, device="cpu"))) == 1
    assert len(notes) == 2


def red(**arguments: Any) -> Made:
    provenance = Provenance("generate", "model", "f" * 32, {"seed": 3, **arguments})
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    picture[0] = arguments.get("level", 200)
    return Made(picture, 4, provenance)


def test_no_picture_is_written_over(tmp_path: Path) -> None:
    """The same picture is there already; another one goes beside it, whoever made what has the name."""
    assert keep([red()], tmp_path)[0].name == "3-00004.png"
    before = (tmp_path / "3-00004.png").stat()
    assert keep([red()], tmp_path)[0].name == "3-00004.png"
    assert (tmp_path / "3-00004.png").stat() == before
    assert keep([red(prompt="a dog")], tmp_path)[0].name == "3-00004-2.png"
    assert keep([red(prompt="a dog", level=7)], tmp_path)[0].name == "3-00004-3.png"
    assert keep([red(prompt="a dog")], tmp_path)[0].name == "3-00004-2.png"
    (tmp_path / "3-00004.png").write_bytes(b"somebody's notes")
    assert keep([red()], tmp_path)[0].name == "3-00004-4.png"
    assert (tmp_path / "3-00004.png").read_bytes() == b"somebody's notes"


def test_a_folder_that_cannot_be_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file, so"):
        ready(tmp_path / "file" / "pictures")
    ready(tmp_path / "new" / "folders")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    keep([red()], tmp_path)
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(StorageError, match="the disk is full"):
        keep([red(prompt="a dog")], tmp_path)
    assert [place.name for place in tmp_path.iterdir()] == ["3-00004.png"]


def test_an_order_is_plain_values_and_wrong_ones_are_refused_before_the_work(shelf: Path) -> None:
    order = Order("edit", "model", {"photo": Path("a.png"), "loras": ((Path("b"), 1.0),), "guidance_interval": (0, 2)})
    assert order.arguments == {"photo": "a.png", "loras": [["b", 1.0]], "guidance_interval": [0, 2]}
    model = open_model(Order("generate", str(shelf / "pixels")), device="cpu")
    for arguments, said in (
        ({"stesp": 3}, "Did you mean steps"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"prompt": object()}, "prompt of generate is a text or a list of texts, not <object"),
        ({"steps": "three"}, "steps of generate is a whole number, not 'three'"),
        ({"steps": True}, "steps of generate is a whole number, not True"),
        ({"guidance": "x"}, "guidance of generate is a number, not 'x'"),
        ({"guidance_interval": [1]}, "guidance_interval of generate is 2 numbers, not"),
        ({"loras": ["x"]}, "loras of generate is a list of values and numbers, not"),
        ({"settings": [1]}, "settings of generate is values by name, not"),
        ({"size": 5}, "size of generate is a text, not 5"),
        ({"pick": "a"}, "pick of generate is a whole number, not 'a'"),
        ({"on_step": None}, "'on_step' is not a setting of generate"),
    ):
        with pytest.raises(SettingError, match=said):
            make(Order("generate", str(shelf / "pixels"), arguments), model)
    with pytest.raises(SettingError, match="Did you mean upscale"):
        make(Order("upscal", str(shelf / "pixels")), model)
    with pytest.raises(SettingError, match="edit takes a photo, and none is given"):
        make(Order("edit", str(shelf / "pixels")), model)
    with pytest.raises(SettingError, match="Did you mean steps"):
        open_model(Order("generate", str(shelf / "nothing there"), {"stesp": 3}))


@pytest.mark.parametrize(
    ("arguments", "inputs"),
    [
        ({"steps": "three"}, {}),
        ({"loras": ["x"]}, {}),
        ({"size": 5}, {}),
        ({"settings": [1]}, {}),
        ({"pick": "a"}, {}),
        ({"guidance_interval": [1]}, {}),
        ({"stesp": 1}, {}),
        ({}, {"lora 1": Input("a", "b")}),
        ({}, {"lora x": Input("a", "b")}),
        ({}, {"mood": Input("a", "b")}),
    ],
)
def test_a_recipe_that_was_not_written_here_is_refused(
    arguments: dict[str, Any], inputs: dict[str, Input], tmp_path: Path
) -> None:
    whole = Provenance("generate", "model", "f" * 32, arguments, inputs)
    save_picture(torch.zeros(3, 8, 8), tmp_path / "a.png", whole)
    with pytest.raises(DataError, match="the recipe in the picture is damaged"):
        order_from(tmp_path / "a.png")


def test_one_picture_comes_of_a_recipe_whatever_it_says_of_how_many(shelf: Path, tmp_path: Path) -> None:
    whole = Provenance("generate", str(shelf / "pixels"), "", {"n": 3, "steps": 2})
    save_picture(torch.zeros(3, 8, 8), tmp_path / "a.png", whole)
    order, _ = order_from(tmp_path / "a.png")
    assert order.arguments["n"] == 1


def test_a_picture_that_is_none_of_a_folders_is_refused(shelf: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    order = Order("generate", str(shelf / "pixels"), {"start": str(tmp_path), "t_start": 0.3, "steps": 2, "pick": 1})
    with pytest.raises(SettingError, match="pick 1 is none of the 1 pictures"):
        make(order, open_model(order, device="cpu"))


@pytest.mark.parametrize("missing", ["photo", "mask"])
def test_a_file_that_is_missing_is_named(missing: str, shelf: Path, tmp_path: Path) -> None:
    files = {"photo": str(shelf / "photo.png"), "mask": str(shelf / "mask.png"), missing: str(tmp_path / "gone.png")}
    order = Order("inpaint", str(shelf / "sd1"), files)
    with pytest.raises(DataError, match=r"gone\.png is missing"):
        make(order, open_model(order, device="cpu"))


def test_a_preview_is_there_during_the_work_and_somebodys_own_is_left_alone(shelf: Path, tmp_path: Path) -> None:
    place, seen = tmp_path / "preview.png", []
    order = orders(shelf)["words"]
    model = open_model(order, device="cpu")

    def looked(preview: Preview) -> Callable[[Any], None]:
        def on_step(step: Any) -> None:
            preview(step)
            seen.append(place.exists())

        return on_step

    with Preview(model, place, 2) as preview:
        model.generate("a cat", steps=4, sampler="ddim", on_step=looked(preview))
    assert seen == [False, True, True, True]
    assert not place.exists()
    place.write_bytes(b"mine")
    with Preview(model, place, 1) as preview:
        model.generate("a cat", steps=2, sampler="ddim", on_step=preview)
        assert (tmp_path / "preview-2.png").exists()
        assert place.read_bytes() == b"mine"
    assert [each.name for each in tmp_path.iterdir()] == ["preview.png"]
    assert place.read_bytes() == b"mine"


def test_a_sheet_takes_the_place_of_a_sheet_and_of_nothing_else(tmp_path: Path) -> None:
    assert keep_sheet([red(), red()], tmp_path, columns=2).name == "sheet.png"
    assert keep_sheet([red(level=7), red()], tmp_path, columns=2).name == "sheet.png"
    Image.new("RGB", (8, 8)).save(tmp_path / "sheet.png")
    mine = (tmp_path / "sheet.png").read_bytes()
    (tmp_path / "sheet-2.png").write_bytes(b"notes")
    for _ in range(2):
        assert keep_sheet([red(), red()], tmp_path, columns=2).name == "sheet-3.png"
    assert (tmp_path / "sheet.png").read_bytes() == mine
    assert (tmp_path / "sheet-2.png").read_bytes() == b"notes"


@pytest.mark.parametrize("verb", list(verbs))
def test_no_argument_of_a_verb_is_called_as_a_setting_is(verb: str) -> None:
    assert not own_kinds(verb).keys() & SHARED.keys()
