"""What a pickle says, without doing it: its opcodes are followed, and no name in it is ever looked up.

Unpickling runs whatever the file names. Here a global is only its name; calling, building or extending one gives an
object that remembers nothing and does nothing; and the tensors, dictionaries and numbers that a checkpoint consists
of are recognised by name. So files of Lightning, whose callbacks and loggers are pickled beside the weights, are read
without those packages, and a malicious file has nothing to call.
"""

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, cast

from neblina.core.errors import CheckpointError


@dataclass(frozen=True)
class Name:
    """A global that the file names; never imported."""

    module: str
    name: str


class Inert:
    """What anything unknown becomes: it takes arguments, items and state, and keeps none."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A storage that the file holds elsewhere, as its persistent id describes it."""

    identity: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Described:
    """A tensor, as it would be rebuilt: where it lies in a storage."""

    storage: Any
    offset: Any
    size: Any
    stride: Any
    dtype: Any = None


def interpret(file: IO[bytes]) -> Any:
    """Follow one pickle to its end; the file is left behind it.

    Returns:
        Dictionaries, lists, numbers and text as they are, tensors as `Described`, everything else as `Inert`.
    Raises:
        CheckpointError: the bytes are no pickle, or end early.
    """
    try:
        return _Machine().run(_Bounded(file))
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise CheckpointError(f"damaged or cut short: {str(error) or type(error).__name__}") from error


class _Bounded:
    """A file that never gives out, and never makes room for, more than it has left."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        here = file.tell()
        self.size = file.seek(0, 2)
        file.seek(here)

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, self.size - self.file.tell()))

    def readline(self) -> bytes:
        return self.file.readline(_LONGEST_LINE)


_LONGEST_LINE = 1 << 16
_MARK = object()


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: _Bounded) -> Any:
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], file)):
            if opcode.name == "STOP":
                return self.stack.pop()
            self.follow(opcode.name, argument)
        raise ValueError("it does not end")

    def follow(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME", "READONLY_BUFFER"):
            raise ValueError(f"it uses the opcode {name}, which checkpoints do not")

    def marked(self) -> list[Any]:
        """What lies above the last mark, taken from the stack."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:  # an IndexError if there is none
            place -= 1
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def taken(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise ValueError("its stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        top = self.stack[-1]
        if isinstance(top, list):
            top.extend(items)
        elif isinstance(top, set):
            top.update(items)

    def assign(self, items: list[Any]) -> None:
        top = self.stack[-1]
        if isinstance(top, dict):
            top.update(zip(items[::2], items[1::2], strict=True))

    def call(self, function: Any, arguments: Any) -> None:
        known = _CALLS.get((function.module, function.name)) if isinstance(function, Name) else None
        if not isinstance(arguments, tuple):
            known = None
        self.stack.append(known(*arguments) if known else Inert())


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Described:
    return Described(storage, offset, size, stride)


def _tensor_of_type(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Described:
    return Described(storage, offset, size, stride, rest[2])


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _dictionary(*items: Any) -> dict[Any, Any]:
    return dict(items[0]) if items and isinstance(items[0], (list, dict)) else {}


@dataclass(frozen=True, eq=False)
class _Kind:
    """A type of NumPy's, by its code."""

    code: Any


def _kind(code: Any, *rest: Any) -> _Kind:
    return _Kind(code)


def _scalar(kind: Any, content: Any = b"", *rest: Any) -> Any:
    import numpy as np

    if not isinstance(kind, _Kind) or kind.code not in ("f4", "f8", "i4", "i8", "u4", "u8", "b1"):
        return Inert()
    return np.frombuffer(content, kind.code)[0].item()


def _encoded(text: Any, *rest: Any) -> Any:
    return text.encode("latin-1") if isinstance(text, str) else Inert()


_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_type,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("collections", "OrderedDict"): _dictionary,
    ("_codecs", "encode"): _encoded,  # how older protocols write bytes
    ("numpy", "dtype"): _kind,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}
# fmt: off
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
    "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
}
# fmt: on
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}


def _inst(machine: _Machine, argument: Any) -> None:
    machine.call(Name(*argument.split(" ", 1)), tuple(machine.marked()))


def _obj(machine: _Machine, argument: Any) -> None:
    function, *arguments = machine.marked()
    machine.call(function, tuple(arguments))


def _new_with_names(machine: _Machine, argument: Any) -> None:
    function, arguments, _ = machine.taken(3)
    machine.call(function, arguments)


def _set_of(machine: _Machine, argument: Any) -> None:
    machine.stack.append(frozenset(machine.marked()))


def _dict_of(machine: _Machine, argument: Any) -> None:
    items = machine.marked()
    machine.stack.append(dict(zip(items[::2], items[1::2], strict=True)))


def _unregistered(machine: _Machine, argument: Any) -> None:
    machine.stack.append(Inert())


_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "POP": lambda machine, _: machine.taken(1),
    "POP_MARK": lambda machine, _: machine.marked(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "APPEND": lambda machine, _: machine.extend(machine.taken(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.marked()),
    "LIST": lambda machine, _: machine.stack.append(machine.marked()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.marked())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.taken(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.taken(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.taken(3))),
    "FROZENSET": _set_of,
    "DICT": _dict_of,
    "SETITEM": lambda machine, _: machine.assign(machine.taken(2)),
    "SETITEMS": lambda machine, _: machine.assign(machine.marked()),
    "GET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "PUT": lambda machine, key: machine.remember(key),
    "BINPUT": lambda machine, key: machine.remember(key),
    "LONG_BINPUT": lambda machine, key: machine.remember(key),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GLOBAL": lambda machine, both: machine.stack.append(Name(*both.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.stack.append(Name(*map(str, machine.taken(2)))),
    "EXT1": _unregistered,
    "EXT2": _unregistered,
    "EXT4": _unregistered,
    "NEXT_BUFFER": _unregistered,
    "REDUCE": lambda machine, _: machine.call(*machine.taken(2)),
    "NEWOBJ": lambda machine, _: machine.call(*machine.taken(2)),
    "NEWOBJ_EX": _new_with_names,
    "INST": _inst,
    "OBJ": _obj,
    "BUILD": lambda machine, _: machine.taken(1),  # what state an object would take is nothing to us
    "BINPERSID": lambda machine, _: machine.stack.append(Stored(tuple(machine.taken(1)[0]))),
    "PERSID": lambda machine, identity: machine.stack.append(Stored((identity,))),
}
