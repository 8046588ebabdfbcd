"""Latents are encoded once, and never met by a codec or pictures that they are not of."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learners import captioned, gaussian_codec
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.data.pictures import InMemory, to_float
from neblina.data.styles import styled
from neblina.training.encoded import encoded


def test_they_are_the_codecs_own_of_each_picture_in_its_style(tmp_path: Path) -> None:
    codec, pictures = gaussian_codec(), styled(captioned(5), ("mosaic",), 3)
    latents = encoded(pictures, codec, tmp_path)
    assert latents.latents.shape == (10, 2, 4, 4)
    for number in (0, 7, 14, 16):
        own = codec.encode(to_float(pictures.read([number])))
        assert torch.allclose(latents.read([number]), own, atol=1e-6)


def test_they_are_read_back_and_not_encoded_again(tmp_path: Path) -> None:
    told: list[int] = []
    first = encoded(captioned(5), gaussian_codec(), tmp_path, lambda done, count: told.append(done))
    again = encoded(captioned(5), gaussian_codec(), tmp_path, lambda done, count: told.append(done))
    assert told == [5]
    assert again.latents.equal(first.latents)


def test_another_codec_or_other_pictures_never_meet_them(tmp_path: Path) -> None:
    first = encoded(captioned(5), gaussian_codec(), tmp_path)
    (old,) = tmp_path.iterdir()
    other = encoded(captioned(5), gaussian_codec(seed=1), tmp_path)
    assert other.digest != first.digest
    assert not torch.allclose(other.latents, first.latents)
    assert [file.stem for file in tmp_path.iterdir()] == [other.digest]
    assert not old.exists()
    changed = captioned(5)
    changed.pixels[0, 0, 0, 0] += 1
    assert encoded(changed, gaussian_codec(), tmp_path).digest not in (first.digest, other.digest)


def test_the_scale_is_part_of_what_they_are_of(tmp_path: Path) -> None:
    codec = gaussian_codec()
    first = encoded(captioned(5), codec, tmp_path)
    codec.net.config = replace(codec.net.config, scaling_factor=3.0)
    assert torch.allclose(encoded(captioned(5), codec, tmp_path).latents, 2 * first.latents, atol=1e-6)


def test_killed_while_they_are_written_they_are_encoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Death(BaseException):
        pass

    def deadly(tensors: Mapping[str, Tensor], place: Path) -> None:
        place.write_bytes(b"half of it")
        monkeypatch.setattr(Path, "unlink", lambda *given, **settings: None)  # the dead clean up nothing
        raise Death

    with monkeypatch.context() as patch:
        patch.setattr("neblina.training.encoded.save_tensors", deadly)
        with pytest.raises(Death):
            encoded(captioned(5), gaussian_codec(), tmp_path)
        monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    told: list[int] = []
    latents = encoded(captioned(5), gaussian_codec(), tmp_path, lambda done, count: told.append(done))
    assert told == [5]
    assert [file.name for file in tmp_path.iterdir()] == [f"{latents.digest}.safetensors"]


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    first = encoded(captioned(5), gaussian_codec(), tmp_path)
    (place,) = tmp_path.iterdir()
    place.write_bytes(place.read_bytes()[:-9])
    assert encoded(captioned(5), gaussian_codec(), tmp_path).latents.equal(first.latents)


def test_pictures_that_the_codec_cannot_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"2 pixels wide.*data\.resolution.*such as 8"):
        encoded(captioned(5, side=9), gaussian_codec(), tmp_path)
    grey = InMemory(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(SettingError, match="reads pictures of 3 channels"):
        encoded(grey, gaussian_codec(), tmp_path)
