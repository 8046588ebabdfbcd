"""Weights on disk: every layout that huggingface writes is read; every lie is refused with the file that tells it."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from models import CONFIG
from safetensors.torch import save_file
from torch import Tensor, nn

from neblina.bundle.weights import empty_parameters, load_into, load_weights, read_weights
from neblina.core.errors import CheckpointError
from neblina.nets.unet import UNet, UNetConfig


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def index(folder: Path) -> Path:
    (place,) = folder.glob("*.index*.json")
    return place


def edit(place: Path, change: Any) -> None:
    content = json.loads(place.read_text())
    change(content)
    place.write_text(json.dumps(content))


@pytest.fixture
def net() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(**CONFIG).eval()


@pytest.fixture
def sharded(net: UNet2DModel, tmp_path: Path) -> Path:
    net.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*-of-*"))) > 1
    return tmp_path


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("shards", ["1GB", "200KB"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_what_diffusers_writes_is_read(
    net: UNet2DModel, safe: bool, shards: str, variant: str | None, tmp_path: Path
) -> None:
    net.save_pretrained(tmp_path, max_shard_size=shards, safe_serialization=safe, variant=variant)
    assert (len(list(tmp_path.iterdir())) > 2) == (shards == "200KB")
    assert equal(read_weights(tmp_path, variant=variant), net.state_dict())


@pytest.mark.parametrize("shards", ["1GB", "2KB"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_what_transformers_writes_is_read(shards: str, variant: str | None, tmp_path: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=2)
    config.num_attention_heads = 2
    model = CLIPTextModel(config)
    model.save_pretrained(tmp_path, max_shard_size=shards, variant=variant)
    read = read_weights(tmp_path, "model", variant)
    assert {name.removeprefix("text_model.") for name in read} == {
        name.removeprefix("text_model.") for name in model.state_dict()
    }


def test_pytorch_model_bin_is_the_older_name_of_model(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    assert equal(read_weights(tmp_path, "model"), {"a": torch.ones(2)})


def test_only_floating_tensors_change_their_type(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2), "ids": torch.arange(3)}, tmp_path / "model.safetensors")
    read = read_weights(tmp_path, "model", dtype=torch.bfloat16)
    assert (read["a"].dtype, read["ids"].dtype) == (torch.bfloat16, torch.int64)


def test_reading_takes_no_memory_before_the_weights_are_used(tmp_path: Path) -> None:
    save_file({"a": torch.ones(32, 1024, 1024)}, tmp_path / "model.safetensors")

    def resident() -> int:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) // 1024

    before = resident()
    net = nn.Module()
    net.a = nn.Parameter(torch.empty(32, 1024, 1024, device="meta"))
    load_into(net, read_weights(tmp_path, "model"), "here")
    assert float(net.a.detach().sum()) == 2**25
    assert resident() - before < 64  # of 128 MiB


def test_an_empty_network_of_weights_answers_as_one_that_was_built_and_filled(sharded: Path) -> None:
    config = UNetConfig.from_dict(json.loads((sharded / "config.json").read_text()))
    with empty_parameters():
        net = UNet(config)
    assert all(parameter.is_meta for parameter in net.parameters())
    load_weights(net, sharded)
    theirs = UNet2DModel.from_pretrained(sharded)
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([5, 900])
    with torch.no_grad():
        assert torch.allclose(net(x, time), theirs(x, time).sample, atol=1e-5)


class WithTable(nn.Module):
    """Has a buffer that its weights do not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3))
        self.frozen = nn.Parameter(torch.empty(3), requires_grad=False)
        self.register_buffer("table", torch.arange(3.0), persistent=False)


def test_buffers_that_no_file_holds_survive_empty_construction() -> None:
    with empty_parameters():
        net = WithTable()
    assert net.weight.is_meta
    load_into(net, {"weight": torch.ones(3), "frozen": torch.ones(3)}, "here")
    assert torch.equal(net.table, torch.arange(3.0))
    assert (net.weight.requires_grad, net.frozen.requires_grad) == (True, False)
    assert not WithTable().weight.is_meta


