"""The text encoders of a model's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neblina.bundle.bundle import Texts
from neblina.bundle.components import Opening
from neblina.bundle.pipelines import Pipeline


def read_texts(folder: Path, pipeline: Pipeline, index: Mapping[str, Any], opening: Opening) -> Texts | None:
    """What reads prompts for a model, None for one that takes none."""
    if not pipeline.texts:
        return None
    raise NotImplementedError
