"""Vocabularies: learned ones are the same every time, given ones are what they have to be."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from pdjax.errors import UserError
from pdjax.text.vocabulary import (
    SPECIAL,
    Tokenizer,
    count_characters,
    learn_vocabulary,
    read_vocabulary,
    write_vocabulary,
)


def learned(texts, size, lowercase=True):
    characters = sum((count_characters(text, lowercase) for text in texts), Counter())
    return learn_vocabulary(texts, characters, size, lowercase)


LEARNING = """
import sys
from collections import Counter
from pdjax.text.vocabulary import count_characters, learn_vocabulary
texts = open(sys.argv[1]).read().split("|")
characters = sum((count_characters(text, True) for text in texts), Counter())
print(learn_vocabulary(texts, characters, 300, True)[0])
"""


def test_a_vocabulary_is_learned_again_with_any_number_of_threads(made_up, tmp_path, root):
    texts = made_up(60)
    file = tmp_path / "texts"
    file.write_text("|".join(texts))
    expected = learned(texts, 300)[0]
    assert learned(texts, 300)[0] == expected
    for threads in ("1", "3"):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONPATH": str(root)}
        found = subprocess.check_output([sys.executable, "-c", LEARNING, file], env=environment, text=True)
        assert found.strip() == str(expected)


def test_a_learned_vocabulary_has_its_size_and_is_filled_up(made_up):
    texts = made_up(30)
    tokens, unused = learned(texts, 150)
    assert (len(tokens), unused, tokens[:5]) == (150, 0, SPECIAL)
    assert len({*tokens}) == 150
    many, unused = learned(texts, 2000)
    assert len(many) == 2000
    assert many[-unused:] == tuple(f"[unused{number}]" for number in range(unused))
    assert not any(token.startswith("[unused") for token in many[:-unused])
    with pytest.raises(UserError, match="at least 109"):
        learned(texts, 108)


def test_frequent_words_become_one_token_and_rare_characters_are_unknown():
    texts = ["frequent " * 30 + "x" * 3, "".join(chr(0x3B1 + i % 24) + " " for i in range(48)) + "☃"]
    tokens, _ = learned(texts, 120)
    tokenizer = Tokenizer(tokens, lowercase=True)
    (ids, other) = tokenizer.encode(["Frequent FREQUENT", "☃"])
    assert [tokens[i] for i in ids] == ["frequent", "frequent"]
    assert [tokens[i] for i in other] == ["[UNK]"]  # the rarest of more characters than there is room for


def test_long_texts_are_tokenised_in_parts_without_a_seam(made_up):
    text = " ".join(made_up(100)) + " " + "x" * 40_000 + "\n" + "é" * 50 + "."
    tokens, _ = learned([text], 200)
    tokenizer = Tokenizer(tokens, lowercase=True)
    (whole, *words) = tokenizer.encode([text, *text.split()])
    assert whole.tolist() == [i for ids in words for i in ids]
    assert [len(ids) for ids in tokenizer.encode(["", " \n", "a"])] == [0, 0, 1]


def test_text_never_becomes_a_special_token(made_up):
    tokens, _ = learned(["[MASK] is read [SEP] as it stands"], 130)
    (ids,) = Tokenizer(tokens, lowercase=True).encode(["[MASK] [SEP] [PAD] [UNK] [CLS]"])
    assert not {0, 2, 3, 4} & {*ids.tolist()}


def test_a_vocabulary_file_is_read_as_it_was_written(tmp_path):
    file = tmp_path / "vocab.txt"
    tokens = (*SPECIAL, "a", "##b", "\x85", "\u2028")
    write_vocabulary(file, tokens)
    assert read_vocabulary(file, lowercase=True) == tokens
    file.write_bytes("\r\n".join(tokens).encode())
    assert read_vocabulary(file, lowercase=True) == tokens


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("\n".join(SPECIAL[:-1]), r"no \[MASK\]"),
        ("\n".join((*SPECIAL, "a", "a")), "a more than once"),
        ("\n".join((*SPECIAL, "a", "", "b")), "none on line 7"),
        ("\n".join((*SPECIAL, "Straw", "b")), "1 tokens with some, such as Straw"),
        ("", "none on line 1"),
    ],
)
def test_other_vocabulary_files_are_refused(content, found, tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_text(content)
    with pytest.raises(UserError, match=found):
        read_vocabulary(file, lowercase=True)


def test_a_vocabulary_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        read_vocabulary(file, lowercase=True)
    with pytest.raises(UserError, match="no file"):
        read_vocabulary(tmp_path, lowercase=True)
    file.write_text("\n".join((*SPECIAL, "Straw")))
    assert read_vocabulary(file, lowercase=False)[-1] == "Straw"
