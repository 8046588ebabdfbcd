"""Every guidance on handwritten digits: read as asked, Fréchet ratio, network samples a step, and a picture.

    python benchmarks/guidance.py [--models runs/guidance] [--repeats 2] [--picture docs/images/guidance.png]

Measured as the demo is (tasks/measure.py): an independent reader, and the Fréchet distance to held-out digits over that
of real ones. "asked" counts the pictures that went through the diffusion networks for each picture and step.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from guided import digits, trained
from peers import machine
from torch import Tensor, nn

from neblina.data.pictures import to_uint8
from neblina.tasks.classifier import load_classifier
from neblina.tasks.loading import load
from neblina.tasks.measure import measure
from neblina.tasks.model import Model
from neblina.tasks.plots import Row, plot_rows

STEPS = 25


@dataclass
class Maker:
    """Makes pictures by one setting, and keeps count.

    Attributes:
        model: of digits.
        options: of `Model.generate`.
        made: pictures made.
        asked: pictures that the diffusion networks were given.
    """

    model: Model
    options: dict[str, Any]
    made: int = 0
    asked: int = 0

    def __call__(self, labels: Tensor, seed: int) -> Tensor:
        labelled = self.model.bundle.label_names or "classifier" in self.options
        nets = [self.model.bundle.net]
        if "autoguidance" in self.options:
            nets.append(self.options["autoguidance"].bundle.net)
        hooks = [net.register_forward_hook(self._count) for net in nets]
        pictures = self.model.generate(
            labels=labels.tolist() if labelled else None,
            n=len(labels),
            seed=seed,
            steps=STEPS,
            batch=256,
            **self.options,
        )
        self.made += len(labels)
        for hook in hooks:
            hook.remove()
        return pictures

    def _count(self, net: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        self.asked += len(given[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, default=Path("runs/guidance"))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--picture", type=Path, default=Path("docs/images/guidance.png"))
    given = parser.parse_args()
    conditional, unconditional, weaker = (
        load(trained(name, given.models), device="cpu") for name in ("conditional", "unconditional", "weaker")
    )
    classifier = load_classifier(trained("classifier", given.models), device="cpu")
    training, held = digits()
    settings: list[tuple[str, Model, dict[str, Any]]] = [
        ("none", conditional, {}),
        ("classifier-free, w = 2", conditional, {"guidance": 2.0}),
        ("classifier-free, w = 4", conditional, {"guidance": 4.0}),
        ("w = 4 between σ/α 0.3 and 3", conditional, {"guidance": 4.0, "guidance_interval": (0.3, 3.0)}),
        ("w = 4, rescale 0.7", conditional, {"guidance": 4.0, "guidance_rescale": 0.7}),
        ("w = 4, threshold 0.9", conditional, {"guidance": 4.0, "threshold": 0.9}),
        ("autoguidance, w = 1.5", conditional, {"guidance": 1.5, "autoguidance": weaker}),
        ("autoguidance, w = 2", conditional, {"guidance": 2.0, "autoguidance": weaker}),
        ("unconditional, none", unconditional, {}),
    ]
    settings += [
        (f"unconditional, classifier {scale:g}", unconditional, {"classifier": classifier, "classifier_scale": scale})
        for scale in (1.0, 2.0, 4.0)
    ]
    print(f"{machine()}\n{STEPS} steps, {given.repeats} repeats\n")
    print("| guidance | read as asked | Fréchet ratio | asked |\n| --- | ---: | ---: | ---: |")
    rows = []
    for name, model, options in settings:
        make = Maker(model, options)
        result = measure(model, training, held, data_name="digits", repeats=given.repeats, generate=make)
        asked = make.asked / make.made / STEPS
        print(f"| {name} | {result.agreement:.1%} | {result.frechet_ratio:.2f} | {asked:.2f} |", flush=True)
        rows.append(Row(name, to_uint8(make(torch.arange(10).repeat(2), 5))))
    plot_rows(rows, given.picture, title="The same noise under every guidance; a class a column, twice")


if __name__ == "__main__":
    main()
