"""Weights on disk under the names of huggingface's libraries: one file or shards with an index, of a variant or plain.

`<stem>.safetensors`, `<stem>.fp16.safetensors`, or `<stem>.fp16-00001-of-00003.safetensors` and its siblings with
`<stem>.safetensors.index.fp16.json`, whose `weight_map` says which shard holds which tensor.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from neblina.core.errors import SettingError
from neblina.core.tensors import save_tensors

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class Filing:
    """How the weights of a model's components are put into files.

    Attributes:
        variant: a word between stem and suffix, such as "fp16"; None for the plain name.
        max_shard: bytes of tensors that a file holds at most, unless one alone is larger; a component that is larger
            is cut into shards. None: never.
    """

    variant: str | None = None
    max_shard: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no file can be called or hold.

        Raises:
            SettingError: naming it.
        """
        if self.variant is not None and not re.fullmatch(r"\w+", self.variant):
            raise SettingError(f"variant {self.variant!r} is part of a file's name: letters and digits, such as fp16")
        if self.max_shard is not None and self.max_shard < 1:
            raise SettingError(f"a shard of {self.max_shard} bytes holds nothing; give a size such as 5GB")


def bytes_of(size: str) -> int:
    """Bytes of a size such as 5GB or 500MB, by powers of 1000.

    Raises:
        SettingError: it is not one.
    """
    said = re.fullmatch(r"(\d+)\s*([KMGT]B)", size.strip().upper())
    if said is None:
        raise SettingError(f"{size!r} is no size of a file, such as 5GB or 500MB")
    return int(said[1]) * _UNITS[said[2]]


def write_weights(tensors: Mapping[str, Tensor], folder: Path, stem: str, filing: Filing | None = None) -> None:
    """Write a component's tensors into a folder that is there.

    Raises:
        OSError: the disk is full or refuses.
    """
    filing = filing or Filing()
    between = f".{filing.variant}" if filing.variant else ""
    if filing.max_shard is None:
        return save_tensors(tensors, folder / f"{stem}{between}.safetensors")
    from huggingface_hub import split_torch_state_dict_into_shards

    split = split_torch_state_dict_into_shards(
        dict(tensors), filename_pattern=f"{stem}{between}{{suffix}}.safetensors", max_shard_size=filing.max_shard
    )
    for file, names in split.filename_to_tensors.items():
        save_tensors({name: tensors[name] for name in names}, folder / file)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / f"{stem}.safetensors.index{between}.json").write_text(json.dumps(index, indent=2) + "\n")
    return None
