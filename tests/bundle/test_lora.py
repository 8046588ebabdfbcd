"""LoRA files of every layout change a model as diffusers and PEFT change it, and are taken away bit for bit."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import original_layout as original
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils.peft_utils import set_weights_and_activate_adapters
from safetensors.torch import load_file, save_file
from small_models import SD1, SDXL, made, text_config
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from neblina.bundle.components import build_module
from neblina.bundle.lora.fuse import Fused, fuse
from neblina.bundle.lora.read import Lora, read_lora
from neblina.bundle.weights import load_into
from neblina.core.errors import CheckpointError, SettingError

State = dict[str, Tensor]
RANK = 3
WIDE = {**SD1, "cross_attention_dim": 64}


@cache
def first() -> dict[str, Any]:
    return {"unet": made(UNet2DConditionModel, WIDE), "text_encoder": made(CLIPTextModel, text_config(64))}


@cache
def large() -> dict[str, Any]:
    second = text_config(128, "gelu", projection_dim=64)
    return {
        "unet": made(UNet2DConditionModel, SDXL),
        "text_encoder": made(CLIPTextModel, text_config(64)),
        "text_encoder_2": made(CLIPTextModelWithProjection, second),
    }


def copied(models: Mapping[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(model) for name, model in models.items()}


def layers(net: nn.Module, wanted: Callable[[str], bool]) -> dict[str, Any]:
    kinds = (nn.Linear, nn.Conv2d)
    return {name: part for name, part in net.named_modules() if isinstance(part, kinds) and wanted(name)}


def attention(name: str) -> bool:
    return ".attn" in name or "self_attn" in name


def transformers(name: str) -> bool:
    return ".attentions." in name or "self_attn" in name or ".fc" in name


def everything(name: str) -> bool:
    """All that kohya's and LyCORIS' trainers change, convolutions too."""
    return transformers(name) or ".resnets." in name or "samplers." in name


def pair(layer: Any, seed: int, rank: int = RANK) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = layer.weight.shape[:2]
    tail = layer.weight.shape[2:]
    down = torch.randn(rank, columns, *tail, generator=generator) / columns**0.5
    return down, torch.randn(rows, rank, *[1] * len(tail), generator=generator) / 10


def old_text(name: str) -> str:
    return name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}"


def kohya(
    models: Mapping[str, nn.Module], wanted: Callable[[str], bool], seed: int, names: Callable[[str], str] = str
) -> State:
    """As kohya's trainer writes it; `names` of the U-Net's layers."""
    state: State = {}
    one = {"text_encoder": "lora_te_", "text_encoder_2": "lora_te2_", "unet": "lora_unet_"}
    if "text_encoder_2" in models:
        one["text_encoder"] = "lora_te1_"
    for component, net in models.items():
        for index, (name, layer) in enumerate(layers(net, wanted).items()):
            path = names(name) if component == "unet" else old_text(name)
            key = one[component] + path.replace(".", "_")
            down, up = pair(layer, seed + index)
            state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.5)}
    return state


def dotted(models: Mapping[str, nn.Module], wanted: Callable[[str], bool], seed: int, layout: str) -> State:
    """As diffusers wrote it, before PEFT ("lora"), at the very first ("processor"), or with PEFT."""
    state: State = {}
    for component, net in models.items():
        for index, (name, layer) in enumerate(layers(net, wanted).items()):
            key = f"{component}.{name if component == 'unet' else old_text(name)}"
            down, up = pair(layer, seed + index)
            if layout == "peft":
                state |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
            elif layout == "lora":
                between = "lora" if component == "unet" else "lora_linear_layer"
                state |= {f"{key}.{between}.down.weight": down, f"{key}.{between}.up.weight": up}
            else:
                block, last = key.replace(".to_out.0", ".to_out").rsplit(".", 1)
                last = last.replace("_proj", "") if component != "unet" else last.removeprefix("to_")
                middle = ".processor" if component == "unet" else ""
                state |= {
                    f"{block}{middle}.to_{last}_lora.{part}.weight": t for part, t in (("down", down), ("up", up))
                }
    return state


def theirs(models: Mapping[str, Any], files: Sequence[tuple[Path, float]]) -> dict[str, Any]:
    """The models as diffusers changes them."""
    changed = copied(models)
    pipeline: Any = StableDiffusionXLPipeline if "text_encoder_2" in models else StableDiffusionPipeline
    names = [f"adapter{index}" for index in range(len(files))]
    for name, (place, _) in zip(names, files, strict=True):
        more = {"unet_config": changed["unet"].config} if "text_encoder_2" in models else {}
        state, alphas, metadata = pipeline.lora_state_dict(str(place), return_lora_metadata=True, **more)
        pipeline.load_lora_into_unet(state, alphas, changed["unet"], adapter_name=name, metadata=metadata)
        for encoder in set(models) - {"unet"}:
            if any(key.startswith(f"{encoder}.") for key in state):
                pipeline.load_lora_into_text_encoder(
                    state, alphas, changed[encoder], prefix=encoder, adapter_name=name, metadata=metadata
                )
    for model in changed.values():
        if hasattr(model, "peft_config"):
            set_weights_and_activate_adapters(model, names, [amount for _, amount in files])
    return changed


def answers(models: Mapping[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(1)
    out = {}
    with torch.no_grad():
        for name, model in models.items():
            if name != "unet":
                out[name] = model(torch.arange(3, 12)[None])[0]
                continue
            config = model.config
            x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, config.cross_attention_dim)
            added = {"text_embeds": torch.randn(2, 64), "time_ids": torch.randn(2, 6)}
            out[name] = model(x, torch.tensor([3, 800]), text, added_cond_kwargs=added).sample
    return out


def distance(ours: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float:
    return max(float((ours[name] - others[name]).abs().max()) for name in ours)


def saved(state: State, place: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, place, metadata=metadata)
    return place


def compare(models: Mapping[str, Any], files: Sequence[tuple[Path, float]]) -> float:
    """How far our outputs are from theirs; and ours change, and are put back bit for bit."""
    ours, plain = copied(models), answers(models)
    before = {name: {key: t.clone() for key, t in model.state_dict().items()} for name, model in ours.items()}
    fused = fuse(ours, [(read_lora(place), amount) for place, amount in files])
    out = answers(ours)
    if any(amount for _, amount in files):
        assert distance(out, plain) > 1e-3
    fused.remove()
    for name, model in ours.items():
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name][key])
    assert distance(answers(ours), plain) == 0
    return distance(out, answers(theirs(models, files)))


SDXL_LAYERS = [1, 1, 1]


def to_original(net: nn.Module) -> Callable[[str], str]:
    """From the paths of a U-Net's layers to the original's, which kohya's SDXL files have."""
    state = {name: tensor for name, tensor in net.state_dict().items() if name.endswith(".weight")}
    marked = {name: torch.tensor([index]) for index, name in enumerate(state)}
    back = original.unet(marked, SDXL_LAYERS)
    names = {list(state)[int(mark)]: name for name, mark in back.items()}
    return lambda name: names[f"{name}.weight"].removeprefix("model.diffusion_model.").removesuffix(".weight")


