"""The same training steps in PyTorch with Hugging Face's models, eager and compiled, on the same device.

Where a choice had to be made it favours the peer: its batches are drawn beforehand, its weighted mean over all
positions needs no synchronisation, its optimizer is the fused one, and its attention PyTorch's own choice. At small
sizes it is bound by the launches of its kernels, where this package runs a whole chunk as one program.
"""

import gc
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.nn import functional

from pdjax.tasks.pcfg import MASK, VOCABULARY

from .records import Records, card, essence
from .training import EXPAND, MASK_RATE, RATE, SECONDS, SIZES, TEMPERATURE, TINY, Case, Size, cases, differences

PART = "peer"
WAYS = ("eager", "compiled")


def run(records: Records) -> None:
    """Measures every case of one replica and of whole batches both ways, and compares it with what this package took.

    Raises:
      RuntimeError: there is a card, and PyTorch does not see it.
    """
    if card() is not None and not torch.cuda.is_available():
        raise RuntimeError("PyTorch does not see the card: its times would be the processor's")
    sizes = TINY if records.tiny else SIZES
    single = {str(case): case for case in cases() if case.replicas == 1 and case.pieces == 1}
    named = {f"{name}, {way}": (case, way) for name, case in single.items() for way in WAYS}
    named = dict(sorted(named.items(), key=lambda item: (differences(item[1][0]) > 1, WAYS.index(item[1][1]))))
    for name in records.timely(PART, list(named)):
        case, way = named[name]
        ours = [line for line in records.lines() if line["part"] == "speed" and line["case"] == str(case)]
        try:
            seconds = _measured(case, sizes[case.size], way)
        except Exception as error:  # a case that the memory or the compiler refuses is a result, and others are waiting
            records.write(PART, name, refused=essence(error))
            continue
        finally:
            gc.collect()  # compiled functions lie in cycles, and what they hold would crowd out the next case
            torch.cuda.empty_cache()
        mine = ours[-1].get("ms") if ours else None
        ratio = None if mine is None else 1e3 * seconds / mine
        records.write(PART, name, **{"ms": 1e3 * seconds, "pdjax ms": mine, "peer / pdjax": ratio})


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def model(kind: str, layers: int, heads: int, head_dim: int, length: int) -> Any:
    """Returns Hugging Face's BERT or GPT-2 of a size, without dropout."""
    torch.manual_seed(0)
    width = heads * head_dim
    if kind == "bert":
        config = transformers.BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=EXPAND * width,
            max_position_embeddings=length,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        return transformers.AutoModelForMaskedLM.from_config(config, attn_implementation="sdpa")
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_inner=EXPAND * width,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def _measured(case: Case, size: Size, way: str) -> float:
    """Returns the median seconds of a step."""
    torch.set_float32_matmul_precision("high" if case.compute == "tf32" else "highest")
    step, _ = training_step(case, size, way)
    try:
        for _ in range(3):  # the first ones compile, and make the optimizer's state
            step()
        _wait()
        rounds: list[float] = []
        began = time.perf_counter()
        while len(rounds) < 3 or (time.perf_counter() - began < SECONDS and len(rounds) < 50):
            start = time.perf_counter()
            for _ in range(size.steps):
                step()
            _wait()
            rounds.append((time.perf_counter() - start) / size.steps)
        return statistics.median(rounds)
    finally:
        torch.compiler.reset()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def training_step(case: Case, size: Size, way: str) -> tuple[Callable[[], None], Callable[..., torch.Tensor]]:
    """Returns a function that takes one training step, and the loss it lowers, of a batch (see ``draw``)."""
    device, taught = _device(), case.loss == "distillation"
    heads = size.student_heads if taught else size.teacher_heads
    trained = model(case.model, size.layers, heads, size.head_dim, size.length).to(device).train()
    teacher = None
    if taught:
        teacher = model(case.model, size.layers, size.teacher_heads, size.head_dim, size.length).to(device).eval()
    adam = torch.optim.Adam(trained.parameters(), RATE, betas=(0.9, 0.95), fused=True)
    stream = itertools.cycle([draw(size, device, seed) for seed in range(8)])
    rounding = torch.autocast(device.type, torch.bfloat16, enabled=case.compute == "bfloat16")

    def loss_of(tokens: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        with rounding:
            logits = trained(input_ids=tokens).logits.float()
        if teacher is not None:
            with torch.no_grad(), rounding:
                wanted = torch.softmax(teacher(input_ids=tokens).logits.float() / TEMPERATURE, dim=-1)
            each = functional.kl_div(torch.log_softmax(logits, dim=-1), wanted, reduction="none").sum(-1)
        else:
            each = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return (each * weights).sum() / weights.sum()

    objective = torch.compile(loss_of) if way == "compiled" else loss_of

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        objective(*next(stream)).backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        adam.step()

    return step, objective


def draw(size: Size, device: torch.device, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns tokens, targets and weights."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (size.batch, size.length), generator=generator)
    selected = torch.rand(targets.shape, generator=generator) < MASK_RATE
    parts = (torch.where(selected, MASK, targets), targets, selected.float())
    tokens, targets, weights = (part.to(device) for part in parts)
    return tokens, targets, weights
