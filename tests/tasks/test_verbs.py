"""The five verbs: what they keep of a photo, what they change, and that picture k is picture k."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pipelines
import pytest
import torch
from models import small_bundle
from PIL import Image
from torch import Tensor

import neblina
from neblina.bundle.bundle import Bundle
from neblina.bundle.schedulers import Sampling
from neblina.core.errors import DataError, MemoryShortage, SettingError
from neblina.data.pictures import to_uint8
from neblina.nets.unet import UNet
from neblina.tasks.model import Model
from neblina.tasks.photos import read_photo, resize
from neblina.tasks.settings import Noticed
from neblina.tasks.sizes import check_area, latent_shape
from neblina.tasks.verbs import verbs

CPU = torch.device("cpu")
QUICK = {"steps": 3, "seed": 5}


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """Pipelines that diffusers wrote, opened here."""
    opened: dict[str, Model] = {}
    makers = {"sd1": pipelines.sd1, "inpainting": pipelines.inpainting, "upscaler": pipelines.upscaler}

    def model(name: str) -> Model:
        if name not in opened:
            place = tmp_path_factory.mktemp(name)
            makers[name](place).save_pretrained(place / "model")
            opened[name] = neblina.load(place / "model", device="cpu")
        return opened[name]

    return model


@pytest.fixture(scope="module")
def pixels() -> Model:
    return Model(small_bundle(classes=3, schedule="cosine", parameterisation="v"), CPU)


def saying(value: float, parameterisation: str) -> Model:
    """A model whose network says one number, whatever it is shown."""
    bundle = small_bundle(schedule="cosine", parameterisation=parameterisation)
    assert isinstance(bundle.net, UNet)
    torch.nn.init.zeros_(bundle.net.conv_out.weight)
    torch.nn.init.constant_(bundle.net.conv_out.bias, value)
    return Model(bundle, CPU)


def grey() -> Model:
    torch.manual_seed(0)
    net = UNet(replace(small_bundle().net.config, in_channels=1, out_channels=1)).eval()  # type: ignore[type-var]
    own = small_bundle(schedule="cosine", parameterisation="v")
    return Model(Bundle(net, own.schedule, "v", sampling=Sampling(steps=3)), CPU)


def photo(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A smooth picture, no two neighbours equal."""
    down, along = np.mgrid[0:height, 0:width]
    return np.stack([60 + 3 * along, 40 + 4 * down, 200 - 2 * (down + along)], -1).clip(0, 255).astype(np.uint8)


def hwc(made: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return made[0].permute(1, 2, 0).numpy()


# edit


@pytest.mark.parametrize("size", [(8, 8), (13, 21), (16, 16), (27, 33), (3, 40)])
def test_an_edited_photo_comes_back_at_its_own_size(
    size: tuple[int, int], pixels: Model, latent: Callable[[str], Model]
) -> None:
    for model in (pixels, latent("sd1")):
        assert model.edit(photo(*size), **QUICK).shape == (1, 3, *size)
    assert grey().edit(photo(*size), **QUICK).shape == (1, 1, *size)


def test_more_strength_changes_more_and_all_of_it_forgets_the_photo() -> None:
    model = Model(small_bundle(schedule="cosine", parameterisation="v"), CPU)

    def made(content: np.ndarray[Any, Any], strength: float) -> Tensor:
        return model.edit(content, strength=strength, steps=20, seed=1).float()

    given = torch.from_numpy(photo(16, 16)).permute(2, 0, 1).float()
    gaps = [float((made(photo(16, 16), strength) - given).abs().mean()) for strength in (0.02, 0.3, 0.7)]
    assert gaps[0] < 8  # the noise of that time is of 4 levels
    assert gaps[0] < gaps[1] < gaps[2]
    other = np.ascontiguousarray(255 - photo(16, 16))
    forgotten = (made(photo(16, 16), 1.0) - made(other, 1.0)).abs().mean()
    assert float(forgotten) < 0.05 * float((made(photo(16, 16), 0.3) - made(other, 0.3)).abs().mean())


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, float("nan")])
def test_a_strength_outside_its_range_is_refused(strength: float, pixels: Model) -> None:
    with pytest.raises(SettingError, match="strength is above 0 and at most 1"):
        pixels.edit(photo(8, 8), strength=strength)
    with pytest.raises(SettingError, match="strength is above 0 and at most 1"):
        pixels.inpaint(photo(8, 8), box(8, 8), strength=strength)


