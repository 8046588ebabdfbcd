"""Checkpoint files of torch: their tensors are read whoever saved them, and nothing in them is ever run."""

import collections
import contextlib
import io
import pickle
import random
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from neblina.bundle.single_file.checkpoint import read_checkpoint
from neblina.bundle.single_file.pickles import Inert, Name, interpret
from neblina.core.errors import CheckpointError

STATE = {
    "float": torch.randn(3, 4),
    "half": torch.randn(5).half(),
    "bfloat16": torch.randn(5).bfloat16(),
    "double": torch.randn(2, 2).double(),
    "long": torch.arange(4),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 3),
}


def equal(ours: Any, theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs
    )


ZIPPED = [True, False]


@pytest.mark.parametrize("zipped", ZIPPED)
@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_of_every_type_are_read(zipped: bool, protocol: int, tmp_path: Path) -> None:
    content = {"state_dict": collections.OrderedDict(STATE), "global_step": 7, "text": "said"}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    read = read_checkpoint(tmp_path / "a.ckpt")
    assert equal(read.state, STATE)
    assert read.notes == {"global_step": 7, "text": "said"}


@pytest.mark.parametrize("zipped", ZIPPED)
def test_views_shared_storages_and_parameters_are_read(zipped: bool, tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {"whole": base, "turned": base.T, "part": base[1:3, ::2], "wide": base[:1].expand(3, 6)}
    saved = {**state, "parameter": nn.Parameter(base)}
    torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert equal(read_checkpoint(tmp_path / "a.pt").state, {**state, "parameter": base})


def test_a_modules_own_state_with_its_metadata_is_read(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    torch.save(net.state_dict(), tmp_path / "a.pth")
    assert equal(read_checkpoint(tmp_path / "a.pth").state, dict(net.state_dict()))


def test_numbers_of_numpy_beside_the_weights_are_read(tmp_path: Path) -> None:
    content = {"state_dict": {"a": torch.ones(2)}, "global_step": np.int64(875_000), "loss": np.float32(0.5)}
    torch.save(content, tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path / "a.ckpt").notes == {"global_step": 875_000, "loss": 0.5}


def test_safetensors_are_read_with_their_metadata(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"modelspec.prediction_type": "v"})
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert (list(read.state), read.notes) == (["a"], {"modelspec.prediction_type": "v"})


@pytest.mark.parametrize("zipped", ZIPPED)
def test_a_file_of_lightning_is_read_without_lightning(zipped: bool, tmp_path: Path) -> None:
    """Its callbacks, its named tuples and its optimiser's state are of modules that are gone when it is read."""
    module = types.ModuleType("gone_lightning")
    sys.modules["gone_lightning"] = module
    exec(
        "import collections, enum\n"
        "class Callback:\n"
        "    def __init__(self): self.best, self.monitor = 0.5, 'loss'\n"
        "    def __setstate__(self, state): raise SystemExit('ran')\n"
        "class Hyper(dict): pass\n"
        "class Several(list): pass\n"
        "class Slotted:\n"
        "    __slots__ = ('a',)\n"
        "    def __init__(self): self.a = 1\n"
        "Pair = collections.namedtuple('Pair', 'one other')\n"
        "class State(enum.Enum): FITTING = 1\n",
        module.__dict__,
    )
    made: Any = module
    content = {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "1.4.2",
        "callbacks": {made.Callback: {"best": torch.ones(1)}, "other": made.Callback()},
        "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}],
        "hyper_parameters": made.Hyper(lr=1e-3, deep=made.Hyper()),
        "several": made.Several([1, made.Slotted(), made.Pair(1, 2), made.State.FITTING, {1, 2}, frozenset({3})]),
        "state_dict": collections.OrderedDict(STATE),
    }
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    del sys.modules["gone_lightning"]
    with pytest.raises((pickle.UnpicklingError, ModuleNotFoundError)):
        torch.load(tmp_path / "a.ckpt", weights_only=True)
    read = read_checkpoint(tmp_path / "a.ckpt")
    assert equal(read.state, STATE)
    assert read.notes == {"epoch": 3, "global_step": 12, "pytorch-lightning_version": "1.4.2"}


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def raw(text: str) -> bytes:
    """A pickle written by hand, of protocol 0, ended."""
    return text.encode() + b"."


def malicious(trap: Path) -> dict[str, bytes]:
    """Pickles which, when unpickled, make the file `trap`; each by another way."""
    command = f"open({str(trap)!r}, 'w')"
    import os

    return {
        "os.system": pickle.dumps(Calls(os.system, f"touch {trap}")),
        "builtins.eval": pickle.dumps(Calls(eval, command)),
        "getattr chain": pickle.dumps(Calls(Calls, 1))
        and raw(f"cbuiltins\ngetattr\n(cpathlib\nPath\nS'touch'\ntR(cpathlib\nPath\n(S'{trap}'\ntRtR"),
        "GLOBAL": raw(f"cposix\nsystem\n(S'touch {trap}'\ntR"),
        "INST": raw(f"(S'touch {trap}'\nios\nsystem\n"),
        "OBJ": b"(cpathlib\nPath\nX" + struct.pack("<I", len(str(trap))) + str(trap).encode() + b"o.",
        "STACK_GLOBAL": pickle.dumps(Calls(os.system, f"touch {trap}"), protocol=4),
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(X\x05\0\0\0touchX"
        + struct.pack("<I", len(str(trap)))
        + str(trap).encode()
        + b"l\x85\x81.",
        "BUILD": raw(f"cbuiltins\neval\n(S{command!r}\ntR(dS'x'\nI1\nsb"),
        "builtins.exec by REDUCE twice": raw(
            f"cbuiltins\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'system'\ntR(S'touch {trap}'\ntR"
        ),
    }


WAYS = list(malicious(Path("trap")))


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("OBJ", "NEWOBJ")])  # those only make an object
def test_what_is_malicious_would_have_run(way: str, tmp_path: Path) -> None:
    """The traps are real: without this, the next tests would show nothing."""
    trap = tmp_path / "trap"
    with contextlib.suppress(Exception):
        pickle.loads(malicious(trap)[way])
    assert trap.exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_malicious_pickle_does_nothing(way: str, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    before = set(sys.modules)
    assert isinstance(interpret(io.BytesIO(malicious(trap)[way])), Inert)
    assert not trap.exists()
    assert set(sys.modules) == before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("beside", [True, False])
def test_in_a_checkpoint_it_does_nothing_either(way: str, beside: bool, tmp_path: Path) -> None:
    """Beside weights it is passed over; instead of them, the file is refused."""
    trap = tmp_path / "trap"
    evil = malicious(trap)[way].removesuffix(b".").removeprefix(b"\x80\x02")
    if evil[:2] == b"\x80\x04":
        evil = evil[11:]  # its frame is counted out
    tensor = save({"a": torch.ones(2)}, tmp_path / "good.ckpt")
    good = tensor[2:-1]
    body = b"(" + b"S'evil'\n" + evil + b"S'state_dict'\n" + good + b"d." if beside else evil + b"."
    repack(tmp_path / "good.ckpt", tmp_path / "bad.ckpt", {"data.pkl": b"\x80\x02" + body})
    if beside:
        assert equal(read_checkpoint(tmp_path / "bad.ckpt").state, {"a": torch.ones(2)})
    else:
        with pytest.raises(CheckpointError, match="it holds no tensors by name"):
            read_checkpoint(tmp_path / "bad.ckpt")
    assert not trap.exists()


def save(content: Any, place: Path) -> bytes:
    """Save as torch does; returns the pickle."""
    torch.save(content, place)
    with zipfile.ZipFile(place) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return archive.read(name)


def repack(source: Path, target: Path, replaced: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for record in old.infolist():
            last = record.filename.split("/", 1)[1]
            new.writestr(record.filename, replaced.get(last, old.read(record.filename)))


def test_a_name_is_never_looked_up() -> None:
    assert interpret(io.BytesIO(raw("cantigravity\nfly\n"))) == Name("antigravity", "fly")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("zipped", ZIPPED)
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.97])
def test_a_file_that_was_cut_short_is_refused(zipped: bool, keep: float, tmp_path: Path) -> None:
    place = tmp_path / "a.ckpt"
    torch.save({"a": torch.randn(50), "b": torch.randn(50)}, place, _use_new_zipfile_serialization=zipped)
    place.write_bytes(place.read_bytes()[: int(place.stat().st_size * keep)])
    with pytest.raises(CheckpointError, match=r"a\.ckpt (cannot be read|is damaged)"):
        read_checkpoint(place)


