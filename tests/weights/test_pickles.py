"""What torch.save writes, read without torch; nothing else in a pickle has any effect."""

import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.weights.pickles import open_pickle

A = np.arange(12, dtype=np.float32)
B = np.array([1.5, -2, 3]).astype(ml_dtypes.bfloat16)
STORAGES = {"0": A, "1": B}
AGAIN = "copy or download the file again"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "pytorch_model.bin"


@pytest.fixture
def state(written):
    """Two views of one storage, and a parameter of another."""
    return {
        "whole": written.view("0", "Float", 12, 0, (3, 4), (4, 1)),
        "transposed part": written.view("0", "Float", 12, 4, (4, 2), (1, 4)),
        "parameter": written.parameter(written.view("1", "BFloat16", 3, 0, (3,), (1,))),
    }


EXPECTED = {"whole": A.reshape(3, 4), "transposed part": A.reshape(3, 4)[1:].T, "parameter": B.astype(np.float32)}


def check(tensors):
    assert list(tensors) == list(EXPECTED)
    for name, tensor in tensors.items():
        assert tensor.shape == EXPECTED[name].shape
        np.testing.assert_array_equal(tensor.read(), EXPECTED[name])
    assert [tensor.dtype for tensor in tensors.values()] == ["float32", "float32", "bfloat16"]


def swapped(array):
    """Returns an array whose bytes lie in the other order."""
    bits = array.view(f"u{array.itemsize}")
    return bits.byteswap()


@pytest.mark.parametrize("byteorder", ["little", "big", None])
def test_what_is_read(file, written, state, byteorder):
    storages = {key: swapped(a) if byteorder == "big" else a for key, a in STORAGES.items()}
    check(open_pickle(written.write_pickle(file, state, storages, byteorder)))


def test_protocol_4(file, written, state):
    """Frames, memoised values and names from the stack."""
    body = written.pickled(state).replace(
        written.pickled(written.Named("torch", "FloatStorage")), b"\x8c\x05torch\x94\x8c\x0cFloatStorage\x94\x93\x94"
    )
    pickle = b"\x80\x04\x95" + struct.pack("<Q", len(body) + 1) + body + b"."
    check(open_pickle(written.write_pickle(file, None, STORAGES, pickle=pickle)))


def test_attributes_of_a_state_dict_mean_nothing(file, written, state):
    body = b"ccollections\nOrderedDict\n)R" + written.pickled(state)[1:]  # items of an OrderedDict, not of a dict
    metadata = written.pickled({"_metadata": {"": {"version": 1}}})
    check(open_pickle(written.write_pickle(file, None, STORAGES, pickle=b"\x80\x02" + body + metadata + b"b.")))


def opening(file):
    with pytest.raises(UserError) as error:
        open_pickle(file)
    return str(error.value).replace(str(file), "FILE")


REFUSED = {  # instructions, and what is named
    "os.system": (b"cposix\nsystem\n(X\x08\x00\x00\x00touch itt.R", "posix.system"),
    "eval": (b"c__builtin__\neval\n(X\x01\x00\x00\x001tR", "__builtin__.eval"),
    "inst": (b"(X\x01\x00\x00\x001i__builtin__\neval\n", "the instruction INST"),
    "newobj": (b"ccollections\nOrderedDict\n)\x81", "the instruction NEWOBJ"),
    "extension": (b"\x82\x01", "the instruction EXT1"),
    "stack": (b"\x8c\x02os\x8c\x06system\x93", "os.system"),
    "other tensors": (b"ctorch._utils\n_rebuild_sparse_tensor\n", "torch._utils._rebuild_sparse_tensor"),
    "storage": (b"ctorch.storage\nUntypedStorage\n", "torch.storage.UntypedStorage"),
    "named module": (b"ctorch\nnn.Linear\n", "torch.nn.Linear"),
    "arguments": (
        b"ccollections\nOrderedDict\n(K\x01tR",
        "a call of collections.OrderedDict with unknown arguments",
    ),
    "no function": (b"K\x01)R", "a call of int with unknown arguments"),
}


