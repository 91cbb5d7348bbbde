"""Real Orbax stores: exact round trips, and an error for everything that is not what was saved."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pdjax
from pdjax.errors import UserError
from pdjax.experiment import digest_of
from pdjax.io import store as store_module
from pdjax.io.store import CheckpointStore, require_space, stack, tree_bytes, tree_digests

# Where one array cannot be read, tensorstore's threads deliver the others to an event loop that is closed.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")

IDENTITY = {"model": {"width": 16}, "seed": 0}


class State(NamedTuple):
    step: object
    params: object


def tree_of(seed):
    rng = np.random.default_rng(seed)
    return State(
        step=np.int32(seed),
        params={
            "w": rng.normal(size=(40, 100)).astype(np.float32),
            "layers": [{"b": rng.normal(size=(3,)).astype(np.float16)}, {"b": np.arange(4).reshape(2, 2)}],
            "flags": rng.random(5) < 0.5,
            "scale": np.float32(rng.normal()),
        },
    )


def assert_same(restored, wanted):
    assert jax.tree.structure(restored) == jax.tree.structure(wanted)

    def same(a, b):
        assert isinstance(a, np.ndarray)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == np.asarray(b).tobytes()

    jax.tree.map(same, restored, wanted)


@pytest.fixture
def open_store(tmp_path):
    """Opens stores under the test's directory and closes them behind it."""
    opened = []

    def open_(name="store", identity=IDENTITY, keep=None):
        opened.append(CheckpointStore(tmp_path / name, identity, keep))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two checkpoints, for tests that copy the directory or only read."""
    directory = tmp_path_factory.mktemp("saved") / "store"
    store = CheckpointStore(directory, IDENTITY)
    store.save(10, tree_of(10), {"loss": 0.5, "accuracy": 0.1 + 0.2})
    store.save(20, tree_of(20), {"loss": 0.25})
    store.close()
    return directory


@pytest.fixture
def copied(saved, tmp_path, open_store):
    """Opens a copy of the two checkpoints, of which the test may damage files first."""
    shutil.copytree(saved, tmp_path / "store")
    yield open_store
    time.sleep(0.05)  # what arrives late arrives within the test


def test_round_trip(copied):
    store = copied()
    assert store.steps() == [10, 20]
    assert store.latest_step() == 20
    for step in (10, 20):
        assert_same(store.restore(step, tree_of(0)), tree_of(step))


def test_round_trip_of_device_arrays_and_optimizer_states(open_store):
    """Special floats keep their bits, and shapes are enough to say what to expect."""
    params = {"w": jnp.array([[1.0, -0.0], [jnp.inf, jnp.nan]]), "n": jnp.array([2**31 - 1, -1])}
    state = State(jnp.int32(7), (params, optax.scale_by_adam().init(params)))
    store = open_store()
    store.save(7, state)
    assert_same(store.restore(7, jax.eval_shape(lambda: state)), jax.tree.map(np.asarray, state))


def test_an_empty_store(open_store):
    store = open_store()
    assert store.steps() == []
    assert store.latest_step() is None
    with pytest.raises(UserError, match=r"expected checkpoint 3 in .*store; found steps \[\]"):
        store.restore(3, tree_of(3))


def test_restore_of_a_step_that_is_not_there(copied):
    with pytest.raises(UserError, match=r"expected checkpoint 15 in .*store; found steps \[10, 20\]; choose one"):
        copied().restore(15, tree_of(0))


def test_metrics_are_kept(copied):
    store = copied()
    assert store.metrics(10) == {"loss": 0.5, "accuracy": 0.30000000000000004}
    assert store.metrics(20) == {"loss": 0.25}


def test_only_the_latest_are_kept(open_store, tmp_path):
    store = open_store(keep=2)
    for step in (10, 20, 30, 40):
        store.save(step, tree_of(step))
        assert store.steps() == [10, 20, 30, 40][max(0, step // 10 - 2) : step // 10]
    assert sorted(p.name for p in (tmp_path / "store" / "checkpoints").iterdir()) == ["30", "40"]
    store.close()
    again = open_store(keep=2)
    assert again.latest_step() == 40
    assert_same(again.restore(30, tree_of(0)), tree_of(30))


def test_everything_is_kept_without_a_number(open_store):
    store = open_store()
    for step in range(1, 8):
        store.save(step, {"x": np.float32(step)})
    assert store.steps() == list(range(1, 8))


def test_a_step_before_the_latest_can_be_saved(open_store):
    """A damaged checkpoint that was removed is computed again while later ones are there."""
    store = open_store()
    for step in (30, 10, 20):
        store.save(step, tree_of(step))
    assert store.steps() == [10, 20, 30]
    for step in (10, 20, 30):
        assert_same(store.restore(step, tree_of(0)), tree_of(step))


def test_another_identity_names_what_differs(open_store):
    store = open_store(identity={"model": {"width": 16}, "seed": 0, "task": "cfg3b"})
    store.save(1, tree_of(1))
    with pytest.raises(UserError) as caught:
        open_store(identity={"model": {"width": 32}, "seed": 0, "batch_size": 8})
    message = str(caught.value)
    assert "expected a store of {'batch_size': 8, 'model': {'width': 32}, 'task': None}" in message
    assert "found {'batch_size': None, 'model': {'width': 16}, 'task': 'cfg3b'} in" in message
    assert "seed" not in message
    assert "use another directory" in message
    assert open_store(identity={"task": "cfg3b", "seed": 0, "model": {"width": 16}}).steps() == [1]


class Other(NamedTuple):
    step: object
    weights: object


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t._replace(step=np.int64(0)), r"step'?\]?.*\['int64', \[\]\].*found .*\['int32', \[\]\]"),
        (lambda t: t._replace(step=np.zeros(1, np.int32)), r"\['int32', \[1\]\].*found .*\['int32', \[\]\]"),
        (
            lambda t: t._replace(params=t.params | {"w": np.zeros((40, 100), np.float16)}),
            r"'w'.*float16.*found .*'w'.*float32",
        ),
        (
            lambda t: t._replace(params=t.params | {"w": np.zeros((100, 40), np.float32)}),
            r"'w'.*\[100, 40\].*found .*'w'.*\[40, 100\]",
        ),
        (lambda t: t._replace(params=t.params | {"more": np.zeros(2)}), r"'more'.*float64.*found .*'more'.*None"),
        (lambda t: t._replace(params={"w": t.params["w"]}), r"'flags'.*None.*found .*'flags'.*bool"),
        (lambda t: Other(*t), r"weights.*found .*weights.*None"),
        (lambda t: t.params, r"found .*another model"),
    ],
)
def test_restore_as_another_tree(saved, open_store, change, message):
    """Never a silent cast, a silent reshape or a part; the other arrays are not in the message."""
    store = CheckpointStore(saved, IDENTITY)
    with pytest.raises(UserError, match=message) as caught:
        store.restore(10, change(tree_of(0)))
    assert f"in {saved}/checkpoints/10; the store belongs to another model" in str(caught.value)
    store.close()


def largest_file(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_damaged_array(copied, tmp_path, fraction):
    file = largest_file(tmp_path / "store" / "checkpoints" / "10")
    content = bytearray(file.read_bytes())
    assert len(content) > 10_000  # nearly all of it is the array "w", at either end are bytes that no reader needs
    for position in range(int(fraction * len(content)), int(fraction * len(content)) + 3):
        content[position] ^= 0xFF
    file.write_bytes(content)
    store = copied()
    with pytest.raises(UserError, match=r"expected checkpoint 10 as it was saved; found ") as caught:
        store.restore(10, tree_of(0))
    assert str(tmp_path / "store" / "checkpoints" / "10") in str(caught.value)
    assert "the files are damaged: remove this checkpoint's directory and run again" in str(caught.value)
    assert_same(store.restore(20, tree_of(0)), tree_of(20))


def test_single_flipped_bits_never_come_back_as_numbers(copied, tmp_path):
    """Anywhere in any file: an error, or the arrays and metrics that were saved."""
    rng = random.Random(0)
    store, errors, sound = copied(), 0, 0
    files = sorted(p for p in (tmp_path / "store" / "checkpoints" / "10").rglob("*") if p.is_file())
    for file in files:
        content = file.read_bytes()
        for _ in range(3):
            flipped = bytearray(content)
            flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            file.write_bytes(flipped)
            try:
                assert_same(store.restore(10, tree_of(0)), tree_of(10))
                sound += store.metrics(10) == {"loss": 0.5, "accuracy": 0.30000000000000004}
            except UserError as error:
                errors += f"in {tmp_path}/store/checkpoints/10; the files are damaged" in str(error)
        file.write_bytes(content)
    assert errors + sound == 3 * len(files)
    assert errors >= 10
    assert_same(store.restore(10, tree_of(0)), tree_of(10))


def test_a_metric_that_changed_on_disk(copied, tmp_path):
    file = tmp_path / "store" / "checkpoints" / "10" / "record" / "metadata"
    record = json.loads(file.read_text())
    record["metrics"]["loss"] = 0.4
    file.write_text(json.dumps(record))
    with pytest.raises(
        UserError, match=r"checkpoint 10 as it was saved; found a damaged record \(another SHA-256 for it\)"
    ):
        copied().metrics(10)


@pytest.mark.parametrize("loss", ["emptied", "removed"])
def test_lost_files(copied, tmp_path, loss):
    checkpoint = tmp_path / "store" / "checkpoints" / "10"
    for file in (largest_file(checkpoint), checkpoint / "record" / "metadata"):
        content = file.read_bytes()
        file.write_bytes(b"") if loss == "emptied" else file.unlink()
        store = copied()
        with pytest.raises(UserError, match=r"checkpoint 10 as it was saved"):
            store.restore(10, tree_of(0))
        assert_same(store.restore(20, tree_of(0)), tree_of(20))
        file.write_bytes(content)


def test_saving_the_same_bits_again_changes_nothing(copied, tmp_path):
    store = copied()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}
    store.save(10, tree_of(10), {"loss": 9.0})
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()} == before
    assert store.metrics(10)["loss"] == 0.5


@pytest.mark.parametrize(
    "other",
    [
        lambda t: t._replace(step=np.int32(11)),
        lambda t: t._replace(params=t.params | {"scale": np.nextafter(t.params["scale"], np.float32(9))}),
        lambda t: t._replace(params=t.params | {"w": -t.params["w"]}),
        lambda t: t.params,
    ],
)
def test_saving_other_bits_again_is_an_error(copied, other):
    store = copied()
    with pytest.raises(UserError, match=r"step 10 in .*store to repeat with the same bits; found other values"):
        store.save(10, other(tree_of(10)))
    assert_same(store.restore(10, tree_of(0)), tree_of(10))


def test_a_half_written_checkpoint_does_not_exist(copied, tmp_path):
    """What a killed process leaves behind, before the rename that completes a checkpoint."""
    checkpoints = tmp_path / "store" / "checkpoints"
    half = checkpoints / "30.orbax-checkpoint-tmp"
    shutil.copytree(checkpoints / "20" / "state", half / "state.orbax-checkpoint-tmp")
    largest_file(half).unlink()
    store = copied()
    assert store.steps() == [10, 20]
    assert store.latest_step() == 20
    with pytest.raises(UserError, match=r"found steps \[10, 20\]"):
        store.restore(30, tree_of(0))
    store.save(30, tree_of(30))
    assert_same(store.restore(30, tree_of(0)), tree_of(30))
    assert sorted(p.name for p in checkpoints.iterdir()) == ["10", "20", "30"]


def test_a_half_removed_checkpoint_does_not_stand_in_the_way(copied, tmp_path):
    """What a process leaves behind that is killed while it removes all but the latest."""
    largest_file(tmp_path / "store" / "checkpoints" / "10").unlink()
    (tmp_path / "store" / "checkpoints" / "10" / "_CHECKPOINT_METADATA").unlink()
    store = copied(keep=2)
    assert store.latest_step() == 20
    assert_same(store.restore(20, tree_of(0)), tree_of(20))
    store.save(30, tree_of(30))
    assert store.steps() == [20, 30]


SAVES_FOR_EVER = """
import sys
from pathlib import Path
import numpy as np
from pdjax.io.store import CheckpointStore

