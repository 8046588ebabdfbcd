"""`neblina average`: choose the length of the weights' average after training."""

from pathlib import Path

from neblina.cli.progress import command, console


def average(run: Path, /, *, length: float, out: Path) -> None:
    """Make a model from a run's snapshots with an average of another length.

    Parameters
    ----------
    run
        A run trained with --training.snapshots-every.
    length
        Standard deviation of the average over the training, as a share of it: 0.05 is short, 0.15 long.
    out
        Where the model goes.
    """
    from neblina.tasks.average import average as make

    made = make(run, length, out)
    console.print(f"from {made.snapshots} snapshots, the profile of length {length:g} missed by {made.missed:.2%}")
    console.print(f"the model                                 {made.model}")
    console.print(f"try next:  {command()} generate {made.model} -n 16")