@pytest.mark.parametrize("zipped", ZIPPED)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(zipped: bool, tmp_path: Path) -> None:
    place, rng = tmp_path / "a.ckpt", random.Random(0)
    content = {"state_dict": collections.OrderedDict(STATE), "more": [1, (2, {3}), None]}
    torch.save(content, place, _use_new_zipfile_serialization=zipped)
    whole = place.read_bytes()
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 3, 9])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        place.write_bytes(damaged)
        try:
            read_checkpoint(place)
        except CheckpointError:
            refused += 1
    assert refused > 30


def described(storage_type: str = "FloatStorage", **changes: Any) -> bytes:
    """A pickle of one tensor of two floats in storage 0, with something changed."""
    said = {"offset": 0, "size": "(I2\nt", "stride": "(I1\nt", **changes}
    storage = f"(S'storage'\nctorch\n{storage_type}\nS'0'\nS'cpu'\nI2\ntQ"
    arguments = f"({storage}I{said['offset']}\n{said['size']}{said['stride']}I00\nNt"
    return b"\x80\x02(S'a'\nctorch._utils\n_rebuild_tensor_v2\n" + arguments.encode() + b"Rd."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"offset": 1}, "larger than its storage"),
        ({"offset": -1}, "without a shape"),
        ({"size": "(I3\nt"}, "larger than its storage"),
        ({"size": "(I2\nI2\nt"}, "without a shape"),
        ({"stride": "(I1000000000000\nt"}, "larger than its storage"),
        ({"stride": "(I-1\nt"}, "without a shape"),
        ({"size": "S'two'\n"}, "without a shape"),
        ({"storage_type": "QInt8Storage"}, "unknown type, QInt8Storage"),
        ({"storage_type": "DoubleStorage"}, "larger than its storage"),
    ],
)
def test_a_tensor_does_not_reach_beyond_its_storage(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save({"a": torch.ones(2)}, tmp_path / "good.ckpt")
    repack(tmp_path / "good.ckpt", tmp_path / "same.ckpt", {"data.pkl": described()})
    assert equal(read_checkpoint(tmp_path / "same.ckpt").state, {"a": torch.ones(2)})
    repack(tmp_path / "good.ckpt", tmp_path / "bad.ckpt", {"data.pkl": described(**changes)})
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(tmp_path / "bad.ckpt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"a\.ckpt is empty"),
        (b"GIF89a not a checkpoint", r"a\.ckpt is no checkpoint"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", r"a\.ckpt is no checkpoint"),
        (b"a text, of many words", r"a\.ckpt is no checkpoint"),
        (b"\x40\0\0\0\0\0\0\0{}", r"a\.ckpt is a safetensors file"),
        (b"\x80\x02" + raw("I7\n"), "it is no file that torch wrote"),
        (b"\x80\x02r\xff\xff\xff\xff.", "cannot be read: damaged"),  # a memo of four billion places
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "cannot be read: damaged"),  # bytes without end
        (b"\x80\x02(((t" + b"t" * 9 + b".", "cannot be read: damaged"),
    ],
)
def test_what_is_no_checkpoint_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(tmp_path / "a.ckpt")


def test_archives_of_something_else_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("photos/one.jpg", b"")
    with pytest.raises(CheckpointError, match="archive of something else than tensors"):
        read_checkpoint(tmp_path / "a.ckpt")
    save({"a": torch.ones(2)}, tmp_path / "good.ckpt")
    repack(tmp_path / "good.ckpt", tmp_path / "small.ckpt", {}, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed archive"):
        read_checkpoint(tmp_path / "small.ckpt")
    repack(tmp_path / "good.ckpt", tmp_path / "big.ckpt", {"byteorder": b"big"})
    with pytest.raises(CheckpointError, match="big-endian"):
        read_checkpoint(tmp_path / "big.ckpt")
    with pytest.raises(CheckpointError, match=r"none\.ckpt is missing"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_weights_are_mapped_not_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(16, 1024, 1024)}, tmp_path / "a.ckpt")

    def resident() -> int:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) // 1024

    before = resident()
    assert float(read_checkpoint(tmp_path / "a.ckpt").state["a"].sum()) == 2**24
    assert resident() - before < 32  # of 64 MiB
