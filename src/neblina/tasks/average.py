"""Choose the length of the average of a run's weights after training."""

from dataclasses import dataclass, replace
from pathlib import Path

from neblina.bundle.folder import load_bundle, save_bundle
from neblina.core.errors import CheckpointError
from neblina.training.posthoc import list_snapshots, reconstruct


@dataclass(frozen=True)
class Averaged:
    """What was made.

    Attributes:
        model: its folder.
        snapshots: how many it was made from.
        missed: how far the wanted profile is from the combined one, relative to its size.
    """

    model: Path
    snapshots: int
    missed: float


def average(run: Path, length: float, out: Path) -> Averaged:
    """Write the model of a finished run with the average of another length.

    Args:
        run: the run's folder, with `model/` and `snapshots/`.
        length: standard deviation of the average's profile, as a share of the training.
        out: the new model's folder.
    Raises:
        CheckpointError: no model or no snapshots there, damaged ones, or those of another network.
        SettingError: a length that no average has.
    """
    bundle = load_bundle(run / "model")
    weights, missed = reconstruct(run / "snapshots", length)
    own = bundle.net.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in own or name not in weights or own[name].shape != weights[name].shape:
            raise CheckpointError(
                f"{run / 'snapshots'} holds averages of another network than {run / 'model'}: they differ in {name}. "
                "Average a run whose model is still its own"
            )
    bundle.net.load_state_dict(weights)
    said = {"length": length, "missed": missed}
    save_bundle(replace(bundle, card={**bundle.card, "average": said}), out)
    return Averaged(out, len(list_snapshots(run / "snapshots")), missed)
