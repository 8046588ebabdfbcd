"""From a recipe and pictures to an untrained model and what it is trained with."""

import torch

from neblina.bundle.bundle import Bundle
from neblina.bundle.schedulers import Sampling
from neblina.codecs.fold import Fold
from neblina.core.errors import SettingError
from neblina.data.pictures import Pictures, inventory
from neblina.denoisers.parameterisations import check_end
from neblina.nets.unet import UNet
from neblina.objectives.hybrid import Objective, check_hybrid
from neblina.objectives.importance import Importance, make_importance
from neblina.objectives.weightings import make_weighting
from neblina.processes.grids import make_grid
from neblina.processes.schedules import Schedule, make_schedule
from neblina.samplers import samplers
from neblina.training.networks import unet_config
from neblina.training.recipe import Recipe
from neblina.training.unused import EVERY, OF_TEXT, PATCHES, Unused, refuse_unused

_UNUSED: Unused = {"codec": EVERY, "reconstruction": EVERY, "discriminator": EVERY, "network": PATCHES, **OF_TEXT}


def new_model(recipe: Recipe, pictures: Pictures) -> Bundle:
    """The untrained model that a recipe describes for these pictures, weights drawn from its seed.

    Raises:
        SettingError: an unknown name, a network that does not fit the pictures, or more sampling steps than the
            schedule has; settings of a codec.
    """
    refuse_unused(recipe, _UNUSED, "a denoiser")
    net = recipe.network
    codec = Fold(pictures.shape[0], net.fold) if net.fold > 1 else None
    channels, height, width = pictures.shape if codec is None else codec.fold(torch.empty(pictures.shape)).shape
    classes = len(pictures.label_names) if recipe.data.labels and pictures.labels is not None else 0
    hidden = classes > 0 and recipe.training.label_dropout > 0
    made = 2 * channels if recipe.objective.loss == "hybrid" else channels
    labels = classes + hidden if classes else 0
    config = unet_config(net, (height, width), read=channels, made=made, labels=labels)
    schedule = make_schedule(recipe.process.schedule, **recipe.process.settings)
    check_end(recipe.process.parameterisation, recipe.process.clock, schedule)
    if recipe.sampling.guidance != 1 and not hidden:
        raise SettingError(
            f"sampling.guidance {recipe.sampling.guidance:g} needs pictures with labels and "
            "training.label_dropout > 0; set it to 1"
        )
    sampler = samplers[recipe.sampling.sampler]
    make_grid(recipe.sampling.grid or sampler.grid, schedule, recipe.sampling.steps)
    torch.manual_seed(recipe.training.seed % 2**63)
    return Bundle(
        UNet(config).eval(),
        schedule,
        recipe.process.parameterisation,
        recipe.process.clock,
        pictures.label_names if classes else (),
        classes if hidden else None,
        Sampling(**recipe.sampling.model_dump()),
        {"recipe": recipe.model_dump(mode="json"), "trained_on": inventory(pictures)},
        recipe.objective.loss == "hybrid",
        own_codec=codec,
    )


def new_objective(recipe: Recipe, schedule: Schedule) -> tuple[Objective, Importance | None]:
    """The loss that a recipe describes, and how its times are drawn: None for uniformly.

    Raises:
        SettingError: an unknown name or setting, or a hybrid loss on a schedule without steps.
    """
    given = recipe.objective
    if given.loss == "hybrid":
        check_hybrid(schedule)
    objective = Objective(
        make_weighting(given.weighting, given.settings),
        given.vlb_weight if given.loss == "hybrid" else 0.0,
    )
    return objective, make_importance(given.times, schedule, given.smallest_time)
