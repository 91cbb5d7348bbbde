"""Masking of packed text: exact counts, what is never selected, whole words, and what a decoder is asked for."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from pdjax.errors import UserError
from pdjax.settings import determining, make
from pdjax.tasks.base import batch_shapes
from pdjax.tasks.text import Prepared, SourceWeight, TextLanguageTask, TextTask
from pdjax.text.prepare import Preparation, prepare
from pdjax.text.sources import Source

PAD, UNKNOWN, FIRST, LAST, MASK = 0, 3, 4, 7, 8
CORPUS = Prepared("nowhere", None, 20, 24, (PAD, UNKNOWN, FIRST, LAST, MASK))
ORDINARY = sorted(set(range(20)) - set(CORPUS.special))


def row(*lengths):
    """A row of pieces with so many ordinary tokens each, with padding behind; tokens run through the ordinary ones."""
    tokens, segments = [], []
    for piece, length in enumerate(lengths, 1):
        tokens += [FIRST, *(ORDINARY[(7 * piece + i) % len(ORDINARY)] for i in range(length)), LAST]
        segments += [piece] * (length + 2)
    padding = CORPUS.length - len(tokens)
    return tokens + [PAD] * padding, segments + [0] * padding


ROWS = [row(22), row(10, 10), row(1), row(3, 0, 5), row(13)]
EXAMPLES = {
    "tokens": jnp.array([tokens for tokens, _ in ROWS], jnp.uint16),
    "segments": jnp.array([segments for _, segments in ROWS], jnp.uint8),
}
REAL = [22, 20, 1, 8, 13]


def repeated(times):
    return {name: jnp.repeat(array, times, axis=0) for name, array in EXAMPLES.items()}


@pytest.mark.parametrize("rate", [0.15, 0.5, 0.9])
def test_exactly_so_many_are_selected(rate):
    """Of every sequence round(rate * ordinary tokens), never [CLS], [SEP] or padding; all of them are asked for."""
    task = TextTask(CORPUS, mask_rate=rate)
    for seed in range(5):
        batch = jax.jit(task.batch)(jax.random.key(seed), EXAMPLES)
        tokens, selected = np.asarray(EXAMPLES["tokens"]), np.asarray(batch.inputs["selected"])
        assert selected.sum(1).tolist() == [round(rate * count) for count in REAL]
        assert batch.weights.sum(1).tolist() == selected.sum(1).tolist()
        assert not selected[np.isin(tokens, [FIRST, LAST, PAD])].any()
        asked, counted = np.asarray(batch.inputs["asked"]), np.asarray(batch.weights) > 0
        for r in range(len(ROWS)):
            assert sorted(asked[r, counted[r]]) == np.flatnonzero(selected[r]).tolist()
            np.testing.assert_array_equal(batch.targets[r], tokens[r, asked[r]])
        shown = np.asarray(batch.inputs["tokens"])
        np.testing.assert_array_equal(shown[~selected], tokens[~selected])
        np.testing.assert_array_equal(batch.extras["tokens"], tokens)


def test_each_ordinary_token_is_selected_as_often():
    task, times = TextTask(CORPUS, mask_rate=0.15), 4000
    batch = jax.jit(task.batch)(jax.random.key(0), repeated(times))
    selected = np.asarray(batch.inputs["selected"]).reshape(len(ROWS), times, -1)
    for r, count in enumerate(REAL):
        observed = selected[r].sum(0)[np.asarray(EXAMPLES["segments"][r]) > 0]
        observed = observed[observed > 0]
        if round(0.15 * count) == 0:
            assert observed.sum() == 0
        else:
            assert len(observed) == count
            assert scipy.stats.chisquare(observed).pvalue > 1e-3


def test_what_replaces_a_selected_token():
    """[MASK] in 80 %, itself in 10 %, and in 10 % any ordinary token, all alike: never a special one."""
    task, times = TextTask(CORPUS, mask_rate=0.9), 3000
    batch = jax.jit(task.batch)(jax.random.key(1), repeated(times))
    selected, shown = np.asarray(batch.inputs["selected"]), np.asarray(batch.inputs["tokens"])
    before, after = np.asarray(batch.extras["tokens"])[selected], shown[selected]
    assert abs(np.mean(after == MASK) - 0.8) < 0.01
    others = after[(after != MASK) & (after != before)]
    # Of those replaced by chance, one in as many as there are ordinary tokens is the one that was there.
    assert abs(len(others) / len(after) - 0.1 * (1 - 1 / len(ORDINARY))) < 0.005
    assert set(others) <= set(ORDINARY)
    kept = after == before
    assert abs(np.mean(kept) - 0.1 * (1 + 1 / len(ORDINARY))) < 0.005
    assert scipy.stats.chisquare(np.bincount(others, minlength=20)[ORDINARY]).pvalue > 1e-4


def test_whole_words(monkeypatch):
    """Pieces of a word are selected together; of the last word that does not fit any more the first ones are."""
    continued = {5, 6, 9}
    names = tuple(f"##{token}" if token in continued else f"{token}" for token in range(20))
    monkeypatch.setattr(TextTask, "tokens", names)
    tokens = [FIRST, 1, 5, 6, 2, 9, 10, 11, 12, 5, 13, 14, LAST, PAD] + [PAD] * 10
    word = [0, 1, 1, 1, 2, 2, 3, 4, 5, 5, 6, 7, 0, 0] + [0] * 10
    examples = {
        "tokens": jnp.array([tokens] * 3000, jnp.uint16),
        "segments": jnp.array([[1] * 13 + [0] * 11] * 3000, jnp.uint8),
    }
    task = TextTask(CORPUS, mask_rate=0.35, whole_words=True)
    selected = np.asarray(jax.jit(task.batch)(jax.random.key(0), examples).inputs["selected"])
    assert set(selected.sum(1)) == {round(0.35 * 11)}
    sizes = {number: word.count(number) for number in range(1, 8)}
    cut = 0
    for one in selected:
        parts = [[bool(one[i]) for i in range(24) if word[i] == number] for number in range(1, 8)]
        partly = [part for part in parts if any(part) and not all(part)]
        assert len(partly) <= 1  # the last one that was chosen
        assert all(part == sorted(part, reverse=True) for part in partly)
        cut += len(partly)
    assert 0 < cut < 3000
    whole = np.array([[one[[i for i in range(24) if word[i] == number]].all() for number in sizes] for one in selected])
    # Words are chosen, not tokens: one of three pieces nearly as often as one of one.
    assert 0.5 < whole[:, 0].mean() / whole[:, 2].mean() < 1.1


def test_positions_begin_anew_in_each_piece():
    batch = TextTask(CORPUS).batch(jax.random.key(0), EXAMPLES)
    assert batch.inputs["positions"][1, :24].tolist() == [*range(12), *range(12)]
    assert batch.inputs["positions"][3, :14].tolist() == [*range(5), *range(2), *range(7)]
    assert batch.inputs["segments"][3, :15].tolist() == [1] * 5 + [2] * 2 + [3] * 7 + [0]
    np.testing.assert_array_equal(batch.inputs["valid"], np.asarray(EXAMPLES["segments"]) > 0)


def test_the_next_token_is_asked_for_within_a_piece():
    batch = TextLanguageTask(CORPUS).batch(jax.random.key(0), EXAMPLES)
    tokens, segments = (np.asarray(EXAMPLES[name]).astype(int) for name in ("tokens", "segments"))
    for r in range(len(ROWS)):
        for i in range(CORPUS.length):
            follows = i + 1 < CORPUS.length and segments[r, i] > 0 and segments[r, i] == segments[r, i + 1]
            assert batch.weights[r, i] == follows
            if follows:
                assert batch.targets[r, i] == tokens[r, i + 1]


def test_shapes_are_known_without_a_corpus():
    """What plans compile: rows of small integers, and as many places as the longest piece has selected tokens."""
    task = TextTask(dataclasses.replace(CORPUS, vocabulary=70_000, length=512))
    assert task.example_shapes(3)["tokens"] == jax.ShapeDtypeStruct((3, 512), np.uint32)
    assert TextTask(CORPUS).example["tokens"].dtype == np.uint16
    assert task.counts[-1] == round(0.15 * 510)
    assert batch_shapes(dataclasses.replace(task, whole_words=True), 3) == batch_shapes(task, 3)
    with pytest.raises(
        UserError, match=r"a prepared corpus in nowhere; found none; prepare it: python -m pdjax\.text --help"
    ):
        task.open()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A function that prepares documents of numbers written as words, by the name of a directory."""
    words = ("nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    def make(name, first=0, length=16):
        base = tmp_path_factory.mktemp("corpus")
        for source in ("odd", "even"):
            numbers = range(first + (source == "odd"), first + 400, 2)
            documents = [" ".join(words[int(digit)] for digit in str(number**3)) for number in numbers]
            (base / f"{source}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
        sources = tuple(Source(source, str(base / f"{source}.jsonl")) for source in ("odd", "even"))
        directory = str(base / name)
        prepare(directory, Preparation(sources, vocabulary=130, length=length, held_out=0.2))
        return directory

    return make


def test_a_prepared_corpus_says_all_that_programs_need(prepared):
    directory = prepared("corpus")
    corpus = Prepared.of(directory)
    task = TextTask(corpus)
    assert task.vocabulary == len(task.tokens) == 130
    assert [task.tokens[i] for i in corpus.special] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    reader = task.open()
    examples = reader.read("student batches", 3, range(64), held_out=False)
    for name, shape in task.example_shapes(64).items():
        assert (examples[name].shape, examples[name].dtype) == (shape.shape, shape.dtype)
    batch = task.batch(jax.random.key(0), examples)
    shapes = batch_shapes(task, 64)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), batch) == jax.tree.map(lambda a: (a.shape, a.dtype), shapes)
    held_out = {" ".join(map(str, row)) for row in reader.read("e", 0, range(reader.num_held_out()), True)["tokens"]}
    assert len(held_out) == reader.num_held_out()  # each once
    assert not held_out & {" ".join(map(str, row)) for row in reader.read("e", 0, range(500), False)["tokens"]}


