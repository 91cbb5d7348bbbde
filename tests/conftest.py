"""What all tests share: eight virtual devices, strict numerics, and a tiny experiment."""

import contextlib
import ctypes
import dataclasses
import functools
import gc
import importlib.metadata
import importlib.util
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

from pdjax.io.xla import DETERMINISTIC, QUICK

FLAGS = [
    *QUICK,  # tests compile many small programs and run them briefly
    "--xla_cpu_parallel_codegen_split_count=1",  # the workers fill the cores
    f"{DETERMINISTIC}=true",  # as pdjax.main sets it: flags are part of what a cached program is known by
]

os.environ["JAX_PLATFORMS"] = "cpu"  # before the first import of jax
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
# jaxlib 0.10.1 says of every program in the cache, at length, that preferences of LLVM are no features of the CPU.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# Records and checkpoints wait for the disk, file by file, which is half of the time of some tests: not so in memory.
MEMORY = Path("/dev/shm")
IN_MEMORY = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2**31
if "PYTEST_XDIST_WORKER" not in os.environ:
    FILES = tempfile.TemporaryDirectory(prefix="pdjax-tests-", dir=MEMORY if IN_MEMORY else None)
    os.environ |= {  # what one worker, test or process has compiled no other compiles again
        "JAX_COMPILATION_CACHE_DIR": f"{FILES.name}/compiled",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }

import jax
import jax.numpy as jnp
import pytest
import safetensors.numpy
from absl import flags

from pdjax import main
from pdjax.configuration import experiment_of
from pdjax.distill.losses import Distillation
from pdjax.distill.strategy import Strategy
from pdjax.experiment import Experiment, Loop, StudentTraining, TeacherTraining
from pdjax.io.signals import Interrupt
from pdjax.io.workdir import open_workdir
from pdjax.models.base import Architecture, LinenModel
from pdjax.models.gpt2 import Gpt2
from pdjax.settings import Count, settings
from pdjax.stages.programs import teacher_shape
from pdjax.stages.teacher import open_trajectory, train_teacher
from pdjax.tasks.parity import HierarchicalTask, ParityTask
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask
from pdjax.train.replicas import _compiled, _compiled_without_teacher
from pdjax.train.state import Program
from pdjax.train.step import Evaluation
from pdjax.weights.describe import config_of
from pdjax.weights.layouts import weights_of

gc.set_threshold(100_000, 50, 100)  # as pdjax.main does
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).parent.parent


def _as_one_program(method, static):
    """Compiles a method as a whole where a test calls it outside of any program: op by op that is hundreds of them."""
    compiled = jax.jit(method, static_argnums=static)

    @functools.wraps(method)
    def call(self, *arguments):
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))
        return (method if traced else compiled)(self, *arguments)

    return call


for kind in (LinenModel, HierarchicalTask, ParityTask, PcfgLanguageTask, PcfgTask):
    for name, static in {"init": (0,), "apply": (0,), "sample": (0, 2)}.items():
        if hasattr(kind, name):
            setattr(kind, name, _as_one_program(getattr(kind, name), static))


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much ``tests/trust`` tries."""
    parser.addoption("--trust", type=int, default=0, help="trials of each kind in tests/trust; thousands take hours")


def pytest_configure(config: pytest.Config) -> None:
    """Puts the tests' files into memory too, unless --basetemp says where they are to stay."""
    if "PYTEST_XDIST_WORKER" not in os.environ and IN_MEMORY and config.option.basetemp is None:
        config.option.basetemp = f"{FILES.name}/tests"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that no worker is left alone with one at the end.

    They are the smokes, other files that start processes, and those of folders that train.
    """
    here = Path(__file__).parent
    starting = {item.path for item in items if "start" in getattr(item, "fixturenames", ())}
    longest = [{here / "test_smoke.py"}, starting, *({here / name} for name in ("train", "stages", "plan", "models"))]

    def rank(item: pytest.Item) -> int:
        return next((i for i, paths in enumerate(longest) if {item.path, item.path.parent} & paths), len(longest))

    items.sort(key=rank)


def _load_config_file(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for the names of their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Drops compiled programs, each of some megabytes, once a module leaves them in more than 1 GB of memory."""
    yield
    if _resident_bytes() > 2**30:
        _compiled.cache_clear()
        _compiled_without_teacher.cache_clear()
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # glibc keeps what it has freed


def _resident_bytes() -> float:
    """Returns how much memory this process has, or infinity where no file says it."""
    statistics = Path("/proc/self/statm")  # in pages: all, and those in memory
    return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statistics.exists() else float("inf")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def load_config_file():
    """Loads a file of configs/ by name, as a module with ``get_config``."""
    return _load_config_file


@pytest.fixture(scope="session")
def experiment():
    """Returns the experiment of a file of configs/ and a variant."""

    @functools.cache
    def load(name, variant=""):
        return experiment_of(_load_config_file(name).get_config(variant))

    return load


@pytest.fixture(scope="session")
def tiny(experiment):
    """The smoke configuration of PCFG, with strings of at most 10 tokens and models of one layer."""
    smoke = experiment("pcfg", "smoke")
    return dataclasses.replace(smoke, task=dataclasses.replace(smoke.task, root=10))