@pytest.mark.parametrize("pickle", REFUSED)
def test_what_a_pickle_may_not_do(file, written, tmp_path, monkeypatch, pickle):
    monkeypatch.chdir(tmp_path)
    instructions, found = REFUSED[pickle]
    written.write_pickle(file, None, {}, pickle=b"\x80\x02" + instructions + b".")
    assert opening(file) == (
        f"expected a state dict of plain tensors in FILE; found {found} in its pickle, which is not run here; "
        "trust this file only if you know its author; save model.state_dict() as plain tensors"
    )
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_metadata_of_a_tensor(file, written):
    """Such as that a view has all signs turned, which its storage does not show."""
    written.write_pickle(file, {"w": written.view("0", "Float", 12, 0, (3,), (1,), {"neg": True})}, STORAGES)
    assert "found a tensor with metadata in its pickle" in opening(file)
    written.write_pickle(file, {"w": written.view("0", "Float", 12, 0, (3,), (1,), {})}, STORAGES)
    np.testing.assert_array_equal(open_pickle(file)["w"].read(), A[:3])


def tensor(written, **changes):
    fields = {"key": "0", "kind": "Float", "length": 12, "offset": 0, "shape": (3, 4), "strides": (4, 1), **changes}
    return {"w": written.view(*fields.values())}


PLACES = {
    "missing storage": ({"key": "7"}, "the storage data/7 for w of FILE; found no such entry"),
    "short storage": ({"length": 13}, "52 bytes in data/0 for w of FILE; found 48"),
    "other type": ({"kind": "Double"}, "96 bytes in data/0 for w of FILE; found 48"),
    "outside": ({"offset": 1}, "13 elements in data/0 for w of FILE; found 12"),
    "far": ({"strides": (2**31 - 1, 1)}, "4294967298 elements in data/0 for w of FILE; found 12"),
    "negative": (
        {"strides": (-4, 1)},
        "a whole pickle of tensors in FILE; found it has a tensor without place, shape or strides",
    ),
    "dimensions": (
        {"shape": (12,)},
        "a whole pickle of tensors in FILE; found it has a tensor without place, shape or strides",
    ),
}


@pytest.mark.parametrize("damage", PLACES)
def test_tensors_that_their_storage_has_no_room_for(file, written, damage):
    changes, line = PLACES[damage]
    written.write_pickle(file, tensor(written, **changes), STORAGES)
    assert opening(file) == f"expected {line}; {AGAIN}"


PICKLES = {
    "truncated": (b"\x80\x02}(X\x08\x00\x00\x00wei", "expected 8 bytes in a unicodestring4, but only 3 remain"),
    "no end": (b"\x80\x02}", "pickle exhausted before seeing STOP"),
    "empty stack": (b"\x80\x02R.", "its stack is empty"),
    "memo": (b"\x80\x02h\x05.", "5"),
    "no dict": (b"\x80\x02K\x01K\x02K\x03s.", "it sets items of what is no dict, or by no names"),
    "no list": (b"\x80\x02K\x01K\x02a.", "it appends to what is no list"),
    "odd": (b"\x80\x02}(K\x01u.", "zip() argument 2 is shorter than argument 1"),
    "unknown": (b"\x80\x02\xff.", "at position 2, opcode b'\\xff' unknown"),
    "deep name": (b"\x80\x02)" + b"\x85" * 100_000 + b"\x8c\x01x\x93.", "it names something by no text"),
    "long name": (
        b"\x80\x02\x8c\x01x" + b"q\x00h\x00\x86" * 60 + b"\x8c\x01x\x93.",  # 2^60 letters where it is written out
        "it names something by no text",
    ),
    "storage": (b"\x80\x02(K\x01K\x02K\x03K\x04K\x05tQ.", "it has a storage of unknown type"),
}


@pytest.mark.parametrize("damage", PICKLES)
def test_damaged_pickles(file, written, damage):
    pickle, found = PICKLES[damage]
    written.write_pickle(file, None, {}, pickle=pickle)
    assert opening(file) == f"expected a whole pickle of tensors in FILE; found {found}; {AGAIN}"


def test_a_memo_of_any_size(file, written):
    """An index of 2^31 - 1 takes no memory for those before it."""
    written.write_pickle(file, None, {}, pickle=b"\x80\x02}r\xff\xff\xff\x7f.")
    assert open_pickle(file) == {}


def test_other_values_than_tensors(file, written):
    written.write_pickle(file, {"epoch": 3, "model": {}, **tensor(written), 5: "x"}, STORAGES)
    assert opening(file) == (
        "expected tensors by name, and nothing else, in FILE; found 'epoch': int, 'model': dict, 5: str; "
        "save model.state_dict() alone"
    )
    written.write_pickle(file, (1, 2), {})
    assert opening(file) == "expected a state dict in FILE; found tuple; save model.state_dict()"


