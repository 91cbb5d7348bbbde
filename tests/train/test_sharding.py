import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from pdjax.errors import UserError
from pdjax.train import sharding
from pdjax.train.sharding import MeshSizes


def sizes(wanted, num_replicas=6, batch_size=12):
    return tuple(sharding.build_mesh(wanted, num_replicas, batch_size).shape.values())


@pytest.mark.parametrize(
    ("replicas", "used"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (8, 8), (9, 3), (11, 1)]
)
def test_replicas_lie_on_as_many_devices_as_divide_them(replicas, used):
    assert len(jax.devices()) == 8
    assert sizes(MeshSizes(-1, 1, 1), replicas) == (used, 1, 1)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((2, 2, 2), (2, 2, 2)),
        ((-1, 1, 4), (2, 1, 4)),
        ((2, -1, 1), (2, 4, 1)),
        ((2, 1, -1), (2, 1, 4)),
        ((-1, -1, 1), (2, 4, 1)),  # 6 x 1 would leave two idle
        ((-1, -1, 2), (2, 2, 2)),
        ((1, -1, -1), (1, 4, 2)),
    ],
)
def test_an_open_axis_takes_what_is_left(wanted, expected):
    assert sizes(MeshSizes(*wanted)) == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ((2, 2, 1), "sizes that multiply to the 8 devices; found replica 2 x data 2 x model 1"),
        ((3, -1, 1), "sizes that divide the 8 devices; found replica 3 x data -1"),
        ((4, 2, 1), "placement.mesh.replica that divides the 6 replicas; found 4"),
        ((1, 8, 1), "placement.mesh.data that divides the 12 examples of a batch; found 8"),
    ],
)
def test_a_mesh_that_does_not_fit_says_why(wanted, message):
    with pytest.raises(UserError, match=message):
        sizes(MeshSizes(*wanted))


PARAMS = {
    "layers_0": {
        "attention": {
            "query": {"kernel": (128, 64), "bias": (64,)},
            "output": {"kernel": (64, 128), "bias": (128,)},
        },
        "expand": {"kernel": (128, 512), "bias": (512,)},
        "contract": {"kernel": (512, 128), "bias": (128,)},
        "norm": {"scale": (128,)},
    },
    "tokens": {"embedding": (7, 128)},
    "positions": {"embedding": (510, 128)},
    "hidden_0": {"kernel": (100, 5000), "bias": (5000,)},
    "hidden_1": {"kernel": (5000, 64), "bias": (64,)},
    "output": {"kernel": (64, 2), "bias": (2,)},
}


def specs(split, shape=(2, 2, 2), leading=(), params=PARAMS):
    mesh = sharding.build_mesh(MeshSizes(*shape), 2, 2)
    tree = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct((*(2 for _ in leading), *shape), np.float32),
        params,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    return jax.tree.map(lambda s: tuple(s.spec), sharding.sharded(mesh, tree, leading, split))


def test_rules_split_heads_and_hidden_units_and_the_rest_by_data():
    """The whole table: tensor parallelism where the rules say so, then the largest free axis that ``data`` divides."""
    shardings = specs(split=True)
    layer = shardings["layers_0"]
    assert layer["attention"]["query"] == {"kernel": ("data", "model"), "bias": ("model",)}
    assert layer["attention"]["output"] == {"kernel": ("model", "data"), "bias": (None,)}
    assert layer["expand"] == {"kernel": ("data", "model"), "bias": ("model",)}
    assert layer["contract"] == {"kernel": ("model", "data"), "bias": (None,)}
    assert layer["norm"]["scale"] == (None,)  # small: every device keeps it
    assert shardings["tokens"]["embedding"] == (None, None)
    assert shardings["positions"]["embedding"] == ("data", None)
    assert shardings["hidden_0"] == {"kernel": ("data", "model"), "bias": ("model",)}
    assert shardings["hidden_1"]["kernel"] == ("model", "data")
    assert shardings["output"]["kernel"] == ("model", None)


@pytest.mark.parametrize("around", ["params", "mu"])
def test_scanned_layers_are_placed_like_one(around):
    """However many: their axis stays whole, and does not make small parameters large."""
    one = PARAMS["layers_0"]
    many = jax.tree.map(lambda shape: (1024, *shape), one, is_leaf=lambda x: isinstance(x, tuple))
    placed = specs(True, leading=("replica",), params={around: {"layers": many}})[around]["layers"]
    expected = specs(True, leading=("replica",), params=one)
    for ours, theirs in zip(
        *(jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, tuple)) for tree in (placed, expected)), strict=True
    ):
        assert ours == ("replica", None, *theirs[1:])


def test_replicated_models_split_their_leading_axis_alone():
    shardings = specs(split=False, leading=("replica",))
    assert {spec[0] for spec in jax.tree.leaves(shardings, is_leaf=lambda x: isinstance(x, tuple))} == {"replica"}
    assert shardings["hidden_0"]["kernel"] == ("replica", None, None)


def test_heads_that_do_not_fit_the_mesh_are_an_error():
    mesh = sharding.build_mesh(MeshSizes(1, 1, 8), 1, 1)
    tree = {"expand": {"kernel": jax.ShapeDtypeStruct((4, 12), np.float32)}}
    with pytest.raises(UserError, match=r"an axis of expand/kernel that the 8 devices of placement.mesh.model divide"):
        sharding.sharded(mesh, tree, (), True)


def test_specs_are_of_the_mesh():
    mesh = sharding.build_mesh(MeshSizes(2, 2, 2), 2, 2)
    assert sharding.by_example(mesh).spec == PartitionSpec("data")
