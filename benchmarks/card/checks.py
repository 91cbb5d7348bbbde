"""Does it compute what it says? Products, attention, gradients and samples against the CPU in float64.

Errors are root mean squares, relative to that of what is right.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdjax.models.attention import HIDDEN, flash, products
from pdjax.models.base import LinenModel
from pdjax.models.mlp import Mlp
from pdjax.models.precision import products_in
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgTask
from pdjax.train import blocked
from pdjax.train.chunk import train_chunk
from pdjax.train.optimizer import Sgd
from pdjax.train.state import Hyperparameters, Program, init_state
from pdjax.types import Batch

from .records import Records, essence
from .training import UniformTask, transformer

PART = "checks"
ALLOWED = {"float32": 5e-6, "tf32": 2e-3, "bfloat16": 2e-2}
"""What rounding may cost: 24, 11 and 8 bits of mantissa over sums of some hundreds of products."""

TF32_AT_LEAST = 5e-5
"""On GPUs less means that products were float32, and slower than they were asked to be."""

HEAD_DIMS = (8, 16, 64)
GRADIENT = 5e-5
"""What float32 may cost a gradient through a whole model."""


def run(records: Records) -> None:
    """Runs all checks, the quickest first."""
    checks: dict[str, Callable[[], dict[str, Any]]] = {}
    for compute in ALLOWED:
        checks[f"products {compute}"] = lambda compute=compute: _product(compute)
    checks["products by XLA's default"] = lambda: _product(None)
    for kind in ("bert", "gpt2", "mlp"):
        checks[f"gradient {kind} float32"] = lambda kind=kind: _gradient(kind)
    checks["blocks of steps against single steps"] = _blocks
    checks["strings of the grammar"] = _strings
    length = 16 if records.tiny else 512
    for head_dim in HEAD_DIMS:
        for mask in ("keys", "causal"):
            for mapped in (False, True):
                name = f"attention of {head_dim} dimensions, {mask}{', vmap' if mapped else ''}"
                checks[name] = lambda c=head_dim, m=mask, v=mapped: _attention(c, m, v, length)
    for name in records.timely(PART, list(checks)):
        try:
            records.write(PART, name, **checks[name]())
        except Exception as error:  # whatever is wrong on a new machine is a finding, and others are waiting
            records.write(PART, name, ok=False, error=essence(error))
            jax.block_until_ready(jnp.ones(8) + 1)  # or else the device is lost, and this process with it


def relative_error(result: Any, right: Any) -> float:
    """Returns the root mean square of the differences over that of what is right, over all leaves."""
    pairs = zip(jax.tree.leaves(result), jax.tree.leaves(right), strict=True)
    sums = np.sum([_squares(a, b) for a, b in pairs], axis=0)
    return float(np.sqrt(sums[0] / sums[1]))


def _squares(result: Any, right: Any) -> tuple[float, float]:
    result, right = np.asarray(result, np.float64), np.asarray(right, np.float64)
    return float(np.sum((result - right) ** 2)), float(np.sum(right**2))


def _product(compute: Any) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 512, 512))
    kind = "bfloat16" if compute == "bfloat16" else "float32"
    operands = [jnp.asarray(part, kind) for part in (x, y)]

    def multiply(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.matmul(x, y, preferred_element_type=jnp.float32)

    if compute is None:
        error = relative_error(jax.jit(multiply)(*operands), x @ y)
        return {"ok": True, "error": error, "allowed": None}
    with products_in(compute):
        error = relative_error(jax.jit(multiply)(*operands), x @ y)
    really = compute != "tf32" or jax.default_backend() != "gpu" or error > TF32_AT_LEAST
    return {"ok": error <= ALLOWED[compute] and really, "error": error, "allowed": ALLOWED[compute]}


def _gradient(kind: str) -> dict[str, Any]:
    """Compares the gradient of a loss with that of the same module in float64 on the CPU."""
    batch: Batch
    if kind == "mlp":
        task = ParityTask(50, 5)
        model, batch = Mlp((100,)).build(task), task.sample(jax.random.key(1), 64)
    else:
        model, batch = transformer(kind, 2, 4, 8, 32), UniformTask(32).sample(jax.random.key(1), 8)
    params = jax.tree.map(lambda leaf: 3 * leaf, model.init(jax.random.key(0), batch.inputs))

    def loss(apply: Callable[..., Any], params: Any, batch: Batch) -> jax.Array:
        logits = apply(params, batch.inputs)[0]
        taken = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.targets[..., None], axis=-1)
        return -jnp.sum(taken[..., 0] * batch.weights)

    gradient = jax.jit(jax.grad(lambda params: loss(model.apply, params, batch)))(params)
    right = _in_float64(
        lambda params, batch: jax.grad(lambda p: loss(_plainly(model), p, batch))(params), params, batch
    )
    error = relative_error(gradient, right)
    return {"ok": error <= GRADIENT, "error": error, "allowed": GRADIENT}


def _plainly(model: LinenModel) -> Callable[..., Any]:
    """Returns a model's application without its rounding."""
    return lambda params, inputs: model.module.apply({"params": params}, inputs)


