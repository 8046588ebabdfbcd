"""`neblina generate`: pictures from a model, from words or classes."""

from pathlib import Path

from neblina.cli.making import carry_out
from neblina.cli.models import model_first
from neblina.cli.options import Labels, Opening, Output, Sampling, prompts_of


def generate(
    model: str | None = None,
    prompt: str | None = None,
    /,
    *,
    prompts: Path | None = None,
    label: Labels = None,
    size: str | None = None,
    start: str | None = None,
    t_start: float = 1.0,
    t_end: float = 0.0,
    sampling: Sampling = Sampling(),  # noqa: B008, frozen
    opening: Opening = Opening(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Make pictures, each with its recipe inside, and a sheet of all of them.

    Parameters
    ----------
    model
        A model's folder or file, or its name on the hub; left out, the small model of emoji in this package.
    prompt
        What they are to show; (word:1.3) gives a word more weight.
    prompts
        A text file with a prompt a line, in turn; one picture each unless -n says otherwise.
    label
        Class by number or name, of a model of classes; may be given several times.
    size
        Width and height in pixels, such as 768x512; the model's own when left out.
    start
        A picture, or a folder of them, to start from in place of noise.
    t_start
        How much noise it is given: 1 leaves nothing of it, 0.5 its composition.
    t_end
        Where to stop, 0 is clean.
    """
    model, prompt = model_first((model, prompt))
    own = {
        "prompt": prompt if prompts is None else prompts_of(prompts, prompt),
        "labels": label,
        "size": size,
        "start": start,
        "t_start": None if t_start == 1 else t_start,
        "t_end": t_end or None,
    }
    carry_out("generate", str(model), own, opening, sampling, output)
