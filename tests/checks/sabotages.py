"""Healthy small models, and what can be wrong with one or with what is asked of it: a name and a deed each."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pipelines
import torch
from oracle import bert_tokenizer
from photo_files import deep_png
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from neblina.bundle.bundle import Bundle
from neblina.bundle.files import CARD
from neblina.bundle.folder import save_bundle
from neblina.data.pictures import to_float
from neblina.data.sources import digits
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.parameterisations import parameterisations
from neblina.nets.unet import UNet, UNetConfig
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import make_schedule

WEIGHTS = "diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
UNET, VAE, TEXT = "unet/config.json", "vae/config.json", "text_encoder/config.json"
BASES: dict[str, Callable[[Path], Any]] = {
    "sd1": pipelines.sd1,
    "sd2": pipelines.sd2,
    "sdxl": pipelines.sdxl,
    "inpainting": pipelines.inpainting,
    "upscaler": pipelines.upscaler,
    "dit": pipelines.dit,
    "pictures": pipelines.pictures,
    "ldm": pipelines.ldm,
}


@dataclass(frozen=True)
class Sabotage:
    """One thing that is wrong.

    Attributes:
        name: what it is, for the table.
        base: the healthy model.
        harm: what is done to a copy of its folder; may give the path that is looked at in its place.
        options: how the model is opened.
        verb: of the request that is made, None to look at the model.
        ask: its arguments; where a value is callable it makes a file in the folder it is given, and is its path.
    """

    name: str
    base: str
    harm: Callable[[Path], Path | str | None] = lambda folder: None
    options: dict[str, Any] = field(default_factory=dict)
    verb: str | None = None
    ask: dict[str, Any] = field(default_factory=dict)


def build(base: str, place: Path) -> Path:
    """A healthy model in a folder."""
    if base.startswith("trained-"):
        return trained(base.removeprefix("trained-"), place / base)
    if base.startswith("saved-"):
        return saved(base.removeprefix("saved-"), place / base)
    BASES[base](place / "parts" / base).save_pretrained(place / base)
    return place / base


def trained(kind: str, folder: Path) -> Path:
    """A network of digits that was trained for seconds, as another library would have saved it."""
    (saved(kind, folder) / CARD).unlink()
    return folder


def saved(kind: str, folder: Path) -> Path:
    """The same network, saved here."""
    save_bundle(Bundle(learned(kind), make_schedule("linear"), kind), folder)
    return folder


def learned(kind: str, *, steps: int = 100, seed: int = 0) -> UNet:
    """A network of digits, 8x8, that predicts `kind` on the linear schedule."""
    torch.manual_seed(seed)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (16,)}
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "norm_num_groups": 8, "layers_per_block": 1}
    net = UNet(UNetConfig(**sizes, **blocks))
    given = digits()
    pictures, schedule = to_float(given.read(range(len(given)))), make_schedule("linear")
    process, optimizer = GaussianProcess(schedule), torch.optim.Adam(net.parameters(), 4e-3)
    denoiser = NetworkDenoiser(net, process, kind)
    for _ in range(steps):
        clean = pictures[torch.randint(len(pictures), (64,))]
        t, noise = torch.randint(1, 1001, (64,)).double() / 1000, torch.randn_like(clean)
        answer = net(process.diffuse(clean, noise, t), denoiser.read_clock(schedule, t).float())
        loss = (answer - parameterisations[kind].target(schedule, clean, noise, t)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def edit(name: str, /, drop: str | None = None, rename: tuple[str, str] | None = None, **values: Any) -> Any:
    """Other values in a JSON file, a key dropped or misspelt."""

    def harm(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        if drop:
            del content[drop]
        if rename:
            content[rename[1]] = content.pop(rename[0])
        (folder / name).write_text(json.dumps({**content, **values}))

    return harm


def weights(part: str, change: Callable[[dict[str, Tensor]], Any], name: str = WEIGHTS) -> Any:
    """Other tensors in a component's file."""

    def harm(folder: Path) -> None:
        state = load_file(folder / part / name)
        change(state)
        save_file({key: value.contiguous() for key, value in state.items()}, folder / part / name)

    return harm


