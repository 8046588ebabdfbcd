"""`neblina`: the commands. Each lives in its own file and is imported when it is called."""

import atexit
import gc
import sys

from cyclopts import App

from neblina.core.errors import Cancelled, Interrupted, NeblinaError
from neblina.version import __version__

app = App(
    name="neblina",
    help="Diffusion models, from a folder of pictures to a measured model.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `run` says that it stopped
)
app.command("neblina.cli.demo:demo", name="demo", help="Train on handwritten digits, generate, measure: see it work.")
app.command("neblina.cli.train:train", name="train", help="Train a model from a recipe or from a folder of pictures.")
app.command("neblina.cli.data:app", name="data")
app.command("neblina.cli.watch:watch", name="watch", help="Show a training run in the browser.")
app.command("neblina.cli.generate:generate", name="generate", help="Make pictures from words or classes.")
app.command("neblina.cli.edit:edit", name="edit", help="Change a photo as words say.")
app.command("neblina.cli.inpaint:inpaint", name="inpaint", help="Make part of a photo anew.")
app.command("neblina.cli.outpaint:outpaint", name="outpaint", help="Extend a photo past its borders.")
app.command("neblina.cli.upscale:upscale", name="upscale", help="Enlarge a photo.")
app.command("neblina.cli.compose:compose", name="compose", help="Place every element of a scene where it is to be.")
app.command("neblina.cli.panorama:panorama", name="panorama", help="Make a picture of any size, also all around.")
app.command("neblina.cli.reproduce:reproduce", name="reproduce", help="Make a picture again from its own recipe.")
app.command("neblina.cli.samplers:samplers", name="samplers", help="List the samplers, or measure them: --card.")
app.command("neblina.cli.average:average", name="average", help="Choose the length of a run's weight average.")
app.command("neblina.cli.evaluate:evaluate", name="evaluate", help="Measure a model on pictures it never saw.")
app.command("neblina.cli.info:info", name="info", help="Say what is known about a model or a picture.")
app.command("neblina.cli.convert:convert", name="convert", help="Write any model as a folder that diffusers opens.")
app.command("neblina.cli.check:check", name="check", help="Say what a model is and what is wrong with it.")


def run() -> None:
    """Run the command line; a user's mistake is one sentence, never a traceback."""
    gc.set_threshold(100_000)  # imports make objects that stay: looking for garbage among them costs half a second
    atexit.register(gc.freeze)  # and as much again when Python ends
    try:
        app()
    except (Interrupted, Cancelled) as stop:
        print(f"neblina: {stop}", file=sys.stderr)
        sys.exit(130)
    except NeblinaError as error:
        print(f"neblina: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("neblina: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
