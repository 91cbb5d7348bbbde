"""Model cards: what a model is, how it was made, how to load it, and what it cannot do."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from pdjax.distill.losses import Loss
from pdjax.experiment import Experiment
from pdjax.io.records import Curves, RunRecord
from pdjax.models.base import Architecture
from pdjax.models.bert import Bert
from pdjax.models.transformer import Transformer
from pdjax.tasks.pcfg import GrammarTask


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a model comes from."""

    name: str  # of the run, as exporting takes it
    experiment: Experiment
    run: RunRecord
    replica: int  # of the run
    step: int  # after which it is taken
    architecture: Transformer
    parameters: int  # numbers in it
    loss: Loss | None  # of a student
    teacher: RunRecord | None  # of a student, where its records are there
    environment: Mapping[str, Any]  # of the working directory; empty where it is not recorded
    tokenizer: Literal["task", "teacher"] | None  # whose it is; None: there is none
    export: tuple[str, ...]  # the arguments that export it again

    @property
    def checkpoints(self) -> list[tuple[int, int]]:
        """From which student step on it has learned from which teacher step; none without a teacher."""
        starts, steps = self.run.starts[self.replica], self.run.description.teacher_steps
        # Of an adaptive curriculum, checkpoints that were never reached have no start.
        return [pair for pair in zip(starts, steps, strict=False) if pair[0] < self.step]


def card_of(origin: Origin) -> str:
    """Returns the text of a model card, in Markdown with its YAML in front."""
    masked = isinstance(origin.architecture, Bert)
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {'fill-mask' if masked else 'text-generation'}",
        *("tags:", "- pdjax", "- knowledge-distillation"),
        *(["- progressive-distillation"] if len(origin.checkpoints) > 1 else []),
        "---",
        "",
        f"# {_name(origin)}",
        "",
        *_opening(origin),
        *("", "## Load it", ""),
        *_loading(origin, "AutoModelForMaskedLM" if masked else "AutoModelForCausalLM"),
        *("", "## How it was made", ""),
        *_making(origin),
        *("", "## Make it again", ""),
        *_again(origin),
        *("", "## Limits", ""),
        *(f"- {limit}" for limit in _limits(origin)),
    ]
    return "\n".join(lines) + "\n"


def _name(origin: Origin) -> str:
    replica = origin.run.description.replicas[origin.replica]
    which = f"step {origin.step}" if _is_imported(origin) else f"seed {replica.seed}"
    return f"{origin.experiment.name}: {origin.name}, {which}"


def _is_imported(origin: Origin) -> bool:
    """Whether others have trained the model: neither its seed nor its learning rate are known here."""
    return origin.run.description.replicas[origin.replica].learning_rate == 0


def _opening(origin: Origin) -> list[str]:
    description, given = origin.run.description, origin.experiment.teacher_training.trajectory
    what = f"{_words(origin.architecture)} ({origin.parameters:,} parameters)"
    if description.role == "teacher" and given is not None:
        made = f"The {what} of the checkpoints in `{given}`, after {origin.step:,} steps; it was not trained here."
    else:
        trained = f"trained for {origin.step:,} steps"
        made = f"A {what}, {trained} {_lessons(origin)}."
    counted = origin.experiment.task.counted
    found = at_step(origin.run.evaluation, origin.step, origin.replica)
    if found is None:
        return [made, "Its held-out loss at this step is not recorded."]
    evaluation = origin.experiment.evaluation
    examples = f"{evaluation.num_batches * evaluation.batch_size:,} held-out examples of the task"
    return [
        made,
        f"Held-out loss {found[0]:.4f} nats (cross-entropy with the right answers), accuracy {found[1]:.4f}, a share "
        f"of the {counted}; measured on {examples}, the same for every model of the experiment.",
    ]


def _lessons(origin: Origin) -> str:
    """Returns what a model has learned from."""
    checkpoints = origin.checkpoints
    if not checkpoints:
        return "from the labels alone"
    teacher = f"a {_words(origin.experiment.teacher)}"
    if len(checkpoints) > 1:
        return f"to imitate {len(checkpoints)} checkpoints, one after another, of {teacher}: progressive distillation"
    return f"to imitate one checkpoint of {teacher}"


def _loading(origin: Origin, kind: str) -> list[str]:
    model, tokens = f'model = {kind}.from_pretrained("FOLDER")', origin.experiment.task.tokens
    if origin.tokenizer is None:
        return ["```python", f"from transformers import {kind}", "", model, "```"]
    lines = [
        "```python",
        f"from transformers import {kind}, AutoTokenizer",
        "",
        model,
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
    ]
    if origin.tokenizer == "task" and tokens is not None:
        shown = [token for token in tokens if not token.startswith("[")]
        shown += ["[MASK]"] if kind == "AutoModelForMaskedLM" and "[MASK]" in tokens else []
        lines += [f'logits = model(**tokenizer("{" ".join(shown)}", return_tensors="pt")).logits']
    return [*lines, "```"]