def test_sources_are_mixed_by_weight(prepared):
    """Every example of one source has a weight of its own; the held-out ones stay as they are."""
    corpus = Prepared.of(prepared("corpus"))
    mixed = TextTask(corpus, (SourceWeight("odd", 3.0), SourceWeight("even", 1.0)))
    alone = TextTask(corpus, (SourceWeight("odd", 1.0),)).open()
    odd = {row.tobytes() for row in alone.read("x", 0, range(2000), False)["tokens"]}
    rows = [row.tobytes() for row in mixed.open().read("x", 0, range(4000), False)["tokens"]]
    assert np.mean([row in odd for row in rows]) == pytest.approx(0.75, abs=0.01)
    everything, some = (task.open().read("x", 0, range(50), True)["tokens"] for task in (TextTask(corpus), mixed))
    np.testing.assert_array_equal(everything, some)
    with pytest.raises(UserError, match="weights of even, odd; found one of other"):
        TextTask(corpus, (SourceWeight("other", 1.0),)).open()
    with pytest.raises(UserError, match="distinct names"):
        TextTask(corpus, (SourceWeight("odd", 1.0), SourceWeight("odd", 3.0))).open()


def test_another_corpus_in_the_same_place_is_refused(prepared):
    directory = prepared("corpus")
    before = TextTask(Prepared.of(directory))
    shutil.rmtree(directory)
    shutil.copytree(prepared("corpus", first=1000), directory)
    with pytest.raises(UserError, match=f"the corpus in {directory} with digest {before.corpus.digest}; found "):
        before.open()
    longer = dataclasses.replace(Prepared.of(directory), length=20)
    with pytest.raises(UserError, match="with length 20; found 16"):
        TextTask(longer).open()
    shutil.rmtree(directory)
    with pytest.raises(UserError, match=f"a corpus in {directory}; found no such directory"):
        Prepared.of(directory)


