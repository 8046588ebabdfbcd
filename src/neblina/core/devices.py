"""Where to compute."""

import torch

from neblina.core.errors import SettingError


def pick_device(device: str | None) -> torch.device:
    """The device of that name; a GPU if there is one for None.

    Raises:
        SettingError: no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"device {device!r} cannot be used here: {reason}") from error
    return place