AMOUNTS = [0.0, 0.5, 1.0]


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("wanted", [attention, everything], ids=lambda wanted: wanted.__name__)
def test_kohyas_layout_does_as_in_diffusers(amount: float, wanted: Any, tmp_path: Path) -> None:
    models = first()
    place = saved(kohya(models, wanted, 7), tmp_path / "a.safetensors")
    assert compare(models, [(place, amount)]) <= 1e-5


@pytest.mark.parametrize("names", ["diffusers", "original"])
def test_kohyas_layout_of_sdxl_does_too(names: str, tmp_path: Path) -> None:
    models = large()
    path = to_original(models["unet"]) if names == "original" else str
    state = kohya(models, transformers, 7, path)
    assert any("lora_unet_input_blocks_" in name for name in state) == (names == "original")
    assert compare(models, [(saved(state, tmp_path / "a.safetensors"), 0.8)]) <= 1e-5


def test_the_originals_names_of_convolutions_are_understood(tmp_path: Path) -> None:
    """Which diffusers does not in full: the same change under the other names is the oracle."""
    models = large()
    fused = []
    for path in (to_original(models["unet"]), str):
        state = kohya({"unet": models["unet"]}, lambda name: True, 7, path)
        ours = copied({"unet": models["unet"]})
        fuse(ours, [(read_lora(saved(state, tmp_path / "a.safetensors")), 1.0)])
        fused.append(ours["unet"].state_dict())
    assert all(torch.equal(fused[0][name], fused[1][name]) for name in fused[0])
    assert not torch.equal(fused[0]["add_embedding.linear_2.weight"], models["unet"].add_embedding.linear_2.weight)


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("layout", ["peft", "lora", "processor"])
def test_diffusers_layouts_do_as_in_diffusers(amount: float, layout: str, tmp_path: Path) -> None:
    models = first()
    place = saved(dotted(models, attention, 3, layout), tmp_path / "a.safetensors")
    assert compare(models, [(place, amount)]) <= 1e-5


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"alpha_pattern": {"to_q": 9.0, "attn2.to_k": 5.0}}])
def test_what_peft_says_in_the_metadata_is_honoured(settings: dict[str, Any], tmp_path: Path) -> None:
    from peft import LoraConfig

    models = copied(first())
    config = LoraConfig(
        r=RANK, lora_alpha=2, target_modules=["to_q", "to_k", "conv1"], init_lora_weights=False, **settings
    )
    torch.manual_seed(0)
    models["unet"].add_adapter(config)
    models["unet"].save_lora_adapter(tmp_path, weight_name="raw.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "raw.safetensors", "pt") as file:
        told = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    assert told["lora_alpha"] == 2
    state = {f"unet.{name}": tensor for name, tensor in load_file(tmp_path / "raw.safetensors").items()}
    named = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in told.items()})}
    place = saved(state, tmp_path / "a.safetensors", named)
    ours = copied(first())
    fuse(ours, [(read_lora(place), 1.0)])
    assert distance(answers(ours), answers(models)) <= 1e-5
    assert compare(first(), [(place, 0.7)]) <= 1e-5


