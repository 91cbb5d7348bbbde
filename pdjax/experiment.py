"""An experiment: teachers, the students that learn from them, and what is measured and shown of both."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
from pydantic import Field

from pdjax.distill.adaptive import AdaptiveSchedule
from pdjax.distill.losses import Labels, Loss
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError, require
from pdjax.findings import Claim, Figure
from pdjax.models.base import Architecture
from pdjax.probes.base import Probe
from pdjax.settings import (
    Aside,
    Beside,
    ByName,
    Count,
    Grows,
    Name,
    Names,
    Place,
    Positive,
    Seed,
    Text,
    complaint,
    determining,
    make,
    named,
    plain,
    settings,
)
from pdjax.tasks.base import Task
from pdjax.train.keeping import Keeping, Regular
from pdjax.train.optimizer import Adam, Optimizer
from pdjax.train.sharding import Placement
from pdjax.train.state import MeanOver
from pdjax.train.step import Evaluation

Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]
Rates = Annotated[tuple[Positive, ...], Field(min_length=1)]
Lengths = Annotated[tuple[Count, ...], Field(min_length=1)]


def _check_distinct(name: str, values: Sequence[Any]) -> None:
    # As devices see them.
    seen = {np.float32(value) if isinstance(value, float) else value for value in values}
    require(len(seen) == len(values), f"distinct {name}", values, "remove the repeated ones")


@contextlib.contextmanager
def _within(path: str) -> Iterator[None]:
    """Says of complaints where what they are about stands."""
    try:
        yield
    except UserError as error:
        raise error.within(path) from None


MOST_CHECKPOINTS = 100_000
"""Of a teacher: each is looked at when an experiment begins."""


@settings
class TeacherTraining:
    """How the teacher is trained and which of its states are kept."""

    seed: Seed = 0
    """of the teacher that students learn from"""
    extra_seeds: tuple[Seed, ...] = ()
    """further teachers trained along with it, for statements about teachers"""
    steps: Count = 1000
    batch_size: Count = 64
    learning_rate: Positive = 5e-3
    checkpoint_every: Count = 50
    """steps between checkpoints of the trajectory, or between those that ``keep`` chooses from"""
    keep: Keeping = Regular()
    """which multiples of checkpoint_every are kept; the last step always is"""
    trajectory: Place | None = None
    """an existing trajectory store, or a folder of somebody's checkpoints, to use instead of training a teacher;
    extra_seeds then train none"""
    optimizer: Optimizer = Adam()
    loss: Annotated[Loss, Beside()] = Labels()
    """what it learns from: labels in one form or another"""
    mean_over: MeanOver = "batch"
    """what the loss is averaged over: all places of a batch that count, or those of each sequence first"""

    def __post_init__(self):
        _check_distinct("extra_seeds, other than seed", (self.seed, *self.extra_seeds))
        require(
            self.steps % self.checkpoint_every == 0,
            f"checkpoint_every that divides steps = {self.steps}",
            self.checkpoint_every,
            "the last checkpoint is the final teacher",
        )
        require(
            len(self.grid) <= MOST_CHECKPOINTS,
            f"at most {MOST_CHECKPOINTS} multiples of checkpoint_every, at which checkpoints may be kept",
            f"{len(self.grid)}, every {self.checkpoint_every} of {self.steps} steps",
            "raise checkpoint_every",
        )
        with _within("keep"):
            self.keep.check(self.grid)
        require(
            not self.loss.asks_teacher,
            "a loss of the labels alone",
            type(self.loss).__name__,
            "teachers have no teacher",
        )

    @property
    def grid(self) -> range:
        """The steps that checkpoints of the trajectory may have."""
        return range(self.checkpoint_every, self.steps + 1, self.checkpoint_every)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of all teachers; students learn from the first. Of a given trajectory there is one."""
        return (self.seed, *(self.extra_seeds if self.trajectory is None else ()))

    @property
    def checkpoints(self) -> Sequence[int]:
        """The steps of the trajectory that this training leaves: of one that decides about more, the sure ones."""
        return self.keep.sure(self.grid)