def _making(origin: Origin) -> list[str]:
    experiment, description = origin.experiment, origin.run.description
    replica = description.replicas[origin.replica]
    rows = {"task": f"`{experiment.task!r}`", "model": f"`{origin.architecture!r}`"}
    if origin.checkpoints:
        rows |= {"teacher": f"`{experiment.teacher!r}`{_teacher(origin)}"}
        pairs = [f"{teacher:,} from student step {start:,}" for start, teacher in origin.checkpoints]
        rows |= {"learned from": f"the teacher's steps {'; '.join(pairs)}"}
    if origin.loss is not None:
        rows |= {"loss": f"`{origin.loss!r}`"}
    training = {
        "teacher": experiment.teacher_training,
        "student": experiment.student_training,
        "size": experiment.sizes,
    }[description.role]
    if training is not None and not (description.role == "teacher" and experiment.teacher_training.trajectory):
        rows |= {
            "budget": f"{description.budget:,} steps of batches of {training.batch_size}",
            "learning rate": f"{replica.learning_rate:g}",
            "optimizer": f"`{training.optimizer!r}`",
        }
    given = description.role == "teacher" and experiment.teacher_training.trajectory is not None
    rows |= {} if _is_imported(origin) else {"seed": str(replica.seed)}
    rows |= {"configuration": f"SHA-256 `{experiment.digest}`"}
    if "versions" in origin.environment:
        versions = {name: of for name, of in origin.environment["versions"].items() if of and name != "XLA_FLAGS"}
        rows |= {"versions": ", ".join(f"{name} {version}" for name, version in versions.items())}
    if "device" in origin.environment:
        rows |= {
            "read here on"
            if given
            else "trained on": f"{origin.environment['device']}, {origin.environment['date'][:10]}"
        }
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _teacher(origin: Origin) -> str:
    """Returns where a student's teacher ended."""
    if origin.teacher is None:
        return ""
    training, budget = origin.experiment.teacher_training, origin.teacher.description.budget
    found = at_step(origin.teacher.evaluation, budget, 0)
    which = f"seed {training.seed}" if training.trajectory is None else f"of `{training.trajectory}`"
    measured = "" if found is None else f": held-out loss {found[0]:.4f}, accuracy {found[1]:.4f}"
    return f", {which}, after {budget:,} steps{measured}"


def _again(origin: Origin) -> list[str]:
    command = origin.environment.get("command")
    first = [] if command is None else [shlex.join(command)]
    return ["```bash", *first, f"python -m pdjax.weights export WORKDIR FOLDER {shlex.join(origin.export)}", "```"]


def _limits(origin: Origin) -> list[str]:
    experiment, of = origin.experiment, origin.architecture
    task, budget = experiment.task, origin.run.description.budget
    limits = [f"It knows inputs of at most {task.num_positions} tokens, like those of the task, and nothing else."]
    if isinstance(task, GrammarTask):
        front = ", which the tokenizer puts there; tokens stand between spaces" * (origin.tokenizer == "task")
        limits += [
            f"Strings begin with [BOS]{front}. Nothing marks their end: [EOS] is in the vocabulary and was never seen."
        ]
    if isinstance(of, Bert):
        limits += [
            "attention_mask is 0 at padding and 1 elsewhere. The positions to predict are seen by all others, as they "
            "were in training: leave them at 1. Logits mean something at positions that are [MASK], or might be."
        ]
    else:
        limits += ["Padding goes behind a string; attention_mask is 0 there."]
    if task.predicts == "example":
        limits += ["The logits of the last position are its answer, a class by number; those of others mean nothing."]
    if of.rows(task.vocabulary) > task.vocabulary:
        limits += [f"Logits from {task.vocabulary} on are of rows that pad the vocabulary: leave them out."]
    if of.compute != "float32":
        limits += [f"It was trained computing in {of.compute}: in float32 its logits differ by that rounding."]
    if origin.step != budget and origin.run.description.role != "teacher":
        limits += [f"It is an intermediate state of a training of {budget:,} steps."]
    return limits


def _words(model: Architecture) -> str:
    if not isinstance(model, Transformer):
        return type(model).__name__
    heads = f"{model.num_heads} head{'s' * (model.num_heads > 1)}"
    layers = f"{model.num_layers} layer{'s' * (model.num_layers > 1)}"
    return f"{type(model).__name__} of {layers} with {heads}, width {model.model_width}"


def at_step(curves: Curves, step: int, replica: int) -> tuple[float, float] | None:
    """Returns a replica's loss and accuracy after a step; None where they are not recorded."""
    (rows,) = np.nonzero(curves.steps == step)
    if not len(rows) or np.isnan(curves.loss[rows[0], replica]):
        return None
    return float(curves.loss[rows[0], replica]), float(curves.accuracy[rows[0], replica])
