"""The `prompt` graph of ComfyUI: nodes by number, each input a value or a link [node, output].

The picture is followed back from where it is saved to its sampler, and from there the model, the prompts and the
latents it began with, each through whatever lies between. A node that is passed through without a counterpart here is
told, and so is a value that is computed only when ComfyUI runs.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from neblina.core.errors import DataError
from neblina.tasks.attention_marks import from_comfyui
from neblina.tasks.foreign_parts import (
    BEGUN,
    OF_THE_PROMPT,
    OTHER_NOISE,
    ForeignParameters,
    Unmapped,
    find_grid,
    find_sampler,
    without_effect,
)

_SAMPLERS = ("KSampler", "KSamplerAdvanced")
_SAVERS = ("SaveImage", "PreviewImage")
_VALUES = ("value", "int", "float", "string", "text", "number", "seed", "Value", "Number", "String")
_THROUGH = {  # the inputs by which a picture comes to a node
    "back": ("images", "image", "samples", "pixels", "latent", "latent_image", "input", "any"),
    "model": ("model", "input"),
    "clip": ("clip", "input"),
    "conditioning": ("conditioning", "conditioning_1", "conditioning_to", "input"),
}
_SILENT = ("VAEDecode", "VAEDecodeTiled", "Reroute", *_SAVERS)  # they change nothing that has a name


def read_comfyui(text: str) -> ForeignParameters:
    """What the graph says.

    Raises:
        DataError: no graph, or none with a KSampler that leads to a picture.
    """
    return _Reader(_graph(text)).read()


def _graph(text: str) -> dict[str, dict[str, Any]]:
    try:
        graph = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the ComfyUI graph in the picture is damaged: {error}") from error
    if not isinstance(graph, dict) or not all(
        isinstance(node, dict) and isinstance(node.get("inputs"), dict) for node in graph.values()
    ):
        raise DataError("the ComfyUI graph in the picture is not a list of nodes with inputs")
    return graph


class _Reader:
    """One graph being read: what was found and what was passed."""

    def __init__(self, graph: Mapping[str, dict[str, Any]]) -> None:
        self.graph = graph
        self.arguments: dict[str, Any] = {}
        self.unmapped: list[Unmapped] = []
        self.model: str | None = None

    def read(self) -> ForeignParameters:
        samplers = self._samplers()
        if not samplers:
            kinds = sorted({str(node.get("class_type")) for node in self.graph.values()})
            raise DataError(
                f"the ComfyUI graph in the picture has no KSampler to read, only {', '.join(kinds) or 'nothing'}"
            )
        first = samplers[-1]  # nearest to the noise
        for other in samplers[:-1]:
            self.note(other, "a further pass over the picture; the first is read")
        self._sampling(first)
        self._model(first)
        for role, name in (("positive", "prompt"), ("negative", "negative")):
            self._prompt(first, role, name)
        self._latents(first)
        self.unmapped += without_effect(self.arguments, "negative")
        unmapped = tuple(dict.fromkeys(self.unmapped))
        return ForeignParameters("ComfyUI", self.model, None, self.arguments, unmapped)

    def note(self, node: str, reason: str) -> None:
        """Tell of a node."""
        values = {name: value for name, value in self.graph[node]["inputs"].items() if not _is_link(value)}
        self.unmapped.append(Unmapped(self.kind(node), json.dumps(values), reason))

    def kind(self, node: str) -> str:
        return str(self.graph[node].get("class_type"))

    def linked(self, node: str, name: str) -> str | None:
        """The node that an input comes from."""
        value = self.graph[node]["inputs"].get(name)
        if not _is_link(value):
            return None
        return str(value[0]) if str(value[0]) in self.graph else None

    def value(self, node: str, name: str) -> Any:
        """An input's value, through nodes that only hold one; None, told, where it is computed."""
        given = self.graph[node]["inputs"].get(name)
        seen = {node}
        while _is_link(given):
            source = str(given[0])
            inputs = self.graph.get(source, {}).get("inputs", {})
            held = [value for key, value in inputs.items() if key in _VALUES]
            if source not in seen and not held and self.graph.get(source, {}).get("class_type") == "Reroute":
                held = list(inputs.values())
            if source in seen or len(held) != 1:
                where = f"node {source} ({self.kind(source)})" if source in self.graph else f"node {source}, not there"
                self.unmapped.append(Unmapped(name, where, "its value is computed when ComfyUI runs"))
                return None
            seen.add(source)
            given = held[0]
        return given

    def chain(self, node: str | None, way: str) -> Iterator[str]:
        """The nodes from one on backwards, by the inputs of that way."""
        seen: set[str] = set()
        while node is not None and node not in seen:
            seen.add(node)
            yield node
            node = next(filter(None, (self.linked(node, name) for name in _THROUGH[way])), None)

    def _samplers(self) -> list[str]:
        """The samplers on the way back from the first picture that is saved; without one, any."""
        ends = [node for node in self.graph if self.kind(node) in _SAVERS]
        for end in sorted(ends, key=lambda node: (self.kind(node) != "SaveImage", _order(node))):
            way = list(self.chain(end, "back"))
            found = [node for node in way if self.kind(node) in _SAMPLERS]
            if found:
                begun = way.index(found[-1])
                for node in way[:begun]:
                    if self.kind(node) not in (*_SILENT, *_SAMPLERS):
                        self.note(node, "done to the picture afterwards; it has no counterpart here")
                return found
        every = sorted((node for node in self.graph if self.kind(node) in _SAMPLERS), key=_order)
        return every[::-1] if not ends else []

    def _sampling(self, node: str) -> None:
        inputs = self.graph[node]["inputs"]
        for theirs, ours, kind in (
            ("seed", "seed", int),
            ("noise_seed", "seed", int),
            ("steps", "steps", int),
            ("cfg", "guidance", float),
        ):
            if theirs in inputs:
                value = self.value(node, theirs)
                if _is_number(value):
                    self.arguments[ours] = kind(value)
                elif value is not None:
                    self.unmapped.append(Unmapped(theirs, str(value), "this is not a number"))
        if "seed" in self.arguments:
            self.unmapped.append(Unmapped("seed", str(self.arguments["seed"]), OTHER_NOISE))
        for theirs, ours, find in (("sampler_name", "sampler", find_sampler), ("scheduler", "grid", find_grid)):
            value = self.value(node, theirs) if theirs in inputs else None
            if value is not None:
                found, why = find(str(value))
                if found is not None:
                    self.arguments[ours] = found
                if why is not None:
                    self.unmapped.append(why)
        self._part_of_the_way(node)

    def _part_of_the_way(self, node: str) -> None:
        """What KSamplerAdvanced leaves out of a walk."""
        if self.kind(node) != "KSamplerAdvanced":
            return
        whole = {"add_noise": ("enable",), "return_with_leftover_noise": ("disable",), "start_at_step": (0,)}
        for name, usual in whole.items():
            value = self.value(node, name)
            if value is not None and value not in usual:
                self.unmapped.append(Unmapped(name, str(value), "the whole walk from noise to a picture is read"))
        end, steps = self.value(node, "end_at_step"), self.arguments.get("steps")
        if isinstance(end, int) and steps is not None and end < steps:
            self.unmapped.append(Unmapped("end_at_step", str(end), "the whole walk from noise to a picture is read"))

    def _model(self, sampler: str) -> None:
        loras: list[list[Any]] = []
        for node in self.chain(self.linked(sampler, "model"), "model"):
            inputs = self.graph[node]["inputs"]
            if self.kind(node) in ("LoraLoader", "LoraLoaderModelOnly"):
                path, scale = self.value(node, "lora_name"), self.value(node, "strength_model")
                if path is None or not _is_number(scale):
                    self.note(node, "its file or its scale is computed when ComfyUI runs")
                    continue
                loras.append([str(path), float(scale)])
                if self.kind(node) == "LoraLoaderModelOnly" or inputs.get("strength_clip") != inputs.get(
                    "strength_model"
                ):
                    self.note(node, "one scale for the whole LoRA, network and text encoder; the network's is kept")
            elif (name := next((key for key in ("ckpt_name", "unet_name") if key in inputs), None)) is not None:
                found = self.value(node, name)
                self.model = None if found is None else str(found)
                if self.kind(node) != "CheckpointLoaderSimple":
                    self.note(node, "its file is read as the model's")
            elif self.kind(node) != "Reroute":
                self.note(node, "it changes the model, and has no counterpart here")
        if loras:
            self.arguments["loras"] = loras[::-1]  # in the order they are laid on the model

    def _prompt(self, sampler: str, role: str, name: str) -> None:
        source = self.linked(sampler, role)
        for node in self.chain(source, "conditioning"):
            inputs = self.graph[node]["inputs"]
            texts = [key for key in ("text", "text_g", "text_l") if key in inputs]
            if texts and self.kind(node).startswith("CLIPTextEncode"):
                self._text(node, texts, name)
                if role == "positive":
                    self._clip(node)
                others = {key: value for key, value in inputs.items() if key not in texts and not _is_link(value)}
                if others:
                    self.unmapped.append(
                        Unmapped(self.kind(node), json.dumps(others), "the sizes are those of the picture here")
                    )
                return
            way = self.linked(node, role)  # ControlNetApplyAdvanced carries both
            if self.kind(node) != "Reroute":
                self.note(node, f"it changes the {name}, and has no counterpart here")
            if way is not None:
                for role_node in self.chain(way, "conditioning"):
                    texts = [key for key in ("text",) if key in self.graph[role_node]["inputs"]]
                    if texts:
                        self._text(role_node, texts, name)
                        return
        where = "nothing" if source is None else f"node {source} ({self.kind(source)})"
        self.unmapped.append(Unmapped(role, where, f"no text was found that is the {name}"))

    def _text(self, node: str, texts: list[str], name: str) -> None:
        said = [self.value(node, key) for key in texts]
        words = next((one for one in said if isinstance(one, str)), None)
        if words is None:
            return
        for key, one in zip(texts, said, strict=True):
            if isinstance(one, str) and one != words:
                self.unmapped.append(Unmapped(key, one, "one text for both text encoders here; the first is kept"))
        marked = from_comfyui(words)
        self.arguments[name] = marked.prompt
        self.unmapped += marked.unmapped

    def _clip(self, encode: str) -> None:
        for node in self.chain(self.linked(encode, "clip"), "clip"):
            if self.kind(node) == "CLIPSetLastLayer":
                layer = self.value(node, "stop_at_clip_layer")
                if isinstance(layer, int) and layer < -1:
                    self.arguments["clip_skip"] = -layer - 1
                    self.unmapped.append(Unmapped("stop_at_clip_layer", str(layer), OF_THE_PROMPT))
                elif layer is not None and layer != -1:
                    self.unmapped.append(Unmapped("stop_at_clip_layer", str(layer), "this is not a layer from the end"))

    def _latents(self, sampler: str) -> None:
        """The size, or the picture that the walk begins with."""
        strength = self.value(sampler, "denoise") if "denoise" in self.graph[sampler]["inputs"] else 1.0
        way = list(self.chain(self.linked(sampler, "latent_image"), "back"))
        for node in way:
            inputs = self.graph[node]["inputs"]
            if "width" in inputs and "height" in inputs and self.kind(node).startswith("Empty"):
                width, height = self.value(node, "width"), self.value(node, "height")
                if isinstance(width, int) and isinstance(height, int):
                    self.arguments["size"] = f"{width}x{height}"
                batch = self.value(node, "batch_size") if "batch_size" in inputs else 1
                if batch not in (1, None):
                    reason = "the picture does not say which one of the batch it is"
                    self.unmapped.append(Unmapped("batch_size", str(batch), reason))
                if strength not in (1, None):
                    self.unmapped.append(Unmapped("denoise", str(strength), "it begins at no picture"))
                return
            if self.kind(node) not in _SILENT:
                self.note(node, "the walk begins at a picture; give it to neblina edit")
        if strength not in (1, None):
            self.unmapped.append(Unmapped("denoise", str(strength), BEGUN))


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _order(node: str) -> tuple[int, str]:
    return (int(node) if node.isdigit() else 0, node)