@settings
class StudentTraining:
    """How students are trained: budgets, and the replicas seeds x learning_rates of every run."""

    seeds: Annotated[Seeds, Grows()] = (0, 1, 2)
    learning_rates: Annotated[Rates, Grows()] = (5e-3,)
    budgets: Annotated[Lengths, Grows()] = (600,)
    """training lengths in steps, of every strategy without budgets of its own"""
    batch_size: Count = 64
    shared_batches: bool = True
    """all replicas see the same batches, and the teacher runs once for all of them"""
    checkpoint_every: Count | None = None
    """steps between checkpoints that are kept for probes; None keeps none"""
    optimizer: Optimizer = Adam()
    mean_over: MeanOver = "batch"
    """what losses are averaged over: all places of a batch that count, or those of each sequence first"""

    def __post_init__(self):
        for name in ("seeds", "learning_rates", "budgets"):
            _check_distinct(name, getattr(self, name))


@settings
class Tuning:
    """How far the learning rates are searched: while a strategy's best one is at the edge of the grid, it grows."""

    factor: Positive = 2.0
    """between a further rate and the one at the edge"""
    lowest: Positive = 1e-4
    """no rates below it are tried"""
    highest: Positive = 1.0
    """no rates above it are tried"""

    def __post_init__(self):
        require(self.factor > 1, "a factor above 1", self.factor, "raise it")
        require(self.lowest < self.highest, f"lowest below highest = {self.highest}", self.lowest, "lower it")


@settings
class SizedModel:
    """A model of a panel of sizes."""

    name: Name
    """its label on the axis, and a directory"""
    model: Annotated[Architecture, Beside()]


@settings
class SizePanel:
    """Models that a figure draws together."""

    name: Name
    """a title, and a directory"""
    models: Annotated[tuple[SizedModel, ...], Field(min_length=1), Beside(), ByName(), Grows()]
    """in increasing size"""

    def __post_init__(self):
        _check_distinct("models", tuple(sized.name for sized in self.models))


@settings
class Sizes:
    """Models of several sizes trained from the labels, to see which learns faster (figures 7 and 10)."""

    panels: Annotated[tuple[SizePanel, ...], Field(min_length=1), ByName(), Grows()]
    seeds: Annotated[Seeds, Grows()] = (0, 1, 2)
    learning_rates: Annotated[Rates, Grows()] = (5e-3,)
    steps: Count = 600
    batch_size: Count = 64
    shared_batches: bool = True
    optimizer: Optimizer = Adam()

    def __post_init__(self):
        _check_distinct("panels", tuple(panel.name for panel in self.panels))
        for name in ("seeds", "learning_rates"):
            _check_distinct(name, getattr(self, name))

    def models(self) -> Iterator[tuple[str, Architecture]]:
        """Yields every model with its directory."""
        for panel in self.panels:
            for sized in panel.models:
                yield f"{panel.name}/{sized.name}", sized.model


@settings
class Probes:
    """What is measured on the checkpoints of teachers, and of some students."""

    measured: Annotated[tuple[Probe, ...], Beside(), ByName(), Grows()] = ()
    students: Annotated[tuple[str, ...], Grows()] = ()
    """strategies whose students are probed as well, at all of their checkpoints"""
    longest_alone: bool = False
    """whether the students of the longest budget alone are probed"""
    seed: Seed = 0
    """of fresh inputs, and of the sets that probes draw"""

    def __post_init__(self):
        names = tuple(probe.name for probe in self.measured)
        _check_distinct("probes", names)
        # Its records would lie in measured.jsonl, which holds those of all probes until they are done, and then goes.
        require("measured" not in names, "names of probes other than 'measured'", names, "rename it")

    def __getitem__(self, name: str) -> Probe | None:
        """Returns a probe by its name; None where it is not measured."""
        return named(self.measured).get(name)


@settings
class Loop:
    """How often the loop comes back from the device, and saves."""

    chunk_steps: Count = 50
    """steps compiled into one program; one run keeps to it, as its saved states and records lie on multiples"""
    save_every: Annotated[Count, Aside()] = 400
    """steps between saved training states, from which a run resumes"""
    writers: Annotated[tuple[Literal["tensorboard", "wandb"], ...], Aside()] = ()
    """besides JSONL, which is always written"""
    together: Annotated[Count, Aside()] = 32
    """students at most that are trained at once where runs share their batches (``pdjax.stages.together``); 1 trains
    each run alone"""
    optimized: Annotated[bool, Aside()] = True
    """whether programs are as fast as they can be made: XLA does all it can for CPUs, and strings have a branch without
    padding (``pdjax.train.narrow``); else they are compiled in half the time and run slower, as suits runs of
    seconds"""