def test_where_a_corpus_lies_is_no_part_of_what_a_task_is(prepared, tmp_path):
    directory = prepared("corpus")
    shutil.copytree(directory, tmp_path / "copy")
    here, there = TextTask(Prepared.of(directory)), TextTask(Prepared.of(str(tmp_path / "copy")))
    assert determining(here) == determining(there)
    assert determining(here) != determining(TextTask(Prepared.of(prepared("corpus", first=7))))


def test_special_tokens_may_stand_anywhere():
    last = dataclasses.replace(CORPUS, vocabulary=40, special=(0, 1, 2, 3, 39))
    examples = {"tokens": jnp.full((4, last.length), 7), "segments": jnp.ones((4, last.length), int)}
    replaced = TextTask(last, mask_rate=0.9).batch(jax.random.key(0), examples).inputs["tokens"]
    assert set(np.unique(replaced)) <= {7, 39, *range(4, 39)}
    assert (replaced == 39).any()


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (TextTask, {"corpus": {"directory": "x", "length": 4}}, "a mask_rate that selects something of 2 tokens"),
        (Prepared, {"directory": "x", "length": 2}, "rows longer than"),
        (Prepared, {"directory": "x", "special": (0, 1, 2, 3, 0)}, "five different special tokens"),
        (Prepared, {"directory": "x", "vocabulary": 100}, "five different special tokens below 100"),
        (Prepared, {"directory": "x", "vocabulary": 5, "special": (0, 1, 2, 3, 4)}, "below 5, and others"),
    ],
)
def test_refused(kind, fields, message):
    with pytest.raises(UserError, match=message):
        make(kind, fields)
