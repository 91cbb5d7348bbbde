"""M_robust and M_close of one checkpoint against the same masked batches in PyTorch with Hugging Face's BERT.

    python benchmarks/ngrams.py [--rounds 3] [--n 2 3 4 5] [--batch 64] [--share 64] [--json PATH]

Needs the peer extra (torch and transformers). The model is the default teacher of configs/pcfg.py (8 heads, 4 layers),
its parameters random and the same on both sides; the places are 14 of each of 1024 strings. The peer does the obvious:
every place in each of its contexts (whole, and without and within each n-gram), padded to the longest string of the
grammar, in batches; it is timed on one of ``share`` equal parts of the places, since it needs minutes for all of them.
Of its attentions (sdpa, eager) the faster one counts. Rounds alternate strictly; compilation is not counted. What
both find on the peer's places must agree.
"""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from processor import processor
from timing import alternate, median_of_ratios, ratio_of_medians

from pdjax.models.base import LinenModel
from pdjax.models.bert import Bert
from pdjax.probes.contexts import contexts, distinct, model_inputs, num_tokens
from pdjax.probes.ngrams import NgramProbe, ngram_distances, ngram_places
from pdjax.tasks.pcfg import PcfgTask
from pdjax.weights.layouts import weights_of

LAYERS, HEADS, HEAD_DIM, EXPAND = 4, 8, 8, 4
TASK = PcfgTask("cfg3b", 16)
BERT = Bert(LAYERS, HEADS, HEAD_DIM, feed_forward_multiple=EXPAND)
SEED = jnp.int32(0)


def build() -> tuple[LinenModel, dict]:
    """Returns the model, and parameters that make its predictions depend on what it sees."""
    model = BERT.build(TASK)
    params = model.init(jax.random.key(0), TASK.sample(jax.random.key(0), 1).inputs)
    return model, jax.tree.map(lambda leaf: 5 * leaf if leaf.ndim == 2 else leaf, params)


def ours(model: LinenModel, params: dict, probe: NgramProbe) -> Callable[[], jax.Array]:
    """Returns a function that measures all places of one checkpoint."""
    run = jax.jit(functools.partial(ngram_distances, TASK, model, probe))
    stack = jax.tree.map(lambda leaf: leaf[None], params)
    return lambda: jax.block_until_ready(run(stack, SEED))[0]


def peer_model(params: dict, attention_kind: str) -> torch.nn.Module:
    """Returns Hugging Face's BERT with the same parameters."""
    config = transformers.BertConfig(
        vocab_size=TASK.vocabulary,
        hidden_size=HEADS * HEAD_DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=EXPAND * HEADS * HEAD_DIM,
        max_position_embeddings=TASK.num_positions,
    )
    model = transformers.AutoModelForMaskedLM.from_config(config, attn_implementation=attention_kind).eval()
    weights = {name: torch.from_numpy(np.array(weight)) for name, weight in weights_of(params, BERT).items()}
    missing = model.load_state_dict(weights, strict=False).missing_keys
    if any("position_ids" not in name for name in missing):
        raise ValueError(f"weights that the conversion does not make: {missing}")
    return model


def peer(model: torch.nn.Module, rows: np.ndarray, batch_size: int) -> Callable[[], torch.Tensor]:
    """Returns a function that measures places in all of their contexts, ``rows`` [C, P, L], batch after batch."""
    inputs = {
        name: np.array(x)
        for name, x in model_inputs(jnp.asarray(rows.reshape(-1, rows.shape[-1])), True, 10**6).items()
    }
    tokens, valid, asked = (torch.from_numpy(inputs[name]).long() for name in ("tokens", "valid", "asked"))

    @torch.inference_mode()
    def run() -> torch.Tensor:
        predictions = []
        for start in range(0, len(tokens), batch_size):
            part = slice(start, start + batch_size)
            logits = model(input_ids=tokens[part], attention_mask=valid[part]).logits
            predictions.append(torch.softmax(logits[torch.arange(len(logits)), asked[part, 0]], dim=-1))
        p = torch.cat(predictions).reshape(*rows.shape[:2], -1)
        return 0.5 * (p[1:] - p[:1]).abs().sum(-1)

    return run


def main() -> None:
    """Times both, checks that they agree, and prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--n", type=int, nargs="+", default=(2, 3, 4, 5))
    arguments.add_argument("--batch", type=int, default=64, help="contexts at once, of both")
    arguments.add_argument("--share", type=int, default=64, help="the peer is timed on one of so many parts")
    arguments.add_argument("--json", type=Path, help="where to write the numbers")
    options = arguments.parse_args()
    torch.set_num_threads(2)
    versions = f"jax {jax.__version__}, torch {torch.__version__}, transformers {transformers.__version__}"
    probe = NgramProbe(tuple(options.n), 1024, 14, (50,), options.batch)
    model, params = build()

    places, masked = ngram_places(TASK, probe, SEED)
    rows = contexts(places, probe.n, masked)
    flat = rows.reshape(-1, rows.shape[-1])
    different = distinct(flat, num_tokens(flat, masked))
    some = np.asarray(rows)[:, :: options.share]
    mine = ours(model, params, probe)
    peers = {kind: peer(peer_model(params, kind), some, options.batch) for kind in ("sdpa", "eager")}
    expected = np.asarray(mine()).reshape(2 * len(probe.n), -1)[:, :: options.share]
    for kind, run in peers.items():
        apart = np.abs(run().numpy() - expected).max()
        print(f"largest difference from the peer's distances ({kind}): {apart:.1e}")
        if apart > 1e-3:
            raise ValueError("the two measure different things")

    def timed(run: Callable, count: int) -> Callable[[], int]:
        return lambda: (run(), count)[1]

    candidates = {"pdjax": timed(mine, rows.shape[1])} | {k: timed(run, some.shape[1]) for k, run in peers.items()}
    timings = alternate(candidates, options.rounds, warmup=1)
    best = min(peers, key=lambda kind: timings[kind].median)
    ratio, pairs = ratio_of_medians(timings[best], timings["pdjax"]), median_of_ratios(timings[best], timings["pdjax"])
    print(f"{versions}; {processor()}; n = {probe.n}, batches of {options.batch}, distances up to {expected.max():.2f}")
    print(f"{len(flat)} contexts of {rows.shape[1]} places, {int(different.total)} of them different")
    for name, timing in timings.items():
        seconds = [1e-3 * rows.shape[1] * x for x in (timing.median, timing.minimum)]
        print(f"  {name:8} {seconds[0]:8.1f} s for all places (median; fastest {seconds[1]:.1f} s)")
    print(f"  peer ({best}) / pdjax: {ratio:.1f} (medians), {pairs:.1f} (pairs)")
    if options.json:
        rounds = {name: timing.rounds for name, timing in timings.items()}
        options.json.write_text(json.dumps({"versions": versions, "milliseconds_per_place": rounds, "ratio": ratio}))


if __name__ == "__main__":
    main()