def _in_float64(function: Callable[..., Any], *arguments: Any) -> Any:
    """Evaluates a function in float64 on the CPU."""

    def widened(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        return leaf.astype(np.float64) if leaf.dtype in (np.float32, jnp.bfloat16) else leaf

    wide = jax.tree.map(widened, arguments)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return jax.tree.map(np.asarray, jax.jit(function)(*wide))


def _blocks() -> dict[str, Any]:
    """Compares an MLP's batch-1 SGD in blocks with its single steps."""
    task = ParityTask(50, 5)
    program = Program(task, Mlp((100,)).build(task), None, Sgd(), 1, True, "train")
    members = Hyperparameters(jnp.arange(2), jnp.full(2, 1e-2))
    params = []
    for applies in (blocked.applies, lambda program: False):
        original, blocked.applies = blocked.applies, applies
        try:
            chunk = jax.jit(functools.partial(train_chunk, program, 128))
            after, _ = chunk(init_state(program, members.seed), members, None, jnp.int32(0), jnp.int32(128))
        finally:
            blocked.applies = original
        params.append(after.params)
    error = relative_error(*params)
    return {"ok": error <= GRADIENT, "error": error, "allowed": GRADIENT}


def _strings() -> dict[str, Any]:
    """Compares strings of the grammar with those that the CPU draws from the same key."""
    task = PcfgTask("cfg3b", 16)

    def draw(key: jax.Array) -> Any:
        return task.sample(key, 64)[:3]

    strings = jax.jit(draw)(jax.random.key(0))
    with jax.default_device(jax.devices("cpu")[0]):
        right = jax.jit(draw)(jax.random.key(0))
    pairs = zip(jax.tree.leaves(strings), jax.tree.leaves(right), strict=True)
    different = sum(int(np.sum(np.asarray(a) != np.asarray(b))) for a, b in pairs)
    return {"ok": different == 0, "error": float(different), "allowed": 0.0}


def _attention(head_dim: int, mask: str, mapped: bool, length: int) -> dict[str, Any]:
    """Compares cuDNN's attention, value and gradients, with plain products in float64 on the CPU.

    Where there is no cuDNN its twin of plain XLA stands in for it. ``plain`` is the error of this package's own
    products in bfloat16.
    """
    generator = np.random.default_rng(head_dim)
    copies, heads, batch = 2, 4, 2
    shape = (copies, heads, head_dim, batch, length)
    q, k, v, do = (jnp.asarray(generator.standard_normal(shape), jnp.bfloat16) for _ in range(4))
    q = q * head_dim**-0.5
    if mask == "causal":
        bias = np.where(np.tri(length, dtype=bool), 0.0, HIDDEN)[None]
    else:
        hidden = generator.random((batch, 1, length)) < 0.3
        hidden[:, :, 0] = False
        bias = np.where(hidden, HIDDEN, 0.0)
    bias = jnp.asarray(bias, jnp.float32)
    implementation = "cudnn" if jax.default_backend() == "gpu" else "xla"

    def gradients(attend: Callable[..., Any]) -> Callable[..., Any]:
        def one(q: Any, k: Any, v: Any, do: Any, bias: Any) -> Any:
            out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, bias), q, k, v)
            return (out, *pull(do))

        if mapped:
            return jax.vmap(one, in_axes=(0, 0, 0, 0, None))
        return lambda q, k, v, do, bias: one(q[0], k[0], v[0], do[0], bias)

    arguments = (q, k, v, do, bias)
    right = _in_float64(gradients(products), *arguments)
    results = jax.jit(gradients(functools.partial(flash, implementation)))(*arguments)
    plain = jax.jit(gradients(products))(*arguments)
    errors = [relative_error(part, exact) for part, exact in zip(results, right, strict=True)]
    named = dict(zip(("value", "dq", "dk", "dv"), errors, strict=True))
    allowed = ALLOWED["bfloat16"]
    return {
        "ok": all(error <= allowed for error in errors),  # which no NaN is
        "implementation": implementation,
        **named,
        "plain": relative_error(plain, right),
        "allowed": allowed,
    }