store = CheckpointStore(Path(sys.argv[1]), {"seed": 0})
step = store.latest_step() or 0
while True:
    step += 1
    store.save(step, {"w": np.random.default_rng(step).normal(size=(200, 300))}, {"step": step})
"""


def test_killed_while_saving(open_store, tmp_path):
    """Processes that save without a pause are killed at random moments; what exists is whole."""
    rng, like = random.Random(0), {"w": np.zeros((200, 300))}
    directory = tmp_path / "store" / "checkpoints"
    environment = os.environ | {"PYTHONPATH": str(Path(pdjax.__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    seen = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVES_FOR_EVER, str(tmp_path / "store")], env=environment, stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 120
            while not (directory / str(seen + 1)).exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.2))
        finally:
            process.kill()
            process.wait()
        store = open_store(identity={"seed": 0})
        steps = store.steps()
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) > seen
        for step in steps:
            wanted = np.random.default_rng(step).normal(size=(200, 300))
            np.testing.assert_array_equal(store.restore(step, like)["w"], wanted)
            assert store.metrics(step) == {"step": step}
        seen = len(steps)
        store.close()


def test_stack_in_the_order_of_the_steps(saved):
    store = CheckpointStore(saved, IDENTITY)
    stacked = stack(store, [20, 10, 20], tree_of(0))
    store.close()
    np.testing.assert_array_equal(stacked.step, [20, 10, 20])
    assert isinstance(stacked.params["w"], np.ndarray)  # on the host: who uses it says where it goes
    for row, step in enumerate((20, 10, 20)):
        np.testing.assert_array_equal(stacked.params["w"][row], tree_of(step).params["w"])
    assert stacked.params["layers"][0]["b"].shape == (3, 3)


def test_tree_bytes():
    """4000 float32, 3 float16, 4 int64, 5 bool, one float32, one int32."""
    assert tree_bytes(tree_of(0)) == 16_000 + 6 + 32 + 5 + 4 + 4
    assert tree_bytes(jax.eval_shape(lambda: {"x": jnp.zeros((3, 5)), "y": jnp.zeros((), jnp.int32)})) == 64


def test_tree_digests():
    """SHA-256 of four zero bytes, by another name for another dtype or shape."""
    digests = tree_digests({"a": np.float32(0), "b": [np.zeros((2, 2), np.uint8)]})
    zeros = "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119"
    assert digests == {
        "['a']": {"dtype": "float32", "shape": [], "sha256": zeros},
        "['b'][0]": {"dtype": "uint8", "shape": [2, 2], "sha256": zeros},
    }


def test_tree_digests_are_of_values_and_not_of_their_layout():
    rows = np.arange(6, dtype=np.int32).reshape(2, 3)
    columns = np.asfortranarray(rows)
    assert columns.tobytes("A") != rows.tobytes("A")
    assert tree_digests({"x": columns}) == tree_digests({"x": rows})


def test_require_space(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5_000_000, 5_000_000))
    require_space(tmp_path / "new", 5_000_000, "the trajectory")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError) as caught:
        require_space(tmp_path / "new", 12_345_678, "the trajectory")
    assert str(caught.value).startswith(
        f"expected 12.3 MB of free disk for the trajectory; found 5.0 MB free under {tmp_path}/new; "
    )


@pytest.fixture
def places(tmp_path, open_store):
    """Three stores of an experiment, by the names of their directories, each with steps 10 and 20."""
    for name, seed in {"a/trajectory": 0, "a/trajectory-seed7": 7, "b/trajectory": 1}.items():
        store = open_store(name, {"seed": seed})
        for step in (10, 20):
            store.save(step, tree_of(100 * seed + step), {"loss": seed})

    def path(name, step):
        return tmp_path / name / "checkpoints" / str(step)

    return path


def assert_refused(store, step, found):
    """Wherever its record is read."""
    for read in (store.digest, store.metrics, lambda step: store.restore(step, tree_of(0))):
        with pytest.raises(UserError) as caught:
            read(step)
        message = str(caught.value)
        assert message.startswith(f"expected step {step} of {store.directory}; found {found} in {store.path(step)}; ")
        assert "\n" not in message


def test_two_checkpoints_that_changed_places(places, open_store):
    here, there = places("a/trajectory", 10), places("a/trajectory", 20)
    here.rename(here.with_name("x"))
    there.rename(here)
    here.with_name("x").rename(there)
    store = open_store("a/trajectory", {"seed": 0})
    assert_refused(store, 10, "step 20 of the same store")
    assert_refused(store, 20, "step 10 of the same store")
    there.rename(here.with_name("x"))  # the remedy: each gets the name of the step that it holds
    here.rename(there)
    here.with_name("x").rename(here)
    for step in (10, 20):
        assert_same(open_store("a/trajectory", {"seed": 0}).restore(step, tree_of(0)), tree_of(step))


def test_a_checkpoint_under_another_step(places, open_store):
    shutil.copytree(places("a/trajectory", 20), places("a/trajectory", 30))
    assert_refused(open_store("a/trajectory", {"seed": 0}), 30, "step 20 of the same store")


@pytest.mark.parametrize("other", ["a/trajectory-seed7", "b/trajectory"])
def test_a_checkpoint_of_another_store_that_is_named(places, open_store, tmp_path, other):
    shutil.rmtree(places("a/trajectory", 10))
    shutil.copytree(places(other, 20), places("a/trajectory", 10))
    store = open_store("a/trajectory", {"seed": 0})
    assert_refused(store, 10, f"step 20 of {tmp_path / other}")
    with pytest.raises(UserError, match=f"step 20 of {tmp_path / other}"):
        store.save(10, tree_of(10))
    shutil.rmtree(places("a/trajectory", 10))  # the remedy: removed, it is computed and saved again
    store = open_store("a/trajectory", {"seed": 0})
    store.save(10, tree_of(10))
    assert_same(store.restore(10, tree_of(0)), tree_of(10))


def test_a_checkpoint_of_a_store_that_is_not_here(places, open_store, tmp_path):
    (tmp_path / "b" / "trajectory" / "store.json").write_text("{")  # of which nothing can be said either
    shutil.rmtree(places("a/trajectory", 10))
    places("b/trajectory", 10).rename(places("a/trajectory", 10))
    with pytest.raises(UserError, match=r"found step 10 of a store that is not here \(identity \w{8}, here \w{8}\)"):
        open_store("a/trajectory", {"seed": 0}).restore(10, tree_of(0))


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_a_whole_store_may_be_moved_or_copied(places, open_store, tmp_path, move):
    move(tmp_path / "a" / "trajectory", tmp_path / "elsewhere")
    assert_same(open_store("elsewhere", {"seed": 0}).restore(20, tree_of(0)), tree_of(20))


def unplaced(checkpoint):
    """Makes a record what earlier versions wrote: without step and store."""
    file = checkpoint / "record" / "metadata"
    record = {name: part for name, part in json.loads(file.read_text()).items() if name in ("digests", "metrics")}
    file.write_text(json.dumps(record | {"sha256": digest_of(record)}))


def test_a_store_of_an_earlier_version_is_read_with_one_warning(copied, tmp_path, caplog):
    for step in (10, 20):
        unplaced(tmp_path / "store" / "checkpoints" / str(step))
    for store in (copied(), copied()):
        for step in (10, 20):
            assert_same(store.restore(step, tree_of(0)), tree_of(step))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{tmp_path}/store was written by a version whose checkpoints do not say their step" in caplog.text


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe{}"])
def test_a_damaged_identity(copied, saved, tmp_path, content):
    (tmp_path / "store" / "store.json").write_bytes(content)
    with pytest.raises(
        UserError, match=r"expected .*store\.json as it was written; found no JSON .*store\.json and run"
    ):
        copied()
    (tmp_path / "store" / "store.json").unlink()  # the remedy
    assert_same(copied().restore(10, tree_of(0)), tree_of(10))
    (tmp_path / "store" / "store.json").unlink()
    with pytest.raises(
        UserError, match=r"store\.json is gone; found those of another \(identity .{8}, here .{8}\); put"
    ):
        copied(identity={"seed": 1})  # checkpoints know whose they are