def test_names_stay_within_their_line(file, written):
    written.write_pickle(file, {"a\nb": 3}, {})
    assert "found 'a\\nb': int;" in opening(file)
    written.write_pickle(file, {"a\nb": tensor(written, key="\x1b[2J")["w"]}, {})
    assert opening(file).startswith("expected the storage 'data/\\x1b[2J' for 'a\\nb' of FILE; found no such entry")
    written.write_pickle(file, None, {}, pickle=b"\x80\x02cos\x1b[2J\nsystem\n.")
    assert "found 'os\\x1b[2J.system' in its pickle" in opening(file)


def test_names_that_are_there_twice(file, written):
    items = written.pickled(tensor(written))[2:-1]
    written.write_pickle(file, None, STORAGES, pickle=b"\x80\x02}(" + items + items + b"u.")
    assert opening(file) == f"expected every name once in FILE; found w more than once; {AGAIN}"


# The zip file


def test_compressed_entries(file, written):
    written.write_pickle(file, tensor(written), STORAGES, compression=zipfile.ZIP_DEFLATED)
    line = opening(file)
    assert line.startswith(
        "expected archive/data.pkl in FILE as torch.save stores it; found a compressed or encrypted entry; "
        "where torch is installed, write a new one: python -c "
    )


def test_the_format_before_zip_files(file):
    file.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.")
    assert opening(file) == (
        "expected torch's zip format in FILE; found its format before version 1.6; "
        'where torch is installed, write a new one: python -c "import sys, torch; '
        "torch.save(torch.load(sys.argv[1], map_location='cpu', weights_only=True), sys.argv[2])\" "
        "FILE NEW_FOLDER/pytorch_model.bin"
    )


def test_no_zip_file(file):
    file.write_bytes(b"\x93NUMPY\x01\x00")
    found = "a file that begins with b'\\x93NUMPY\\x01\\x00'"
    assert opening(file) == f"expected torch's zip format in FILE; found {found}; {AGAIN}"


@pytest.mark.parametrize("left", [3, 60, -1, -30])
def test_truncated(file, written, left):
    written.write_pickle(file, tensor(written), STORAGES)
    file.write_bytes(file.read_bytes()[:left])
    found = f"{file.stat().st_size} bytes that are truncated or damaged (File is not a zip file)"
    assert opening(file) == f"expected a whole zip file in FILE; found {found}; {AGAIN}"


def test_no_or_another_byte_order(file, written):
    written.write_pickle(file, tensor(written), STORAGES, byteorder="middle")
    assert opening(file) == f"expected byte order little or big in FILE; found b'middle'; {AGAIN}"


def test_other_zip_files(file, written):
    written.write_pickle(file, tensor(written), STORAGES, root="")
    assert opening(file) == "expected one data.pkl in FILE; found 0; have torch.save write it"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_that_are_there_twice(file, written):
    written.write_pickle(file, tensor(written), STORAGES)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/data/0", A.tobytes())
    assert opening(file) == f"expected one entry archive/data/0 in FILE; found two; {AGAIN}"


def test_a_flipped_bit(file, written, state):
    """In a storage it is noticed when one of its tensors is read, and by those alone."""
    written.write_pickle(file, state, STORAGES)
    content = bytearray(file.read_bytes())
    content[content.index(A.tobytes()) + 3] ^= 1
    file.write_bytes(content)
    tensors = open_pickle(file)
    for name in ("whole", "transposed part"):
        with pytest.raises(UserError, match=rf"expected CRC [0-9a-f]{{8}} of data/0 in {file}; found [0-9a-f]{{8}}; "):
            tensors[name].read()
    np.testing.assert_array_equal(tensors["parameter"].read(), EXPECTED["parameter"])


def test_without_checksums(file, written, state):
    """Torch may be told not to compute them, and writes 0."""
    written.write_pickle(file, state, STORAGES)
    content = bytearray(file.read_bytes())
    place = content.index(b"PK\x01\x02")
    while (place := content.find(b"PK\x01\x02", place)) >= 0:
        content[place + 16 : place + 20] = bytes(4)
        place += 1
    file.write_bytes(content)
    check(open_pickle(file))


def test_any_one_byte_may_be_damaged(file, written, state):
    """It is noticed, or changes nothing."""
    written.write_pickle(file, state, STORAGES)
    whole, noticed = bytearray(file.read_bytes()), 0
    for place in range(0, len(whole), 3):
        damaged = whole.copy()
        damaged[place] ^= 1
        file.write_bytes(damaged)
        try:
            check(open_pickle(file))
        except UserError:
            noticed += 1
    assert noticed > 0.7 * len(whole) / 3
