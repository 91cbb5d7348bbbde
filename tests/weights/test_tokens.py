"""Tokens by their ids from every kind of tokenizer's files, comparing them, and taking the files along."""

import json

import pytest

from pdjax.errors import UserError
from pdjax.tasks.pcfg import PcfgLanguageTask
from pdjax.weights.tokens import check_tokens, copy_tokenizer, lowercases, tokens_of

TOKENS = ("[PAD]", "a", "##b", "[MASK]")
VOCABULARY = {"a": 1, "[PAD]": 0, "[MASK]": 3, "##b": 2}  # files are sorted in any way
AGAIN = "copy or download the file again"


def write(folder, name, content):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder / name


def whole(vocabulary, added=(), **model):
    """Returns what tokenizer.json holds."""
    added = [{"id": number, "content": token, "special": True} for token, number in added]
    return {"version": "1.0", "added_tokens": added, "model": {**model, "vocab": vocabulary}}


def refused(function, *arguments):
    with pytest.raises(UserError) as error:
        function(*arguments)
    return str(error.value)


def test_a_folder_without_a_tokenizer(tmp_path):
    write(tmp_path, "config.json", {})
    assert tokens_of(tmp_path) is None


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "WordLevel"])
def test_tokenizers_with_ids(tmp_path, kind):
    write(tmp_path, "tokenizer.json", whole(VOCABULARY, type=kind))
    assert tokens_of(tmp_path) == TOKENS


def test_tokenizers_with_scores(tmp_path):
    write(tmp_path, "tokenizer.json", whole([[token, -1.5] for token in TOKENS], type="Unigram", unk_id=0))
    assert tokens_of(tmp_path) == TOKENS


def test_added_tokens_repeat_the_models_and_continue_them(tmp_path):
    write(tmp_path, "tokenizer.json", whole(VOCABULARY, [("[MASK]", 3), ("<new>", 4)]))
    assert tokens_of(tmp_path) == (*TOKENS, "<new>")


def test_a_token_on_each_line(tmp_path):
    """As transformers reads them: lines end with a line feed, not with what else Unicode has for it."""
    text = "[PAD]\na\u2028\n\x85\n b"
    write(tmp_path, "vocab.txt", text)
    assert tokens_of(tmp_path) == ("[PAD]", "a\u2028", "\x85", " b")
    write(tmp_path, "vocab.txt", f"{text}\n")
    assert tokens_of(tmp_path) == ("[PAD]", "a\u2028", "\x85", " b")
    (tmp_path / "vocab.txt").write_bytes(b"a\r\nb\r\n")
    assert tokens_of(tmp_path) == ("a", "b")


def test_ids_in_json(tmp_path):
    write(tmp_path, "vocab.json", VOCABULARY)
    assert tokens_of(tmp_path) == TOKENS


@pytest.mark.parametrize("name", ["vocab.txt", "vocab.json"])
def test_added_tokens_beside_a_vocabulary(tmp_path, name):
    write(tmp_path, name, "\n".join(TOKENS) if name.endswith(".txt") else VOCABULARY)
    write(tmp_path, "added_tokens.json", {"<new>": 4, "[MASK]": 3})
    assert tokens_of(tmp_path) == (*TOKENS, "<new>")


def test_the_order_of_files(tmp_path):
    for name, content in (("vocab.json", {"x": 0}), ("vocab.txt", "y"), ("tokenizer.json", whole({"z": 0}))):
        write(tmp_path, name, content)
        assert tokens_of(tmp_path) == ({"vocab.json": "x", "vocab.txt": "y"}.get(name, "z"),)
    write(tmp_path, "added_tokens.json", {"<in tokenizer.json already>": 1})
    assert tokens_of(tmp_path) == ("z",)


