"""Sparse parity with MLPs trained by SGD with batch 1 (figures 1 left, 2, 7 left, 8 and 9 of the paper).

Claim: F1, R1 and R2. A student that follows its teacher's checkpoints learns the parity in the teacher's own time;
one checkpoint from the middle of the teacher's transition is enough, one from its start or end is not.

Command: ``python -m pdjax.main --config=configs/parity_mlp.py`` (``:smoke``, ``:paper``).

Cost: 2.5 minutes on two CPU cores; a teacher of the paper's size 3.4 hours there, the whole of figure 1 (left) 4.5
(``benchmarks/parity_step.py``).

Expected: (seeds 0 to 4, 2026-11-24, docs/results/parity_mlp) the teacher's accuracy rises between 75,000 and 135,000
steps. After 180,000 steps 0.50 from labels, one-shot, and (2, 60000) from the start or end of the transition; 1.00
from its middle (by 115,000 steps) and with 12 checkpoints at the teacher's pace; 0.98 till saturate. R1 holds for
degrees 2 and 3 and fails for degree 1 (as in figure 9). Sizes were chosen, and the bounds of a transition set, on the
seeds 100 to 104.
"""

from ml_collections import ConfigDict

from pdjax.config.building import comparison, locked, optional, placement, probes, selection, strategy, temperature_name

STEPS = ("teacher_steps", "steps", "checkpoint_every", "duration", "saturated_after", "chunk", "evaluate_every")
TEMPERATURES = (1.0, 1e-1, 1e-2, 0.0)  # besides 1e-4, that of all other strategies

