"""No field of a scheduler is dropped in silence."""

import ast
import importlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from parity.harness import Case, replay, theirs

from neblina.bundle.schedulers import Conversion, read_scheduler
from neblina.bundle.schedulers.fields import FIELDS, REFUSED
from neblina.bundle.schedulers.read import READERS
from neblina.core.errors import CheckpointError, NeblinaError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def signatures() -> dict[str, dict[str, Any]]:
    """Every scheduler class of diffusers: the fields of its constructor with their defaults, read from its source."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((Path(diffusers.__file__).parent / "schedulers").glob("scheduling_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "SchedulerMixin" for base in node.bases):
                start = next(
                    part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"
                )
                names = [argument.arg for argument in start.args.args[1:]]
                values = [eval(ast.unparse(value), {"float": float}) for value in start.args.defaults]
                found[node.name] = dict(zip(names[::-1], [*values[::-1], *[None] * len(names)], strict=False))
    return found


SIGNATURES = signatures()


def test_every_scheduler_of_diffusers_is_read_or_refused() -> None:
    assert len(SIGNATURES) > 40
    assert set(SIGNATURES) == set(FIELDS) | set(REFUSED)
    assert set(READERS) == set(FIELDS)


@pytest.mark.parametrize("kind", FIELDS)
def test_every_field_of_a_signature_stands_in_the_table_with_its_default(kind: str) -> None:
    assert FIELDS[kind] == SIGNATURES[kind]


SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "trained_betas": None}
SD |= {"num_train_timesteps": 1000, "steps_offset": 1}
LEFT = {"skip_prk_steps": True, "set_alpha_to_one": False, "clip_sample": False, "sample_max_value": 1.0}
PUBLISHED = {
    "Stable Diffusion 1.5": ("PNDMScheduler", {**SD, **LEFT}, ("clip_sample", "sample_max_value")),
    "Stable Diffusion 2.1": ("DDIMScheduler", {**SD, **LEFT}, ("skip_prk_steps",)),
    "Stable Diffusion 2.1, Euler": ("EulerDiscreteScheduler", {**SD, **LEFT}, tuple(LEFT)),
    "SDXL": ("EulerDiscreteScheduler", {**SD, **LEFT, "timestep_spacing": "leading"}, tuple(LEFT)),
    "latent diffusion": ("DDIMScheduler", {**SD, "timestep_values": None}, ("timestep_values",)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_published_scheduler_carries_along_changes_nothing(name: str) -> None:
    kind, config, strange = PUBLISHED[name]
    own = {field: value for field, value in config.items() if field not in strange}
    assert read_scheduler({"_class_name": kind, **config}) == read_scheduler({"_class_name": kind, **own})
    with pytest.raises(CheckpointError, match="use_lu_lambdas = True is not supported: it is another scheduler's"):
        read_scheduler({"_class_name": kind, **config, "use_lu_lambdas": True})


@pytest.mark.parametrize("kind", REFUSED)
def test_a_scheduler_that_cannot_be_read_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(CheckpointError, match=f"scheduler {kind} cannot be read: "):
        read_scheduler({"_class_name": kind})


@pytest.mark.parametrize("kind", ["DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"])
def test_the_refusal_of_an_inverse_scheduler_says_what_can_be_done_and_where_its_walk_is(kind: str) -> None:
    with pytest.raises(CheckpointError, match="which no command does; write a DDIMScheduler") as refused:
        read_scheduler({"_class_name": kind})
    (place,) = re.findall(r"neblina\.\S+", str(refused.value))
    module, _, name = place.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_page_names_every_scheduler_that_is_read() -> None:
    page = (Path(__file__).parents[3] / "docs" / "schedulers.md").read_text()
    assert [kind for kind in FIELDS if kind not in page] == []


# another value of every field
OTHER: dict[str, tuple[Any, ...]] = {
    "num_train_timesteps": (500,),
    "beta_start": (0.0002,),
    "beta_end": (0.015,),
    "beta_schedule": ("scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp", "nonsense"),
    "trained_betas": ([0.001 * (1 + n % 9) for n in range(1000)],),
    "prediction_type": ("sample", "v_prediction", "flow_prediction", "nonsense"),
    "steps_offset": (1,),
    "clip_sample": (True, False),
    "clip_sample_range": (0.7,),
    "thresholding": (True,),
    "dynamic_thresholding_ratio": (0.8,),
    "sample_max_value": (2.0,),
    "variance_type": ("fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"),
    "timestep_spacing": ("linspace", "leading", "trailing", "nonsense"),
    "rescale_betas_zero_snr": (True,),
    "set_alpha_to_one": (True, False),
    "skip_prk_steps": (True,),
    "use_karras_sigmas": (True,),
    "use_exponential_sigmas": (True,),
    "use_beta_sigmas": (True,),
    "use_lu_lambdas": (True,),
    "use_flow_sigmas": (True,),
    "flow_shift": (3.0,),
    "use_dynamic_shifting": (True,),
    "time_shift_type": ("linear",),
    "interpolation_type": ("log_linear", "nonsense"),
    "sigma_min": (0.03,),
    "sigma_max": (9.0,),
    "timestep_type": ("continuous",),
    "final_sigmas_type": ("sigma_min", "nonsense"),
    "noise_sampler_seed": (3,),
    "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis", "nonsense"),
    "solver_order": (1, 3),
    "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2", "nonsense"),
    "lower_order_final": (True, False),
    "euler_at_final": (True,),
    "lambda_min_clipped": (-5.1,),
    "predict_x0": (False,),
    "disable_corrector": ([0],),
    "solver_p": ("DDIMScheduler",),
    "shift_terminal": (0.1,),
    "sigma_data": (0.6,),
    "sigma_schedule": ("exponential", "nonsense"),
    "rho": (5.0,),
    "snr": (0.1,),
    "sampling_eps": (1e-3,),
    "correct_steps": (2,),
    "shift": (3.0,),
    "base_shift": (0.4,),
    "max_shift": (1.3,),
    "base_image_seq_len": (300,),
    "max_image_seq_len": (3000,),
    "invert_sigmas": (True,),
    "stochastic_sampling": (True,),
}


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in FIELDS.items() for field in fields])
def test_another_value_of_a_field_is_followed_or_refused_by_name_or_changes_nothing_there_either(
    kind: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Case(kind, {}, steps=6)
    for value in OTHER[field]:
        changed = replace(usual, settings={field: value})
        if value == FIELDS[kind][field]:
            continue
        read = conversion_or_refusal(changed)
        if isinstance(read, NeblinaError):
            assert field in str(read) or (field == "rescale_betas_zero_snr" and "where α = 0" in str(read))
        elif read == usual.conversion():
            assert_idle(usual, changed, monkeypatch)


def conversion_or_refusal(case: Case) -> Conversion | NeblinaError:
    try:
        return case.conversion()
    except NeblinaError as error:
        return error


def assert_idle(usual: Case, changed: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers too does the same with both."""
    if usual.kind == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde", reason="diffusers' DPMSolverSDEScheduler needs it")
    ends = []
    for case in (usual, changed):
        replay(case.kind, monkeypatch)
        with torch.no_grad():
            ends.append(theirs(case, case.net()))
    assert torch.allclose(*ends, rtol=0, atol=1e-6)