@settings
class Comparison:
    """Strategies that a figure of the report draws together."""

    name: Text
    """of the figure's files, as far as its characters may be in one"""
    title: Text
    strategies: Annotated[tuple[str, ...], Field(min_length=1)]
    figure: Text | None = None
    """of the paper, as the caption names it: "figure 1 (right)" """
    kind: Literal["training", "budgets", "first_checkpoints"] = "training"
    """training: accuracy over training, one figure for each budget. budgets: the final accuracy against the budget.
    first_checkpoints: bars of the final accuracy by the first checkpoint of (2, T) strategies, grouped by T (figure 4
    right)"""


@settings
class Report:
    """What the report says of the experiment, and shows besides the figures and claims of this package."""

    figures: Annotated[tuple[Figure, ...], Beside(), ByName()] = ()
    claims: Annotated[tuple[Claim, ...], Beside(), ByName()] = ()
    title: Text = ""
    """of the page; empty is the experiment's name"""
    question: Text = ""
    """what is asked, in a sentence: it opens the page"""
    paper: Text = ""
    """what the paper reports of it, in a sentence"""
    paper_figures: Mapping[Text, Text] = Field(default_factory=dict)
    """the paper's figures that the report's correspond to, by their names or the beginnings of these"""
    main_figure: Text = ""
    """the name, or its beginning, of the figure that is shown first; empty is accuracy by budget, or over training"""
    decides: bool = True
    """whether verdicts are worth reading; a size that is there to try the pipeline decides nothing"""

    def __post_init__(self):
        _check_distinct("figures and claims", tuple(part.name for part in (*self.figures, *self.claims)))


@settings
class Variant:
    """Another task, teacher or student."""

    name: Name
    """its title, and a directory"""
    changes: Mapping[str, Any]
    """fields of the experiment, nested as there; settings are replaced as a whole, mappings field by field"""


@settings
class Ablation:
    """Variants of the experiment (figures 23 to 28, 30 to 32).

    Every variant is an experiment of its own, under ``ablations/<ablation>/<variant>`` in the working directory:
    without probes but for those that its strategies select by. It has the teacher of the experiment where it changes
    nothing that the teacher depends on.
    """

    name: Name
    """a directory"""
    title: Annotated[Text, Aside()]
    variants: Annotated[tuple[Variant, ...], Field(min_length=1), ByName(), Grows()]
    strategies: Annotated[tuple[str, ...], Grows()]
    """trained in every variant; none leaves it with its teachers"""
    budgets: Annotated[Lengths, Grows()]
    figure: Annotated[Text | None, Aside()] = None
    """of the paper"""
    base: Annotated[Text | None, Aside()] = None
    """what the experiment itself is called beside the variants; None leaves it out"""
    sizes: bool = False
    """whether every variant also trains the models of ``sizes``"""

    def __post_init__(self):
        _check_distinct("variants, and base", (*(variant.name for variant in self.variants), self.base))


