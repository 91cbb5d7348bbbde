"""Reading a corpus: endless streams as functions of names, seeds and numbers, and damage that is noticed."""

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.text import corpus as corpora
from pdjax.text.corpus import open_corpus
from pdjax.text.prepare import prepare


def as_set(rows):
    return sorted(row.tobytes() for row in rows["tokens"])


def test_a_batch_holds_the_rows_as_tfds_reads_them(corpus):
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(corpus.directory / "rows/1.0.0").as_data_source(split="b_train")
    sizes = corpus.num_rows(held_out=False)
    assert len(source) == sizes["b"]
    rows = corpus.rows(np.arange(sizes["a"], sizes["a"] + sizes["b"]), held_out=False)
    for tokens, segments, row in zip(rows.tokens, rows.segments, source, strict=True):
        assert tokens.tolist() == row["tokens"].tolist()
        assert segments.tolist() == row["segments"].tolist()
    assert rows.tokens.dtype == source[0]["tokens"].dtype == np.uint16
    assert rows.segments.dtype == source[0]["segments"].dtype == np.uint8


def test_shards_are_one_sequence(texts_in, made_up, preparation, tmp_path, monkeypatch):
    preparation = preparation(texts_in("shards", made_up(40)))
    one = prepare(tmp_path / "one", preparation)
    monkeypatch.setattr("pdjax.text.builder.BYTES_PER_SHARD", 3000)
    several = prepare(tmp_path / "several", preparation)
    assert len(list(several.directory.glob("rows/1.0.0/rows-prose_train.array_record-*"))) > 3
    assert several.digest == one.digest
    assert (several.read("train", 0, range(99))["tokens"] == one.read("train", 0, range(99))["tokens"]).all()


def test_an_example_is_a_function_of_stream_seed_and_number(corpus):
    whole = corpus.read("train", 3, range(50))
    again = open_corpus(corpus.directory)
    for i in (49, 0, 17):
        one = again.read("train", 3, [i])
        for part in ("tokens", "segments"):
            assert (one[part][0] == whole[part][i]).all()
    assert not (whole["tokens"] == corpus.read("train", 4, range(50))["tokens"]).all()
    assert not (whole["tokens"] == corpus.read("other", 3, range(50))["tokens"]).all()
    far = corpus.read("train", 3, [10**9])
    assert far["tokens"].shape == (1, 16)
    assert corpus.read("train", 3, [])["tokens"].shape == (0, 16)


@pytest.mark.parametrize("held_out", [False, True])
def test_an_epoch_is_every_row_once(held_out, corpus):
    count = sum(corpus.num_rows(held_out).values())
    rows = corpus.rows(np.arange(count), held_out)._asdict()
    epochs = [corpus.read("train", 0, range(k * count, (k + 1) * count), held_out) for k in range(3)]
    for epoch in epochs:
        assert as_set(epoch) == as_set(rows)
    assert not (epochs[0]["tokens"] == epochs[1]["tokens"]).all()
    assert not (epochs[0]["tokens"] == rows["tokens"]).all()


def test_weights_are_the_shares_of_sources(corpus):
    sizes = corpus.num_rows(held_out=False)
    of_a = {row.tobytes() for row in corpus.rows(np.arange(sizes["a"]), False).tokens}
    of_b = {row.tobytes() for row in corpus.rows(np.arange(sizes["a"], sum(sizes.values())), False).tokens}
    drawn = [row.tobytes() for row in corpus.read("train", 0, range(1000), weights={"b": 3, "a": 1})["tokens"]]
    share = np.mean([row in of_a - of_b for row in drawn])
    assert share == pytest.approx(0.25, abs=0.02)
    # Of each source, as many rows as it has are all of them.
    first = [row for row in drawn if row in of_b - of_a][: sizes["b"]]
    assert len({*first}) == len(of_b - of_a)
    alone = corpus.read("train", 0, range(sizes["b"]), weights={"b": 1})
    assert {row.tobytes() for row in alone["tokens"]} == of_b


def test_wrong_weights_are_refused(corpus):
    for weights, found in (({"c": 1}, "one of c"), ({}, "none"), ({"a": 0}, "a 0"), ({"a": float("nan")}, "a nan")):
        with pytest.raises(UserError, match=found):
            corpus.read("train", 0, [0], weights=weights)


def test_what_is_missing_or_edited_is_named(corpus):
    directory = corpus.directory
    for name in (
        "corpus.json",
        "vocab.txt",
        "rows/1.0.0/features.json",
        "rows/1.0.0/rows-a_train.array_record-00000-of-00001",
    ):
        path = directory / name
        content = path.read_bytes()
        path.write_bytes(content.replace(b"a", b"b", 1) if path.suffix else content[:-1])
        with pytest.raises(UserError, match=name):
            open_corpus(directory)
        path.unlink()
        with pytest.raises(UserError, match=name):
            open_corpus(directory)
        path.write_bytes(content)
    open_corpus(directory)
    with pytest.raises(UserError, match="no such directory"):
        open_corpus(directory / "other")


def test_another_format_is_refused(corpus):
    record = {**corpus.record, "format": 2}
    record["sha256"] = corpora.record_digest(record)
    (corpus.directory / "corpus.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="format 1"):
        open_corpus(corpus.directory)


def test_damage_is_noticed_wherever_it_is(corpus, monkeypatch):
    """When opened; or when rows are read, as in a corpus that is too large for that: never are they wrong."""
    path = corpus.directory / "rows/1.0.0/rows-a_train.array_record-00000-of-00001"
    content = path.read_bytes()
    count = sum(corpus.num_rows(held_out=False).values())
    right = corpus.rows(np.arange(count), held_out=False)
    noticed = 0
    for place in (*range(0, 200, 40), *range(200, len(content), len(content) // 24), len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        monkeypatch.setattr(corpora, "VERIFIED_BYTES", 2**30)
        with pytest.raises(UserError, match=path.name):
            open_corpus(corpus.directory)
        monkeypatch.setattr(corpora, "VERIFIED_BYTES", 0)
        opened = open_corpus(corpus.directory)
        with pytest.raises(UserError, match=path.name):
            opened.check()
        with contextlib.suppress(UserError):
            found = opened.rows(np.arange(count), held_out=False)
            # array_record fills up its blocks, and nothing reads that.
            assert (found.tokens == right.tokens).all()
            assert (found.segments == right.segments).all()
            continue
        with pytest.raises(UserError, match=path.name):
            opened.rows(np.arange(count), held_out=False)
        noticed += 1
    assert noticed > 5


def test_tensorflow_is_never_imported_and_others_when_they_are_needed(corpus, root):
    code = """
import sys
from pdjax.text.corpus import open_corpus
opened = open_corpus(sys.argv[1])
late = {"tensorflow_datasets", "grain", "tokenizers", "zstandard", "jax"}
assert not late & {*sys.modules}, late & {*sys.modules}
opened.read("train", 0, range(4))
import pdjax.text.prepare
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, corpus.directory], check=True, cwd=root)
