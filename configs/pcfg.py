"""Progressive distillation of BERT on a PCFG (figures 1 right and 4 left of the paper).

Config.
"""

from ml_collections import ConfigDict, config_dict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment: '' for a laptop, 'smoke' for a test of seconds, 'paper' for the paper's sizes."""
    sizes = {
        "": dict(
            name="pcfg",
            root=16,
            teacher_heads=8,
            student_heads=2,
            layers=4,
            batch=64,
            teacher_steps=1200,
            checkpoint_every=50,
            budgets=(300, 600),
            duration=200,
            student_learning_rate=1e-2,
            chunk=50,
            evaluate_every=50,
            evaluation_batches=16,
        ),
        "smoke": dict(
            name="pcfg-smoke",
            root=13,
            teacher_heads=2,
            student_heads=1,
            layers=2,
            batch=8,
            teacher_steps=32,
            checkpoint_every=4,
            budgets=(8, 16),
            first=(8,),  # too short a training for a phase transition
            duration=4,
            student_learning_rate=1e-2,
            chunk=4,
            evaluate_every=4,
            evaluation_batches=2,
        ),
        "paper": dict(
            name="pcfg-paper",
            root=None,
            teacher_heads=32,
            student_heads=8,
            layers=4,
            batch=512,
            teacher_steps=8000,
            checkpoint_every=500,
            budgets=(2000, 4000, 8000, 16000),
            duration=1000,
            student_learning_rate=5e-3,
            chunk=100,
            evaluate_every=500,
            evaluation_batches=8,
        ),
    }
    if variant not in sizes:
        raise ValueError(f"expected configs/pcfg.py with one of {sorted(sizes)} behind a colon; found {variant!r}")
    return _experiment(**sizes[variant])


def _experiment(
    *,
    name: str,
    root: int | None,
    teacher_heads: int,
    student_heads: int,
    layers: int,
    batch: int,
    teacher_steps: int,
    checkpoint_every: int,
    budgets: tuple[int, ...],
    duration: int,
    student_learning_rate: float,
    first: tuple[int, ...] | None = None,
    chunk: int,
    evaluate_every: int,
    evaluation_batches: int,
) -> ConfigDict:
    optimizer = dict(
        kind="adam",
        schedule="cosine",
        warmup_fraction=0.06,
        clip_norm=_optional(float, 1.0),
        beta1=0.9,
        beta2=0.95,
        epsilon=1e-8,
    )
    bert = dict(
        kind="bert",
        num_layers=layers,
        head_dim=_optional(int, 8),
        width=_optional(int, None),
        feed_forward_multiple=4,
        dropout=0.0,  # 0.1 in the released code, which left it on during evaluation too
        attend_to_selected=name != "pcfg-paper",  # the released code hides selected positions as keys
    )
    config = ConfigDict(
        dict(
            name=name,
            seed=0,
            task=dict(
                kind="pcfg",
                grammar="cfg3b",
                root=_optional(int, root),
                length=_optional(int, None),
                mask_rate=0.3,
                select_bos=False,  # the released code may select [BOS]
            ),
            teacher=dict(bert, num_heads=teacher_heads),
            student=dict(bert, num_heads=student_heads),
            teacher_training=dict(
                seed=0,
                steps=teacher_steps,
                batch_size=batch,
                learning_rate=5e-3,
                checkpoint_every=checkpoint_every,
                trajectory=_optional(str, None),
                optimizer=optimizer,
            ),
            student_training=dict(
                seeds=(0, 1, 2),
                learning_rates=(student_learning_rate,),
                budgets=budgets,
                batch_size=batch,
                shared_batches=True,
                optimizer=optimizer,
            ),
            strategies=_strategies(duration, first),
            evaluation=dict(every=evaluate_every, num_batches=evaluation_batches, batch_size=batch),
            loop=dict(chunk_steps=chunk, save_every=4 * chunk, writers=()),
        )
    )
    return config.lock()


def _strategies(duration: int, first: tuple[int, ...] | None) -> dict:
    def strategy(schedule: str, label: str, selection: dict, **fields) -> dict:
        defaults = dict(duration=_optional(int, None), kappa=_optional(float, None), temperature=1e-4, label_weight=0.0)
        return dict(defaults | fields, schedule=schedule, label=label, selection=selection)

    def selection(kind: str, count: int | None = None, steps: tuple[int, ...] | None = None) -> dict:
        return dict(kind=kind, count=_optional(int, count), steps=_optional(tuple, steps))

    return dict(
        labels=strategy("labels", "labels only", selection("final"), label_weight=1.0),
        one_shot=strategy("one_shot", "one-shot", selection("final")),
        progressive=strategy(
            "teacher_split", "progressive (8-shot, T0/2)", selection("equal", count=8), kappa=_optional(float, 0.5)
        ),
        two_shot=strategy(
            "fixed_duration",
            f"progressive (2, {duration})",
            selection("phase") if first is None else selection("steps", steps=first),
            duration=_optional(int, duration),
        ),
    )


def _optional(kind: type, value: object) -> object:
    """A field that may be None and whose type overrides still obey."""
    return config_dict.placeholder(kind) if value is None else value