@settings
class Experiment:
    """One experiment: a teacher, students by strategy and budget, what is measured of them, and a report."""

    name: Names
    task: Task
    teacher: Architecture
    student: Architecture
    strategies: Annotated[tuple[Strategy, ...], ByName(), Grows()]
    seed: Seed = 0
    """of batches that students share, and of the held-out examples"""
    further_teachers: Annotated[tuple[Seed, ...], Grows()] = ()
    """seeds of further teachers, each with students, batches and held-out examples of its own: statements about
    strategies are then about teachers, over which differences are averaged"""
    teacher_training: TeacherTraining = TeacherTraining()
    student_training: StudentTraining = StudentTraining()
    tuning: Tuning | None = None
    """whether each strategy's learning rate, T and κ are chosen by this experiment (``pdjax.stages.tuning``)"""
    sizes: Annotated[Sizes | None, Grows()] = None
    """further models trained from the labels; None trains none"""
    probes: Probes = Probes()
    ablations: Annotated[tuple[Ablation, ...], ByName(), Grows()] = ()
    evaluation: Evaluation = Evaluation()
    comparisons: Annotated[tuple[Comparison, ...], Aside(), ByName()] = ()
    """figures of the report"""
    report: Annotated[Report, Aside()] = Report()
    loop: Loop = Loop()
    placement: Annotated[Placement, Aside()] = Placement()
    remarks: Annotated[Mapping[Text, Text], Aside()] = Field(default_factory=dict)
    """what other sizes have shown, by the name of the claim: shown beside its verdicts"""

    def __post_init__(self):
        for name in ("strategies", "comparisons", "ablations"):
            _check_distinct(name, tuple(part.name for part in getattr(self, name)))
        for path, model in self.models():
            with _within(path):
                model.check(self.task)
        for path, optimizer, model, losses in self.trainings():
            with _within(f"{path}.optimizer"):
                optimizer.check(model, self.task, losses)
        for probe in self.probes.measured:
            with _within(f"probes.{probe.name}"):
                probe.check(self.task, self.teacher)
        require(
            self.placement.residency != "cached" or self.student_training.shared_batches,
            "student_training.shared_batches with placement.residency 'cached'",
            "False",
            "set it, or another residency: answers are to batches that all students see",
        )
        _check_strategies(self)
        _check_names(self)
        _check_lengths(self)
        _check_batches(self)
        _check_teachers(self)
        for ablation in self.ablations:
            for variant in ablation.variants:
                self.variant(ablation, variant)  # what it refuses, this refuses

    def models(self) -> Iterator[tuple[str, Architecture]]:
        """Yields all models with their fields."""
        yield from (("teacher", self.teacher), ("student", self.student))
        yield from () if self.sizes is None else self.sizes.models()

    def trainings(self) -> Iterator[tuple[str, Optimizer, Architecture, tuple[Loss, ...]]]:
        """Yields every training with its field: its optimizer, what it trains, and what that learns from."""
        teacher, students = self.teacher_training, self.student_training
        yield "teacher_training", teacher.optimizer, self.teacher, (teacher.loss,)
        losses = tuple(strategy.loss for strategy in self.strategies)
        yield "student_training", students.optimizer, self.student, losses
        if self.sizes is not None:
            for _, model in self.sizes.models():
                yield "sizes", self.sizes.optimizer, model, (Labels(),)

    @property
    def budgets(self) -> tuple[int, ...]:
        """All training lengths of students in steps, increasing: those of all strategies, and strategies' own."""
        strategy_budgets = {budget for strategy in self.strategies for budget in strategy.budgets or ()}
        return tuple(sorted(strategy_budgets | set(self.student_training.budgets)))

    def strategy(self, name: str) -> Strategy:
        """Returns a strategy by its name."""
        return named(self.strategies)[name]

    def asks(self, strategy: Strategy, budget: int) -> bool:
        """Whether students of a strategy are to be trained for so many steps."""
        return budget in (self.student_training.budgets if strategy.budgets is None else strategy.budgets)

    def rates(self, strategy: Strategy) -> tuple[float, ...]:
        """Returns the learning rates of a strategy's students."""
        return self.student_training.learning_rates if strategy.learning_rate is None else (strategy.learning_rate,)

    @property
    def has_own_rates(self) -> bool:
        """Whether strategies have learning rates of their own, and are compared each at its own."""
        return any(strategy.learning_rate is not None for strategy in self.strategies)

    def probes_students_of(self, budget: int) -> bool:
        """Whether the students of ``probes.students`` are probed when they are trained for so many steps."""
        chosen = [self.strategy(name) for name in self.probes.students]
        probed = [other for other in self.budgets if any(self.asks(strategy, other) for strategy in chosen)]
        return not self.probes.longest_alone or budget == max(probed, default=None)

    def variants(self) -> dict[str, "Experiment"]:
        """Returns the variants of all ablations as experiments, by their directories."""
        return {f"{a.name}/{v.name}": self.variant(a, v) for a in self.ablations for v in a.variants}

    def variant(self, ablation: Ablation, variant: Variant) -> "Experiment":
        """Returns a variant of an ablation as an experiment of its own.

        A given trajectory is that of the experiment's own teacher: a variant with another task or teacher trains one.

        Raises:
          UserError: the variant's fields do not exist or do not fit.
        """
        strategies = [self.strategy(name) for name in ablation.strategies]
        needed = {strategy.selection.measured_by for strategy in strategies}
        training = self.teacher_training
        if not {"task", "teacher", "teacher_training"}.isdisjoint(variant.changes):
            training = dataclasses.replace(training, trajectory=None)
        path = f"ablations.{ablation.name}.{variant.name}"
        try:
            base = dataclasses.replace(
                self,
                name=f"{self.name}/{ablation.name}/{variant.name}",
                # Variants have the budgets of their ablation, whatever the strategies have elsewhere.
                strategies=tuple(dataclasses.replace(strategy, budgets=None) for strategy in strategies),
                teacher_training=training,
                student_training=dataclasses.replace(
                    self.student_training, budgets=ablation.budgets, checkpoint_every=None
                ),
                sizes=self.sizes if ablation.sizes else None,
                probes=Probes(
                    tuple(probe for probe in self.probes.measured if probe.name in needed), seed=self.probes.seed
                ),
                comparisons=(),
                ablations=(),
                further_teachers=(),
                tuning=None,
                report=Report(),
                remarks={},
            )
            # Through plain data, so that every check of an experiment is made.
            return make(Experiment, _replaced(plain(base), plain(variant.changes)))
        except pydantic.ValidationError as error:
            raise complaint(error, path) from None
        except UserError as error:
            raise error.within(path) from None

    def of_further_teachers(self) -> dict[int, "Experiment"]:
        """Returns the experiment of each further teacher, by its seed: the same with seeds that no other one has.

        They depend on the teacher's seed and on their own alone: more teachers or students change no others.
        """
        training, found = self.student_training, {}
        for seed in self.further_teachers:
            with _within(f"further_teachers of {seed}"):
                found[seed] = dataclasses.replace(
                    self,
                    name=f"{self.name}/teachers/{seed}",
                    seed=seed,
                    further_teachers=(),
                    teacher_training=dataclasses.replace(self.teacher_training, seed=seed, extra_seeds=()),
                    student_training=dataclasses.replace(
                        training, seeds=tuple(_of_teacher(seed, one) for one in training.seeds)
                    ),
                    probes=dataclasses.replace(self.probes, seed=_of_teacher(seed, self.probes.seed)),
                    sizes=None,
                    ablations=(),
                    report=Report(),
                    remarks={},
                )
        return found

    def parts(self) -> dict[str, "Experiment"]:
        """Returns the experiments that this one has within, by their directories: further teachers', and variants."""
        teachers = {f"teachers/{seed}": one for seed, one in self.of_further_teachers().items()}
        return teachers | {f"ablations/{name}": one for name, one in self.variants().items()}

    def determining(self, *names: str) -> dict[str, Any]:
        """Returns what determines results of some fields, as plain data."""
        return {name: determining(getattr(self, name)) for name in names}

    @property
    def digest(self) -> str:
        """SHA-256 over all that determines the results, in hexadecimal: an experiment may go on elsewhere."""
        return digest_of(determining(self))