@pytest.mark.parametrize("strength", [0.3, 0.8])
def test_inverting_where_the_noise_is_one_number_and_walking_back_is_the_photo(strength: float) -> None:
    """With ε constant DDIM's step backwards undoes its step forwards, whatever the steps."""
    model = saying(0.25, "eps")
    back = model.edit(photo(11, 16), method="inversion", strength=strength, steps=4)
    assert np.array_equal(hwc(back), photo(11, 16))


def test_inversion_comes_back_to_the_photo_with_the_steps_and_at_once_with_iterations() -> None:
    """Of first order in the steps; iterated, every step is undone exactly."""
    model = Model(small_bundle(schedule="cosine", parameterisation="v"), CPU)

    def gap(steps: int, iterations: int = 1) -> float:
        made = model.edit(photo(16, 16), method="inversion", strength=0.5, steps=steps, iterations=iterations)
        return float(np.square(hwc(made).astype(float) - photo(16, 16)).mean() ** 0.5)

    assert gap(64) < 0.4 * gap(16)
    assert gap(8, 20) == 0


def test_inversion_of_latents_comes_back_under_the_source_prompt_alone(latent: Callable[[str], Model]) -> None:
    """Against the photo that went through the codec; under another prompt it becomes another picture."""
    model = latent("sd1")
    through = (model.decoded(model.encoded(model.from_pixels(photo(16, 16)))).clamp(-1, 1) + 1) * 127.5

    def gap(prompt: str) -> float:
        asked: dict[str, Any] = {"method": "inversion", "strength": 0.1, "steps": 100, "iterations": 6, "guidance": 1.0}
        made = model.edit(photo(16, 16), prompt, source="a cat", **asked)
        return float((made - through).square().mean().sqrt())

    assert gap("a cat") < 1
    assert gap("a house in the snow") > 2


def test_inversion_says_that_it_draws_no_noise(latent: Callable[[str], Model]) -> None:
    asked: dict[str, Any] = {"method": "inversion", **QUICK}
    with pytest.warns(Noticed, match="the same whatever the seed"):
        made = latent("sd1").edit(photo(8, 8), "a cat", n=2, **asked)
    assert close(made[0], made[1])
    assert len(latent("sd1").edit(photo(8, 8), ["a cat", "a dog"], **asked)) == 2
    for number, method in ((2, "noise"), (0, "inversion")):
        with pytest.raises(SettingError, match="iteration"):
            latent("sd1").edit(photo(8, 8), "a cat", method=method, iterations=number)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"sampler": "dpmpp_2m"}, "dpmpp_2m is another sampler: leave it out, or name ddim"),
        ({"sampler": "ddpm"}, "ddpm is another sampler"),
        ({"sampler": "ddim", "settings": {"eta": 1.0}}, r"eta 1\.0 draws noise on it: leave eta out"),
    ],
)
def test_inversion_refuses_a_sampler_that_it_does_not_undo(asked: dict[str, Any], said: str, pixels: Model) -> None:
    with pytest.raises(SettingError, match=said):
        pixels.edit(photo(8, 8), method="inversion", **asked)


@pytest.mark.parametrize("own", ["dpmpp_2m", "ddpm", "pndm"])
def test_inversion_samples_with_ddim_whatever_the_models_own_sampler_is(own: str, pixels: Model) -> None:
    model = Model(replace(pixels.bundle, sampling=replace(pixels.bundle.sampling, sampler=own)), CPU)
    asked: dict[str, Any] = {"method": "inversion", **QUICK}
    made = model.edit(photo(8, 8), labels=1, **asked)
    assert torch.equal(made, pixels.edit(photo(8, 8), labels=1, sampler="ddim", **asked))
    assert torch.equal(made, pixels.edit(photo(8, 8), labels=1, sampler="euler", settings={"eta": 0}, **asked))


