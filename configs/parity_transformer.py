"""Sparse parity with two-layer Transformers (figures 1 middle, 7 right and 10 to 14 of the paper).

Claim: F1, R1, R2 and R6, at a size where Transformers of 8 heads learn within minutes on two CPU cores.

Command: ``python -m pdjax.main --config=configs/parity_transformer.py`` (``:smoke``, ``:paper``).

Cost: 13 minutes on two CPU cores.

Expected: (students of seeds 0 to 9, 2026-11-24, docs/results/parity_transformer) the teacher's accuracy rises between
400 and 550 steps. After 2000 steps all ten students have learned from the middle of the transition or till saturate,
none from its start, two from its end, one from labels or one-shot, five with 15 checkpoints at the teacher's pace. R1
holds, R6 for heads of 8 dimensions each. Sizes were chosen on the seeds 100 to 104.
"""

from ml_collections import ConfigDict

from pdjax.config.building import (
    adam,
    comparison,
    locked,
    optional,
    placement,
    probes,
    selection,
    strategy,
    temperature_name,
)

TEMPERATURES = (1.0, 1e-1, 1e-2, 0.0)  # besides 1e-4, that of all other strategies

LAPTOP = dict(
    name="parity_transformer",
    dimension=24,
    degree=2,
    teacher_heads=8,
    student_layers=2,
    student_heads=2,
    teacher_rate=1e-4,  # slow enough for several checkpoints within the transition
    student_rates=(1e-3,),
    size_rates=(1e-3,),
    teacher_seeds=(0, 1, 2, 3),
    seeds=tuple(range(10)),  # as many as it takes to see a difference: each learns all or nothing
    size_seeds=tuple(range(5)),
    teacher_steps=1_500,
    steps=2_000,
    size_steps=2_000,
    checkpoint_every=50,
    progressive=15,
    duration=400,
    adaptive=5,
    saturated_after=300,
    chunk=50,
    evaluate_every=50,
    evaluation_batches=2,
    max_degree=1,
    monomial_inputs=4096,
    heads=(1, 2, 4, 8),
    ways=3,
    width=32,
    averaged_width=32,
)
SIZES = {
    "": LAPTOP,
    "smoke": LAPTOP
    | dict(
        name="parity_transformer-smoke",
        dimension=6,
        degree=2,
        teacher_heads=2,
        student_layers=1,
        student_heads=1,
        teacher_rate=5e-3,
        student_rates=(5e-3,),
        size_rates=(5e-3,),
        teacher_seeds=(0, 1),
        seeds=(0, 1),
        size_seeds=(0, 1),
        teacher_steps=400,
        steps=400,
        size_steps=400,
        checkpoint_every=40,
        progressive=5,
        duration=80,
        saturated_after=280,
        chunk=40,
        evaluate_every=40,
        monomial_inputs=2048,
        heads=(1, 2),
        ways=1,
        width=8,
        averaged_width=8,
    ),
    "paper": LAPTOP
    | dict(
        name="parity_transformer-paper",
        dimension=100,
        degree=6,
        teacher_heads=32,
        student_heads=4,
        teacher_rate=3e-4,
        student_rates=(1e-4,),
        size_rates=(1e-3, 3e-4, 1e-4),
        seeds=tuple(range(5)),
        teacher_steps=250_000,
        steps=250_000,
        size_steps=250_000,
        checkpoint_every=10_000,
        progressive=25,
        duration=10_000,
        saturated_after=50_000,
        chunk=500,
        evaluate_every=2_500,
        max_degree=5,
        evaluation_batches=8,
        monomial_inputs=102_400,
        heads=(4, 8, 16, 32),
        width=256,
        averaged_width=256,
        data_devices=-1,
    ),
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment: '' for a laptop, 'smoke' for a test of seconds, 'paper' for the paper's sizes."""
    if variant not in SIZES:
        unknown = f"found {variant!r}"
        raise ValueError(
            f"expected configs/parity_transformer.py with one of {sorted(SIZES)} behind a colon; {unknown}"
        )
    return _experiment(**SIZES[variant])


def _experiment(
    *,
    name: str,
    dimension: int,
    degree: int,
    teacher_heads: int,
    student_layers: int,  # and those of other sizes; the teacher has the two that attention is probed in
    student_heads: int,
    teacher_rate: float,
    student_rates: tuple[float, ...],
    size_rates: tuple[float, ...],
    teacher_seeds: tuple[int, ...],
    seeds: tuple[int, ...],
    size_seeds: tuple[int, ...],
    teacher_steps: int,
    steps: int,
    size_steps: int,
    checkpoint_every: int,
    progressive: int,
    duration: int,
    adaptive: int,
    saturated_after: int,
    chunk: int,
    evaluate_every: int,
    evaluation_batches: int,
    max_degree: int,
    monomial_inputs: int,
    heads: tuple[int, ...],
    ways: int,
    width: int,
    averaged_width: int,
    data_devices: int = 1,  # that share a batch
) -> ConfigDict:
    optimizer = adam()
    shared = dict(batch_size=32, optimizer=optimizer)
    panels = {  # the three ways of counting heads of figure 10
        "8 dimensions a head": {str(n): _gpt2(student_layers, n, head_dim=8) for n in heads},
        f"width {width}": {str(n): _gpt2(student_layers, n, width=width) for n in heads},
        f"averaged heads of {averaged_width}": {
            str(n): _gpt2(student_layers, n, head_dim=averaged_width, width=averaged_width, combination="average")
            for n in heads
        },
    }
    return locked(
        dict(
            name=name,
            seed=0,
            task=dict(kind="parity", dimension=dimension, degree=degree, support="first", support_seed=0),
            teacher=_gpt2(2, teacher_heads, head_dim=8),
            student=_gpt2(student_layers, student_heads, head_dim=8),
            teacher_training=dict(
                shared,
                seed=teacher_seeds[0],
                extra_seeds=teacher_seeds[1:],
                steps=teacher_steps,
                learning_rate=teacher_rate,
                checkpoint_every=checkpoint_every,
                trajectory=optional(str),
            ),
            student_training=dict(
                shared,
                seeds=seeds,
                learning_rates=student_rates,
                budgets=(steps,),
                shared_batches=True,
                checkpoint_every=optional(int),
            ),
            strategies=_strategies(progressive, teacher_steps // progressive, duration, adaptive, saturated_after),
            comparisons=_comparisons(),
            ablations={},
            probes=probes(
                monomials=dict(max_degree=max_degree, off_support=100, num_inputs=monomial_inputs, batch_size=1024),
                attention=dict(num_inputs=1024),
            ),
            sizes=dict(
                shared,
                panels=dict(list(panels.items())[:ways]),
                seeds=size_seeds,
                learning_rates=size_rates,
                steps=size_steps,
                shared_batches=False,
            ),
            evaluation=dict(every=evaluate_every, num_batches=evaluation_batches, batch_size=512),
            loop=dict(chunk_steps=chunk, save_every=8 * chunk, writers=()),
            placement=placement(data=data_devices),
            remarks={},
        )
    )


def _gpt2(
    layers: int, heads: int, head_dim: int | None = None, width: int | None = None, combination: str = "concatenate"
) -> dict:
    return dict(
        kind="gpt2",
        num_layers=layers,
        num_heads=heads,
        head_dim=optional(int, head_dim),
        width=optional(int, width),
        feed_forward_multiple=4,
        dropout=0.0,  # 0.1 in the released code, which left it on during evaluation too
        tied_head=False,
        heads=combination,
        compute="float32",
    )


def _strategies(progressive: int, pace: int, duration: int, adaptive: int, saturated_after: int) -> dict:
    final, equal = selection("final"), selection("equal", count=progressive)
    strategies = dict(
        labels=strategy("labels", "labels only", final),
        one_shot=strategy("one_shot", "one-shot", final),
        one_shot_soft=strategy("one_shot", "one-shot, temperature 1", final, temperature=1.0),
        progressive=strategy("fixed_duration", f"progressive ({progressive}, {pace})", equal, duration=pace),
        adaptive=strategy(
            "till_saturate",
            f"progressive, till saturate ({adaptive} checkpoints)",
            selection("equal", count=adaptive),
            saturation=dict(score="accuracy", window=5, min_gain=0.01, max_steps=saturated_after),
        ),
    )
    for point in ("start", "middle", "end"):
        chosen = selection("transition", points=(point,))
        strategies[point] = strategy("fixed_duration", f"(2, {duration}), {point}", chosen, duration=duration)
    for temperature in TEMPERATURES:
        label = f"progressive, temperature {temperature:g}"
        strategies[temperature_name(temperature)] = strategy(
            "fixed_duration", label, equal, duration=pace, temperature=temperature
        )
    return strategies


def _comparisons() -> dict:
    by_temperature = [temperature_name(temperature) for temperature in TEMPERATURES]
    return dict(
        strategies=comparison(
            "The strategies", "figure 1 (middle)", "labels", "one_shot", "one_shot_soft", "progressive", "adaptive"
        ),
        two_shot=comparison(
            "One intermediate checkpoint, from the transition’s start, middle or end",
            "figure 13",
            "labels",
            "one_shot_soft",
            "progressive",
            "start",
            "middle",
            "end",
        ),
        temperatures=comparison("Temperatures of the teacher", "figure 14", "progressive", *by_temperature),
    )
