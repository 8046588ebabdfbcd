"""Options that take a whole number take nothing else, on every command."""

import pytest
from cyclopts.exceptions import CoercionError, CycloptsError, ValidationError

from neblina.cli.main import app

COMMANDS = [name for name in app if not name.startswith("-") and name != "data"]  # which has commands of its own


def options(command: str) -> list[tuple[str, bool]]:
    """The options of a command that hold a whole number, and whether a recipe holds them."""
    found = [one for one in app[command].assemble_argument_collection() if one.hint in (int, int | None)]
    return [(one.name, "." in one.name) for one in found]


def required(command: str) -> list[str]:
    """What the command cannot be without."""
    needed = [one for one in app[command].assemble_argument_collection() if one.required]
    return [f"{one.name}=64x64" if one.name.startswith("--") else "model" for one in needed]


def parsed(*words: str) -> object:
    return app.parse_args(list(words), exit_on_error=False, print_error=False)[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_fraction_is_no_whole_number(command: str) -> None:
    for number, (option, of_recipe) in enumerate(options(command)):
        others = ("many",) if of_recipe else ("1.0", "1e3", "many", "inf")
        for value in ("2.5", *others) if number == 0 else ("2.5",):  # they are all read by one function
            beside = ("--data.apart.fields", "a", "b") if "apart" in option else ()  # the two go together
            with pytest.raises(CycloptsError) as refused:
                parsed(command, *required(command), *beside, f"{option}={value}")
            said = str(refused.value)
            if of_recipe:
                assert isinstance(refused.value, ValidationError)
                assert option.removeprefix("--").replace("-", "_") in said
            else:
                assert isinstance(refused.value, CoercionError)
                assert said == f"Invalid value for {option}: {value} is no whole number, such as 20."


def test_the_commands_have_such_options() -> None:
    assert sum(len(options(command)) for command in COMMANDS) > 50


@pytest.mark.parametrize(
    ("text", "number"), [("3", 3), ("-3", -3), ("+3", 3), ("1_000", 1000), ("9" * 20, int("9" * 20))]
)
def test_what_int_reads_is_read(text: str, number: int) -> None:
    bound = parsed("generate", "model", "--seed", text)
    assert bound.arguments["sampling"].seed == number  # type: ignore[attr-defined]
