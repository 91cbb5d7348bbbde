"""Somebody's checkpoints, trained and saved by transformers, as teachers: from a folder to exported students."""

import json

import jax
import numpy as np
import pytest

from pdjax.io.records import read_run
from pdjax.io.sealed import read_json
from pdjax.keys import named_key
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.transformer import Transformer
from pdjax.stages.exporting import export
from pdjax.tasks.pcfg import TOKENS, PcfgLanguageTask, PcfgTask
from pdjax.weights.checkpoint import read_params, teacher_of
from pdjax.weights.describe import config_of

ABSENT = "the peer extra is not installed: pip install -e '.[test,peer]'"
torch = pytest.importorskip("torch", reason=ABSENT)
transformers = pytest.importorskip("transformers", reason=ABSENT)
tokenizers = pytest.importorskip("tokenizers", reason=ABSENT)

STEPS, EVERY, BATCH, ROOT = 400, 50, 16, 13
POSITIONS = 32  # more than any string takes
TEACHERS = {
    "bert": Bert(1, 2, None, 16, 2, token_types=2),
    "gpt2": Gpt2(1, 2, None, 16, 2, tied_head=True),
    "gpt_neox": GptNeoX(1, 2, None, 16, 2, rotary_share=0.5, vocabulary_rows=16),
}


def task_of(family):
    return PcfgTask(root=ROOT) if family == "bert" else PcfgLanguageTask(root=ROOT)


def model_of(family, folder):
    """Returns Hugging Face's model of one of the teachers, initialised by transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(TEACHERS[family], 7, POSITIONS)))
    config = transformers.AutoConfig.from_pretrained(folder)
    cls = transformers.AutoModelForMaskedLM if family == "bert" else transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    return cls.from_config(config)


def batches_of(task, count):
    """Returns batches of a task as torch's tensors: tokens, what is no padding, targets and their weights."""
    sample = jax.jit(lambda key: task.sample(key, BATCH))
    for key in jax.random.split(jax.random.key(1), count):
        batch = sample(key)
        arrays = (batch.inputs["tokens"], batch.inputs["valid"], batch.targets, batch.weights)
        yield [torch.from_numpy(np.array(array)) for array in arrays]


def logits_of(model, tokens, valid):
    return model(input_ids=tokens.long(), attention_mask=valid.long()).logits


def loss_of(model, batch):
    tokens, valid, targets, weights = batch
    each = torch.nn.functional.cross_entropy(
        logits_of(model, tokens, valid)[..., : len(TOKENS)].transpose(1, 2), targets.long(), reduction="none"
    )
    return (each * weights).sum(), weights.sum()


def save_tokenizer(folder):
    """Writes a tokenizer that says which of the rows are tokens."""
    words = {token: number for number, token in enumerate(TOKENS)}
    splitting = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[PAD]"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=splitting).save_pretrained(folder)


@pytest.fixture(scope="module", params=TEACHERS)
def trained(request, tmp_path_factory):
    """A teacher that torch has trained, saved every 50 steps by transformers; its folder and the last model."""
    torch.set_num_threads(1)
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    model, task = model_of(family, folder / "new"), task_of(family)
    model.eval()  # without dropout, which so small a model does not need
    optimizer, history = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for step, batch in enumerate(batches_of(task, STEPS), 1):
        total, count = loss_of(model, batch)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        if step % EVERY:
            continue
        place = folder / "checkpoints" / f"checkpoint-{step}"
        model.save_pretrained(place)
        history.append({"step": step, "loss": total.item() / count.item()})
        if family == "gpt2":  # as the Trainer leaves it
            state = {"global_step": step, "log_history": history}
            (place / "trainer_state.json").write_text(json.dumps(state))
        if family == "gpt_neox":
            save_tokenizer(place)
    return family, folder / "checkpoints", model, history


@pytest.fixture(scope="module")
def distilled(trained, call, tmp_path_factory):
    """The working directory of students of these checkpoints, made by one command."""
    workdir = tmp_path_factory.mktemp("students") / "run"
    code, log = call(
        f"--config=configs/checkpoints.py:{trained[1]}",
        f"--workdir={workdir}",
        f"--config.task.root={ROOT}",
        "--strategies=one_shot,progressive",
        "--config.student_training.budgets=(100,)",
        "--config.student_training.checkpoint_every=50",
    )
    assert code == 0, log
    return workdir


def test_a_folder_is_a_progressive_teacher_in_one_command(trained, distilled):
    family, _, _, history = trained
    assert read_json(distilled / "selection.json")["strategies"]["progressive"]["teacher_steps"] == [100, 200, 300, 400]
    record = read_run(distilled / "teacher")
    assert record.evaluation.steps.tolist() == [*range(EVERY, STEPS + 1, EVERY)]
    assert record.evaluation.loss[-1, 0] < record.evaluation.loss[0, 0]
    assert len(record.source.steps) == (len(history) if family == "gpt2" else 0)
    assert "Students of given checkpoints" in (distilled / "report" / "index.html").read_text()


def test_held_out_losses_are_those_of_torch(trained, distilled):
    family, _, model, _ = trained
    sums = np.zeros(2)
    for index in range(8):  # batches of 64, as the configuration says
        batch = task_of(family).sample(named_key(0, "evaluation", index), 64)
        arrays = (batch.inputs["tokens"], batch.inputs["valid"], batch.targets, batch.weights)
        with torch.no_grad():
            sums += [part.item() for part in loss_of(model, [torch.from_numpy(np.array(array)) for array in arrays])]
    assert read_run(distilled / "teacher").evaluation.loss[-1, 0] == pytest.approx(sums[0] / sums[1], rel=1e-5)


def test_an_exported_student_has_equal_logits(trained, distilled, load_config_file, tmp_path):
    family, task = trained[0], task_of(trained[0])
    folder = export(distilled, tmp_path / "student", "progressive-100", seed=1)
    cls = transformers.AutoModelForMaskedLM if family == "bert" else transformers.AutoModelForCausalLM
    theirs = cls.from_pretrained(folder).eval()
    student = load_config_file("checkpoints").student_of(teacher_of(trained[1], task))
    assert isinstance(student, Transformer)
    params = read_params(folder, student, task).params
    batch = task.sample(jax.random.key(5), 8)
    ours, _ = student.build(task).apply(params, batch.inputs)
    tokens, valid = (torch.from_numpy(np.array(batch.inputs[name])) for name in ("tokens", "valid"))
    with torch.no_grad():
        logits = logits_of(theirs, tokens, valid).numpy()
    real = np.asarray(batch.inputs["valid"])
    np.testing.assert_allclose(logits[real], np.asarray(ours)[real], atol=1e-5)
    right = (logits.argmax(-1) == batch.targets)[np.asarray(batch.weights) > 0].mean()
    assert right > 0.3  # it has learned: of three terminals
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(range(len(TOKENS))) == list(TOKENS)
