"""Models as they are published open: their configurations, their files' names, and what older versions left in them.

No weight is read or made: see `published_models`. What is compared with the oracle is every name and shape.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import original_layout as original
import pytest
import torch
from published_models import NAMES, is_text, published, shapes_of, shrunk, write_folder, write_hole
from torch import Tensor, nn
from transformers import PretrainedConfig

from neblina.bundle.components import Opening, build_module
from neblina.bundle.folder import load_bundle, save_bundle
from neblina.bundle.lora.fuse import fuse
from neblina.bundle.lora.read import read_lora
from neblina.bundle.opening import open_codec
from neblina.bundle.pipelines import pipelines
from neblina.bundle.schedulers import read_scheduler, repaired
from neblina.core.errors import CheckpointError
from neblina.encoders.architectures import ARCHITECTURES
from neblina.encoders.tokens import clip_tokenizer, published_vocabulary
from neblina.tasks.checks.published import unusual_fields, unusual_schedule

META = Opening(device="meta")
MODELS = [name for name in NAMES if "model_index.json" in published(name)["files"]]
CODECS = [name for name in NAMES if name not in MODELS]
QUICK = ("runwayml--stable-diffusion-v1-5",)  # the others are as this one is, larger, and many


@pytest.fixture(scope="module")
def words() -> dict[str, str]:
    """The files of CLIP's vocabulary."""
    for folder in Path(__file__).resolve().parents:
        place = folder / "shared" / "data" / "clip-bpe" / "bpe_simple_vocab_16e6.txt.gz"
        if place.is_file():
            files = clip_tokenizer(*published_vocabulary(place)).files
            return {name: files[name] for name in ("vocab.json", "merges.txt")}
    pytest.skip("shared/data/clip-bpe is not beside this checkout")