def put(key: str, value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        state[key] = state[key].clone()
        state[key].view(-1)[0] = value

    return change


def gone(name: str) -> Any:
    def harm(folder: Path) -> None:
        place = folder / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return harm


def overwritten(name: str, content: bytes) -> Any:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(name: str) -> Any:
    def harm(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) * 2 // 3])

    return harm


def sharded(change: Callable[[Path, dict[str, str]], None]) -> Any:
    """The U-Net's weights in two shards, whose index then tells something else."""

    def harm(folder: Path) -> None:
        place = folder / "unet"
        state = load_file(place / WEIGHTS)
        (place / WEIGHTS).unlink()
        names = sorted(state)
        listed = {}
        for number, some in enumerate((names[::2], names[1::2]), 1):
            shard = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
            save_file({name: state[name] for name in some}, place / shard)
            listed |= dict.fromkeys(some, shard)
        change(place, listed)
        (place / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))

    return harm


SECOND = "diffusion_pytorch_model-00002-of-00002.safetensors"


def half_a_shard(place: Path, listed: dict[str, str]) -> None:
    content = (place / SECOND).read_bytes()
    (place / SECOND).write_bytes(content[:-1000])


def pointing_out(place: Path, listed: dict[str, str]) -> None:
    shutil.copy(place / SECOND, place.parent / "outside.safetensors")
    listed.update({name: "../outside.safetensors" for name, shard in listed.items() if shard == SECOND})


class Runs:
    """What a pickle that does harm holds."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("the pickle was run",))


def disguised(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).write_bytes(pickle.dumps({"weight": Runs()}, protocol=4))


def pickled(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    torch.save({"weight": Runs()}, folder / "unet" / "diffusion_pytorch_model.bin")


def swapped(folder: Path) -> None:
    (folder / "text_encoder").rename(folder / "aside")
    (folder / "text_encoder_2").rename(folder / "text_encoder")
    (folder / "aside").rename(folder / "text_encoder_2")


def other_vocabulary(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")
    bert_tokenizer(folder / "tokenizer", model_max_length=77)


def single_file(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Any:
    """A file with an original's names for some keys: none of the tests needs a whole one."""

    def harm(folder: Path) -> Path:
        state = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}
        state["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"] = torch.zeros(9, 8)
        place = folder.with_suffix(".safetensors")
        save_file(change(state), place)
        return place

    return harm


def truncated_file(folder: Path) -> Path:
    place = folder.with_suffix(".safetensors")
    shutil.copy(folder / "unet" / WEIGHTS, place)
    place.write_bytes(place.read_bytes()[:5000])
    return place


def scaled(part: str, key: str, factor: float) -> Any:
    def change(state: dict[str, Tensor]) -> None:
        state[key] = state[key] * factor

    return weights(part, change)


def transposed(key: str) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        state[key] = state[key].T

    return change


def more_words(folder: Path) -> None:
    """The text encoder of another vocabulary, twice as large."""
    key = "text_model.embeddings.token_embedding.weight"

    def change(state: dict[str, Tensor]) -> None:
        name = key if key in state else key.removeprefix("text_model.")
        state[name] = state[name].repeat(2, 1)
        edit(TEXT, vocab_size=len(state[name]))(folder)

    weights("text_encoder", change, "model.safetensors")(folder)


def overflowing(folder: Path) -> None:
    scaled("vae", "decoder.conv_in.weight", 1e5)(folder)
    edit(VAE, force_upcast=False)(folder)


def relu_text(folder: Path) -> None:
    edit(TEXT, hidden_act="relu")(folder)


def whole(key: str) -> Callable[[dict[str, Tensor]], None]:
    """Whole numbers in place of the weights whose names hold `key`."""
    return lambda state: state.update({name: value.to(torch.int8) for name, value in state.items() if key in name})


