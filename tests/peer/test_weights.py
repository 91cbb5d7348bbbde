"""Files that torch, safetensors and transformers write: read here, with the same values and the models' own names."""

import shlex
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.weights.files import open_weights
from pdjax.weights.names import canonical
from pdjax.weights.pickles import open_pickle

ABSENT = "the peer extra is not installed: pip install -e '.[test,peer]'"
torch = pytest.importorskip("torch", reason=ABSENT)
transformers = pytest.importorskip("transformers", reason=ABSENT)

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.fixture
def state():
    """Tensors of every type and layout, some of which share their storage."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(5, 6, 7, generator=generator)
    tensors = {dtype: (random[0] * 3).to(getattr(torch, dtype)) for dtype in DTYPES}
    tensors |= {"transposed": random.permute(2, 0, 1), "part": random[1:3, ::2, 3:], "tied": random}
    tensors |= {"expanded": random[0, 0, :1].expand(4, 3), "scalar": random[1, 1, 1], "empty": random[:0]}
    tensors["parameter"] = torch.nn.Parameter(random[2].T)
    return tensors


def check(tensors, state):
    assert list(tensors) == list(state)
    for name, tensor in state.items():
        expected = tensor.detach().float() if tensor.is_floating_point() else tensor
        read = tensors[name].read()
        assert tensors[name].shape == read.shape == tuple(tensor.shape)
        assert f"torch.{tensors[name].dtype}" == str(tensor.dtype)
        assert f"torch.{read.dtype}" == str(expected.dtype)
        np.testing.assert_array_equal(read, expected.numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_files_of_torch(tmp_path, state, protocol):
    torch.save(state, tmp_path / "pytorch_model.bin", pickle_protocol=protocol)
    check(open_weights(tmp_path), state)


def test_without_checksums(tmp_path, state):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "pytorch_model.bin")
    finally:
        torch.serialization.set_crc32_options(True)
    check(open_weights(tmp_path), state)


def test_modules_and_their_parameters(tmp_path):
    """State dicts with their metadata, and such of parameters, as ``keep_vars`` leaves them."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    for keep_vars in (False, True):
        state = module.state_dict(keep_vars=keep_vars)
        torch.save(state, tmp_path / "pytorch_model.bin")
        check(open_weights(tmp_path), state)


REFUSED = {
    "module": (lambda: torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    "optimizer": (lambda: torch.optim.SGD([torch.ones(1)]).state_dict(), "found 'state': dict, 'param_groups': list;"),
    "sparse": (lambda: {"w": torch.eye(2).to_sparse()}, "torch._utils._rebuild_sparse_tensor"),
    "conjugate": (lambda: {"w": torch.ones(2, dtype=torch.complex64)}, "torch.ComplexFloatStorage"),
    "signs": (lambda: {"w": torch.ones(2, dtype=torch.complex64).conj().imag}, "a tensor with metadata"),
    "float8": (lambda: {"w": torch.ones(2).to(torch.float8_e4m3fn)}, "torch._utils._rebuild_tensor_v3"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(tmp_path, what):
    make, found = REFUSED[what]
    torch.save(make(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError) as error:
        open_weights(tmp_path)
    assert found in str(error.value)


@pytest.mark.parametrize("form", ["legacy", "compressed"])
def test_remedies(tmp_path, state, form):
    """What the error says makes the file one that is read, with the same values."""
    file = tmp_path / "with a space" / "pytorch_model.bin"
    new = tmp_path / "new"
    file.parent.mkdir()
    new.mkdir()
    torch.save(state, file, _use_new_zipfile_serialization=form != "legacy")
    if form == "compressed":
        with zipfile.ZipFile(file) as archive:
            entries = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
    with pytest.raises(UserError, match="write a new one") as error:
        open_pickle(file)
    command = str(error.value).split("write a new one: ")[1].replace("NEW_FOLDER", str(new))
    subprocess.run([sys.executable, *shlex.split(command)[1:]], check=True)
    check(open_weights(new), state)


# Whole models


def bert(tied):
    sizes = dict(vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    return transformers.BertConfig(**sizes, max_position_embeddings=8, tie_word_embeddings=tied)


def gpt2(tied):
    return transformers.GPT2Config(
        vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2, tie_word_embeddings=tied
    )


def gpt_neox(tied):
    sizes = dict(vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    return transformers.GPTNeoXConfig(**sizes, max_position_embeddings=8, tie_word_embeddings=tied)


MODELS = {  # with head, without, and the configuration
    "bert": (transformers.BertForMaskedLM, transformers.BertModel, bert),
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Model, gpt2),
    "gpt_neox": (transformers.GPTNeoXForCausalLM, transformers.GPTNeoXModel, gpt_neox),
}
HEADS = {"bert": "cls.", "gpt2": "lm_head.", "gpt_neox": "embed_out."}
RENAMED = {"gpt_neox": {"lm_head.weight": "embed_out.weight"}}


def expected_of(model, family):
    """Returns a model's weights by canonical name."""
    names = RENAMED.get(family, {})
    return {names.get(name, name): tensor.float().numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", ["1GB", "1KB"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", MODELS)
def test_saved_models(tmp_path, family, tied, size, dtype):
    kind, _, config = MODELS[family]
    model = kind(config(tied)).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "1KB")
    weights, ignored = canonical(open_weights(tmp_path), family)
    expected = expected_of(model, family)
    assert not ignored
    assert set(weights) <= set(expected)
    left_out = set(expected) - set(weights)
    assert bool(left_out) == tied
    assert all(name.startswith(HEADS[family]) for name in left_out)  # tied to others, and not in the file
    for name, tensor in weights.items():
        assert tensor.dtype == dtype
        np.testing.assert_array_equal(tensor.read(), expected[name])


@pytest.mark.parametrize("wrap", ["plain", "parallel", "compiled", "both"])
@pytest.mark.parametrize("family", MODELS)
def test_pickled_models(tmp_path, family, wrap):
    """State dicts as they are, of tied models with both names, and of models inside of others."""
    kind, _, config = MODELS[family]
    model = kind(config(True))
    wrapped = torch.nn.DataParallel(model) if wrap in ("parallel", "both") else model
    wrapped = torch.compile(wrapped, backend="eager") if wrap in ("compiled", "both") else wrapped
    torch.save(wrapped.state_dict(), tmp_path / "pytorch_model.bin")
    tensors = open_weights(tmp_path)
    assert wrap == "plain" or all(name.startswith(("module.", "_orig_mod.")) for name in tensors)
    weights, ignored = canonical(tensors, family)
    expected = expected_of(model, family)
    assert not ignored
    assert set(weights) == set(expected)
    for name, tensor in weights.items():
        np.testing.assert_array_equal(tensor.read(), expected[name])


@pytest.mark.parametrize("family", MODELS)
def test_models_without_their_heads(tmp_path, family):
    _, kind, config = MODELS[family]
    model = kind(config(True))
    model.save_pretrained(tmp_path)
    weights, ignored = canonical(open_weights(tmp_path), family)
    with_head = set(expected_of(MODELS[family][0](config(True)), family))
    assert set(weights) == {name for name in with_head if not name.startswith(HEADS[family])}
    assert set(ignored) == ({"pooler.dense.weight", "pooler.dense.bias"} if family == "bert" else set())


def test_bert_of_pretraining(tmp_path):
    transformers.BertForPreTraining(bert(True)).save_pretrained(tmp_path)
    _, ignored = canonical(open_weights(tmp_path), "bert")
    parts = ("bert.pooler.dense", "cls.seq_relationship")
    assert set(ignored) == {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