@dataclasses.dataclass(frozen=True)
class NGrams:
    """Logits from a token and some beside it, by default the one before: the smallest model of strings."""

    vocabulary: int
    width: int
    dropout: float = 0.0  # of the tokens
    scale: float = 1.0  # of the initial parameters
    back: tuple[int, ...] = (0, 1)  # where these tokens stand before each, or behind it if below 0

    def init(self, key, inputs):
        shapes = {"embedding": (len(self.back) * self.vocabulary, self.width), "head": (self.width, self.vocabulary)}
        keys = jax.random.split(key)
        return {
            name: self.scale * jax.random.normal(k, shapes[name]) / self.width**0.25
            for name, k in zip(shapes, keys, strict=True)
        }

    def apply(self, params, inputs, dropout_key=None):
        hot = jax.nn.one_hot(inputs["tokens"], self.vocabulary)
        if self.dropout > 0 and dropout_key is not None:
            hot *= jax.random.bernoulli(dropout_key, 1 - self.dropout, hot.shape) / (1 - self.dropout)
        grams = jnp.concatenate([jnp.roll(hot, back, axis=1) for back in self.back], axis=-1)
        if "asked" in inputs:
            grams = jnp.take_along_axis(grams, inputs["asked"][..., None], axis=1)
        return grams @ params["embedding"] @ params["head"], {}


@settings
class Trigrams(Architecture):
    """Models of a token and both neighbours, that begin with next to no dependence on them and learn it."""

    width: Count = 8

    def build(self, task):
        return NGrams(task.vocabulary, self.width, scale=0.1, back=(-1, 0, 1))


@pytest.fixture(scope="session")
def trigrams():
    """The architecture of the smallest models of strings that depend on both neighbours of a token, by its width."""
    return Trigrams


@pytest.fixture(scope="session")
def program(tiny):
    """A student and a teacher of masked strings that compile in no time, where only what is around them matters."""
    student, teacher = (NGrams(tiny.task.vocabulary, width) for width in (8, 4096))
    optimizer = tiny.student_training.optimizer
    return Program(tiny.task, student, teacher, optimizer, 4, True, "data", losses=(Distillation(),))


@pytest.fixture(scope="session")
def start(root):
    """Starts pdjax in a process; by default with as many devices as this one, so that both leave the same bits."""

    def run(*arguments, cpu_devices=None):
        devices = f"--cpu_devices={cpu_devices or jax.device_count()}"
        command = [sys.executable, "-m", "pdjax.main", devices, *arguments]
        return subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)

    return run


@pytest.fixture(scope="session")
def interrupt_at():
    """Returns an interrupt that asks to stop at the given number of looks at it."""

    class InterruptAt(Interrupt):
        def __init__(self, looks):
            self.looks = looks

        @property
        def signal_number(self):
            self.looks -= 1
            return signal.SIGTERM if self.looks == 0 else None

    return InterruptAt


@pytest.fixture(scope="session")
def call():
    """Calls the command line in this process; returns the exit code and what it logged."""

    def run(*arguments):
        log, handlers = io.StringIO(), {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
        flags.FLAGS.unparse_flags()
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:  # of the configuration before
            delattr(flags.FLAGS, name)
        command = ["pdjax.main", *arguments]
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(log), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"the load_module\(\) method", DeprecationWarning)  # of ml_collections
            patch.setattr(sys, "argv", command)  # where ml_collections looks for overrides
            try:
                code = main.main(command)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        return code, log.getvalue()

    return run


@pytest.fixture(scope="session")
def finish(start):
    """Runs pdjax in a process to its end; returns the exit code and what it logged."""

    def run(*arguments, cpu_devices=None):
        process = start(*arguments, cpu_devices=cpu_devices)
        _, errors = process.communicate(timeout=300)
        return process.returncode, errors

    return run


class Trained(NamedTuple):
    """A small teacher that really learns, in a store of ours and as a folder of Hugging Face's checkpoints."""

    experiment: Experiment
    workdir: Path
    folder: Path  # of step20, step40, ...
    steps: tuple[int, ...]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A GPT-2 of one layer after 20, 40, ..., 200 steps on a grammar."""
    experiment = Experiment(
        name="trained",
        task=PcfgLanguageTask(root=10),
        teacher=Gpt2(1, 1, 16, tied_head=True),
        student=Gpt2(1, 1, 8),
        strategies=(Strategy("one_shot"),),
        teacher_training=TeacherTraining(steps=200, batch_size=16, learning_rate=1e-2, checkpoint_every=20),
        student_training=StudentTraining(budgets=(20,)),
        evaluation=Evaluation(every=20, num_batches=2, batch_size=32),
        loop=Loop(20, save_every=200, optimized=False),
    )
    workdir, folder = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("folders")
    open_workdir(experiment, workdir)
    train_teacher(experiment, workdir, Interrupt())
    config = config_of(experiment.teacher, experiment.task.vocabulary, experiment.task.num_positions)
    with contextlib.closing(open_trajectory(experiment, workdir)) as store:
        steps = tuple(store.steps())
        for step in steps:
            place = folder / f"step{step}"
            place.mkdir()
            params = store.restore(step, teacher_shape(experiment))
            safetensors.numpy.save_file(weights_of(params, experiment.teacher), place / "model.safetensors")
            (place / "config.json").write_text(json.dumps(config))
    return Trained(experiment, workdir, folder, steps)
