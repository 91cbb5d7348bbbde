"""Progressive distillation of BERT on a PCFG (figures 1 right and 4 left of the paper, section 4.1).

Claim: F1. At equal student steps, progressive distillation reaches a higher accuracy on masked positions than one-shot
distillation from the final teacher and than training from the labels.

Command: ``python -m pdjax.main --config=configs/pcfg.py`` (``:smoke`` for half a minute, ``:paper`` for the paper's
sizes).

Cost: 7 to 8 minutes on two CPU cores (6 min 56 s and 7 min 41 s in two runs, report included, 2026-11-24), 1.2 GB of
memory, 39 MB of disk.

Expected: an accuracy of 0.710 for the teacher; for the students, means over the seeds 0, 1, 2 and F1 from paired seeds:

    =====================  ==========  ==========  ==========================  =====================
    steps                  labels      one-shot    progressive (8-shot, T0/2)  progressive (2, 300)
    =====================  ==========  ==========  ==========================  =====================
    600                    0.477       0.479       0.479, undecided            0.517, holds
    800                    0.480       0.496       0.533, undecided            0.545, holds
    =====================  ==========  ==========  ==========================  =====================

Undecided: the 8-shot curriculum has no margin at 600 steps; at 800 its margins are 0.053 and 0.037, but with three
seeds the interval over labels is [-0.002, 0.108]. The paper's sizes have not been run here.

The laptop's task is the sub-grammar of cfg3b under symbol 16: strings of 30 to 72 tokens. A teacher with 8 heads then
shows the paper's three phases in 1200 steps: a plateau until about step 350, a rapid drop until about 650, a slow end.
The learning rate, 5e-3 for all, is that of the authors' scripts; the duration T = 300 of (2, T) and the students'
batch were chosen on the seeds 100 to 102. A rate of 1e-2 was tried first, on both sets of seeds:
(2, T) gains more there, but training from labels is unstable on some seeds.
"""

from ml_collections import ConfigDict

from pdjax.config.building import comparison, optional, placement, selection, strategy


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment: '' for a laptop, 'smoke' for a test of seconds, 'paper' for the paper's sizes."""
    sizes = {
        "": dict(
            name="pcfg",
            root=16,
            teacher_heads=8,
            student_heads=2,
            layers=4,
            teacher_batch=64,
            student_batch=48,
            teacher_steps=1200,
            checkpoint_every=50,
            budgets=(600, 800),
            duration=300,
            chunk=50,
            evaluate_every=100,
            evaluation_batches=16,
        ),
        "smoke": dict(
            name="pcfg-smoke",
            root=13,
            teacher_heads=2,
            student_heads=1,
            layers=2,
            teacher_batch=8,
            student_batch=8,
            teacher_steps=32,
            checkpoint_every=4,
            budgets=(8, 16),
            first=(8,),  # too short a training for a phase transition
            duration=4,
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
            teacher_batch=512,
            student_batch=512,
            teacher_steps=8000,
            checkpoint_every=500,
            budgets=(2000, 4000, 8000, 16000),
            duration=1000,
            chunk=100,
            evaluate_every=500,
            evaluation_batches=8,
            data_devices=-1,
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
    teacher_batch: int,
    student_batch: int,
    teacher_steps: int,
    checkpoint_every: int,
    budgets: tuple[int, ...],
    duration: int,
    first: tuple[int, ...] | None = None,
    chunk: int,
    evaluate_every: int,
    evaluation_batches: int,
    data_devices: int = 1,  # that share a batch
) -> ConfigDict:
    optimizer = dict(
        kind="adam",
        schedule="cosine",
        warmup_fraction=0.06,
        clip_norm=optional(float, 1.0),
        beta1=0.9,
        beta2=0.95,
        epsilon=1e-8,
    )
    bert = dict(
        kind="bert",
        num_layers=layers,
        head_dim=optional(int, 8),
        width=optional(int),
        feed_forward_multiple=4,
        dropout=0.0,  # 0.1 in the released code, which left it on during evaluation too
        attend_to_selected=name != "pcfg-paper",  # the released code hides selected positions as keys
        compute="float32",
    )
    config = ConfigDict(
        dict(
            name=name,
            seed=0,
            task=dict(
                kind="pcfg",
                grammar="cfg3b",
                root=optional(int, root),
                length=optional(int),
                mask_rate=0.3,
                select_bos=False,  # the released code may select [BOS]
            ),
            teacher=dict(bert, num_heads=teacher_heads),
            student=dict(bert, num_heads=student_heads),
            teacher_training=dict(
                seed=0,
                extra_seeds=(),
                steps=teacher_steps,
                batch_size=teacher_batch,
                learning_rate=5e-3,
                checkpoint_every=checkpoint_every,
                trajectory=optional(str),
                optimizer=optimizer,
            ),
            student_training=dict(
                seeds=(0, 1, 2),
                learning_rates=(5e-3,),
                budgets=budgets,
                batch_size=student_batch,
                shared_batches=True,
                optimizer=optimizer,
            ),
            strategies=_strategies(duration, first),
            comparisons=dict(
                all=comparison("The strategies", "figure 1 (right)", "labels", "one_shot", "progressive", "two_shot")
            ),
            probes=dict(seed=0, monomials=optional(dict), attention=optional(dict)),
            sizes=optional(dict),
            evaluation=dict(every=evaluate_every, num_batches=evaluation_batches, batch_size=teacher_batch),
            loop=dict(chunk_steps=chunk, save_every=4 * chunk, writers=()),
            placement=placement(data=data_devices),
        )
    )
    return config.lock()


def _strategies(duration: int, first: tuple[int, ...] | None) -> dict:
    found = selection("phase") if first is None else selection("steps", steps=first)
    return dict(
        labels=strategy("labels", "labels only", selection("final")),
        one_shot=strategy("one_shot", "one-shot", selection("final")),
        progressive=strategy("teacher_split", "progressive (8-shot, T0/2)", selection("equal", count=8), kappa=0.5),
        two_shot=strategy("fixed_duration", f"progressive (2, {duration})", found, duration=duration),
    )
