"""wip"""

from ml_collections import ConfigDict, config_dict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment."""
    sizes = {
        "": dict(
            name="parity_mlp",
            dimension=50,
            degree=5,
            teacher_width=2000,
            student_width=100,
            rate=1e-2,
            teacher_seeds=(0, 1, 2, 3, 4),
            student_seeds=(0, 1, 2, 3, 4),
            steps=180_000,
            checkpoint_every=5_000,
            progressive=9,
            duration=60_000,
            chunk=5_000,
            evaluate_every=5_000,
            monomials=dict(max_degree=4, off_support=100, num_inputs=20_480, batch_size=2048),
            widths=(100, 300, 1000, 2000),
        ),
    }
    return _experiment(**sizes[variant])


def _experiment(
    *, name, dimension, degree, teacher_width, student_width, rate, teacher_seeds, student_seeds, steps,
    checkpoint_every, progressive, duration, chunk, evaluate_every, monomials, widths,
):
    optimizer = dict(
        kind="sgd", schedule="constant", warmup_fraction=0.0, clip_norm=_optional(float, None),
        beta1=0.9, beta2=0.999, epsilon=1e-8,
    )
    mlp = lambda w: dict(kind="mlp", widths=(w,))
    return ConfigDict(dict(
        name=name, seed=0,
        task=dict(kind="parity", dimension=dimension, degree=degree, support="first", support_seed=0),
        teacher=mlp(teacher_width), student=mlp(student_width),
        teacher_training=dict(seed=teacher_seeds[0], extra_seeds=teacher_seeds[1:], steps=steps, batch_size=1,
            learning_rate=rate, checkpoint_every=checkpoint_every, trajectory=_optional(str, None), optimizer=optimizer),
        student_training=dict(seeds=student_seeds, learning_rates=(rate,), budgets=(steps,), batch_size=1,
            shared_batches=False, optimizer=optimizer),
        strategies=_strategies(progressive, duration),
        probes=dict(seed=0, monomials=monomials, attention=_optional(dict, None)),
        sizes=dict(panels=dict(width={str(w): mlp(w) for w in widths}), seeds=student_seeds, learning_rates=(rate,),
            steps=steps, batch_size=1, shared_batches=False, optimizer=optimizer),
        evaluation=dict(every=evaluate_every, num_batches=16, batch_size=256),
        loop=dict(chunk_steps=chunk, save_every=20 * chunk, writers=()),
    )).lock()


def _strategies(progressive: int, duration: int) -> dict:
    def strategy(schedule, label, selection, **fields):
        defaults = dict(duration=_optional(int, None), kappa=_optional(float, None), saturation=_optional(dict, None),
            temperature=1e-4, label_weight=0.0)
        return dict(defaults | fields, schedule=schedule, label=label, selection=selection)

    def selection(kind, count=None, steps=None, points=None):
        return dict(kind=kind, count=_optional(int, count), steps=_optional(tuple, steps), points=_optional(tuple, points))

    found = dict(
        labels=strategy("labels", "labels only", selection("final"), label_weight=1.0),
        one_shot=strategy("one_shot", "one-shot", selection("final")),
        progressive=strategy("equal_split", f"progressive ({progressive} checkpoints)", selection("equal", count=progressive)),
    )
    for point in ("start", "middle", "end"):
        found[point] = strategy("fixed_duration", f"(2, {duration}) from {point}", selection("transition", points=(point,)), duration=duration)
    return found


def _optional(kind: type, value: object) -> object:
    """A field that may be None and whose type overrides still obey."""
    return config_dict.placeholder(kind) if value is None else value