LAPTOP = dict(
    name="parity_mlp",
    dimension=50,
    degree=5,
    teacher_width=2000,
    student_width=100,
    rate=1e-2,
    teacher_seeds=(0, 1, 2, 3, 4),
    student_seeds=(0, 1, 2, 3, 4),
    teacher_steps=240_000,
    steps=180_000,
    checkpoint_every=5_000,
    progressive=12,
    duration=60_000,
    saturated_after=20_000,
    chunk=2_500,
    evaluate_every=2_500,
    max_degree=4,
    monomial_inputs=20_480,
    widths=(100, 300, 1000, 2000),
    shared_batches=False,
    temperatures=TEMPERATURES,
    adaptive=True,
)
SIZES = {
    "": LAPTOP,
    "smoke": LAPTOP
    | dict(
        name="parity_mlp-smoke",
        dimension=10,
        degree=2,
        teacher_width=100,
        student_width=20,
        rate=2e-2,
        teacher_seeds=(0, 1),
        student_seeds=(0, 1),
        teacher_steps=8_192,
        steps=8_192,
        checkpoint_every=512,
        progressive=8,
        duration=2_048,
        saturated_after=2_048,
        chunk=256,
        evaluate_every=256,
        max_degree=1,
        monomial_inputs=4096,
        widths=(20, 100),
    ),
    "large": LAPTOP
    | dict(
        name="parity_mlp-large",
        dimension=100,
        degree=5,
        teacher_width=20_000,
        teacher_seeds=(0, 1, 2),
        student_seeds=(0, 1, 2),
        teacher_steps=2_500_000,
        steps=2_500_000,
        checkpoint_every=20_000,
        progressive=25,
        duration=400_000,
        saturated_after=200_000,
        chunk=5_000,
        evaluate_every=20_000,
        max_degree=3,
        widths=(),
        shared_batches=True,
        temperatures=(),
        adaptive=False,  # which would ask three teachers
    ),
    "paper": LAPTOP
    | dict(
        name="parity_mlp-paper",
        dimension=100,
        degree=6,
        teacher_width=50_000,
        rate=5e-3,
        teacher_seeds=(0,),
        student_seeds=(0, 1, 2),
        teacher_steps=20_000_000,
        steps=20_000_000,
        checkpoint_every=100_000,
        progressive=200,
        duration=1_000_000,
        saturated_after=2_000_000,  # the released code's limit
        chunk=10_000,
        evaluate_every=100_000,
        max_degree=5,
        monomial_inputs=102_400,
        widths=(100, 1000, 10_000, 50_000),
        shared_batches=True,  # the teacher's forward pass is what a student's step costs: once for all seeds
    ),
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment: '' for a laptop, 'smoke' for a test of seconds, 'paper' for the paper's sizes.

    ``large`` has the paper's dimension, degree 5 and a teacher 20,000 wide, for an hour on two cores. A size may be
    followed by a change, as in ``paper-wide``; of the laptop's, the change alone is the name. ``wide``: a student ten
    times as wide (figure 8). ``slow``: half the learning rate for twice the steps. ``fast``: twice the learning rate;
    at the paper's size that is figure 9, where its default is figure 2.
    """
    slow = dict(rate=0.5) | dict.fromkeys(STEPS, 2)
    changes = {"": {}, "wide": dict(student_width=10), "slow": slow, "fast": dict(rate=2)}
    variants = {"-".join(filter(None, (base, change))): (base, change) for base in SIZES for change in changes}
    if variant not in variants:
        raise ValueError(
            f"expected configs/parity_mlp.py with one of {sorted(variants)} behind a colon; found {variant!r}"
        )
    base, change = variants[variant]
    chosen = dict(SIZES[base])
    chosen |= {key: chosen[key] * factor for key, factor in changes[change].items()}
    chosen["name"] += f"-{change}" if change else ""
    return _experiment(**chosen)


def _experiment(
    *,
    name: str,
    dimension: int,
    degree: int,
    teacher_width: int,
    student_width: int,
    rate: float,
    teacher_seeds: tuple[int, ...],
    student_seeds: tuple[int, ...],
    teacher_steps: int,
    steps: int,
    checkpoint_every: int,
    progressive: int,
    duration: int,
    saturated_after: int,
    chunk: int,
    evaluate_every: int,
    max_degree: int,
    monomial_inputs: int,
    widths: tuple[int, ...],
    shared_batches: bool,
    temperatures: tuple[float, ...],
    adaptive: bool,
) -> ConfigDict:
    optimizer = dict(
        kind="sgd",
        schedule="constant",
        warmup_fraction=0.0,
        clip_norm=optional(float),
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
    )
    shared = dict(batch_size=1, optimizer=optimizer)
    several = dict(learning_rates=(rate,), seeds=student_seeds, shared_batches=shared_batches)
    # As long on each checkpoint as the teacher took to the next: the student follows at the teacher's pace.
    strategies = _strategies(progressive, teacher_steps // progressive, duration, saturated_after, temperatures)
    if not adaptive:
        del strategies["adaptive"]
    panels = dict(width={str(width): _mlp(width) for width in widths})
    sizes = dict(shared, **several, panels=panels, steps=steps)
    return locked(
        dict(
            name=name,
            seed=0,
            task=dict(kind="parity", dimension=dimension, degree=degree, support="first", support_seed=0),
            teacher=_mlp(teacher_width),
            student=_mlp(student_width),
            teacher_training=dict(
                shared,
                seed=teacher_seeds[0],
                extra_seeds=teacher_seeds[1:],
                steps=teacher_steps,
                learning_rate=rate,
                checkpoint_every=checkpoint_every,
                trajectory=optional(str),
            ),
            student_training=dict(shared, **several, budgets=(steps,), checkpoint_every=optional(int)),
            strategies=strategies,
            comparisons=_comparisons(temperatures, adaptive),
            probes=probes(
                monomials=dict(max_degree=max_degree, off_support=100, num_inputs=monomial_inputs, batch_size=2048)
            ),
            ablations={},
            sizes=optional(dict, sizes if widths else None),
            evaluation=dict(every=evaluate_every, num_batches=16, batch_size=256),
            loop=dict(chunk_steps=chunk, save_every=20 * chunk, writers=()),
            placement=placement(),
            remarks={},
        )
    )


def _strategies(
    progressive: int, pace: int, duration: int, saturated_after: int, temperatures: tuple[float, ...]
) -> dict:
    final, equal = selection("final"), selection("equal", count=progressive)
    at_pace = f"progressive ({progressive}, {pace})"
    strategies = dict(
        labels=strategy("labels", "labels only", final),
        one_shot=strategy("one_shot", "one-shot", final),
        one_shot_soft=strategy("one_shot", "one-shot, temperature 1", final, temperature=1.0),
        progressive=strategy("fixed_duration", at_pace, equal, duration=pace),
        adaptive=strategy(
            "till_saturate",
            "progressive, till saturate",
            equal,
            saturation=dict(score="accuracy", window=5, min_gain=0.01, max_steps=saturated_after),
        ),
    )
    for point in ("start", "middle", "end"):
        chosen = selection("transition", points=(point,))
        strategies[point] = strategy("fixed_duration", f"(2, {duration}), {point}", chosen, duration=duration)
    for temperature in temperatures:
        label = f"temperature {temperature:g}"
        strategies[temperature_name(temperature)] = strategy(
            "fixed_duration", f"progressive, {label}", equal, duration=pace, temperature=temperature
        )
    return strategies


def _comparisons(temperatures: tuple[float, ...], adaptive: bool) -> dict:
    shown = ("labels", "one_shot", "one_shot_soft", "progressive", *(["adaptive"] if adaptive else []))
    comparisons = dict(
        strategies=comparison("The strategies", "figure 1 (left)", *shown),
        two_shot=comparison(
            "One intermediate checkpoint, from the transition’s start, middle or end",
            "figures 2 (right), 8 and 9",
            "one_shot",
            "start",
            "middle",
            "end",
        ),
    )
    if temperatures:
        comparisons["temperatures"] = comparison(
            "Temperatures of the teacher",
            "figure 14 (there with Transformers)",
            "progressive",
            *(temperature_name(temperature) for temperature in temperatures),
        )
    return comparisons


def _mlp(width: int) -> dict:
    return dict(kind="mlp", widths=(width,), compute="float32")
