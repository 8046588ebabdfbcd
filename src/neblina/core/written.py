"""What a person writes into a YAML file: read as plain values, and the line that a mistake stands in.

Imports no torch, so that a command line that only prints its help does not wait for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from reprlib import repr as shortened
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from neblina.core.errors import SettingError

Place = Sequence[str | int]  # the names and the numbers, from 0, that lead to a value


@dataclass(frozen=True)
class Written:
    """Where values come from.

    Attributes:
        where: how a sentence calls it, such as "recipe 'cats.yaml'"; empty for values of no file.
        text: the YAML they were read from; empty for values of no file.
        field: what a name in it is, such as "a setting".
    """

    where: str
    text: str = ""
    field: str = "a setting"

    def values(self, kind: str) -> dict[str, Any]:
        """The names and values of the text.

        Args:
            kind: what they make, for the sentence: "a recipe is settings under names".
        Raises:
            SettingError: no YAML, no names and values, or the same name twice.
        """
        try:
            content = yaml.safe_load(self.text)
            twice = next(_twice(self._tree()), None)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise SettingError(f"{self.where} is not YAML: {error}") from error
        if content is not None and not isinstance(content, Mapping):
            raise SettingError(f"{self.where} is a {type(content).__name__}; {kind}")
        if twice is not None:
            name, line, before = twice
            raise SettingError(f"{self.where}, line {line}: {name} is there already, in line {before}: keep one")
        return dict(content or {})

    def start(self, place: Place = ()) -> str:
        """How a sentence about a value begins: the file, and the line if it stands in one; empty for no file."""
        if not self.where:
            return ""
        line = _line(self._tree(), place) if self.text else None
        return f"{self.where}, line {line}: " if line else f"{self.where}: "

    def checked(self, kind: type[BaseModel], content: Mapping[str, Any]) -> Any:
        """The values as a model of pydantic's.

        Raises:
            SettingError: a field that there is not, or a value that does not fit; a sentence for each.
        """
        try:
            return kind.model_validate(content)
        except ValidationError as error:
            raise SettingError("\n".join(self._sentence(one, kind) for one in error.errors())) from error

    def _sentence(self, error: Any, kind: type[BaseModel]) -> str:
        place = error["loc"]
        if error["type"] == "invalid_key":
            place = (*place[:-1], str(place[-1]))
        start = f"{self.start(place)}{dotted(place)}"
        if error["type"] not in ("extra_forbidden", "invalid_key"):
            return f"{start}{_wrong(error)}"
        known = sorted(_fields(kind, place[:-1]))
        close = get_close_matches(str(place[-1]), known, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"There is: {', '.join(known)}."
        return f"{start} is not {self.field}. {hint}"

    def _tree(self) -> Any:
        return yaml.compose(self.text, Loader=yaml.SafeLoader)


def packaged(folder: str) -> dict[str, Traversable]:
    """The YAML files that the package brings in a folder, by their names."""
    files = sorted((resources.files("neblina") / folder).iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}


def dotted(place: Place) -> str:
    """A value's place as it is said: names, and numbers that count from 1."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in place)


def _wrong(error: Any) -> str:
    """The end of a sentence about a value that does not fit, from an error of pydantic's."""
    if error["type"] == "value_error":
        return " " + str(error["msg"]).removeprefix("Value error, ")
    said = "settings under names belong here" if error["type"].startswith("model_") else error["msg"]
    return f" = {shortened(error['input'])}: {said}"


def _fields(kind: Any, place: Place) -> list[str]:
    """The names that there are at a place within a model of pydantic's."""
    for part in place:
        kind = _model_in(kind.model_fields[part].annotation) if isinstance(part, str) else kind
    return list(kind.model_fields)


def _model_in(annotation: Any) -> Any:
    """The model that an annotation is, or is a list or one possibility of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


def _line(node: Any, place: Place) -> int | None:
    """The line of a value in a YAML document, if it stands there."""
    if not place:
        return None if node is None else int(node.start_mark.line) + 1
    first, rest = place[0], place[1:]
    if isinstance(node, yaml.SequenceNode) and isinstance(first, int):
        return _line(node.value[first], rest) if first < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(first):
                return int(key.start_mark.line) + 1 if not rest else _line(value, rest)
    return None


def _twice(root: Any) -> Iterator[tuple[str, int, int]]:
    """Names that stand twice in one mapping, with the line and the one before."""
    seen, waiting = set(), [root]  # an alias may stand for what holds it
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.SequenceNode | yaml.MappingNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = int(key.start_mark.line) + 1
                if key.value in lines:
                    yield key.value, line, lines[key.value]
                lines[key.value] = line
            waiting.append(value)