def test_what_diffusers_saves_is_read_from_its_folder(tmp_path: Path) -> None:
    state = dotted({"unet": first()["unet"]}, attention, 3, "peft")
    plain = {name.removeprefix("unet."): tensor for name, tensor in state.items()}
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=plain)
    ours = copied(first())
    fused = fuse(ours, [(read_lora(tmp_path), 1.0)])
    assert len(fused.touched) == len(state) / 2


def test_two_are_stacked_at_their_own_amounts(tmp_path: Path) -> None:
    models = first()
    one = saved(kohya(models, everything, 7), tmp_path / "one.safetensors")
    other = saved(dotted(models, attention, 3, "peft"), tmp_path / "other.safetensors")
    assert compare(models, [(one, 0.5), (other, 1.0)]) <= 1e-5
    assert compare(models, [(one, -0.5), (other, 0.0)]) <= 1e-5


@pytest.mark.parametrize("models", [first, large], ids=["sd1", "sdxl"])
def test_our_own_network_is_changed_as_theirs(models: Any, tmp_path: Path) -> None:
    net = models()["unet"]
    place = saved(kohya({"unet": net}, everything, 7), tmp_path / "a.safetensors")
    ours = build_module({"_class_name": "UNet2DConditionModel", **plain_config(net)}, "here")
    load_into(ours, {name: tensor.clone() for name, tensor in net.state_dict().items()}, "here")
    fuse({"unet": ours}, [(read_lora(place), 0.8)])
    changed = copied({"unet": net})
    fuse(changed, [(read_lora(place), 0.8)])
    state = ours.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in changed["unet"].state_dict().items())


def plain_config(net: Any) -> dict[str, Any]:
    """A network's configuration as its config.json has it."""
    return {key: value for key, value in json.loads(net.to_json_string()).items() if not key.startswith("_")}


