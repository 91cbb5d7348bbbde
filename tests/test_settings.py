"""Settings: what is accepted, and the one line that says of everything else what is wrong with it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import pytest
from pydantic import Field

from pdjax.errors import UserError, require
from pdjax.settings import (
    Aside,
    Beside,
    ByName,
    Choice,
    Count,
    Positive,
    Seed,
    Share,
    check_written,
    choices,
    class_name,
    determining,
    find_class,
    make,
    named,
    plain,
    settings,
)
from pdjax.tasks.base import Task
from pdjax.tasks.parity import ParityTask
from pdjax.train.optimizer import Adam, Optimizer


class Shape(Choice):
    """Anybody's."""


@settings
class Circle(Shape):
    radius: Positive = 2.0

    def __post_init__(self):
        require(self.radius < 100, "a radius below 100", self.radius, "lower it")


@settings
class Polygon(Shape):
    corners: ClassVar[bool] = True
    sides: Annotated[tuple[Count, ...], Field(min_length=1)]


@settings
class Layer:
    name: str
    shape: Annotated[Shape, Beside()] = Circle()
    weight: Share = 0.0


@settings
class Drawing:
    layers: Annotated[tuple[Layer, ...], ByName()] = ()
    background: Circle = Circle()
    frame: Circle | None = None
    colour: Literal["red", "blue"] = "red"
    seed: Seed = 0
    title: str | None = None
    remark: Annotated[str, Aside()] = ""
    extras: Mapping[str, Any] = Field(default_factory=dict)
    strokes: tuple[Layer, ...] = ()


HOME = Circle.__module__