DAMAGES = {
    "hole": ("vocab.json", {"a": 0, "b": 2}, "a token of every id up to 2 in FILE; found none of id 1"),
    "far hole": (
        "vocab.json",
        {"a": 1, "b": 10**12},
        "a token of every id up to 1000000000000 in FILE; found none of id 0",
    ),
    "hole before added": (
        "tokenizer.json",
        whole({"a": 0}, [("b", 2)]),
        "a token of every id up to 2 in FILE; found none of id 1",
    ),
    "two tokens": ("vocab.json", {"a": 0, "b": 0}, "one token of id 0 in FILE; found 'a' and 'b'"),
    "two tokens, one added": (
        "tokenizer.json",
        whole({"a": 0}, [("b", 0)]),
        "one token of id 0 in FILE; found 'a' and 'b'",
    ),
    "two ids": ("vocab.txt", "a\nb\na\n", "one id of token 'a' in FILE; found 0 and 2"),
    "two ids in JSON": ("vocab.json", '{"a": 0, "a": 1}', "every name once in FILE; found a more than once"),
    "two ids, one added": ("tokenizer.json", whole({"a": 0}, [("a", 1)]), "one id of token 'a' in FILE; found 0 and 1"),
    "empty line": ("vocab.txt", "a\n\nb\n", "a token on every line of FILE; found none on line 2"),
    "no tokens": ("vocab.json", {}, "tokens in FILE; found none"),
    "id": ("vocab.json", {"a": "0"}, "tokens and their ids in FILE; found 'a' with the id '0'"),
    "negative id": ("vocab.json", {"a": -1}, "tokens and their ids in FILE; found 'a' with the id -1"),
    "added": (
        "tokenizer.json",
        {"model": {"vocab": {"a": 0}}, "added_tokens": ["b"]},
        "added_tokens as JSON objects in FILE; found list",
    ),
    "added without an id": (
        "tokenizer.json",
        {"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": "b"}]},
        "tokens and their ids in FILE; found 'b' with the id None",
    ),
    "no model": ("tokenizer.json", {"version": "1.0"}, "a vocab of its model in FILE; found NoneType"),
    "JSON": (
        "tokenizer.json",
        "{",
        "JSON in FILE; found Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ),
    "empty": ("vocab.txt", "", "content in FILE; found an empty file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damages(tmp_path, damage):
    name, content, line = DAMAGES[damage]
    file = write(tmp_path, name, content)
    assert refused(tokens_of, tmp_path) == f"expected {line.replace('FILE', str(file))}; {AGAIN}"


def test_text_that_is_not_utf_8(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("é\n".encode("latin-1"))
    assert refused(tokens_of, tmp_path).startswith(f"expected UTF-8 in {tmp_path / 'vocab.txt'}; found ")


def test_what_is_in_place_of_a_file(tmp_path):
    """Three lines of a pointer would be three tokens."""
    write(tmp_path, "vocab.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    assert "found a pointer to it of git LFS" in refused(tokens_of, tmp_path)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "vocab.txt").symlink_to("gone")
    assert "found a link to gone, which is not there" in refused(tokens_of, tmp_path)


def test_a_tokenizer_that_cannot_be_read(tmp_path):
    write(tmp_path, "spiece.model", "...")
    assert refused(tokens_of, tmp_path) == (
        f"expected tokenizer.json, vocab.txt or vocab.json in {tmp_path}; found spiece.model alone; "
        "have transformers convert it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    )


DIFFERENCES = {
    ("a", "b", "c", "d"): None,
    ("a", "c", "b", "d"): "4; 2 differ, the first that of id 1: 'c' instead of 'b'",
    ("a", "b", "c", "d", "e", "f"): "6; 2 differ, the first that of id 4: 'e' instead of none",
    ("a", "b", "x"): "3; 2 differ, the first that of id 2: 'x' instead of 'c'",
    ("a", "b", "c"): "3; 1 differ, the first that of id 3: none instead of 'd'",
}


@pytest.mark.parametrize("theirs", DIFFERENCES)
def test_differences(theirs):
    found, ours = DIFFERENCES[theirs], ("a", "b", "c", "d")
    if found is None:
        check_tokens(theirs, ours, "the tokenizer of run")
        return
    assert refused(check_tokens, theirs, ours, "the tokenizer of run") == (
        f"expected the same 4 tokens in the tokenizer of run; found {found}; teacher and student share one vocabulary: "
        "take the tokenizer and the task that the teacher was trained with"
    )


def test_the_tokens_of_a_task(tmp_path):
    """A tokenizer of the grammar's strings, as others may make it, names the same tokens."""
    write(tmp_path, "vocab.txt", "1\n2\n3\n[BOS]\n[EOS]\n[PAD]\n[MASK]\n")
    tokens = tokens_of(tmp_path)
    ours = PcfgLanguageTask(root=13).tokens
    assert tokens is not None
    check_tokens(tokens, ours, "the tokenizer")
    assert "the first that of id 0: '3' instead of '1'" in refused(
        check_tokens, (*tokens[2::-1], *tokens[3:]), ours, "it"
    )


def test_files_are_copied_with_the_content_of_links(tmp_path):
    blobs, folder, into = (tmp_path / name for name in ("blobs", "snapshot", "new/into"))
    blobs.mkdir()
    folder.mkdir()
    write(blobs, "123", VOCABULARY)
    (folder / "vocab.json").symlink_to("../blobs/123")
    write(folder, "merges.txt", "a b")
    write(folder, "config.json", {})
    assert copy_tokenizer(folder, into) == ("vocab.json", "merges.txt")
    assert sorted(path.name for path in into.iterdir()) == ["merges.txt", "vocab.json"]
    assert not (into / "vocab.json").is_symlink()
    assert tokens_of(into) == TOKENS
    assert copy_tokenizer(folder, into) == ("vocab.json", "merges.txt")


def test_another_tokenizer_is_not_overwritten(tmp_path):
    folder, into = tmp_path / "folder", tmp_path / "into"
    for at, token in ((folder, "a"), (into, "b")):
        at.mkdir()
        write(at, "vocab.txt", token)
    write(folder, "tokenizer.json", whole({"a": 0}))
    assert refused(copy_tokenizer, folder, into) == (
        f"expected no other vocab.txt in {into} than that of {folder}; found one that differs; "
        "choose an empty folder, or remove it"
    )
    assert [path.name for path in into.iterdir()] == ["vocab.txt"]
    assert tokens_of(into) == ("b",)


def test_a_file_that_is_not_there_but_by_its_name(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder, "tokenizer.json", whole(VOCABULARY))
    (folder / "tokenizer_config.json").symlink_to("gone")
    assert "found a link to gone" in refused(copy_tokenizer, folder, tmp_path / "into")
    assert not (tmp_path / "into").exists()


def bert(**normalizer):
    """Returns what the tokenizer.json of a BERT holds."""
    settings = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
    pieces = whole(VOCABULARY, type="WordPiece", unk_token="[UNK]", continuing_subword_prefix="##")
    return pieces | {"normalizer": settings | normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}}


@pytest.mark.parametrize("lowercase", [True, False])
def test_whether_a_tokenizer_lowercases(tmp_path, lowercase):
    write(tmp_path, "tokenizer_config.json", {"do_lower_case": lowercase, "model_max_length": 512})
    assert lowercases(tmp_path) == lowercase
    write(tmp_path, "tokenizer.json", bert(lowercase=not lowercase))  # which is what transformers would go by
    assert lowercases(tmp_path) == (not lowercase)


def test_a_vocabulary_alone_lowercases_unless_it_has_capital_words(tmp_path):
    write(tmp_path, "vocab.txt", "[PAD]\na\n##b\n<URL>")
    assert lowercases(tmp_path)
    write(tmp_path, "vocab.txt", "[PAD]\na\n##b\n##Er")
    assert not lowercases(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("tokenizer.json", bert() | {"model": {"type": "BPE", "vocab": VOCABULARY}}, "model.type 'BPE', model.unk"),
        ("tokenizer.json", bert() | {"normalizer": None}, "normalizer.type None"),
        ("tokenizer.json", bert() | {"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer.type 'Whitespace'"),
        ("tokenizer.json", bert(lowercase=True, strip_accents=False), "strip_accents False with lowercase True"),
        ("tokenizer_config.json", {"strip_accents": False}, "strip_accents False with lowercase True"),
        ("tokenizer_config.json", {"tokenize_chinese_chars": False}, "normalizer.handle_chinese_chars False"),
    ],
)
def test_tokenizers_that_split_text_in_other_ways_are_refused(tmp_path, name, content, found):
    write(tmp_path, name, content)
    assert f"as BERT's in {tmp_path / name}; found {found}" in refused(lowercases, tmp_path)
