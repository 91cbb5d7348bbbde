"""The command line of preparing."""

import importlib.util

import pytest

from pdjax.text.corpus import open_corpus


@pytest.fixture
def flags(texts_in, made_up):
    path = texts_in("texts", made_up(40))
    return ("--source", path, "--vocabulary", "200", "--length", "16", "--held_out", "0.3")


def test_it_prepares_says_what_it_did_and_does_it_once(command, flags, tmp_path):
    directory = tmp_path / "corpus"
    (tmp_path / "texts/cover.png").touch()
    (tmp_path / "texts/empty.txt").touch()
    code, printed, logged = command(directory, *flags)
    assert (code, logged) == (0, "")
    corpus = open_corpus(directory)
    assert corpus.sources == ("texts",)  # of the folder
    (source,) = corpus.record["sources"]
    for counts in source["counts"].values():
        for number in ("documents", "characters", "tokens", "rows"):
            assert f" {counts[number]:,}" in printed
    assert "1 files of other kinds were not read: cover.png" in printed
    assert "1 documents without a token" in printed
    assert corpus.digest in printed
    assert "200 tokens, learned" in printed
    code, again, logged = command(directory, *flags)
    assert (code, again) == (0, printed)
    assert "nothing was done" in logged


def test_options_are_of_all_sources_or_of_one(command, folder, lines_of, made_up, tmp_path):
    texts = made_up(30)
    plain = folder("plain", {"a.txt": "\n\n".join(texts)})
    records = folder("records=x", {"a.jsonl": lines_of(texts, "body")})
    sources = ("--source", f"p={plain}", "--source", f"r={records}")
    options = ("--documents", "blank", "--field", "title", "--field", "r=body", "--no-lowercase", "--seed", "2")
    code, _, logged = command(
        tmp_path / "corpus", *sources, *options, "--vocabulary", 200, "--length", 16, "--held_out", 0.2
    )
    assert (code, logged) == (0, "")
    corpus = open_corpus(tmp_path / "corpus")
    assert corpus.record["settings"]["sources"] == {
        "p": {"name": "p", "documents": "blank", "field": "title"},
        "r": {"name": "r", "documents": "blank", "field": "body"},
    }
    assert corpus.record["settings"]["lowercase"] is False
    assert corpus.record["settings"]["seed"] == 2
    assert "É" in corpus.vocabulary


def test_absent_packages_are_named_with_the_extra_that_has_them(command, flags, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tokenizers" else find(name))
    code, _, logged = command(tmp_path / "corpus", *flags)
    assert code == 2
    assert "no tokenizers; install pdjax with its extra: pip install -e '.[text]'" in logged


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--documents", "blanks"), "documents"),
        (("--documents", "x=blank"), "--documents of texts"),
        (("--length", "4"), "length"),
        (("--vocabulary", "nowhere.txt"), "nowhere.txt"),
        (("--vocabulary", "20"), "at least 109"),
        (("--source", "nowhere"), "nowhere"),
        (("--source", "Nowhere=x"), "nothing there"),
    ],
)
def test_what_is_wrong_is_one_line(changed, said, command, flags, tmp_path):
    code, printed, logged = command(tmp_path / "corpus", *flags, *changed)
    assert (code, printed) == (2, "")
    assert logged.count("\n") == 1
    assert logged.startswith("error: ")
    assert said in logged