def test_a_value_that_float16_cannot_say_is_refused() -> None:
    state = {"weight": torch.tensor([1.0, 2.0, 7e4]), "frozen": torch.ones(3)}
    load_into(WithTable(), state, "here", dtype=torch.bfloat16)
    with pytest.raises(CheckpointError, match="weight holds values that float16 cannot say"):
        load_into(WithTable(), state, "here", dtype=torch.float16)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"weight": torch.ones(3)}, "here: the weights lack frozen, which the configuration asks for"),
        (
            {"weight": torch.ones(3), "frozen": torch.ones(3), "more": torch.ones(1)},
            "here: the weights hold more, which the configuration has no place for",
        ),
        (
            {"weight": torch.ones(4), "frozen": torch.ones(3)},
            r"here: weight has shape \(4,\) in the weights and \(3,\) by the configuration",
        ),
        ({"weight": torch.tensor([1.0, torch.nan, 1]), "frozen": torch.ones(3)}, "weight holds values that are not"),
        ({"weight": torch.ones(3), "frozen": torch.full((3,), -torch.inf)}, "frozen holds values that are not finite"),
    ],
)
def test_weights_of_another_network_are_refused(state: dict[str, Tensor], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        load_into(WithTable(), state, "here")


@pytest.mark.parametrize("shard", ["../away.safetensors", "/tmp/away.safetensors", "a\\away.safetensors", "away.bin"])
def test_an_index_does_not_point_out_of_its_folder(sharded: Path, shard: str) -> None:
    edit(index(sharded), lambda content: content["weight_map"].update({"conv_in.weight": shard}))
    with pytest.raises(
        CheckpointError, match=r"index.json names the shard .* which is not a \.safetensors file of this"
    ):
        read_weights(sharded)


def last_shard(folder: Path) -> Path:
    return max(folder.glob("*-of-*"))


def cut(place: Path, keep: float) -> None:
    place.write_bytes(place.read_bytes()[: int(place.stat().st_size * keep)])


def name_another(folder: Path) -> None:
    edit(index(folder), lambda content: content["weight_map"].update({"conv_in.weight": last_shard(folder).name}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: last_shard(folder).unlink(), "names diffusion_pytorch_model-0000.*which is not there"),
        (lambda folder: cut(last_shard(folder), 0.9), r"cut short: it has [\d,]+ of [\d,]+ bytes"),
        (lambda folder: cut(last_shard(folder), 0.001), "end inside its header"),
        (lambda folder: index(folder).unlink(), r"holds the shard .* its index, .* is missing"),
        (
            lambda folder: edit(index(folder), lambda content: content["weight_map"].pop("conv_in.weight")),
            "does not list",
        ),
        (
            lambda folder: edit(
                index(folder), lambda content: content["weight_map"].update({"lie": last_shard(folder).name})
            ),
            "lists lie in .*, which does not hold it",
        ),
        (name_another, r"holds conv_in\.weight, which .* does not list there"),
        (lambda folder: index(folder).write_text("{}"), "weight_map does not say"),
        (lambda folder: index(folder).write_text('{"weight_map": {"a": 3}}'), "weight_map does not say"),
        (lambda folder: index(folder).write_text('{"weight_map": '), "damaged or cut short"),
    ],
)
def test_shards_and_their_index_agree_or_are_refused(sharded: Path, harm: Any, said: str) -> None:
    harm(sharded)
    with pytest.raises(CheckpointError, match=said):
        read_weights(sharded)


class Planted:
    """Leaves a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
@pytest.mark.parametrize("save", [torch.save, lambda content, place: place.write_bytes(pickle.dumps(content))])
def test_a_pickle_is_never_run(name: str, save: Any, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    place = tmp_path / name
    save({"a": Planted(trap)}, place)
    if place.suffix == ".bin":
        place.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no safetensors file but a|is not opened: it is damaged, or holds more"):
        read_weights(tmp_path, "model")
    assert not trap.exists()


def test_a_bin_of_something_else_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"a": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds a int as 'a' where a tensor belongs"):
        read_weights(tmp_path, "model")


@pytest.mark.parametrize(
    ("files", "variant", "said"),
    [
        ([], None, "holds no weights: model.safetensors is missing$"),
        (["model.fp16.safetensors"], None, "model.safetensors is missing; there is the variant fp16"),
        (["model.safetensors"], "fp16", "no weights of the variant 'fp16': there are plain weights, without a variant"),
        (
            ["model.bf16.safetensors", "model.safetensors.index.fp32.json"],
            "fp16",
            "variant 'fp16': there are the variants bf16, fp32",
        ),
        ([], "fp16", "variant 'fp16': model.fp16.safetensors is missing"),
        (["model.fp16-00001-of-00002.safetensors"], "fp16", "index, model.safetensors.index.fp16.json, is missing"),
    ],
)
def test_a_variant_that_is_not_there_is_answered_with_those_that_are(
    files: list[str], variant: str | None, said: str, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).touch()
    with pytest.raises(CheckpointError, match=said):
        read_weights(tmp_path, "model", variant)


def test_every_message_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header at!")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "model.safetensors"))):
        read_weights(tmp_path, "model")


def test_buffers_that_no_file_holds_go_where_the_weights_go_and_stay_out_of_files() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    net[0].register_buffer("waves", torch.ones(3), persistent=False)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    load_into(net, state, "a file", device="meta")
    assert {value.device.type for value in (*net.parameters(), *net.buffers())} == {"meta"}
    assert net.state_dict().keys() == state.keys()


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_quantised_weights_are_refused_by_name(net: UNet2DModel, kind: torch.dtype) -> None:
    """Whole numbers under a layer's name are another's quantisation: read as they are they mean nothing."""
    state = {name: value.to(kind) if name == "conv_in.weight" else value for name, value in net.state_dict().items()}
    with empty_parameters():
        ours = UNet(UNetConfig(**CONFIG))
    said = rf"conv_in\.weight is {str(kind).removeprefix('torch.')}; quantised weights are not read here"
    with pytest.raises(CheckpointError, match=said):
        load_into(ours, state, "here")