def drop_key(key: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda state: state.__delitem__(key)


def rename_key(key: str, new: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda state: state.update({new: state.pop(key)})


def lora(change: Callable[[dict[str, Tensor]], Any], name: str = "unet") -> Any:
    """A LoRA of one layer, and what is wrong with it."""

    def make(folder: Path) -> Path:
        layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
        state = {
            f"{name}.{layer}.lora_A.weight": torch.ones(2, 16),
            f"{name}.{layer}.lora_B.weight": torch.ones(16, 2),
        }
        change(state)
        save_file(state, folder.parent / "lora.safetensors")
        return folder.parent / "lora.safetensors"

    return make


def wide_lora(state: dict[str, Tensor]) -> None:
    for key in list(state):
        state[key] = torch.ones(2, 768) if "lora_A" in key else torch.ones(320, 2)


def nan_lora(state: dict[str, Tensor]) -> None:
    for value in state.values():
        value[0, 0] = torch.nan


def misspelt_lora(state: dict[str, Tensor]) -> None:
    for key in list(state):
        state[key.replace("attn2.to_k", "attn2.to_kk")] = state.pop(key)


def picture(save: Callable[[Path], Any], name: str = "photo.png") -> Callable[[Path], Path]:
    """Makes a file beside the model."""

    def make(folder: Path) -> Path:
        save(folder.parent / name)
        return folder.parent / name

    return make


def _noise(height: int = 16, width: int = 16, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.fromarray(values, mode)


def _mask(height: int, width: int, inside: tuple[int, int], whole: bool = False) -> Image.Image:
    values = np.full((height, width), 255 if whole else 0, np.uint8)
    values[: inside[0], : inside[1]] = 255
    return Image.fromarray(values)


def _animated(place: Path) -> None:
    frames = [Image.new("RGB", (16, 16), (90 * number, 0, 0)) for number in range(3)]
    frames[0].save(place, save_all=True, append_images=frames[1:])


def _truncated(place: Path) -> None:
    _noise(80, 80).save(place)
    place.write_bytes(place.read_bytes()[:-400])


PHOTO = picture(lambda place: _noise().save(place))
MASK = picture(lambda place: _mask(16, 16, (8, 8)).save(place), "mask.png")
PAINT = {"photo": PHOTO, "mask": MASK}
KEY = "down_blocks.0.resnets.0.conv1.weight"
CROSS = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
SQUARE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
_Model = partial(Sabotage)
V = {"prediction_type": "v_prediction"}

MODELS = [
    # configurations
    _Model("U-Net: a misspelt key", "sd1", edit(UNET, rename=("cross_attention_dim", "cross_attention_dims"))),
    _Model("U-Net: a key of another class", "sd1", edit(UNET, add_attention=True)),
    _Model("VAE: a misspelt key", "sd1", edit(VAE, rename=("scaling_factor", "scale_factor"))),
    _Model("scheduler: a misspelt key", "sd1", edit(SCHEDULER, rename=("beta_start", "beta_begin"))),
    _Model("text encoder: a misspelt key", "sd1", edit(TEXT, rename=("hidden_act", "hiden_act"))),
    _Model(
        "tokenizer: a setting that changes the tokens",
        "sd1",
        edit("tokenizer/tokenizer_config.json", padding_side="left"),
    ),
    _Model("model_index: a misspelt component", "sd1", edit("model_index.json", rename=("vae", "vea"))),
    _Model("model_index: an entry that is no component", "sd1", edit("model_index.json", guidance=3)),
    _Model(
        "model_index: a class that is not known", "sd1", edit("model_index.json", _class_name="StableDifusionPipeline")
    ),
    _Model("model_index: another family's class", "sd1", edit("model_index.json", _class_name="DiTPipeline")),
    _Model(
        "model_index: the class of depth to image",
        "sd1",
        edit("model_index.json", _class_name="StableDiffusionDepth2ImgPipeline"),
    ),
    _Model("model_index: names no class", "sd1", edit("model_index.json", drop="_class_name")),
    _Model("U-Net: names no class", "sd1", edit(UNET, drop="_class_name")),
    _Model("U-Net: another class", "sd1", edit(UNET, _class_name="UNet2DModel")),
    _Model("U-Net: a width that is a word", "sd1", edit(UNET, block_out_channels=["16", "32"])),
    _Model("U-Net: a size that is a word", "sd1", edit(UNET, sample_size="eight")),
    _Model("U-Net: a size of less than nothing", "sd1", edit(UNET, sample_size=-8)),
    _Model("U-Net: a size of nothing at one side", "sd1", edit(UNET, sample_size=[8, 0])),
    _Model("U-Net: a size of no model", "sd1", edit(UNET, sample_size=100_000)),
    _Model("VAE: a size of less than nothing", "sd1", edit(VAE, sample_size=-8)),
    _Model("DiT: a size of nothing", "dit", edit("transformer/config.json", sample_size=0)),
    _Model("U-Net: widths that no group divides", "sd1", edit(UNET, norm_num_groups=7)),
    _Model("scheduler: another class's field", "sd1", edit(SCHEDULER, rescale_betas_zero_snr=True)),
    _Model(
        "scheduler: of flow matching",
        "sd1",
        lambda folder: (
            (folder / SCHEDULER).write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"})) and None
        ),
    ),
    _Model(
        "scheduler: a class that is not known", "sd1", edit("model_index.json", scheduler=["diffusers", "PNDMSheduler"])
    ),
    _Model(
        "scheduler: variance learned, of a network without", "pictures", edit(SCHEDULER, variance_type="learned_range")
    ),
    _Model("scheduler: zero signal at the end, and eps", "dit", edit(SCHEDULER, rescale_betas_zero_snr=True)),
    _Model("a JSON file with a byte-order mark of another encoding", "sd1", overwritten(UNET, b"\xff\xfe{\x00}\x00")),
    _Model("a JSON file that is empty", "sd1", overwritten(VAE, b"")),
    _Model("a JSON file of brackets in brackets", "sd1", overwritten(UNET, b"[" * 100_000)),
    _Model("a JSON file that is a list", "sd1", overwritten(SCHEDULER, b"[1, 2]")),
    _Model("a JSON file that is cut short", "sd1", cut(UNET)),
    # fields that change no key
    _Model("U-Net: flip_sin_to_cos", "sd1", edit(UNET, flip_sin_to_cos=False)),
    _Model("U-Net: freq_shift", "sd1", edit(UNET, freq_shift=1)),
    _Model("U-Net: act_fn", "sd1", edit(UNET, act_fn="gelu")),
    _Model("U-Net: norm_eps", "sd1", edit(UNET, norm_eps=1e-3)),
    _Model("U-Net: center_input_sample", "sd1", edit(UNET, center_input_sample=True)),
    _Model("U-Net: attention_head_dim", "sd1", edit(UNET, attention_head_dim=2)),
    _Model("VAE: act_fn", "sd1", edit(VAE, act_fn="gelu")),
    _Model("VAE: scaling_factor ten times too large", "sd1", edit(VAE, scaling_factor=1.8215)),
    _Model("text encoder: layer_norm_eps", "sd1", edit(TEXT, layer_norm_eps=1e-2)),
    _Model("text encoder: hidden_act", "sd1", relu_text),
    _Model("text encoder: eos_token_id of another tokenizer", "sd1", edit(TEXT, eos_token_id=77)),
    # the process
    _Model(
        "scheduler: betas of DDPM", "sd1", edit(SCHEDULER, beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
    ),
    _Model("scheduler: beta_end ten times too large", "sd1", edit(SCHEDULER, beta_end=0.12)),
    _Model("scheduler: beta_schedule linear", "sd1", edit(SCHEDULER, beta_schedule="linear")),
    _Model("scheduler: 100 training steps", "sd1", edit(SCHEDULER, num_train_timesteps=100)),
    _Model("scheduler: betas out of range", "sd1", edit(SCHEDULER, beta_end=1.2)),
    _Model("scheduler: no training steps", "sd1", edit(SCHEDULER, num_train_timesteps=0)),
    _Model("saved here: another prediction in the scheduler's file", "saved-eps", edit(SCHEDULER, **V)),
    _Model(
        "saved here: another scheduler put in",
        "saved-eps",
        edit("model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"]),
    ),
    _Model("a trained eps network, said to predict v", "trained-eps", edit(SCHEDULER, **V)),
    _Model("a trained eps network, said to predict x0", "trained-eps", edit(SCHEDULER, prediction_type="sample")),
    _Model("a trained v network, said to predict eps", "trained-v", edit(SCHEDULER, prediction_type="epsilon")),
    _Model("a trained x0 network, said to predict eps", "trained-x0", edit(SCHEDULER, prediction_type="epsilon")),
    _Model("a trained network, told the time by another embedding", "trained-eps", edit(UNET, freq_shift=3)),
    # weights
    _Model("U-Net: NaN in a weight", "sd1", weights("unet", put(KEY, torch.nan))),
    _Model("VAE: infinity in a weight", "sd1", weights("vae", put("decoder.conv_in.weight", torch.inf))),
    _Model(
        "text encoder: NaN in a weight",
        "sd1",
        weights("text_encoder", lambda state: put(sorted(state)[0], torch.nan)(state), "model.safetensors"),
    ),
    _Model("U-Net: a matrix of zeros", "sd1", scaled("unet", KEY, 0.0)),
    _Model("U-Net: a weight that is lacking", "sd1", weights("unet", drop_key(KEY))),
    _Model("U-Net: a weight under another name", "sd1", weights("unet", rename_key(KEY, KEY + "s"))),
    _Model("U-Net: a weight transposed", "sd1", weights("unet", transposed("time_embedding.linear_1.weight"))),
    _Model("U-Net: a square weight transposed", "sd1", weights("unet", transposed(SQUARE))),
    _Model("U-Net: a weight quantised to int8", "sd1", weights("unet", whole(KEY))),
    _Model(
        "text encoder: all weights quantised to int8", "sd1", weights("text_encoder", whole(""), "model.safetensors")
    ),
    _Model("U-Net: cross_attention_dim", "sd1", edit(UNET, cross_attention_dim=24)),
    _Model("U-Net: fewer channels than the latents", "sd1", edit(UNET, in_channels=3, out_channels=3)),
    _Model("VAE: latent_channels", "sd1", edit(VAE, latent_channels=8)),
    _Model("weights: cut short", "sd1", cut(f"unet/{WEIGHTS}")),
    _Model("weights: empty", "sd1", overwritten(f"vae/{WEIGHTS}", b"")),
    _Model("weights: a pickle in disguise", "sd1", disguised),
    _Model("weights: a pickle that runs something", "sd1", pickled),
    _Model("shards: one is cut short", "sd1", sharded(half_a_shard)),
    _Model("shards: one is missing", "sd1", sharded(lambda place, listed: (place / SECOND).unlink())),
    _Model(
        "shards: the index lists a tensor that is not there",
        "sd1",
        sharded(lambda place, listed: listed.update({"ghost": SECOND})),
    ),
    _Model("shards: the index hides a tensor", "sd1", sharded(lambda place, listed: listed.pop(KEY) and None)),
    _Model("shards: the index points out of the folder", "sd1", sharded(pointing_out)),
    _Model("U-Net: a value that float16 cannot say", "sd1", scaled("unet", KEY, 1e7), {"dtype": "fp16"}),
    _Model(
        "VAE: overflows in float16",
        "sd1",
        overflowing,
        {"dtype": "fp16"},
    ),
    # files
    *(
        _Model(f"missing: {name}", "sd1", gone(name))
        for name in ("model_index.json", UNET, VAE, SCHEDULER, TEXT, "tokenizer", "vae", f"unet/{WEIGHTS}")
    ),
    _Model("text encoders of SDXL swapped", "sdxl", swapped),
    _Model("SDXL without its second tokenizer", "sdxl", gone("tokenizer_2")),
    _Model("text encoder of another vocabulary", "sd1", more_words),
    _Model("tokenizer of another vocabulary", "sd1", other_vocabulary),
    _Model("upscaler: without its scheduler of small pictures", "upscaler", gone("low_res_scheduler")),
    _Model("a single file of an unknown family", "sd1", single_file(lambda state: {"layer.weight": torch.zeros(2, 2)})),
    _Model("a single file with keys missing", "sd1", single_file(lambda state: state)),
    _Model("a photo in place of a single file", "sd1", PHOTO),
    _Model("a single file that is cut short", "sd1", truncated_file),
    _Model("a variant that is not there", "sd1", options={"variant": "fp16"}),
    _Model("a repository, without a network", "sd1", lambda folder: "owner/a-model-that-is-nowhere"),
    _Model("a path that is misspelt", "sd1", lambda folder: f"{folder}s"),
    # LoRA
    _Model("LoRA of another family", "sd1", options={"loras": lora(wide_lora)}),
    _Model("LoRA with a misspelt key", "sd1", options={"loras": lora(misspelt_lora)}),
    _Model("LoRA that is not finite", "sd1", options={"loras": lora(nan_lora)}),
    _Model(
        "LoRA of a component that is not there", "sd1", options={"loras": lora(lambda state: None, "text_encoder_2")}
    ),
]


def _asked(name: str, base: str, verb: str, **ask: Any) -> Sabotage:
    return Sabotage(name, base, verb=verb, ask=ask)


_edit = partial(_asked, base="sd1", verb="edit")
_generate = partial(_asked, base="sd1", verb="generate")
_paint = partial(_asked, base="sd1", verb="inpaint")
REQUESTS = [
    _generate("steps: 0", steps=0),
    _generate("steps: more than the schedule has", steps=1001),
    _generate("guidance: NaN", guidance=float("nan")),
    _generate("guidance: infinite", guidance=float("inf")),
    _generate("guidance and omega at once", guidance=3.0, omega=2.0),
    _generate("a sampler that is misspelt", sampler="dpmp_2m"),
    _generate("a grid that is misspelt", grid="karas"),
    _generate("a setting that the sampler has not", settings={"churn": 5}, sampler="dpmpp_2m"),
    _generate("a setting that is misspelt", step=20),
    Sabotage("pictures of a model whose own size is a slip", "sd1", edit(UNET, sample_size=100_000), verb="generate"),
    _generate("sides that no latent cell divides", size="17x16"),
    _generate("a size of no pixels", size="0x16"),
    _generate("a size that is no size", size="big"),
    _generate("a prompt too long", prompt="a red boat on the sea " * 40),
    _generate("a negative prompt too long", prompt="a boat", negative="a red boat on the sea " * 40),
    _generate("a prompt whose weights do not close", prompt="a (red boat:1.3"),
    _generate("a prompt weight that is no number", prompt="a (red boat:1.x)"),
    _generate("a negative prompt without guidance", negative="blur", guidance=1.0),
    _generate("a label for a model of words", labels=3),
    _generate("clip_skip beyond the layers", clip_skip=9),
    _generate("no pictures", n=0),
    _generate("a batch of none", batch=0),
    _generate("t_start without pictures", t_start=0.5),
    _generate("dtype of no kind", dtype="fp17"),
    _asked("a label out of range", "dit", "generate", labels=1001),
    _asked("a label of a name that is misspelt", "dit", "generate", labels="clas 7"),
    Sabotage(
        "a label whose name two classes have",
        "dit",
        edit(
            "model_index.json",
            id2label={str(number): "crane" if number < 2 else f"class {number}" for number in range(1000)},
        ),
        verb="generate",
        ask={"labels": "crane"},
    ),
    _asked("a prompt for a model of classes", "dit", "generate", prompt="a boat"),
    _asked("a prompt for a model without a condition", "pictures", "generate", prompt="a boat"),
    _asked("guidance of a model without a condition", "pictures", "generate", guidance=3.0),
    _asked("an inpainting model asked to generate", "inpainting", "generate", prompt="a boat"),
    _asked("an inpainting model asked to edit", "inpainting", "edit", photo=PHOTO),
    _asked("an inpainting model asked to upscale", "inpainting", "upscale", photo=PHOTO),
    _asked("an upscaler asked to generate", "upscaler", "generate", prompt="a boat"),
    _asked("an upscaler asked to inpaint", "upscaler", "inpaint", **PAINT),
    _asked("an upscaler asked for a factor of 3", "upscaler", "upscale", photo=PHOTO, factor=3),
    _asked("an upscaler's noise level out of range", "upscaler", "upscale", photo=PHOTO, noise_level=999),
    _asked("a noise level for a model that reads none", "sd1", "upscale", photo=PHOTO, noise_level=20),
    _asked("a factor of 1", "sd1", "upscale", photo=PHOTO, factor=1),
    _edit("strength: 0", photo=PHOTO, strength=0.0),
    _edit("strength: 1.5", photo=PHOTO, strength=1.5),
    _edit("strength: NaN", photo=PHOTO, strength=float("nan")),
    _edit("strength: less than one step", photo=PHOTO, strength=0.01, steps=10),
    _edit("a source prompt without inversion", photo=PHOTO, source="a boat"),
    _edit("a way to edit that there is not", photo=PHOTO, method="invert"),
    _edit("a photo that is animated", photo=picture(_animated, "photo.gif")),
    _edit("a photo that is transparent", photo=picture(lambda place: _noise(mode="RGBA").save(place))),
    _edit("a photo that is cut short", photo=picture(_truncated)),
    _edit(
        "a photo of 16 bits and grey transparency",
        photo=picture(lambda place: place.write_bytes(deep_png(np.zeros((4, 4, 2), int)))),
    ),
    _edit("a photo that is empty", photo=picture(lambda place: place.write_bytes(b""))),
    _edit("a photo that is no picture", photo=picture(lambda place: place.write_text("a picture, honestly"))),
    _edit("a photo that is not there", photo="nowhere.png"),
    _edit("a photo many times the model's size", photo=picture(lambda place: _noise(128, 128).save(place))),
    _edit("a background that is no colour", photo=PHOTO, background="nocolour"),
    _paint(
        "a mask of another size", photo=PHOTO, mask=picture(lambda place: _mask(16, 20, (8, 8)).save(place), "mask.png")
    ),
    _paint(
        "a mask that is black all over",
        photo=PHOTO,
        mask=picture(lambda place: _mask(16, 16, (0, 0)).save(place), "mask.png"),
    ),
    _paint(
        "a mask that is white all over",
        photo=PHOTO,
        mask=picture(lambda place: _mask(16, 16, (0, 0), True).save(place), "mask.png"),
    ),
    _paint("a mask in colour", photo=PHOTO, mask=picture(lambda place: _noise().save(place), "mask.png")),
    _paint(
        "a mask thinner than a latent cell",
        photo=PHOTO,
        mask=picture(lambda place: _mask(16, 16, (16, 1)).save(place), "mask.png"),
    ),
    _paint("a mask softened by less than nothing", **PAINT, soften=-1),
    _paint("inpainting strength 0", **PAINT, strength=0.0),
    _asked("outpainting by nothing", "sd1", "outpaint", photo=PHOTO),
    _asked("outpainting to many times the model's size", "sd1", "outpaint", photo=PHOTO, left=100_000),
    _asked("outpainting by less than nothing", "sd1", "outpaint", photo=PHOTO, left=-8),
]
SABOTAGES = [*MODELS, *REQUESTS]
