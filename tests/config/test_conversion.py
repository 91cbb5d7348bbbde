"""From plain data to dataclasses: unions chosen by their kind, and what config files are written with."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

import ml_collections
import pytest
from pdjax.config import ComparisonConfig, SaturationConfig, SelectionConfig, StrategyConfig, building
from pdjax.config.conversion import build

from pdjax.errors import UserError, require


@dataclasses.dataclass(frozen=True)
class Circle:
    kind: Literal["circle"]
    radius: float

    def __post_init__(self):
        require(self.radius > 0, "a positive radius", self.radius, "raise it")


@dataclasses.dataclass(frozen=True)
class Polygon:
    kind: Literal["polygon"]
    sides: tuple[int, ...]


Shape = Circle | Polygon


@dataclasses.dataclass(frozen=True)
class Drawing:
    shapes: Mapping[str, Mapping[str, Shape]]
    background: Circle | None
    title: str | None


CIRCLE = {"kind": "circle", "radius": 2.0}


@pytest.mark.parametrize(
    ("value", "built"),
    [
        (CIRCLE, Circle("circle", 2.0)),
        ({"kind": "circle", "radius": 2}, Circle("circle", 2.0)),
        ({"kind": "polygon", "sides": [3, 4]}, Polygon("polygon", (3, 4))),
        ({"sides": (), "kind": "polygon"}, Polygon("polygon", ())),
    ],
)
def test_a_union_becomes_the_member_of_its_kind(value, built):
    assert build(Shape, value, "shape") == built


# A row: the value, then the whole message, which says place, expected, found and remedy.
WRONG_UNIONS = [
    ({"kind": "star"}, "expected shape.kind among 'circle', 'polygon'; found 'star'; choose one"),
    ({"kind": None}, "expected shape.kind among 'circle', 'polygon'; found None; choose one"),
    ({"radius": 2.0}, "expected shape.kind; found no such key; choose one of ['circle', 'polygon']"),
    ({}, "expected shape.kind; found no such key; choose one of ['circle', 'polygon']"),
    ("circle", "expected shape to hold fields, 'kind' among them; found 'circle'; see configs/"),
    (None, "expected shape to hold fields, 'kind' among them; found None; see configs/"),
    ([CIRCLE], f"expected shape to hold fields, 'kind' among them; found [{CIRCLE}]; see configs/"),
    # Another member's fields are as unknown as any.
    (
        CIRCLE | {"sides": (1,)},
        "expected shape with the keys ['kind', 'radius']; found unknown ['sides']; remove or rename them",
    ),
    ({"kind": "polygon"}, "expected shape with the keys ['kind', 'sides']; found ['sides'] missing; add them"),
    (
        {"kind": "polygon", "sides": (3, "4")},
        "expected shape.sides[1] of type int; found '4' (str); fix the config",
    ),
    (CIRCLE | {"radius": -1.0}, "in shape: expected a positive radius; found -1.0; raise it"),
]


@pytest.mark.parametrize(("value", "message"), WRONG_UNIONS)
def test_what_is_no_member_of_a_union(value, message):
    with pytest.raises(UserError) as caught:
        build(Shape, value, "shape")
    assert str(caught.value) == message


def test_unions_within_mappings_and_none():
    plain = {"shapes": {"a": {"b": CIRCLE, "c": {"kind": "polygon", "sides": (1,)}}}, "background": None, "title": None}
    built = build(Drawing, plain, "drawing")
    assert built == Drawing({"a": {"b": Circle("circle", 2.0), "c": Polygon("polygon", (1,))}}, None, None)
    assert build(Drawing, plain | {"background": CIRCLE}, "drawing").background == Circle("circle", 2.0)
    plain["shapes"]["a"]["c"]["kind"] = "star"
    with pytest.raises(UserError, match=r"expected drawing\.shapes\.a\.c\.kind among .*; found 'star'"):
        build(Drawing, plain, "drawing")


def test_an_optional_member_may_be_none_and_nothing_else():
    plain = {"shapes": {}, "background": None, "title": 3}
    with pytest.raises(UserError, match=r"drawing\.title of type str; found 3 \(int\)"):
        build(Drawing, plain, "drawing")
    with pytest.raises(UserError, match=r"drawing\.background\.kind among 'circle'; found 'polygon'"):
        build(Drawing, plain | {"background": {"kind": "polygon", "radius": 1.0}}, "drawing")


def strategies():
    """A locked ConfigDict of one strategy for every optional field."""
    final = building.selection("final")
    return ml_collections.ConfigDict(
        {
            "labels": building.strategy("labels", "Labels", final),
            "soft": building.strategy("one_shot", "Soft", final, temperature=1.0),
            "fixed": building.strategy("fixed_duration", "F", building.selection("steps", steps=(1, 3)), duration=50),
            "split": building.strategy("teacher_split", "T", building.selection("multiples", count=3), kappa=0.5),
            "points": building.strategy(
                "fixed_duration", "P", building.selection("transition", points=("end",)), duration=5
            ),
            "adaptive": building.strategy(
                "till_saturate",
                "A",
                building.selection("levels", levels=(0, 2)),
                saturation={"score": "accuracy", "window": 3, "min_gain": 0.01, "max_steps": 100},
            ),
        }
    ).lock()


def convert(config):
    return build(Mapping[str, StrategyConfig], config.to_dict(), "strategies")


def test_what_building_writes_converts():
    final = SelectionConfig("final", None, None, None, None)
    steps = SelectionConfig("steps", None, (1, 3), None, None)
    multiples = SelectionConfig("multiples", 3, None, None, None)
    points = SelectionConfig("transition", None, None, ("end",), None)
    levels = SelectionConfig("levels", None, None, None, (0, 2))
    saturation = SaturationConfig("accuracy", 3, 0.01, 100)
    nothing = (None, None, None, None)  # duration, kappa, saturation, crossing
    taught = (1e-4, 0.0, None)
    assert convert(strategies()) == {
        "labels": StrategyConfig("labels", "Labels", final, *nothing, 1e-4, 1.0, None),
        "soft": StrategyConfig("one_shot", "Soft", final, *nothing, 1.0, 0.0, None),
        "fixed": StrategyConfig("fixed_duration", "F", steps, 50, None, None, None, *taught),
        "split": StrategyConfig("teacher_split", "T", multiples, None, 0.5, None, None, *taught),
        "points": StrategyConfig("fixed_duration", "P", points, 5, None, None, None, *taught),
        "adaptive": StrategyConfig("till_saturate", "A", levels, None, None, saturation, None, *taught),
    }
    comparison = ml_collections.ConfigDict(building.comparison("Two", "figure 3", "soft", "fixed"))
    assert build(ComparisonConfig, comparison.to_dict(), "it") == ComparisonConfig(
        "training", "Two", "figure 3", ("soft", "fixed")
    )


# A field at None, values of its type, and one of another type.
PLACEHOLDERS = {
    "soft.duration": (50, 0.5),
    "soft.kappa": (0.25, "half"),
    "soft.selection.count": (4, (4,)),
    "soft.selection.steps": ((100, 200), "100"),
    "soft.selection.points": (("start",), "start"),
    "soft.selection.levels": ((0,), 0),
}


@pytest.mark.parametrize("path", PLACEHOLDERS)
def test_an_override_of_a_field_at_none_obeys_its_type(path):
    right, wrong = PLACEHOLDERS[path]
    config = strategies()
    config.update_from_flattened_dict({path: right})
    value = convert(config)["soft"]
    for name in path.split(".")[1:]:
        assert value is not None
        value = getattr(value, name)
    assert value == right
    with pytest.raises(TypeError, match="type"):
        strategies().update_from_flattened_dict({path: wrong})


def test_an_optional_value_that_is_given_is_itself():
    assert building.optional(int, 3) == 3
    assert building.optional(str, "") == ""
    assert building.optional(float, 0.0) == 0.0


def test_names_of_temperatures_differ_and_can_stand_in_an_override():
    names = {t: building.temperature_name(t) for t in (1.0, 0.1, 0.01, 0.0, 1e-5, 10.0)}
    assert names[0.01] == "temperature_0p01"
    assert names[1e-5] == "temperature_1em05"
    assert len(set(names.values())) == len(names)
    assert all(re.fullmatch(r"\w+", name) for name in names.values())