def _of_teacher(teacher: int, seed: int) -> int:
    """Returns the seed that stands for another one among the students of a further teacher."""
    return int(hashlib.sha256(f"{teacher} {seed}".encode()).hexdigest()[:7], 16)


def digest_of(value: Any) -> str:
    """Returns the SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _replaced(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested plain data with some fields replaced; a mapping replaces what it names in a mapping."""
    replaced = dict(fields)
    for key, value in changes.items():
        old = replaced.get(key)
        # Another class has other fields: those of the old one would be unknown to it.
        both = isinstance(value, Mapping) and isinstance(old, Mapping) and "class" not in value
        replaced[key] = _replaced(old, value) if both else value  # pyright: ignore[reportArgumentType]
    return replaced


def _check_strategies(experiment: Experiment) -> None:
    """Requires selections, schedules and parts that the task, the probes and the evaluations are for."""
    task = experiment.task
    require(
        experiment.tuning is None or not (experiment.has_own_rates or experiment.further_teachers),
        "a tuning of strategies without a learning_rate of their own, by one teacher",
        "tuning",
        "what is chosen is for a study of its own: leave tuning out there",
    )
    require(
        experiment.tuning is None or all(strategy.budgets is None for strategy in experiment.strategies),
        "a tuning of strategies that are all trained equally long",
        "budgets of their own",
        "leave those out",
    )
    require(
        not experiment.has_own_rates or len(experiment.student_training.learning_rates) == 1,
        "one of student_training.learning_rates where strategies have a learning_rate of their own",
        experiment.student_training.learning_rates,
        "each is compared at one rate: choose one for those without",
    )
    for strategy in experiment.strategies:
        if not strategy.loss.asks_teacher:
            continue  # its selection and schedule say nothing
        path, selection = f"strategies.{strategy.name}", strategy.selection
        if experiment.placement.residency == "cached":
            require(
                strategy.loss.cut is not None,
                f"a loss of {path} that looks at a teacher's most likely classes alone, as placement.residency is "
                "'cached'",
                repr(strategy.loss),
                "take TopK, or Distillation at a temperature near 0, or another residency",
            )
        with _within(f"{path}.selection"):
            selection.check(task)
        training = experiment.teacher_training
        require(
            not selection.takes_multiples or training.trajectory is not None or training.checkpoints == training.grid,
            f"teacher_training.keep Regular for {path}, which takes multiples of a checkpoint that is found later",
            type(training.keep).__name__,
            "the others keep some of them alone: choose Regular, or another selection",
        )
        require(
            selection.measured_by is None or experiment.probes[selection.measured_by] is not None,
            f"probes.{selection.measured_by} for {path} with the selection {type(selection).__name__}",
            "None",
            "what it measures on the teacher is what the strategy selects by",
        )
        if strategy.is_partial:
            _check_part(experiment, strategy)
        if not strategy.is_adaptive:
            continue
        assert isinstance(strategy.schedule, AdaptiveSchedule)
        with _within(path):
            strategy.schedule.check(task, experiment.evaluation.every)
        require(
            experiment.placement.residency in ("auto", "stacked"),
            f"placement.residency 'auto' or 'stacked' for the adaptive {path}",
            experiment.placement.residency,
            "every replica may be at another checkpoint: they are stacked",
        )


