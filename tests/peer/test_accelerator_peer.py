"""The peer of the benchmark of accelerators trains the same step as this package."""

import importlib
import sys

import jax
import pytest

ABSENT = "the peer extra is not installed: pip install -e '.[test,peer]'"
torch = pytest.importorskip("torch", reason=ABSENT)
pytest.importorskip("transformers", reason=ABSENT)


@pytest.fixture
def card(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    for name in ("peer", "training"):
        importlib.import_module(f"card.{name}")
    return sys.modules["card"]


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_both_sides_have_the_same_parameters_but_for_those_of_token_types(card, kind):
    theirs = card.peer.model(kind, 2, 2, 8, 16)
    ours = card.training.fresh(card.training.transformer(kind, 2, 2, 8, 16), 16)
    types = 2 * 16 if kind == "bert" else 0
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert count == sum(leaf.size for leaf in jax.tree.leaves(ours)) + types


@pytest.mark.parametrize("loss", ["labels", "distillation"])
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_an_eager_step_lowers_the_loss_it_says(card, kind, loss):
    """After eight rounds of eight batches the loss of one of them has fallen."""
    size = card.training.Size(1, 1, 1, 8, 4, 8, 1)
    case = card.training.BASE._replace(model=kind, loss=loss)
    step, loss = card.peer.training_step(case, size, "eager")
    batch = card.peer.draw(size, torch.device("cpu"), 0)
    before = loss(*batch).item()
    for _ in range(64):
        step()
    assert loss(*batch).item() < before