@pytest.fixture(autouse=True)
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holes are of zeros: they need not be read to know that they are finite."""
    monkeypatch.setattr(Tensor, "isfinite", lambda tensor: torch.ones((), dtype=torch.bool))
    monkeypatch.setattr(Tensor, "aminmax", lambda tensor: (torch.zeros(()), torch.zeros(())))


def shapes(net: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix("text_model."): tuple(tensor.shape) for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS]
)
def test_a_published_model_opens(name: str, tmp_path: Path, words: dict[str, str]) -> None:
    content = published(name)
    if name.startswith("community"):  # whose sizes are others' already
        content = shrunk(content)
    write_folder(content, tmp_path, words)
    bundle = load_bundle(tmp_path, META)
    files = content["files"]
    configs = {path.rpartition("/")[0]: said for path, said in files.items() if path.endswith("config.json")}
    for part, net in bundle.modules.items():
        theirs = shapes_of(files.get(f"{part}/config.json") or files["config.json"])
        assert shapes(net) == {key.removeprefix("text_model."): shape for key, shape in theirs.items()}, part
    assert set(bundle.modules) == {
        part or "unet" for part in configs if "scheduler" not in part and "token" not in part
    }
    assert bundle.sampling.scheduler is not None


@pytest.mark.parametrize("name", NAMES)
def test_what_is_published_is_not_called_unusual(name: str) -> None:
    files = published(name)["files"]
    for path, said in files.items():
        if path.endswith("/config.json") or path == "config.json":
            assert unusual_fields(said) == [], path
        elif path in ("scheduler/scheduler_config.json", "scheduler_config.json"):
            kind = files["model_index.json"]["_class_name"]
            read = read_scheduler(repaired(said, pipelines[kind].repairs))
            assert unusual_schedule(kind, read.schedule) is None


@pytest.mark.parametrize("name", CODECS)
def test_a_published_autoencoder_opens(name: str, tmp_path: Path) -> None:
    write_folder(published(name), tmp_path, {})
    codec = open_codec(tmp_path, META)
    config = published(name)["files"]["config.json"]
    assert shapes(codec.net) == dict(shapes_of(config))  # type: ignore[attr-defined]


def sd1(folder: Path, words: dict[str, str], **index: Any) -> None:
    """A small Stable Diffusion 1, of whose index some entries are others."""
    content = shrunk(published("runwayml--stable-diffusion-v1-5"))
    content["files"]["model_index.json"] |= index
    write_folder(content, folder, words)


def edited(folder: Path, file: str, **said: Any) -> None:
    place = folder / file
    place.write_text(json.dumps({**json.loads(place.read_text()), **said}))


def test_a_component_without_the_variant_is_read_from_its_plain_file(tmp_path: Path, words: dict[str, str]) -> None:
    sd1(tmp_path, words)
    (tmp_path / "text_encoder" / "model.fp16.safetensors").unlink()
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    bundle = load_bundle(tmp_path, Opening(variant="fp16"))
    assert set(bundle.modules) == {"unet", "vae", "text_encoder"}
    with pytest.raises(CheckpointError, match="there are the variants fp16, non_ema"):
        load_bundle(tmp_path, Opening())
    with pytest.raises(CheckpointError, match="unet holds no weights of the variant 'fp8'"):
        load_bundle(tmp_path, Opening(variant="fp8"))


def test_a_variant_is_the_models_and_an_autoencoder_given_to_it_has_its_own(tmp_path: Path, words: Any) -> None:
    sd1(tmp_path, words)
    (tmp_path / "vae" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    assert open_codec(tmp_path / "vae", Opening(variant="fp16")).factor == 8


@pytest.mark.parametrize(
    "index",
    [
        {"image_encoder": [None, None], "feature_extractor": [None, None]},
        {"unet": ["my_module", "UNet2DConditionModel"], "scheduler": ["pipeline", "PNDMScheduler"]},
        {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]},  # and no such folder
        {"_name_or_path": "./a-fine-tune", "requires_safety_checker": None},
    ],
    ids=["empty entries", "a module of its own", "a folder that is not there", "odd values"],
)
def test_an_index_that_says_more_than_is_used_opens(index: Any, tmp_path: Path, words: dict[str, str]) -> None:
    sd1(tmp_path, words, **index)
    for name in ("safety_checker", "feature_extractor"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    bundle = load_bundle(tmp_path, Opening())
    save_bundle(bundle, tmp_path / "again")
    written = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert written["safety_checker"] == [None, None]  # which diffusers opens, and not a folder that is not there


@pytest.mark.parametrize(
    ("said", "channels", "is_one"),
    [
        ("StableDiffusionPipeline", 9, "StableDiffusionInpaintPipeline"),
        ("StableDiffusionInpaintPipeline", 4, "StableDiffusionPipeline"),
        ("StableDiffusionInpaintPipeline", 9, "StableDiffusionInpaintPipeline"),
    ],
)
def test_what_a_network_paints_is_told_by_its_channels(
    said: str, channels: int, is_one: str, tmp_path: Path, words: dict[str, str]
) -> None:
    content = shrunk(published("runwayml--stable-diffusion-v1-5"))
    content["files"]["model_index.json"]["_class_name"] = said
    content["files"]["unet/config.json"]["in_channels"] = channels
    write_folder(content, tmp_path, words)
    bundle = load_bundle(tmp_path, Opening())
    assert (bundle.pipeline.name, bundle.joined) == (is_one, channels - 4)


def test_a_network_that_joins_something_else_is_refused(tmp_path: Path, words: dict[str, str]) -> None:
    content = shrunk(published("runwayml--stable-diffusion-v1-5"))
    content["files"]["unet/config.json"]["in_channels"] = 8  # as InstructPix2Pix
    write_folder(content, tmp_path, words)
    with pytest.raises(CheckpointError, match="reads 8 channels, of which a StableDiffusionPipeline has 4 to denoise"):
        load_bundle(tmp_path, Opening())


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_components_of_any_precision_open_in_one(kind: str, tmp_path: Path, words: dict[str, str]) -> None:
    sd1(tmp_path, words)
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    write_hole(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", shapes_of(config), kind)
    bundle = load_bundle(tmp_path, Opening(dtype=torch.bfloat16))
    assert {value.dtype for net in bundle.modules.values() for value in net.parameters()} == {torch.bfloat16}


def test_the_fields_of_every_old_configuration_of_transformers_are_passed_over(tmp_path: Path, words: Any) -> None:
    sd1(tmp_path, words)
    before = PretrainedConfig().to_dict()
    written_by_4 = {"num_beams": 1, "do_sample": False, "temperature": 1.0, "tf_legacy_loss": False, "top_k": 50}
    edited(tmp_path, "text_encoder/config.json", **{**before, **written_by_4, "architectures": ["CLIPTextModel"]})
    edited(tmp_path, "text_encoder/config.json", model_type="clip_text_model")
    edited(tmp_path, "tokenizer/tokenizer_config.json", tokenizer_class=None)
    assert load_bundle(tmp_path, Opening()).text is not None


def module_of(config: Mapping[str, Any]) -> nn.Module:
    if not is_text(config):
        return build_module(config, "the configuration")
    with torch.device("meta"):
        return ARCHITECTURES[config["architectures"][0]].build(config)


def kohya(modules: Mapping[str, nn.Module], prefixes: dict[str, str], convolutions: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a LoRA as kohya's trainer writes it: of SDXL's network in the original's names."""
    rank, found = 4, dict[str, tuple[int, ...]]()
    for part, prefix in prefixes.items():
        state = dict(modules[part].state_dict())
        if part != "unet":
            state = {
                f"text_model.{name.removeprefix('text_model.')}": it for name, it in state.items() if "layers" in name
            }
        elif "text_encoder_2" in modules:
            state = {
                name.removeprefix("model.diffusion_model."): it for name, it in original.unet(state, [2, 2, 2]).items()
            }
        for name, weight in state.items():
            attends = ".transformer_blocks." in name or ".proj_" in name or part != "unet"
            if name.endswith(".weight") and weight.ndim > 1 and (attends or convolutions):
                layer = prefix + name.removesuffix(".weight").replace(".", "_")
                rest = tuple(weight.shape[2:])
                found[f"{layer}.alpha"] = ()
                found[f"{layer}.lora_down.weight"] = (rank, weight.shape[1], *rest)
                found[f"{layer}.lora_up.weight"] = (weight.shape[0], rank, *(1 for _ in rest))
    return found


@pytest.mark.parametrize(
    ("name", "prefixes"),
    [
        ("runwayml--stable-diffusion-v1-5", {"unet": "lora_unet_", "text_encoder": "lora_te_"}),
        (
            "stabilityai--stable-diffusion-xl-base-1.0",
            {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"},
        ),
    ],
)
@pytest.mark.parametrize("convolutions", [False, True], ids=["attention", "convolutions too"])
def test_a_lora_of_kohyas_trainer_has_a_layer_for_every_name(
    name: str, prefixes: dict[str, str], convolutions: bool, tmp_path: Path
) -> None:
    files = published(name)["files"]
    modules = {part: module_of(files[f"{part}/config.json"]) for part in prefixes}
    wanted = kohya(modules, prefixes, convolutions)
    write_hole(tmp_path / "lora.safetensors", wanted, "F16", notes={"ss_network_dim": "4", "ss_base_model": "sdxl"})
    fused = fuse(modules, [(read_lora(tmp_path / "lora.safetensors"), 0.8)])
    assert len(set(fused.touched)) == len(wanted) // 3
