"""A style is the plain operation that its row of the table says, and a styled set holds each picture in each."""

import pytest
import torch
from torch import Tensor

from neblina.core.errors import SettingError
from neblina.data.pictures import InMemory
from neblina.data.styles import PLAIN, Styled, render, styled, styles


def picture(seed: int = 0, side: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 3, side, side), generator=generator, dtype=torch.uint8)


def test_inverted_twice_is_the_picture() -> None:
    assert render(render(picture(), "inverted colours"), "inverted colours").equal(picture())


def test_a_mosaic_is_squares_of_their_means() -> None:
    made, x = render(picture(), "mosaic").float(), picture().float()
    assert made[..., :2, :2].unique(dim=-1).shape[-1] == 1
    assert (made[..., 4, 6] - x[..., 4:6, 6:8].mean((-1, -2))).abs().max() <= 0.5


def test_a_blur_keeps_the_mean_of_what_is_flat_and_removes_what_is_fine() -> None:
    flat = torch.full((1, 3, 24, 24), 77, dtype=torch.uint8)
    assert render(flat, "blurred").equal(flat)
    checked = ((torch.arange(24)[:, None] + torch.arange(24)) % 2 * 255).to(torch.uint8).expand(1, 3, 24, 24)
    assert render(checked, "blurred").float().std() < 0.2 * checked.float().std()


def test_a_sketch_is_grey_white_where_nothing_is_and_dark_at_edges() -> None:
    half = torch.full((1, 3, 24, 24), 200, dtype=torch.uint8)
    half[..., 12:] = 60
    drawn = render(half, "pencil sketch")
    assert drawn[:, 0].equal(drawn[:, 2])
    assert int(drawn[..., 0].min()) > 250
    assert int(drawn[..., -1].min()) > 250
    assert int(drawn[0, 0, 12, 12]) < 200


def test_every_style_keeps_the_shape_and_an_unknown_one_is_refused() -> None:
    for name in (PLAIN, *styles):
        assert render(picture(side=25), name).shape == (2, 3, 25, 25)
    with pytest.raises(SettingError, match="mosaic"):
        styled(InMemory(picture()), ("mosaik",), 2)


def test_each_picture_is_there_plain_so_often_and_once_in_each_style() -> None:
    whole = InMemory(picture(), records=({"text": "a"}, {"text": "b"}))
    both = styled(whole, ("mosaic", "blurred"), 3)
    assert isinstance(both, Styled)
    assert len(both) == 2 * 5
    assert [both.style(number) for number in (0, 5, 6, 9)] == [PLAIN, PLAIN, "mosaic", "blurred"]
    assert both.read([7]).equal(render(picture()[1:], "mosaic"))
    assert both.records is not None
    assert both.records[9]["text"] == "b"
    assert styled(whole, (), 3) is whole


def test_every_number_is_found_among_the_distinct_ones() -> None:
    both = Styled(InMemory(picture()), ("mosaic", "blurred"), 3)
    assert len(both.distinct) == 2 * 3
    for number in range(len(both)):
        assert both.read([both.distinct[both.row(number)]]).equal(both.read([number]))