def _check_part(experiment: Experiment, strategy: Strategy) -> None:
    """Requires a curriculum, a loss and a residency that parts of checkpoints are for."""
    path, schedule, selection = f"strategies.{strategy.name}", strategy.schedule, strategy.selection
    with _within(f"{path}.part"):
        strategy.part.check(experiment.task)
    require(
        strategy.is_progressive and selection.size != 1,
        f"an intermediate checkpoint for {path}.part",
        f"{type(schedule).__name__} of {type(selection).__name__}",
        "the final teacher stays whole: choose another schedule and selection, or Whole",
    )
    require(
        not strategy.is_adaptive,
        f"a schedule for {path}.part that is no adaptive one",
        type(schedule).__name__,
        "choose another one, or Whole",
    )
    require(
        not strategy.loss.reads_intermediates,
        f"a loss for {path}.part that looks at logits alone",
        type(strategy.loss).__name__,
        "a part has nothing else: choose another loss, or Whole",
    )
    require(
        experiment.placement.residency in ("auto", "stacked"),
        f"placement.residency 'auto' or 'stacked' for {path}.part",
        experiment.placement.residency,
        "parts are made of stacked checkpoints",
    )


RARE = 0.05
"""The probability of a batch in which nothing counts, from which on it is refused: training would stand still in it."""


def _check_teachers(experiment: Experiment) -> None:
    """Requires further teachers that are trained, and that share seeds with nothing else."""
    training, further = experiment.teacher_training, experiment.further_teachers
    _check_distinct("further_teachers, other than seed and those of teacher_training",
                    (*further, *{experiment.seed, *training.seeds}))  # fmt: skip
    require(
        not further or training.trajectory is None,
        "no further_teachers with teacher_training.trajectory",
        further,
        "a given teacher is one: run each in a directory of its own, or train them here",
    )
    experiment.of_further_teachers()  # what one of them refuses, this refuses


