"""A network's configuration and its config.json: the same fields, with lists for tuples."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from neblina.core.errors import choose

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Config = TypeVar("Config", bound=DataclassInstance)

# how the weights were averaged in training: diffusers' EMAModel writes it into the network's config.json
_OF_TRAINING = ("decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup", "inv_gamma", "power")


def read_config(cls: "type[Config]", name: str, given: Mapping[str, Any]) -> "Config":
    """A configuration of class `cls` from a config.json; keys that begin with an underscore are its writer's own, and
    those of how its weights were averaged are passed over.

    Args:
        cls: a frozen dataclass that checks itself.
        name: what the ecosystem calls the network, for messages.
        given: the file's content.
    Raises:
        SettingError: an unknown field, with the closest known one; or what the configuration itself refuses.
    """
    known = [field.name for field in fields(cls)]
    said = {key: value for key, value in given.items() if not key.startswith("_") and key not in _OF_TRAINING}
    for key in said:
        choose(f"field of a {name} config", key, known)
    return cls(**{key: _frozen(value) for key, value in said.items()})


def write_config(config: "DataclassInstance", name: str) -> dict[str, Any]:
    """What goes into config.json, with the class that the ecosystem opens it as."""
    return {"_class_name": name, **{key: _thawed(value) for key, value in asdict(config).items()}}


def _frozen(value: Any) -> Any:
    """Lists become tuples, at every depth."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list | tuple) else value


def _thawed(value: Any) -> Any:
    return [_thawed(part) for part in value] if isinstance(value, tuple) else value