def test_settings_cannot_change_and_are_equal_by_their_fields():
    assert Circle(3.0) == Circle(radius=3.0) != Circle()
    assert hash(Layer("a", Circle(3.0))) == hash(Layer("a", Circle(3.0)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Circle().radius = 1.0  # pyright: ignore


def test_an_integer_is_an_exact_float():
    assert type(Circle(3).radius) is float
    assert Circle(3) == Circle(3.0)


def test_plain_data_comes_back_the_same():
    drawing = Drawing((Layer("a", Polygon((3, 4))), Layer("b", weight=0.5)), Circle(1.0), extras={"n": (1, 2)})
    data = plain(drawing)
    assert data == {
        "layers": [
            {"name": "a", "shape": {"class": f"{HOME}:Polygon", "sides": [3, 4]}, "weight": 0.0},
            {"name": "b", "shape": {"class": f"{HOME}:Circle", "radius": 2.0}, "weight": 0.5},
        ],
        "background": {"class": f"{HOME}:Circle", "radius": 1.0},
        "frame": None,
        "colour": "red",
        "seed": 0,
        "title": None,
        "remark": "",
        "extras": {"n": [1, 2]},
        "strokes": [],
    }
    assert make(Drawing, data) == drawing


def test_fields_that_are_not_given_have_their_defaults():
    assert make(Drawing, {"layers": [{"name": "a"}]}) == Drawing((Layer("a"),))


# A row: the class, its fields, then the whole message, which says place, expected, found and remedy in this order.
WRONG = [
    # Names.
    (Drawing, {"colour": "red", "sed": 1}, "expected no field it.sed; found 1; remove or rename it"),
    (
        Drawing,
        {"background": {"radios": 1.0}},
        "in it.background: expected no field radios; found 1.0; remove or rename it",
    ),
    (Layer, {}, "expected it.name; found nothing; add it"),
    # Types.
    (Drawing, {"seed": "0"}, "expected it.seed of type int; found '0' (str); change it"),
    (Drawing, {"seed": True}, "expected it.seed of type int; found True (bool); change it"),
    (Drawing, {"seed": 0.0}, "expected it.seed of type int; found 0.0 (float); change it"),
    (Drawing, {"seed": None}, "expected it.seed of type int; found None (NoneType); change it"),
    (Drawing, {"title": 3}, "expected it.title of type string; found 3 (int); change it"),
    (Circle, {"radius": "3"}, "expected it.radius of type float; found '3' (str); change it"),
    (Circle, {"radius": True}, "expected it.radius of type float; found True (bool); change it"),
    (Polygon, {"sides": 3}, "expected it.sides of type tuple; found 3 (int); change it"),
    (Polygon, {"sides": (3, "4")}, "expected it.sides.1 of type int; found '4' (str); change it"),
    # Limits.
    (Drawing, {"seed": -1}, "expected it.seed of at least 0; found -1; change it"),
    (Drawing, {"seed": 2**31}, "expected it.seed of less than 2147483648; found 2147483648; change it"),
    (Circle, {"radius": 0.0}, "expected it.radius of more than 0.0; found 0.0; change it"),
    (Circle, {"radius": float("nan")}, "expected it.radius to be finite; found nan; change it"),
    (Layer, {"name": "a", "weight": 1.0}, "expected it.weight of less than 1.0; found 1.0; change it"),
    (Polygon, {"sides": (0,)}, "expected it.sides.0 of at least 1; found 0; change it"),
    (Polygon, {"sides": ()}, "expected at least 1 in it.sides; found (); add one"),
    (Drawing, {"colour": "green"}, "expected it.colour among 'red' or 'blue'; found 'green'; choose one"),
    # What fields have to do with each other.
    (Circle, {"radius": 100.0}, "in it: expected a radius below 100; found 100.0; lower it"),
    (Drawing, {"frame": {"radius": 100.0}}, "in it.frame: expected a radius below 100; found 100.0; lower it"),
    # Open fields.
    (
        Layer,
        {"name": "a", "shape": None},
        "in it.shape: expected an instance of Shape, or a mapping with 'class' and its fields; found None; "
        "name a subclass of Shape",
    ),
    (
        Layer,
        {"name": "a", "shape": {"radius": 2.0}},
        "in it.shape: expected an instance of Shape, or a mapping with 'class' and its fields; found {'radius': 2.0}; "
        "name a subclass of Shape",
    ),
    (
        Layer,
        {"name": "a", "shape": {"class": f"{HOME}:Star"}},
        f"in it.shape: expected a subclass of Shape; found '{HOME}:Star'; "
        f"choose one of {HOME}:Circle, {HOME}:Polygon, or your own",
    ),
    (
        Layer,
        {"name": "a", "shape": {"class": "pdjax.train:Adam"}},
        "in it.shape: expected a subclass of Shape; found 'pdjax.train:Adam'; "
        f"choose one of {HOME}:Circle, {HOME}:Polygon, or your own",
    ),
    (
        Layer,
        {"name": "a", "shape": {"class": "no_such_module:Star"}},
        "in it.shape: expected a class in a module that can be imported; "
        "found 'no_such_module:Star' (No module named 'no_such_module'); correct its name",
    ),
    # Another class's fields are as unknown as any.
    (
        Layer,
        {"name": "a", "shape": {"class": f"{HOME}:Circle", "sides": (1,)}},
        "in it.shape: expected no field sides; found (1,); remove or rename it",
    ),
    (
        Drawing,
        {"layers": [{"name": "a"}, {"name": "b", "shape": {"class": f"{HOME}:Polygon", "sides": [0]}}]},
        "in it.layers.1: in shape: expected sides.0 of at least 1; found 0; change it",
    ),
]


@pytest.mark.parametrize(("cls", "fields", "message"), WRONG)
def test_what_is_wrong_is_said_in_one_line(cls, fields, message):
    with pytest.raises(UserError) as caught:
        make(cls, fields, "it")
    assert str(caught.value) == message


def test_only_the_first_mistake_is_reported():
    with pytest.raises(UserError) as caught:
        make(Drawing, {"seed": "0", "colour": "green"})
    assert str(caught.value) == "expected colour among 'red' or 'blue'; found 'green'; choose one"


def test_settings_made_directly_are_checked_as_well():
    with pytest.raises(pydantic.ValidationError, match=r"a radius below 100; found 100.0"):
        Circle(100.0)
    with pytest.raises(ValueError, match="sides"):
        Polygon(sides=(0,))


def test_an_open_field_takes_a_strangers_class_and_a_closed_one_its_own_alone():
    @settings
    class Star(Shape):
        points: Count = 5

    assert Layer("a", Star(7)).shape == Star(7)
    with pytest.raises(UserError, match=r"expected an instance of Shape.*found Adam"):
        make(Layer, {"name": "a", "shape": Adam()})


def test_classes_of_this_package_are_named_by_their_folder_and_found_by_it():
    assert class_name(ParityTask) == "pdjax.tasks:ParityTask"
    assert find_class("pdjax.tasks:ParityTask", Task) is ParityTask
    assert find_class("ParityTask", Task) is ParityTask
    assert find_class("pdjax.tasks.parity:ParityTask", Task) is ParityTask
    assert find_class("Adam", Optimizer) is Adam
    assert class_name(Circle) == f"{HOME}:Circle"
    assert find_class(f"{HOME}:Circle", Shape) is Circle
    with pytest.raises(UserError, match=r"a subclass of Task; found 'Adam'; choose one of .*pdjax\.tasks:ParityTask"):
        find_class("Adam", Task)
    with pytest.raises(UserError, match=r"a subclass of Optimizer; found 'Optimizer'"):  # is none itself
        find_class("Optimizer", Optimizer)


def test_what_determines_results_is_without_what_is_said_and_without_the_order_of_names():
    first, second = Layer("a", Polygon((3, 4))), Layer("b")
    drawing = Drawing((first, second))
    assert "remark" not in determining(drawing)
    for same in (Drawing((second, first)), Drawing((first, second), remark="said")):
        assert determining(same) == determining(drawing)
        assert plain(same) != plain(drawing)
    turned = Layer("a", Polygon((4, 3)))  # has no names
    for other in (Drawing((first,)), Drawing((turned, second)), Drawing((first, second), seed=1)):
        assert determining(other) != determining(drawing)
    assert determining(Layer("a", Circle())) != determining(Layer("a", Polygon((1,))))


def test_a_tuple_that_is_not_used_by_name_keeps_order_and_repetition():
    thin, thick = Layer("a"), Layer("a", weight=0.5)
    drawings = [Drawing(strokes=strokes) for strokes in ((thin, thick), (thick, thin), (thick,), (thick, thick))]
    digests = [str(determining(drawing)) for drawing in drawings]
    assert len(set(digests)) == len(digests)


def test_repeated_names_are_refused_where_names_are_used():
    with pytest.raises(UserError, match=r"distinct names; found \['a', 'a'\]; remove or rename"):
        determining(Drawing((Layer("a"), Layer("a", weight=0.5))))


def test_a_new_field_with_a_default_changes_no_identity():
    @settings
    class Layer2(Shape):
        sides: int = 3

    old = determining(Layer2())
    assert determining(Layer2(4)) == {**old, "sides": 4}
    assert "sides" not in old
    assert determining(Layer2(), defaults=True) == {**old, "sides": 3}


class Unmarked(Shape):
    """Lacks the decorator."""


class Thing(Choice):
    """Has classes of its own, which no message about shapes lists."""


class Outer:
    @settings
    class Inner(Thing):
        """Is found by no name."""


@settings
class Noted(Thing):
    size: Count = 1
    remark: Annotated[str, Aside()] = ""


def test_settings_in_a_mapping_determine_what_they_determine_elsewhere():
    def within(*things):
        return determining(Drawing(extras={"n": {"all": things}}))["extras"]["n"]["all"]

    assert within(Noted(), Noted(2, "said")) == [determining(Noted()), determining(Noted(2))]
    assert "source" in within(Noted())[0]


def test_a_class_that_a_mapping_names_is_told_by_its_source_and_is_among_the_choices():
    named_alone = {"class": f"{HOME}:Noted", "size": 2}
    assert determining({"n": named_alone}) == {"n": named_alone | {"source": determining(Noted())["source"]}}
    assert (
        determining({"n": named_alone}) == determining({"n": Noted(2, "said")}) == determining(plain({"n": Noted(2)}))
    )
    others = ({"class": "no_module:Noted"}, {"class": f"{HOME}:Noted", "unknown": 1}, {"class": 1})
    drawing = Drawing(extras={"n": named_alone, "task": plain(ParityTask(5, 2)), "others": others})
    assert {*choices(drawing)} == {Noted, ParityTask, Circle}
    assert determining({"others": others}) == {"others": [*others]}


def test_a_class_without_the_decorator_is_refused_where_it_is_given():
    message = r"^in it\.shape: expected @settings above class Unmarked; found .*; add it"
    with pytest.raises(UserError, match=message):
        make(Layer, {"name": "a", "shape": Unmarked()}, "it")


@settings
class Stored(Thing):
    place: Path


def test_what_can_be_written_down_and_found_again_is_right():
    check_written(Drawing((Layer("a", Polygon((3,))),), extras={"a": ({"b": None}, 1.5, True, Circle())}), "it")


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (
            Outer.Inner(),
            f"expected a class of it.extras.n that {HOME} has under its name; found {HOME}:Outer.Inner; "
            "define it outside of other classes and functions",
        ),
        (
            Stored(Path("there")),
            f"expected it.extras.n.place to be text, a number, true, false, None, settings, or a tuple or "
            f"mapping by text of these; found {Path('there')!r}; change its type",
        ),
    ],
)
def test_what_cannot_be_written_down_and_found_again_is_refused_with_its_path(thing, message):
    with pytest.raises(UserError) as caught:
        check_written(Drawing(extras={"n": thing}), "it")
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [{1: "a"}, ({"a": {2.0}},), Outer, dataclasses.make_dataclass("Other", ["x"])(1)])
def test_what_json_does_not_give_back_is_refused(value):
    with pytest.raises(UserError, match=r"^expected extras\.n.* mapping by text of these; found .*; change its type$"):
        check_written(Drawing(extras={"n": value}))


def test_a_class_within_a_function_is_refused():
    @settings
    class Local(Thing):
        """Is gone when the function returns."""

    with pytest.raises(UserError, match=r"found .*<locals>\.Local; define it outside"):
        check_written(Local())


def test_named_keeps_the_order():
    layers = (Layer("b"), Layer("a"))
    assert list(named(layers).items()) == [("b", layers[0]), ("a", layers[1])]