def _check_batches(experiment: Experiment) -> None:
    """Requires batches of which something counts, and batches and losses that can be cut into pieces."""
    pieces, teacher = experiment.placement.micro_batches, experiment.teacher_training
    sizes = {"student_training": experiment.student_training.batch_size, "evaluation": experiment.evaluation.batch_size}
    sizes |= {"teacher_training": teacher.batch_size} if teacher.trajectory is None else {}
    sizes |= {} if experiment.sizes is None else {"sizes": experiment.sizes.batch_size}
    for path, size in sizes.items():
        none = experiment.task.probability_of_none(size)
        require(
            none <= RARE,
            f"batches of {path} in which something counts ({experiment.task.counted})",
            f"nothing in {none:.2g} of them",
            f"raise {path}.batch_size, or the task's share of what counts",
        )
        require(
            size % pieces == 0,
            f"a {path}.batch_size that placement.micro_batches {pieces} divides",
            size,
            "change one of the two",
        )
    for strategy in experiment.strategies:
        require(
            pieces == 1 or not strategy.loss.of_whole_batch,
            f"a loss of strategies.{strategy.name} that takes each example by itself with placement.micro_batches "
            f"{pieces}",
            type(strategy.loss).__name__,
            "choose another loss, or placement.micro_batches 1",
        )


def _check_names(experiment: Experiment) -> None:
    """Requires that strategies that are named elsewhere exist, and what probes of students look at."""
    known = list(named(experiment.strategies))
    references = {f"comparisons.{c.name}.strategies": c.strategies for c in experiment.comparisons}
    references |= {f"ablations.{a.name}.strategies": a.strategies for a in experiment.ablations}
    for path, names in (references | {"probes.students": experiment.probes.students}).items():
        unknown = [name for name in names if name not in known]
        require(not unknown, f"{path} among {known}", unknown, "rename or remove them")
    require(
        not experiment.probes.students or experiment.student_training.checkpoint_every is not None,
        "student_training.checkpoint_every with probes.students",
        "None",
        "set it: probes look at kept checkpoints",
    )


def _check_lengths(experiment: Experiment) -> None:
    """Requires that everything happens between chunks, and that the last step is a checkpoint."""
    chunk, kept = experiment.loop.chunk_steps, experiment.student_training.checkpoint_every
    lengths = {
        "loop.save_every": experiment.loop.save_every,
        "evaluation.every": experiment.evaluation.every,
        "teacher_training.steps": experiment.teacher_training.steps,
        "teacher_training.checkpoint_every": experiment.teacher_training.checkpoint_every,
        **{f"student_training.budgets[{i}]": b for i, b in enumerate(experiment.student_training.budgets)},
        **{f"strategies.{s.name}.budgets": b for s in experiment.strategies for b in s.budgets or ()},
        **({} if experiment.sizes is None else {"sizes.steps": experiment.sizes.steps}),
        **({} if kept is None else {"student_training.checkpoint_every": kept}),
        **{
            f"{path}.optimizer.{field}": turn
            for path, optimizer, *_ in experiment.trainings()
            for field, turn in optimizer.turns.items()
        },
    }
    # All chunks have one length, which is compiled in: nothing else happens before the end of one.
    for name, length in lengths.items():
        require(
            length % chunk == 0,
            f"{name} to be a multiple of loop.chunk_steps = {chunk}",
            length,
            "the loop evaluates and saves between chunks; change one of the two",
        )
    for strategy in experiment.strategies:
        schedule = strategy.schedule
        if strategy.loss.asks_teacher and isinstance(schedule, FixedDuration) and strategy.selection.size != 1:
            shortest = min((budget for budget in experiment.budgets if experiment.asks(strategy, budget)), default=None)
            require(
                shortest is None or schedule.duration < shortest,
                f"a duration of strategies.{strategy.name} that reaches its second checkpoint within {shortest} steps",
                schedule.duration,
                "lower it, or let the selection have one checkpoint",
            )
    shortest = {
        "teacher_training": experiment.teacher_training.steps,
        "student_training": min(experiment.budgets, default=0),
        **({} if experiment.sizes is None else {"sizes": experiment.sizes.steps}),
    }
    for path, optimizer, *_ in experiment.trainings():
        for field, turn in optimizer.turns.items():
            require(
                turn < shortest[path] or (not experiment.strategies and path == "student_training"),
                f"{path}.optimizer.{field} below the {shortest[path]} steps of the training",
                turn,
                "nothing would come behind it: lower it, or train longer",
            )
    for budget in experiment.budgets:
        expected = f"student_training.checkpoint_every that divides the budget {budget}, or None"
        require(kept is None or budget % kept == 0, expected, kept, "the last checkpoint is the final student")