def test_inversion_reads_its_source(latent: Callable[[str], Model], pixels: Model) -> None:
    model = latent("sd1")

    def made(source: str) -> Tensor:
        return model.edit(photo(16, 16), "a cat", method="inversion", source=source, **QUICK)

    assert not torch.equal(made("a dog"), made("a house in the snow"))
    by_class = [pixels.edit(photo(8, 8), labels=1, method="inversion", source=name, **QUICK) for name in ("0", "2")]
    assert not torch.equal(*by_class)
    with pytest.raises(SettingError, match="a source prompt says what inversion begins with"):
        model.edit(photo(16, 16), "a cat", source="a dog")
    with pytest.raises(SettingError, match="Did you mean inversion"):
        model.edit(photo(16, 16), "a cat", method="inversio")


def test_several_prompts_go_in_turn(latent: Callable[[str], Model]) -> None:
    model = latent("sd1")
    made = model.edit(photo(16, 16), ["a cat", "a dog"], n=3, **QUICK)
    assert made.shape == (3, 3, 16, 16)
    for number, prompt in enumerate(["a cat", "a dog", "a cat"]):
        assert close(made[number], model.edit(photo(16, 16), prompt, offset=number, **QUICK)[0])
    assert len(model.edit(photo(16, 16), ["a cat", "a dog"], **QUICK)) == 2


def close(one: Tensor, other: Tensor) -> bool:
    """The same picture up to what another batch shape does to arithmetic."""
    return int((one.int() - other.int()).abs().max()) <= 1


@pytest.mark.parametrize("verb", ["edit", "inpaint", "repaint", "outpaint", "upscale", "told mask", "told"])
def test_picture_k_of_every_verb_is_the_same_whatever_the_batch(verb: str, latent: Callable[[str], Model]) -> None:
    def made(**numbers: int) -> Tensor:
        given: dict[str, Any] = {**numbers, **QUICK}
        if verb == "edit":
            return latent("sd1").edit(photo(13, 16), "a cat", **given)
        if verb in ("inpaint", "told mask"):
            return latent("sd1" if verb == "inpaint" else "inpainting").inpaint(
                photo(13, 16), box(13, 16), "a cat", **given
            )
        if verb == "repaint":
            return latent("sd1").inpaint(photo(13, 16), box(13, 16), "a cat", sampler="repaint", **given)
        if verb == "outpaint":
            return latent("sd1").outpaint(photo(13, 16), "a cat", right=3, **given)
        if verb == "upscale":
            return latent("sd1").upscale(photo(7, 6), "a cat", factor=3, strength=0.7, **given)
        return latent("upscaler").upscale(photo(7, 6), "a cat", **given)

    at_once = made(n=3)
    assert close(made(n=3, batch=1), at_once)
    assert close(made(n=1, offset=2), at_once[2:])
    assert not close(at_once[0], at_once[1])
    assert torch.equal(made(n=3), at_once)


# inpaint