def test_a_lora_of_half_precision_changes_weights_of_half_precision_once(tmp_path: Path) -> None:
    models = {"unet": copy.deepcopy(first()["unet"]).to(torch.bfloat16)}
    state = {name: tensor.bfloat16() for name, tensor in kohya(models, attention, 7).items()}
    before = {name: tensor.clone() for name, tensor in models["unet"].state_dict().items()}
    fused = fuse(models, [(read_lora(saved(state, tmp_path / "a.safetensors")), 0.5)])
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = (state[f"lora_unet_{name.replace('.', '_')}.lora_{part}.weight"].float() for part in ("down", "up"))
    exact = before[f"{name}.weight"].float() + 0.5 * 1.5 / RANK * up @ down
    assert torch.equal(models["unet"].get_submodule(name).weight, exact.bfloat16())
    fused.remove()
    assert all(torch.equal(tensor, before[key]) for key, tensor in models["unet"].state_dict().items())


def test_a_convolution_in_three_parts_is_their_product(tmp_path: Path) -> None:
    """LoCon's: a 1×1, a k×k within the rank, and a 1×1, run one after the other."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(5, 7, 3, padding=1, bias=False))
    parts = [nn.Conv2d(5, 2, 1, bias=False), nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.Conv2d(2, 7, 1, bias=False)]
    state = {f"unet.0.lora_{part}.weight": conv.weight.data for part, conv in zip(("down", "mid", "up"), parts)}  # noqa: B905
    x = torch.randn(2, 5, 6, 6)
    with torch.no_grad():
        expected = net(x) + 0.5 * nn.Sequential(*parts)(x)
        fuse({"unet": net}, [(read_lora(saved(state, tmp_path / "a.safetensors")), 0.5)])
        assert torch.allclose(net(x), expected, atol=1e-5)


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[dict[str, nn.Module], Lora]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6))
    state = {"unet.0.lora_A.weight": torch.randn(2, 4), "unet.0.lora_B.weight": torch.randn(6, 2)}
    return {"unet": net}, read_lora(saved(state, tmp_path / "tiny.safetensors"))


def weight(models: Mapping[str, Any]) -> Tensor:
    return models["unet"][0].weight.detach().clone()


def test_what_was_added_is_removed_before_more_is_added(tiny: tuple[dict[str, nn.Module], Lora]) -> None:
    models, lora = tiny
    before, parameter = weight(models), models["unet"].get_parameter("0.weight")
    fused: Fused = fuse(models, [(lora, 1.0)])
    changed = weight(models)
    assert not torch.equal(changed, before)
    with pytest.raises(SettingError, match="added to this model already: remove them, then add all in one go"):
        fuse(models, [(lora, 1.0)])
    assert torch.equal(weight(models), changed)
    fused.remove()
    fused.remove()
    assert torch.equal(weight(models), before)
    again = fuse(models, [(lora, 1.0)])
    fused.remove()  # what it added is gone already; what was added since stays
    assert torch.equal(weight(models), changed)
    assert models["unet"].get_parameter("0.weight") is parameter
    again.remove()
    assert torch.equal(weight(models), before)


def test_a_model_that_moved_gets_its_weights_back_in_the_type_it_has(tiny: tuple[dict[str, nn.Module], Lora]) -> None:
    models, lora = tiny
    before = weight(models)
    fused = fuse(models, [(lora, 1.0)])
    models["unet"].to(torch.float64)
    fused.remove()
    assert torch.equal(weight(models), before.double())


@pytest.mark.parametrize(
    ("dtype", "amount"), [(torch.float16, 2e5), (torch.bfloat16, 3e38), (torch.float32, 3e38)], ids=str
)
def test_weights_that_overflow_are_refused_before_any_is_changed(
    dtype: torch.dtype, amount: float, tmp_path: Path
) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6)).to(dtype)
    small, large = (torch.full((6, 2), value) for value in (1e-30, 10.0))
    state = {"unet.0.lora_A.weight": torch.ones(2, 4), "unet.0.lora_B.weight": small}
    state |= {"unet.1.lora_A.weight": torch.ones(2, 6), "unet.1.lora_B.weight": large}
    lora = read_lora(saved(state, tmp_path / "loud.safetensors"))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointError, match=rf"with .*loud.safetensors added, unet\.1 .* not finite as {kind}"):
        fuse({"unet": net}, [(lora, amount)])
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    fuse({"unet": net}, [(lora, 1.0)])  # and it is not held to be changed


def test_an_amount_is_a_number(tiny: tuple[dict[str, nn.Module], Lora]) -> None:
    models, lora = tiny
    with pytest.raises(SettingError, match=r"tiny\.safetensors cannot be added nan times"):
        fuse(models, [(lora, float("nan"))])


A, B = torch.ones(2, 4), torch.ones(6, 2)
HALVES = {"unet.0.lora_A.weight": A, "unet.0.lora_B.weight": B}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({**HALVES, "unet.0.dora_scale": A}, "is a DoRA, which is not read here; plain LoRA is"),
        ({**HALVES, "unet.0.lora_magnitude_vector": A}, "is a DoRA"),
        ({"lora_unet_0.hada_w1_a": A}, "is a LoHa"),
        ({"lora_unet_0.lokr_w1": A}, "is a LoKr"),
        ({"lora_unet_0.diff": A}, "is a full difference"),
        ({"lora_unet_0.diff_b": A}, "is a full difference"),
        (
            {"model.diffusion_model.input_blocks.0.0.weight": A},
            r"holds model\.diffusion_model\.input_blocks\.0\.0\.weight, which no LoRA layout has",
        ),
        ({**HALVES, "unet.0.lora_B.bias": A}, "is a LoRA with biases"),
        ({**HALVES, "unet.0.more": A}, r"holds unet\.0\.more, which no LoRA layout has"),
        ({"unet.0.lora_A.weight": A}, r"says nothing of the up half of unet\.0"),
        ({"unet.0.alpha": torch.tensor(1.0)}, r"says nothing of the down half of unet\.0"),
        ({**HALVES, "unet.0.alpha": torch.ones(2)}, "the alpha of unet.0 is no number"),
        ({**HALVES, "unet.0.lora.up.weight": B}, r"says up of unet\.0 twice"),
        ({"unet.0.lora_A.weight": A, "unet.0.lora_B.weight": torch.ones(6, 3)}, "do not fit each other"),
        (
            {**HALVES, "unet.0.lora_B.weight": B * torch.inf},
            r"unet\.0\.lora_B\.weight holds values that are not finite",
        ),
        ({**HALVES, "unet.0.lora_B.weight": B.to(torch.int8)}, r"unet\.0\.lora_B\.weight is int8; quantised weights"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(state: State, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        read_lora(saved(state, tmp_path / "a.safetensors"))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"unet.9.lora_A.weight": A, "unet.9.lora_B.weight": B}, r"holds unet\.9\.lora_A.*no layer$"),
        (
            {**HALVES, "lora_te2_x.lora_down.weight": A, "lora_te2_x.lora_up.weight": B},
            "of the text_encoder_2, which this model has not; it seems to be for SDXL",
        ),
        (
            {"unet.0.lora_A.weight": torch.ones(2, 5), "unet.0.lora_B.weight": B},
            r"shapes \(2, 5\) and \(6, 2\), which do not make its \(6, 4\)",
        ),
        (
            {
                "lora_unet_a_attn2_to_k.lora_down.weight": torch.ones(2, 768),
                "lora_unet_a_attn2_to_k.lora_up.weight": B,
            },
            "no layer; it seems to be for Stable Diffusion 1",
        ),
        (
            {"transformer.single_transformer_blocks.0.x.lora_A.weight": A}
            | {"transformer.single_transformer_blocks.0.x.lora_B.weight": B},
            "of the transformer, which this model has not; it seems to be for Flux",
        ),
    ],
)
def test_a_lora_of_another_model_changes_nothing(
    state: State, said: str, tiny: tuple[dict[str, nn.Module], Lora], tmp_path: Path
) -> None:
    models, fits = tiny
    before = weight(models)
    with pytest.raises(CheckpointError, match=said):
        fuse(models, [(fits, 1.0), (read_lora(saved(state, tmp_path / "other.safetensors")), 1.0)])
    assert torch.equal(weight(models), before)
    fuse(models, [(fits, 1.0)]).remove()
