"""Scenes and panoramas of whole models: what they equal where they say no more than a prompt, and what they refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pipelines
import pytest
import torch
from beside import latents_of
from models import small_bundle
from torch import Tensor

import neblina
from neblina.core.errors import SettingError
from neblina.core.windows import Window
from neblina.data.pictures import to_uint8
from neblina.tasks.compose import windows_of
from neblina.tasks.model import Model
from neblina.tasks.panorama import stretches

CPU = torch.device("cpu")
QUICK: dict[str, Any] = {"steps": 3, "seed": 5, "guidance": 4.0}


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """Pipelines that diffusers wrote, opened here."""
    opened: dict[str, Model] = {}
    makers = {"sd1": pipelines.sd1, "sdxl": pipelines.sdxl, "inpainting": pipelines.inpainting}

    def model(name: str) -> Model:
        if name not in opened:
            place = tmp_path_factory.mktemp(name)
            makers[name](place).save_pretrained(place / "model")
            opened[name] = neblina.load(place / "model", device="cpu")
        return opened[name]

    return model


def classes(**asked: Any) -> Model:
    return Model(small_bundle(classes=3, schedule="cosine", parameterisation="v", **asked), CPU)


def scene(size: tuple[int, int], *elements: dict[str, Any], share: float = 0.0, **others: Any) -> dict[str, Any]:
    return {"size": list(size), "elements": list(elements), "bootstrap": {"share": share}, **others}


def pixels(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_one_element_everywhere_is_its_prompt_to_the_last_bit(name: str, latent: Callable[[str], Model]) -> None:
    model = latent(name)
    _, height, width = model.shape
    whole = scene((width, height), {"prompt": "a boat", "box": [0, 0, 1, 1]}, background="the sea")
    for sampler in ("ddim", "dpmpp_2m", "heun"):
        composed = latents_of(lambda s=sampler: model.compose(whole, sampler=s, **QUICK))
        plain = latents_of(lambda s=sampler: model.generate("a boat", sampler=s, **QUICK))
        assert torch.equal(composed, plain)


def test_a_panorama_of_one_window_is_its_prompt_to_the_last_bit(latent: Callable[[str], Model]) -> None:
    model = latent("sd1")
    composed = latents_of(lambda: model.panorama("a boat", size=model.shape[1:], **QUICK))
    assert torch.equal(composed, latents_of(lambda: model.generate("a boat", **QUICK)))


def test_picture_k_is_picture_k_in_any_batch_of_calls_and_of_samples(latent: Callable[[str], Model]) -> None:
    model = latent("sd1")
    _, height, width = model.shape
    placed = scene(
        (2 * width, height),
        {"prompt": "a boat", "box": [2, 2, 14, 10]},
        {"prompt": "a cat", "negative": "a dog", "guidance": 2, "box": [12, 4, 28, 15], "feather": 3, "weight": 2},
        background="the sea",
        share=0.4,
    )
    both = model.compose(placed, n=2, **QUICK)
    assert both.shape == (2, 3, height, 2 * width)
    for other in (
        model.compose(placed, n=1, offset=1, **QUICK),
        model.compose(placed, n=2, batch=1, **QUICK)[1:],
        model.compose(placed, n=2, max_batch=3, **QUICK)[1:],
        model.compose({**placed, "elements": placed["elements"][::-1]}, n=2, **QUICK)[1:],
    ):
        assert int((other.int() - both[1:].int()).abs().max()) <= 1


def test_a_step_is_one_call_for_every_shape() -> None:
    model = classes()
    asked: list[tuple[int, ...]] = []
    hook = model.bundle.net.register_forward_pre_hook(lambda _, given: asked.append(tuple(given[0].shape)))
    elements = [{"label": n, "box": [4 * n, 1, 4 * n + 5, 7]} for n in (1, 2)]
    model.compose(scene((20, 8), *elements, background={"label": 0}, share=0.5), steps=4, guidance=2.0)
    hook.remove()
    # 4 windows of the background and one of each element, each with its null
    assert asked == [(2 * (4 + 2), 3, 8, 8)] * 4


def test_an_element_thinner_than_a_cell_has_its_cells_and_a_covered_one_is_refused_by_name(
    latent: Callable[[str], Model],
) -> None:
    model = latent("sd1")
    _, height, width = model.shape
    thin = {"prompt": "a mast", "box": [5, 0, 6, height]}
    one = model.compose(scene((width, height), thin), **QUICK)
    none = model.generate("", steps=3, seed=5)
    assert not torch.equal(one, to_uint8(none))
    over = {"prompt": "a sail", "box": [2, 0, 10, height], "weight": 3}
    with pytest.raises(SettingError, match=r"element 1 \('a mast'\) has no cell"):
        model.compose(scene((width, height), thin, over), **QUICK)


def test_a_scene_inside_a_mask_leaves_every_byte_outside(latent: Callable[[str], Model]) -> None:
    for name in ("sd1", "inpainting"):
        model = latent(name)
        _, height, width = model.shape
        photo, mask = pixels(height, width), np.zeros((height, width), np.uint8)
        mask[4:12, 6:15] = 255
        element = {"prompt": "a boat", "box": [6, 4, 10, 12]}
        made = model.compose(scene((width, height), element, share=0.3), photo=photo, mask=mask, **QUICK)
        kept = made[0].permute(1, 2, 0).numpy()
        assert np.array_equal(kept[mask == 0], photo[mask == 0])
        assert not np.array_equal(kept[mask > 0], photo[mask > 0])


def test_a_scene_that_begins_at_a_photo_is_an_edit_where_one_element_is_everywhere(
    latent: Callable[[str], Model],
) -> None:
    model = latent("sd1")
    _, height, width = model.shape
    photo = pixels(height, width)
    whole = scene((width, height), {"prompt": "a boat", "box": [0, 0, 1, 1]}, share=0.0)
    composed = latents_of(lambda: model.compose(whole, photo=photo, strength=0.7, sampler="ddim", **QUICK))
    edited = latents_of(lambda: model.edit(photo, "a boat", strength=0.7, sampler="ddim", **QUICK))
    assert torch.equal(composed, edited)


@pytest.mark.parametrize(("count", "wrap"), [(1, False), (2, True), (3, False), (5, True), (7, False)])
def test_prompts_divide_a_width_and_fade_into_each_other(count: int, wrap: bool) -> None:
    shares = stretches(count, 70, wrap=wrap)
    assert shares.shape == (count, 70)
    assert torch.allclose(shares.sum(0), torch.ones(70).double(), atol=1e-12)
    assert bool((shares >= 0).all())
    middles = ((torch.arange(count) + 0.5) / count * 70).long()
    assert torch.equal(shares[range(count), middles], torch.ones(count).double())
    assert torch.allclose(shares.sum(1), torch.full((count,), 70 / count).double(), atol=1.0)
    if count > 1:
        assert (float(shares[0, -1]) > 0) == wrap


def test_around_a_picture_its_ends_meet_as_any_two_columns_do(latent: Callable[[str], Model]) -> None:
    """Turned by half, a picture that goes around is the one of the latents turned by half: there is no border."""
    model = latent("sd1")
    _, height, width = model.shape
    latents: list[Tensor] = []

    def seam(picture: Tensor) -> tuple[float, float]:
        steps = (picture - picture.roll(1, -1)).float().abs().mean((0, 1, 2))
        return float(steps[0]), float(steps[1:].max())

    asked: dict[str, Any] = {"size": (height, 4 * width), "steps": 4, "seed": 3}
    latents.append(latents_of(lambda: model.panorama("the sea", wrap=True, **asked)))
    between, within = seam(model.panorama("the sea", wrap=True, **asked).int())
    assert between <= within
    margin = (latents[0].shape[-1] - 4 * width // model.bundle.codec.factor) // 2
    assert torch.equal(latents[0][..., :margin], latents[0][..., -2 * margin : -margin])


def test_windows_are_the_models_own_size_and_larger_elements_are_looked_at_in_several() -> None:
    model = classes()
    found = windows_of(model, (8, 24), None, None)
    assert (found.side, found.overlap, found.size, found.whole) == (8, 4, (8, 8), False)
    assert windows_of(model, (4, 8), None, None).whole
    assert windows_of(model, (8, 24), 24, None).whole
    assert Window(0, 0, 8, 8).holds(8, 8)


@pytest.mark.parametrize(
    ("size", "element", "said"),
    [
        ((16, 16), {"prompt": "a cat", "box": [0, 0, 8, 8]}, "reads classes, not words: give element 1"),
        ((16, 15), {"label": 1, "box": [0, 0, 8, 8]}, "15"),
        ((16, 16), {"label": 7, "box": [0, 0, 8, 8]}, "label 7 is out of range"),
    ],
)
def test_what_the_model_cannot_make_is_refused_before_it_is_asked(
    size: tuple[int, int], element: dict[str, Any], said: str
) -> None:
    model = classes()
    asked: list[int] = []
    model.bundle.net.register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
    with pytest.raises(SettingError, match=said):
        model.compose(scene(size, element), steps=2)
    assert not asked


def test_who_reads_nothing_and_who_is_told_something_else_cannot_compose(
    latent: Callable[[str], Model], tmp_path: Path
) -> None:
    plain = Model(small_bundle(), CPU)
    with pytest.raises(SettingError, match="neither words nor classes"):
        plain.compose(scene((8, 8), {"box": [0, 0, 4, 4]}), steps=2)
    with pytest.raises(SettingError, match="told a mask: give a photo, and a mask"):
        latent("inpainting").compose(scene((16, 16), {"prompt": "a", "box": [0, 0, 8, 8]}), **QUICK)
    with pytest.raises(SettingError, match="strength is about a photo"):
        classes().compose(scene((8, 8), {"label": 1, "box": [0, 0, 4, 4]}), strength=0.5, steps=2)
    with pytest.raises(SettingError, match="photo is 9x8 and the scene 8x8"):
        classes().compose(scene((8, 8), {"label": 1, "box": [0, 0, 4, 4]}), photo=pixels(8, 9), steps=2)
    with pytest.raises(SettingError, match="do not go side by side"):
        classes().panorama(labels=[0] * 9, size=(8, 8), steps=2)
    with pytest.raises(SettingError, match="0x0"):
        classes().panorama(labels=[0], size=(8, 24), window=0, steps=2)
    with pytest.raises(SettingError, match="share a multiple"):
        classes().panorama(labels=[0], size=(8, 24), overlap=8, steps=2)


@pytest.mark.parametrize("background", [{}, {"background": {"label": 0}}, {"background": {"label": 0, "guidance": 1}}])
@pytest.mark.parametrize("own", [{}, {"guidance": 1}, {"guidance": 5}])
@pytest.mark.parametrize(
    "settings",
    [{"guidance_interval": (0.3, 3.0)}, {"guidance_rescale": 0.7}, {"autoguidance": "weaker"}, {"omega": 2.0}],
)
def test_what_acts_on_guidance_acts_where_there_is_some_and_nowhere_else(
    background: dict[str, Any], own: dict[str, Any], settings: dict[str, Any]
) -> None:
    model, given = classes(), {"guidance": 3.0, **settings}
    if "omega" in given:
        given.pop("guidance")
    if "autoguidance" in given:
        given["autoguidance"] = classes(seed=1)
    element = {"label": 1, "box": [0, 0, 4, 8]}
    made = model.compose(scene((8, 8), {**element, **own}, {"label": 2, "box": [4, 0, 6, 8]}, **background), **given)
    assert made.shape == (1, 3, 8, 8)
    whole = scene((8, 8), {**element, "box": [0, 0, 1, 1]}, **background)
    composed = latents_of(lambda: model.compose(whole, steps=3, **given))
    assert torch.equal(composed, latents_of(lambda: model.generate(labels=[1], steps=3, **given)))


def test_what_limits_guidance_is_refused_where_no_place_has_any() -> None:
    placed = scene((8, 8), {"label": 1, "box": [0, 0, 4, 8]})
    for limit in ({"guidance_interval": (0.3, 3.0)}, {"guidance_rescale": 0.7}):
        with pytest.raises(SettingError, match=r"guidance is 1|there is none"):
            classes().compose(placed, guidance=1.0, **limit)
    with pytest.raises(SettingError, match=r"element 1 .* guidance of 9 and no label"):
        classes().compose(scene((8, 8), {"box": [0, 0, 4, 8], "guidance": 9}))


def test_every_stretch_of_a_panorama_goes_away_from_its_own(latent: Callable[[str], Model]) -> None:
    model = latent("sd1")

    def made(*negative: str) -> Tensor:
        return model.panorama(["a cat", "a boat"], size=(16, 48), negative=list(negative), **QUICK)

    assert not torch.equal(made("a dog", "the sea"), made("a dog", "a red car"))
    assert torch.equal(
        made("a dog", "a dog"), model.panorama(["a cat", "a boat"], size=(16, 48), negative="a dog", **QUICK)
    )


def test_inside_a_mask_a_strength_of_nothing_and_an_element_outside_are_refused(latent: Callable[[str], Model]) -> None:
    model, photo, mask = latent("sd1"), pixels(16, 16), np.zeros((16, 16), np.uint8)
    mask[:, :8] = 255
    with pytest.raises(SettingError, match="strength is above 0"):
        model.compose(scene((16, 16), {"prompt": "a", "box": [0, 0, 6, 8]}), photo=photo, mask=mask, strength=0.0)
    with pytest.raises(SettingError, match=r"element 1 \('a'\) lies where the photo's mask is black"):
        model.compose(scene((16, 16), {"prompt": "a", "box": [10, 0, 16, 8]}), photo=photo, mask=mask)


def test_sentences_name_the_element(latent: Callable[[str], Model]) -> None:
    negative = {"prompt": "a cat", "negative": "a dog", "guidance": 1, "box": [0, 0, 8, 8]}
    with pytest.raises(SettingError, match=r"element 1 \('a cat'\): a negative prompt"):
        latent("sd1").compose(scene((16, 16), negative), **QUICK)
    with pytest.raises(SettingError, match=r"element 1 .*: label 7 is out of range"):
        classes().compose(scene((8, 8), {"label": 7, "box": [0, 0, 4, 8]}))


def test_a_canvas_of_the_models_own_size_is_asked_about_whole_though_it_is_not_square(tmp_path: Path) -> None:
    pipelines.sd1(tmp_path, sample_size=(4, 8)).save_pretrained(tmp_path / "model")
    model = neblina.load(tmp_path / "model", device="cpu")
    _, height, width = model.shape
    whole = scene((width, height), {"prompt": "a boat", "box": [0, 0, 1, 1]})
    plain = latents_of(lambda: model.generate("a boat", **QUICK))
    assert torch.equal(latents_of(lambda: model.compose(whole, **QUICK)), plain)
    assert torch.equal(latents_of(lambda: model.panorama("a boat", size=(height, width), **QUICK)), plain)


def test_the_nearest_sizes_are_said_in_pixels(tmp_path: Path) -> None:
    pipelines.dit(tmp_path).save_pretrained(tmp_path / "model")
    model = neblina.load(tmp_path / "model", device="cpu")
    with pytest.raises(SettingError, match="32x16 or 32x20"):
        model.compose(scene((32, 18), {"label": 1, "box": [0, 0, 16, 18]}))