def box(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2 + 1, width // 4 : width // 2 + 2] = 255
    return mask


def masks(height: int, width: int) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    corner, line, dot, soft = (np.zeros((height, width), np.uint8) for _ in range(4))
    corner[height // 2 :, width // 2 :] = 255
    line[height // 3] = 255
    dot[height // 2, width // 2] = 255
    soft[2 : height - 2, 2 : width - 2] = 128
    soft[4 : height - 4, 4 : width - 4] = 255
    return {"box": box(height, width), "corner": corner, "line": line, "dot": dot, "soft": soft}


WAYS = [("sd1", None, 1.0), ("sd1", "repaint", 1.0), ("sd1", "dpmpp_2m", 0.7), ("inpainting", None, 1.0),
        ("inpainting", None, 0.7), ("pixels", None, 1.0), ("pixels", "repaint", 0.7), ("grey", None, 1.0)]  # fmt: skip


@pytest.mark.filterwarnings("ignore::neblina.tasks.settings.Noticed")
@pytest.mark.parametrize(("name", "sampler", "strength"), WAYS)
@pytest.mark.parametrize("size", [(16, 16), (15, 21)])
def test_outside_the_mask_every_byte_is_the_photos_and_inside_it_changes(
    name: str,
    sampler: str | None,
    strength: float,
    size: tuple[int, int],
    latent: Callable[[str], Model],
    pixels: Model,
) -> None:
    model = pixels if name == "pixels" else grey() if name == "grey" else latent(name)
    for kind, mask in masks(*size).items():
        given = photo(*size)
        made = hwc(model.inpaint(given, mask, sampler=sampler, strength=strength, steps=4, seed=5))
        assert np.array_equal(made[mask == 0], given[mask == 0])
        changed = (made != given).any(-1)[mask > 0].mean()
        assert changed > 0.5, (kind, changed)


def test_repaint_is_refused_where_nothing_is_known(latent: Callable[[str], Model], pixels: Model) -> None:
    asked: dict[str, Any] = {"sampler": "repaint", **QUICK}
    for make in (
        lambda: pixels.generate(**asked),
        lambda: pixels.edit(photo(8, 8), **asked),
        lambda: pixels.upscale(photo(8, 8), **asked),
        lambda: latent("inpainting").inpaint(photo(16, 16), box(16, 16), **asked),
    ):
        with pytest.raises(SettingError, match="repaint goes back and forth around what is known"):
            make()


@pytest.mark.parametrize("name", ["known", "mask"])
def test_what_repaint_is_told_is_no_setting(name: str, pixels: Model) -> None:
    with pytest.raises(SettingError, match=f"{name} of repaint is what inpaint and outpaint tell it"):
        pixels.inpaint(photo(8, 8), box(8, 8), sampler="repaint", settings={name: torch.zeros(1)})


def test_a_mask_thinner_than_a_cell_is_made_and_said(latent: Callable[[str], Model]) -> None:
    with pytest.warns(Noticed, match="nowhere 2 pixels wide and high"):
        latent("sd1").inpaint(photo(16, 16), masks(16, 16)["line"], "a cat", **QUICK)


def test_softening_fades_from_the_border_inwards() -> None:
    model, given, mask = saying(-1.0, "x0"), photo(24, 24), masks(24, 24)["corner"]
    hard = hwc(model.inpaint(given, mask, **QUICK)).astype(int)
    soft = hwc(model.inpaint(given, mask, soften=4, **QUICK)).astype(int)
    assert np.array_equal(soft[mask == 0], given[mask == 0])
    assert np.abs(soft - given)[mask > 0].mean() <= np.abs(hard - given)[mask > 0].mean()
    assert not np.array_equal(soft, hard)


def test_without_all_strength_what_was_inside_shows_through(latent: Callable[[str], Model]) -> None:
    given, mask = photo(16, 16), box(16, 16)
    other = given.copy()
    other[mask > 0] = 255 - other[mask > 0]
    model = latent("sd1")

    def gap(strength: float) -> float:
        made = [model.inpaint(one, mask, "a cat", strength=strength, steps=8, seed=5).float() for one in (given, other)]
        return float((made[0] - made[1])[..., torch.from_numpy(mask > 0)].abs().mean())

    assert gap(1.0) < 0.5 * gap(0.3)


# outpaint


@pytest.mark.parametrize("sides", [{"left": 5}, {"right": 7}, {"top": 3}, {"bottom": 9}, dict.fromkeys(
    ("left", "right", "top", "bottom"), 6)])  # fmt: skip
@pytest.mark.parametrize("name", ["sd1", "inpainting", "pixels"])
def test_an_extended_photo_keeps_its_bytes_at_every_side(
    sides: dict[str, int], name: str, latent: Callable[[str], Model], pixels: Model
) -> None:
    model = pixels if name == "pixels" else latent(name)
    given = photo(11, 14)
    made = hwc(model.outpaint(given, **sides, **QUICK))
    left, right, top, bottom = (sides.get(name, 0) for name in ("left", "right", "top", "bottom"))
    assert made.shape == (11 + top + bottom, 14 + left + right, 3)
    assert np.array_equal(made[top : top + 11, left : left + 14], given)
    outside = np.ones(made.shape[:2], bool)
    outside[top : top + 11, left : left + 14] = False
    continued = np.pad(given, [(top, bottom), (left, right), (0, 0)], mode="symmetric")
    assert (made != continued).any(-1)[outside].mean() > 0.5


@dataclass(frozen=True)
class Shifting:
    """A codec that pales what it decodes, as real ones shift colours a little."""

    factor: int = 1
    channels: int = 3
    picture_channels: int = 3

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        return pictures

    def decode(self, latents: Tensor) -> Tensor:
        return 0.7 * latents + 0.25

    preview = decode


def test_no_seam_shows_where_the_made_meets_the_photo() -> None:
    """A model that rightly goes on with the photo's one colour, behind a codec that shifts it: that is taken out."""
    model = saying(-0.5, "x0")
    shifting = Model(replace(model.bundle, own_codec=Shifting()), CPU)
    given = np.full((16, 12, 3), 64, np.uint8)  # −0.5
    sides = {"left": 9, "right": 5, "top": 4, "bottom": 11}
    made = hwc(shifting.outpaint(given, **sides, **QUICK))
    assert made.min() >= 63
    assert made.max() <= 65
    mask = masks(16, 12)["corner"]
    assert np.abs(hwc(shifting.inpaint(given, mask, **QUICK)).astype(int) - 64).max() <= 1
    assert hwc(shifting.edit(given, **QUICK)).mean() > 100  # what would have been pasted


def test_a_photo_is_extended_by_something(pixels: Model) -> None:
    with pytest.raises(SettingError, match="left 0, right 0"):
        pixels.outpaint(photo(8, 8))
    with pytest.raises(SettingError, match="left -2"):
        pixels.outpaint(photo(8, 8), left=-2, right=4)


# upscale


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (9, 4)])
def test_the_checkpoint_is_told_the_small_picture_and_its_noise(
    size: tuple[int, int], latent: Callable[[str], Model]
) -> None:
    model, told = latent("upscaler"), []
    hook = model.bundle.net.register_forward_pre_hook(
        lambda _, __, named: told.append(named["labels"].unique().tolist()), with_kwargs=True
    )
    made = [model.upscale(photo(*size), "a cat", noise_level=level, **QUICK) for level in (0, 200)]
    hook.remove()
    assert made[0].shape == (1, 3, 4 * size[0], 4 * size[1])
    assert told[0] == [0]
    assert told[-1] == [200]
    assert not torch.equal(*made)
    assert not close(model.upscale(photo(*size), "a cat", **QUICK), model.upscale(255 - photo(*size), "a cat", **QUICK))


def test_what_an_upscaler_does_not_do_is_refused(latent: Callable[[str], Model], pixels: Model) -> None:
    small = photo(8, 8)
    for model, asked, said in (
        (latent("upscaler"), {"factor": 2}, "take --factor 4"),
        (latent("upscaler"), {"noise_level": 351}, "between 0 and 350"),
        (latent("upscaler"), {"strength": 0.5}, "leave strength out"),
        (latent("upscaler"), {"labels": 1}, "reads no labels"),
        (pixels, {"noise_level": 20}, "this is none"),
        (pixels, {"factor": 1}, "at least 2"),
    ):
        with pytest.raises(SettingError, match=said):
            model.upscale(small, **asked)


def test_enlarged_within_one_crop_is_the_plain_enlargement_edited(latent: Callable[[str], Model]) -> None:
    model = latent("sd1")
    large = resize(read_photo(photo(8, 8)), (16, 16))
    enlarged = model.upscale(photo(8, 8), "a cat", factor=2, strength=0.5, steps=8)
    assert torch.equal(enlarged, model.edit(large, "a cat", strength=0.5, steps=8))


@pytest.mark.parametrize(("size", "factor"), [((8, 8), 4), ((5, 7), 3), ((16, 3), 2)])
def test_any_model_enlarges_by_the_factor_exactly(
    size: tuple[int, int], factor: int, latent: Callable[[str], Model], pixels: Model
) -> None:
    for model in (latent("sd1"), pixels):
        asked: list[int] = []
        hook = model.bundle.net.register_forward_pre_hook(
            lambda _, given, asked=asked: asked.append(max(given[0].shape[-2:]))
        )
        made = model.upscale(photo(*size), factor=factor, steps=4)
        hook.remove()
        assert made.shape == (1, 3, size[0] * factor, size[1] * factor)
        assert max(asked) <= 8  # never about more than it knows


def test_little_strength_keeps_the_enlargement(pixels: Model) -> None:
    wanted = torch.from_numpy(resize(read_photo(photo(8, 8)), (32, 32)).pixels).permute(2, 0, 1)
    made = pixels.upscale(photo(8, 8), labels=1, strength=0.02, steps=20)
    assert float((made[0].float() - wanted.float()).abs().mean()) < 8  # the noise of that time is of 4 levels


# what is handed over


def test_photos_and_masks_come_as_files_pictures_and_pixels(latent: Callable[[str], Model], tmp_path: Path) -> None:
    model = latent("sd1")
    Image.fromarray(photo(16, 16)).save(tmp_path / "photo.png")
    Image.fromarray(box(16, 16)).save(tmp_path / "mask.png")
    asked = {"prompt": "a cat", **QUICK}
    from_files = model.inpaint(tmp_path / "photo.png", str(tmp_path / "mask.png"), **asked)
    assert torch.equal(model.inpaint(photo(16, 16), box(16, 16), **asked), from_files)
    as_pictures = (Image.fromarray(photo(16, 16)), Image.fromarray(box(16, 16)))
    assert torch.equal(model.inpaint(*as_pictures, **asked), from_files)
    assert model.edit(photo(16, 16)[..., 0], **QUICK).shape == (1, 3, 16, 16)
    with pytest.raises(DataError, match="not float64 of shape"):
        model.edit(photo(16, 16) / 255)
    with pytest.raises(DataError, match="the picture in memory is transparent"):
        model.edit(Image.new("RGBA", (16, 16)))


def test_what_reading_does_to_a_photo_is_said(pixels: Model, tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.warns(Noticed, match="16 bits a channel to 8"):
        pixels.edit(tmp_path / "deep.png", **QUICK)


@pytest.mark.parametrize("name", ["pixels", "sd1"])
def test_what_is_far_too_large_is_refused_at_once(name: str, latent: Callable[[str], Model], pixels: Model) -> None:
    model = pixels if name == "pixels" else latent(name)
    for make in (
        lambda: model.outpaint(photo(8, 8), left=1_000_000_000),
        lambda: model.upscale(photo(8, 8), factor=1000),
        lambda: model.generate(size=(100_000, 100_000)),
    ):
        with pytest.raises(SettingError, match=r"makes at most .* million, such as 2048x2048"):
            make()


def test_a_photo_is_not_extended_to_many_times_the_models_size(pixels: Model, tmp_path: Path) -> None:
    """As photos are held to: more takes minutes, and shows the subject many times over."""
    Image.new("RGB", (8, 8), (90, 0, 0)).save(tmp_path / "photo.png")
    asked: dict[str, Any] = {"photo": str(tmp_path / "photo.png")}
    settings = {"steps": 1}
    assert verbs["outpaint"](pixels, settings, **asked, left=56).shape == (1, 3, 8, 64)
    with pytest.raises(SettingError, match=r"photo\.png extended is 65x8, 8 times the 8x8 .*: extend it by less"):
        verbs["outpaint"](pixels, settings, **asked, left=57)
    with pytest.raises(SettingError, match="12,501 times"):
        verbs["outpaint"](pixels, settings, **asked, left=100_000)
    with pytest.raises(SettingError, match="left is a whole number"):
        verbs["outpaint"](pixels, settings, **asked, left="57")


def test_a_models_own_pictures_and_sixty_four_times_as_many_pixels_are_not_too_large(pixels: Model) -> None:
    net = pixels.bundle.net
    large = Model(replace(pixels.bundle, net=UNet(replace(net.config, sample_size=1024))), CPU)  # type: ignore[arg-type]
    check_area(large.bundle, (8192, 8192))
    assert latent_shape(large.bundle) == (3, 1024, 1024)
    with pytest.raises(SettingError, match=r"8192x8193 is .* million pixels"):
        check_area(large.bundle, (8193, 8192))


def test_a_size_of_its_own_that_no_model_has_is_refused_and_allows_no_more(pixels: Model) -> None:
    net = pixels.bundle.net
    slip = replace(pixels.bundle, net=UNet(replace(net.config, sample_size=100_000)))  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="100000, makes pictures of 100000x100000"):
        Model(slip, CPU).generate(steps=1)
    assert Model(slip, CPU).generate(size=(8, 8), steps=1).shape == (1, 3, 8, 8)
    with pytest.raises(SettingError, match="such as 32768x32768"):
        check_area(slip, (32769, 32768))


@pytest.mark.parametrize(
    ("verb", "asked", "said"),
    [
        ("upscale", {"factor": 2.5}, r"factor is a whole number, not 2\.5"),
        ("edit", {"strength": "much"}, "strength is a number, not 'much'"),
        ("edit", {"prompt": [None]}, "prompt is a text or a list of texts"),
        ("outpaint", {"left": 2.0}, "left is a whole number"),
        ("inpaint", {"mask": box(8, 8), "soften": 1.5}, "soften is a whole number"),
    ],
)
def test_an_argument_of_another_kind_is_refused_by_name(
    verb: str, asked: dict[str, Any], said: str, pixels: Model
) -> None:
    with pytest.raises(SettingError, match=said):
        getattr(pixels, verb)(photo(8, 8), **asked)


def test_memory_that_does_not_suffice_is_a_sentence(pixels: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UNet, "forward", lambda *given, **named: torch.empty(10**15))
    with pytest.raises(MemoryShortage, match="not enough memory for this: ask for smaller pictures"):
        pixels.generate(labels=1, **QUICK)


def test_a_prompt_that_is_no_text_is_refused(latent: Callable[[str], Model]) -> None:
    for asked in ({"prompt": "a \udcff cat"}, {"prompt": "a cat", "negative": "\udcff", "guidance": 3.0}):
        with pytest.raises(SettingError, match=r"is '\\udcff', no letter; write it in UTF-8"):
            latent("sd1").generate(**asked)  # type: ignore[arg-type]


LONG = "a very long prompt about a small red boat on the sea, with many other boats, " * 9


@pytest.mark.parametrize("verb", ["generate", "edit", "inpaint", "upscale", "told"])
def test_picture_k_is_of_its_own_prompt_whatever_the_others_are(verb: str, latent: Callable[[str], Model]) -> None:
    """A prompt in several pieces beside short ones makes them no longer, nor does what another goes away from."""
    model = latent("upscaler" if verb == "told" else "sd1")

    def made(prompts: list[str], negatives: list[str], **numbers: int) -> Tensor:
        asked: dict[str, Any] = {"negative": negatives, "long_prompt": "chunk", "guidance": 4.0, **QUICK, **numbers}
        if verb == "generate":
            return to_uint8(model.generate(prompts, **asked))
        if verb == "inpaint":
            return model.inpaint(photo(13, 16), box(13, 16), prompts, **asked)
        if verb == "upscale":
            return model.upscale(photo(8, 8), prompts, strength=0.7, **asked)
        return getattr(model, "edit" if verb == "edit" else "upscale")(photo(8, 8), prompts, **asked)

    prompts, negatives = ["a cat", LONG, "a dog", "a boat"], ["", "the sea", LONG, "a house"]
    together = made(prompts, negatives)
    for number, (prompt, negative) in enumerate(zip(prompts, negatives, strict=True)):
        assert close(together[number], made([prompt], [negative], offset=number)[0])
    assert close(made(prompts, negatives, batch=1), together)


@pytest.mark.parametrize("verb", ["generate", "edit", "inpaint", "outpaint", "upscale"])
def test_an_unknown_setting_is_refused_by_name(verb: str, pixels: Model) -> None:
    given: dict[str, list[Any]] = {"generate": [], "inpaint": [photo(8, 8), box(8, 8)]}
    with pytest.raises(SettingError, match=r"'stesp' is not a setting\. Did you mean steps"):
        getattr(pixels, verb)(*given.get(verb, [photo(8, 8)]), stesp=3)
