"""Preparing: the same corpus every time, whatever happens, with every token in it and nothing on both sides."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.text.corpus import open_corpus
from pdjax.text.prepare import PARTIAL, Preparation, is_held_out, prepare
from pdjax.text.sources import Source
from pdjax.text.vocabulary import SPECIAL, Tokenizer, write_vocabulary


def files_of(directory):
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def refused(directory, preparation):
    with pytest.raises(UserError) as error:
        prepare(directory, preparation)
    assert "\n" not in str(error.value)
    return str(error.value)


def words_of(corpus, held_out):
    """Returns the tokens of all rows in their order, without special ones."""
    rows = corpus.rows(np.arange(sum(corpus.num_rows(held_out).values())), held_out)
    special = [corpus.vocabulary.index(token) for token in SPECIAL if token != "[UNK]"]
    return rows.tokens[~np.isin(rows.tokens, special)]


def start(directory, source, environment=None):
    command = [sys.executable, "-m", "pdjax.text", directory, "--source", f"prose={source}", "--vocabulary", "200"]
    return subprocess.Popen(
        [*command, "--length", "16", "--held_out", "0.3"],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_another_process_with_other_threads_writes_the_same_bytes(
    tmp_path, texts_in, made_up, preparation, monkeypatch
):
    path = texts_in("texts", made_up(50))
    prepare(tmp_path / "here", preparation(path))
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    process = start(tmp_path / "there", path, {"RAYON_NUM_THREADS": "3", "PYTHONHASHSEED": "7"})
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")
    corpus = open_corpus(tmp_path / "there")
    # A copy elsewhere is the same corpus.
    os.rename(tmp_path / "there", tmp_path / "moved")
    assert open_corpus(tmp_path / "moved").digest == corpus.digest


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "txt.zst", "tfds"])
def test_the_same_documents_in_other_files_are_the_same_corpus(
    kind, tmp_path, texts_in, folder, made_up, preparation, packed, lines_of, tfds_of
):
    texts = made_up(30)
    expected = prepare(tmp_path / "expected", preparation(texts_in("texts", texts)))
    match kind:
        case "jsonl":
            path = folder("other", {"a.jsonl": lines_of(texts)})
        case "jsonl.gz":
            path = folder("other", {"a.jsonl.gz": packed["gz"](lines_of(texts).encode())})
        case "txt.zst":
            files = {f"{number:04}.txt.zst": packed["zst"](text.encode()) for number, text in enumerate(texts)}
            path = folder("other", files)
        case _:
            path = tfds_of(tmp_path / "root", texts)
    assert prepare(tmp_path / "other_corpus", preparation(path)).digest == expected.digest


def test_every_token_is_in_the_rows_once_and_on_its_side(tmp_path, texts_in, made_up, preparation):
    texts = [*made_up(40), "", " \n\t", "a", *(" a" * size for size in (13, 14, 15, 16, 140, 141))]
    corpus = prepare(tmp_path / "corpus", preparation(texts_in("texts", texts), vocabulary=300))
    (source,) = corpus.record["sources"]
    assert source["empty"] == 2
    tokenizer = Tokenizer(corpus.vocabulary, lowercase=True)
    for held_out, side in ((False, "train"), (True, "held_out")):
        chosen = [text for text in texts if text.strip() and is_held_out(text, 0, 0.3) == held_out]
        expected = tokenizer.encode(chosen)
        counts = source["counts"][side]
        assert counts["documents"] == len(chosen)
        assert counts["characters"] == sum(map(len, chosen))
        assert counts["tokens"] == sum(map(len, expected))
        assert counts["rows"] == corpus.num_rows(held_out)["prose"]
        assert sorted(words_of(corpus, held_out)) == sorted(np.concatenate(expected))
        rows = corpus.rows(np.arange(counts["rows"]), held_out)
        assert counts["padding"] == np.count_nonzero(rows.segments == 0)
        assert ((rows.tokens == 0) == (rows.segments == 0)).all()


def test_no_held_out_document_is_seen_in_training(tmp_path, texts_in, made_up):
    # Each document has a word of its own; some documents are there twice, in another source too.
    texts = [f"{text} secret{chr(97 + number // 26)}{chr(97 + number % 26)}" for number, text in enumerate(made_up(60))]
    vocabulary = tmp_path / "vocab.txt"
    words = sorted({text.split()[-1] for text in texts})
    write_vocabulary(vocabulary, (*SPECIAL, *words))
    sources = (
        Source("a", texts_in("a", texts + texts[:20])),
        Source("b", texts_in("b", [f"{text}\r\n" for text in reversed(texts)])),
    )
    corpus = prepare(tmp_path / "corpus", Preparation(sources, str(vocabulary), 16, held_out=0.3))
    train, held_out = (({*words_of(corpus, side).tolist()} - {1}) for side in (False, True))
    assert not train & held_out
    assert len(train | held_out) == 60
    # Another seed holds out others, and about the share that was asked for.
    chosen = [[is_held_out(text, seed, 0.3) for text in made_up(2000, 1)] for seed in (0, 1)]
    assert chosen[0] != chosen[1]
    assert np.mean(chosen, axis=1) == pytest.approx(0.3, abs=0.04)


def test_the_vocabulary_is_learned_from_training_documents_alone(tmp_path, texts_in, made_up, preparation):
    texts = made_up(60)
    changed = [f"{text} quaxquax" * 9 if is_held_out(text, 0, 0.3) else text for text in texts]
    # Held-out documents whose sides are the same, and whose words are others.
    changed = [
        b if is_held_out(b, 0, 0.3) == is_held_out(a, 0, 0.3) else a for a, b in zip(texts, changed, strict=True)
    ]
    assert changed != texts
    one = prepare(tmp_path / "one", preparation(texts_in("a", texts)))
    other = prepare(tmp_path / "other", preparation(texts_in("b", changed)))
    assert one.vocabulary == other.vocabulary
    assert one.digest != other.digest


def test_a_source_without_documents_on_both_sides_is_refused(tmp_path, texts_in, folder, preparation):
    path = texts_in("texts", ["one document"])
    message = refused(tmp_path / "corpus", preparation(path))
    assert "--held_out 0.3" in message
    assert "--documents prose=blank" in message
    assert any(found in message for found in ("1 in training and 0 held", "0 in training and 1 held"))
    assert "found none" in refused(tmp_path / "corpus", preparation(texts_in("blank", [" ", "\n"])))
    # What a refusal leaves is no corpus, and in nobody's way.
    message = refused(tmp_path / "corpus", preparation(folder("bad", {"a.txt": b"\xff"})))
    assert "byte 0xff" in message


def test_a_killed_preparation_is_nothing_and_is_made_again(tmp_path, texts_in, made_up, preparation, monkeypatch):
    path = texts_in("texts", made_up(800, 3))
    expected = prepare(tmp_path / "expected", preparation(path))
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    directory = tmp_path / "corpus"
    for waits_for in (f"{PARTIAL}", f"{PARTIAL}/vocab.txt", f"{PARTIAL}/rows/*/*.partial"):
        process = start(directory, path)
        while not any(directory.glob(waits_for)) and process.poll() is None:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it had finished before"
        with pytest.raises(UserError, match=r"no corpus\.json"):
            open_corpus(directory)
    assert prepare(directory, preparation(path)).digest == expected.digest
    assert files_of(directory) == files_of(tmp_path / "expected")


@pytest.mark.parametrize("moved", [("rows",), ("rows", "vocab.txt")])
def test_a_preparation_killed_amid_its_last_moves_is_made_again(moved, tmp_path, texts_in, made_up, preparation):
    path, directory = texts_in("texts", made_up(30)), tmp_path / "corpus"
    expected = prepare(directory, preparation(path)).digest
    (directory / PARTIAL).mkdir()
    for name in ("rows", "vocab.txt", "corpus.json"):
        if name not in moved:
            os.rename(directory / name, directory / PARTIAL / name)
    with pytest.raises(UserError, match=r"no corpus\.json"):
        open_corpus(directory)
    assert prepare(directory, preparation(path)).digest == expected
    assert {path.name for path in directory.iterdir()} == {"rows", "vocab.txt", "corpus.json"}


def test_another_process_is_waited_for(tmp_path, texts_in, made_up, preparation):
    """And what it has prepared is taken: of several that want one corpus, one makes it."""
    path = texts_in("texts", made_up(30))
    directory = tmp_path / "corpus"
    directory.mkdir()
    handle = os.open(directory, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(prepare, directory, preparation(path)) for _ in range(2)]
        assert not wait(waiting, timeout=0.5).done
        assert list(directory.iterdir()) == []
        os.close(handle)
        one, other = (each.result().digest for each in waiting)
    assert one == other


def test_files_of_others_are_left_alone(tmp_path, texts_in, made_up, preparation):
    directory = tmp_path / "mine"
    directory.mkdir()
    write_vocabulary(directory / "vocab.txt", SPECIAL)
    path = texts_in("texts", made_up(5))
    message = refused(directory, preparation(path, vocabulary=str(directory / "vocab.txt")))
    assert "vocab.txt in it" in message
    assert [path.name for path in directory.iterdir()] == ["vocab.txt"]


def test_a_corpus_within_its_source_is_refused(texts_in, made_up, preparation):
    path = texts_in("texts", made_up(5))
    assert "a part of it" in refused(f"{path}/inner/corpus", preparation(path))


def test_a_finished_corpus_is_left_as_it_is_and_another_one_refused(tmp_path, texts_in, made_up, preparation):
    texts = made_up(30)
    path, directory = texts_in("texts", texts), tmp_path / "corpus"
    same = preparation(path)
    digest = prepare(directory, same).digest
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    assert prepare(directory, dataclasses.replace(same, longest=10**6)).digest == digest
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before
    assert "length 16 there, 32 here" in refused(directory, preparation(path, length=32))
    assert "seed 0 there, 1 here" in refused(directory, preparation(path, seed=1))
    assert "vocabulary 200 there, 250 here" in refused(directory, preparation(path, vocabulary=250))
    assert "sources" in refused(directory, preparation(path, name="other"))
    file = tmp_path / "texts/0003.txt"
    file.write_text(texts[3] + "more")
    message = refused(directory, same)
    assert str(file) in message
    assert hashlib.sha256(texts[3].encode()).hexdigest()[:12] in message
    file.unlink()
    assert f"{file}" in refused(directory, same)
    file.write_text(texts[3])
    (tmp_path / "texts/new.txt").write_text("new")
    assert "new.txt too" in refused(directory, same)
    (tmp_path / "texts/new.txt").unlink()
    # The same files elsewhere are the same.
    os.rename(tmp_path / "texts", tmp_path / "moved")
    assert prepare(directory, preparation(str(tmp_path / "moved"))).digest == digest


def test_another_vocabulary_file_is_refused(tmp_path, texts_in, made_up, preparation):
    path, directory, file = texts_in("texts", made_up(30)), tmp_path / "corpus", tmp_path / "vocab.txt"
    write_vocabulary(file, (*SPECIAL, "a"))
    prepare(directory, preparation(path, vocabulary=str(file)))
    write_vocabulary(file, (*SPECIAL, "b"))
    assert f"another one in {file}" in refused(directory, preparation(path, vocabulary=str(file)))


def test_a_source_that_changes_meanwhile_is_refused(tmp_path, texts_in, made_up, preparation, monkeypatch):
    path = texts_in("texts", made_up(30))

    def learn(*arguments):
        (tmp_path / "texts/0002.txt").write_text("other")
        return (*SPECIAL, *"abcdefghijklmnopqrstuvwxyz"), 0

    monkeypatch.setattr("pdjax.text.prepare.learn_vocabulary", learn)
    assert "0002.txt" in refused(tmp_path / "corpus", preparation(path))
    with pytest.raises(UserError):
        open_corpus(tmp_path / "corpus")


def test_settings_that_make_no_corpus_are_refused(preparation, tmp_path):
    for wrong in ({"length": 7}, {"held_out": 0.0}, {"held_out": 1.0}, {"vocabulary": 1.5}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            preparation(str(tmp_path), **wrong)
    with pytest.raises(ValueError, match="distinct names"):
        Preparation((Source("a", "x"), Source("a", "y")), 200, 16)


def test_more_tokens_than_two_bytes_can_number_take_four(tmp_path, texts_in, made_up, preparation):
    file = tmp_path / "vocab.txt"
    write_vocabulary(file, (*SPECIAL, *(f"[unused{number}]" for number in range(2**16)), "a"))
    texts = [f"a {'a ' * number}" for number in range(20)]
    corpus = prepare(tmp_path / "corpus", preparation(texts_in("texts", texts), vocabulary=str(file)))
    assert corpus.dtype == np.uint32
    assert {*words_of(corpus, False).tolist()} == {2**16 + 5}


def test_json_of_the_record_says_everything(corpus):
    record = json.loads((corpus.directory / "corpus.json").read_text())
    assert record == corpus.record
    assert [source["name"] for source in record["sources"]] == ["a", "b"]
    assert record["settings"]["held_out"] == 0.3
    with contextlib.suppress(StopIteration):
        file = next(iter(record["sources"][0]["files"]))
        assert file.keys() == {"name", "size", "sha256"}
