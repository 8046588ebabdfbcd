"""The commands that make pictures: open the model, show how far it is, save what was made, say where."""

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neblina.cli.options import Opening, Output, Sampling, arguments_of
from neblina.cli.progress import bar, console

if TYPE_CHECKING:
    from neblina.tasks.model import Model
    from neblina.tasks.order import Order
    from neblina.tasks.recipe import Made


def carry_out(
    verb: str,
    model: str,
    own: dict[str, Any],
    opening: Opening,
    sampling: Sampling,
    output: Output,
    *,
    boxes: bool = False,
) -> None:
    """Carry out a verb with what was given on the command line.

    Args:
        own: the verb's own arguments; None is not given.
        boxes: as of `save`.
    """
    from neblina.tasks.order import Order

    given = {name: str(value) if isinstance(value, Path) else value for name, value in own.items() if value is not None}
    save(Order(verb, model, {**given, **arguments_of(opening, sampling)}), output, boxes=boxes)


def save(order: "Order", output: Output, *, boxes: bool = False) -> "list[Made]":
    """Make the pictures of an order and write each with its recipe, and a sheet of all where there are several.

    They are written as they come, so that Ctrl-C loses what is being made and no more. Nothing is written over but
    the last order's sheet.

    Args:
        boxes: write each picture of a scene also with its places drawn on.
    """
    from neblina.encoders.prompts import PromptCut
    from neblina.tasks.keeping import keep, keep_sheet, ready
    from neblina.tasks.making import Watch, in_portions, open_model
    from neblina.tasks.order import in_turn
    from neblina.tasks.preview import Preview
    from neblina.tasks.settings import Noticed
    from neblina.tasks.token_making import asks_for_tokens

    ready(output.out)
    if asks_for_tokens(order.model):
        return save_tokens(order, output)
    opened = open_model(order, device=output.device)
    preview = Preview(opened, output.out / "preview.png", output.preview)
    with bar(order.verb) as progress, warnings.catch_warnings(record=True) as said, preview:
        warnings.simplefilter("always", UserWarning)
        task = progress.task_ids[0]
        beside = _Beside(order, opened, output, boxes)
        known: list[int | None] = []

        def on_begin(total: int | None) -> None:
            known.append(total)
            progress.update(task, total=None if None in known else sum(total or 0 for total in known))

        def on_step(step: Any) -> None:
            progress.update(task, advance=len(step.query.x), words=f"t = {float(step.query.t.max()):.3f}")
            preview(step)
            beside.look(step)

        began = time.perf_counter()
        made, places = [], []
        for portion in in_portions(order, opened, Watch(on_begin, on_step)):
            kept = keep(portion, output.out)
            beside.draw(portion, kept)
            made += portion
            places += kept
        beside.end(made)
        seconds = time.perf_counter() - began
        progress.update(task, words="")
    for warning in {(each.category, str(each.message)): each for each in said}.values():  # of every portion the same
        if issubclass(warning.category, PromptCut | Noticed):
            console.print(f"[yellow]note:[/yellow] {warning.message}")
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    shown = places[0]
    if len(made) > 1:
        labels = in_turn(order.verb, order.arguments).get("labels")
        _, height, width = made[0].picture.shape
        columns = len(labels) if isinstance(labels, list) and len(labels) > 1 else max(1, min(8, 16 * height // width))
        shown = keep_sheet(made, output.out, columns=min(len(made), columns))
    count = f"{len(made)} pictures" if len(made) > 1 else "1 picture"
    console.print(f"{order.verb}: {count} in {seconds:.1f} s ({len(made) / seconds:.2g} images/s)    {shown}")
    for place in beside.places:
        console.print(str(place))
    return made


def save_tokens(order: "Order", output: Output) -> "list[Made]":
    """Make what an order asks of a model of tokens: pictures, each with its recipe, or texts in a file."""
    from neblina.core.atomic import write_file
    from neblina.core.errors import SettingError
    from neblina.tasks.keeping import keep, keep_sheet, names
    from neblina.tasks.making import Watch
    from neblina.tasks.token_making import open_token_model, pictures_of, texts_of

    if output.preview or output.animation:
        raise SettingError("previews and animations are of models of pictures: leave --preview and --animation out")
    opened = open_token_model(order, device=output.device)
    began = time.perf_counter()
    with bar(order.verb) as progress:
        task = progress.task_ids[0]

        def on_step(step: Any) -> None:
            progress.update(task, advance=len(step.query.x), words=f"t = {float(step.query.t.max()):.3f}")

        watch = Watch(lambda total: progress.update(task, total=total), on_step)
        texts = texts_of(order, opened, watch) if opened.bundle.alphabet else []
        made = [] if opened.bundle.alphabet else list(pictures_of(order, opened, watch))
        progress.update(task, words="")
    seconds = time.perf_counter() - began
    output.out.mkdir(parents=True, exist_ok=True)
    if texts:
        place = next(place for place in names(output.out / "texts.txt") if not place.exists())
        write_file(place, lambda aside: aside.write_text("\n\n".join(texts) + "\n"))
        console.print("\n\n".join(texts), markup=False)
        count = f"{len(texts)} texts" if len(texts) > 1 else "1 text"
        console.print(f"{order.verb}: {count} in {seconds:.1f} s    {place}")
        return []
    places = keep(made, output.out)
    shown = places[0] if len(made) == 1 else keep_sheet(made, output.out, columns=min(len(made), 8))
    count = f"{len(made)} pictures" if len(made) > 1 else "1 picture"
    console.print(f"{order.verb}: {count} in {seconds:.1f} s ({len(made) / seconds:.2g} images/s)    {shown}")
    return made


class _Beside:
    """What is written beside the pictures; `places` are the files that are worth a line."""

    def __init__(self, order: "Order", model: "Model", output: Output, boxes: bool) -> None:
        from neblina.tasks.animation import Animation
        from neblina.tasks.scenes import scene_of

        self.out = output.out
        self.scene = scene_of(order.arguments["scene"]) if boxes else None
        self.animation = Animation(model) if output.animation else None
        self.places: list[Path] = []

    def look(self, step: Any) -> None:
        """Look at an answer."""
        if self.animation is not None:
            self.animation(step)

    def draw(self, made: "list[Made]", places: list[Path]) -> None:
        """Draw the places of the scene on pictures, beside where those are."""
        if self.scene is None:
            return
        from neblina.tasks.outlines import save_outlined  # brings a library along

        drawn = [save_outlined(one.picture, self.scene, at) for one, at in zip(made, places, strict=True)]
        self.places = self.places or drawn[:1]

    def end(self, made: "list[Made]") -> None:
        """All pictures are made."""
        if self.animation is not None:
            self.places.append(self.animation.save(self.out / "animation.gif", made[0].picture))
