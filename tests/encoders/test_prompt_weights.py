"""Only `(words:number)` is a weight; everything else stays as it was written."""

import pytest

from neblina.core.errors import SettingError
from neblina.encoders.weights import parse_weights


def runs(prompt: str) -> list[tuple[str, float]]:
    """The text in runs of equal weight."""
    said = parse_weights(prompt)
    assert len(said.text) == len(said.weights)
    found: list[tuple[str, float]] = []
    for letter, weight in zip(said.text, said.weights, strict=True):
        if found and found[-1][1] == weight:
            found[-1] = (found[-1][0] + letter, weight)
        else:
            found.append((letter, weight))
    return found


@pytest.mark.parametrize(
    "prompt",
    [
        "a red boat",
        "a (red) boat",
        "((red)) [blue] {green}",
        "a smiley :) and a frown :(",
        "time: noon, (note: this)",
        "(a boat (small))",
        "un) closed (open",
        "C:\\boats\\red",
        "16:9",
        "",
    ],
)
def test_a_prompt_without_weights_stays_as_it_is(prompt: str) -> None:
    said = parse_weights(prompt)
    assert said.text == prompt
    assert set(said.weights) <= {1.0}


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("a (red:1.3) boat", [("a ", 1), ("red", 1.3), (" boat", 1)]),
        ("(red boat:.5)", [("red boat", 0.5)]),
        ("(red: 2 )", [("red", 2)]),
        ("(red:-1)(blue:+3.)", [("red", -1), ("blue", 3)]),
        ("((small:2) boat:1.5)", [("small", 3), (" boat", 1.5)]),
        ("(((a:2)b:2)c:2)", [("a", 8), ("b", 4), ("c", 2)]),
        ("((a) (b):2)", [("(a) (b)", 2)]),
        ("(ratio 4:3:1.5)", [("ratio 4:3", 1.5)]),
        ("(x (y:2) z)", [("(x ", 1), ("y", 2), (" z)", 1)]),
        (r"\(red:1.3\)", [("(red:1.3)", 1)]),
        (r"(\(red\):1.5)", [("(red)", 1.5)]),
        (r"(a\)b:2)", [("a)b", 2)]),
    ],
)
def test_weights_nest_and_multiply(prompt: str, says: list[tuple[str, float]]) -> None:
    assert runs(prompt) == says


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("a (red:1.3 boat", "lacks its closing parenthesis"),
        ("a (red:1.3", "lacks its closing parenthesis"),
        ("a red:1.3) boat", "lacks its opening parenthesis"),
        ("a (red:1,3) boat", "'1,3' is not a weight"),
        ("a (red:1.3x) boat", "'1.3x' is not a weight"),
        ("a (red:1.3.1) boat", "not a weight"),
        ("a (red:) boat", "not a weight"),
        ("a (:1.3) boat", "weighs no words"),
        ("a ( :1.3) boat", "weighs no words"),
    ],
)
def test_a_weight_that_cannot_be_read_is_refused_with_its_place(prompt: str, says: str) -> None:
    with pytest.raises(SettingError, match=says) as refused:
        parse_weights("a sunny day by the sea with many sails, " + prompt + ", painted in oil by somebody famous")
    assert '"… ' in str(refused.value)
    assert ' …"' in str(refused.value)
    assert "1.3" in str(refused.value)
