"""Progressive distillation of BERT on a PCFG (figures 1 right, 4, 5 and 22 of the paper, section 4.1).

Claim: F1. At equal student steps, progressive distillation reaches a higher accuracy on masked positions than one-shot
distillation from the final teacher and than training from the labels. R4: the inflection of M_robust is the best first
checkpoint. R5: progressive students depend less on n-grams, and know the non-terminals better. ``:ablations``: A.

Command: ``python -m pdjax.main --config=configs/pcfg.py`` (``:smoke`` for a minute, ``:short`` for shorter strings and
longer training, ``:ablations`` for other curricula, temperatures, mask rates, grammars and sizes, figures 23 to 27;
``:paper`` and ``:paper-ablations`` for the paper's sizes).

Cost: 14 and a half minutes on two CPU cores, 1.6 GB of memory, 60 MB of disk.

Expected: (seeds 0 to 2, 2026-11-25, docs/results/pcfg) an accuracy of 0.710 for the teacher; for the students, F1 from
paired seeds:

    =====================  ==========  ==========  ==========================  =====================
    steps                  labels      one-shot    progressive (8-shot, T0/2)  progressive (2, 300)
    =====================  ==========  ==========  ==========================  =====================
    600                    0.477       0.479       0.481, undecided            0.518, holds
    800                    0.480       0.496       0.530, undecided            0.543, holds
    =====================  ==========  ==========  ==========================  =====================

R4 is undecided: students of the first checkpoints 300, 400, 450 (where M_robust rises fastest), 500, 600 and 800 reach
0.477, 0.501, 0.528, 0.518, 0.498 and 0.483; the automatic choice is 450. R5 fails: students of labels are still on the
plateau and depend on nothing. M_robust does not fall within the 1200 steps of this teacher. Under symbol 13
(``:short``, 8 to 27 tokens, docs/results/pcfg_short) it peaks and falls, and parts of R5 hold. ``:ablations`` takes
about 50 minutes (docs/results/pcfg_ablations): R4 holds there. The paper's sizes have not been run.

The laptop's task is the sub-grammar of cfg3b under symbol 16: strings of 30 to 72 tokens. A teacher with 8 heads then
shows the paper's three phases in 1200 steps: a plateau until about step 350, a rapid drop until about 650, a slow end.
The learning rate, 5e-3 for all, is that of the authors' scripts; the duration T = 300 of (2, T) and the students'
batch were chosen on the seeds 100 to 102. A rate of 1e-2 was tried first, on both sets of seeds:
(2, T) gains more there, but training from labels is unstable on some seeds.
"""

from types import SimpleNamespace

from ml_collections import ConfigDict

from pdjax.config.building import (
    ablation,
    adam,
    comparison,
    locked,
    optional,
    placement,
    probes,
    search,
    selection,
    strategy,
)

NGRAMS = dict(n=(2, 3, 4, 5), num_sentences=128, num_positions=4, percentiles=(25, 50, 75), batch_size=128)

REMARKS = dict(
    R4="Three seeds are at the edge of deciding this at the laptop’s size: undecided with the teacher of one machine "
    "(docs/results/pcfg), holds with that of another (docs/results/pcfg_ablations).",
    R5="Students of 2 heads on strings of 30 to 72 tokens have not passed the peak of M_robust after 800 steps: "
    "who knows more depends more on n-grams. The smallest size measured at which a part of the claim holds is :short "
    "(8 to 27 tokens, 4 heads, 1,200 steps): M_close of 8-shot students. None was found at which M_robust decides, or "
    "probes have room: there they tell 0.976 of the non-terminals in untrained students already.",
)
KAPPAS = ("one_shot", "progressive", "kappa_1", "equal_split")
PROBED = ("labels", "one_shot", "progressive", "two_shot")
ADAPTIVE = ("one_shot", "progressive", "two_shot", "saturate", "agree", "robust")
TEMPERATURES = ("one_shot", "one_shot_soft", "progressive", "progressive_soft")

LAPTOP = dict(
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
    durations=(300,),
    duration=300,
    firsts=(300, 400, 500, 600, 800),
    chosen_by="phase",
    given_steps=None,  # checkpoints that are given where the training is too short to choose by
    grid_budget=600,
    chunk=50,
    evaluate_every=100,
    evaluation_batches=16,
    student_checkpoint_every=200,
    longest_alone=True,  # students of the longest budget alone are probed
    ngrams=NGRAMS,
    nonterminals=dict(num_heads=16, num_train=3200, num_test=512, batch_size=64, learning_rate=1e-2),
    ablations=None,
    data_devices=1,  # that share a batch
)
SMOKE = LAPTOP | dict(
    name="pcfg-smoke",
    root=13,
    teacher_heads=2,
    student_heads=1,
    layers=1,
    teacher_batch=8,
    student_batch=8,
    teacher_steps=32,
    checkpoint_every=4,
    budgets=(8, 16),
    durations=(4,),
    duration=4,
    firsts=(8, 16),
    given_steps=(8,),
    grid_budget=8,
    chunk=4,
    evaluate_every=4,
    evaluation_batches=2,
    student_checkpoint_every=8,
    ngrams=dict(NGRAMS, n=(2, 3), num_sentences=4, num_positions=2, batch_size=8),
    nonterminals=dict(num_heads=2, num_train=16, num_test=8, batch_size=8, learning_rate=1e-2),
)
PAPER = LAPTOP | dict(
    name="pcfg-paper",
    root=None,
    teacher_heads=32,
    student_heads=8,
    teacher_batch=512,
    student_batch=512,
    teacher_steps=8000,
    checkpoint_every=500,
    budgets=(2000, 4000, 8000, 16000),
    durations=(500, 1000, 2000),
    duration=1000,
    firsts=(500, 1000, 2000, 3000, 4000, 5000, 6000, 7000),
    grid_budget=4000,
    chunk=100,
    evaluate_every=100,  # the teacher's plateau is the first 5 % of its steps, 400: 500 apart none sees it
    evaluation_batches=8,
    student_checkpoint_every=1000,
    ngrams=dict(NGRAMS, n=(2, 3, 4, 5, 10, 20), num_sentences=1024, num_positions=14, batch_size=128),
    nonterminals=dict(num_heads=16, num_train=51_200, num_test=1024, batch_size=256, learning_rate=1e-2),
    data_devices=-1,
)
ABLATIONS = dict(
    kappa_budgets=(400, 800),
    other_budgets=(400, 800),
    variant_budgets=(800,),
    mask_rates=(0.15, 0.5),
    grammars={"cfg3h": 16, "cfg3i": 16},  # with the symbol under which their strings are of like length
    wide_heads=4,
    size_heads=(2, 4, 8),
    size_steps=800,
    patience=400,
    crossing=dict(n=(2, 3), num_sentences=64, num_positions=2, percentiles=(50,), batch_size=32),
)
SIZES = {
    "": LAPTOP,
    "smoke": SMOKE,
    "short": LAPTOP
    | dict(
        name="pcfg-short",
        root=13,  # strings of 8 to 27 tokens
        student_heads=4,
        teacher_steps=3200,
        checkpoint_every=100,
        budgets=(1200, 2400),
        firsts=(100, 200, 400, 600, 1000, 1600),
        chosen_by="auto",  # the loss shows no plateau
        grid_budget=1200,
        evaluate_every=200,
        student_checkpoint_every=400,
        longest_alone=False,
    ),
    "paper": PAPER,
    "ablations": LAPTOP
    | dict(
        name="pcfg-ablations",
        chosen_by="auto",  # the loss of teachers on other grammars shows no plateau
        budgets=(400, 800),
        durations=(150, 300),
        student_checkpoint_every=None,  # the default's students are the ones that are probed
        evaluate_every=50,  # adaptive curricula decide at evaluations
        evaluation_batches=8,
        ablations=ABLATIONS,
    ),
    "paper-ablations": PAPER
    | dict(
        name="pcfg-paper-ablations",
        chosen_by="auto",
        student_checkpoint_every=None,
        ablations=ABLATIONS
        | dict(
            kappa_budgets=(2000, 4000, 8000, 16000),
            other_budgets=(2000, 4000, 8000),
            variant_budgets=(2000, 4000, 8000),
            grammars={"cfg3h": None, "cfg3i": None},
            wide_heads=16,
            size_heads=(8, 16, 32),
            size_steps=8000,
            patience=2000,
            crossing=dict(n=(2, 3), num_sentences=256, num_positions=2, percentiles=(50,), batch_size=128),
        ),
    ),
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment: '' for a laptop, 'smoke' for a test of seconds, 'paper' for the paper's sizes.

    'short' has shorter strings and longer training; 'ablations' has more strategies, and other masks, grammars and
    students, at a laptop's size, and 'paper-ablations' at the paper's.
    """
    if variant not in SIZES:
        raise ValueError(f"expected configs/pcfg.py with one of {sorted(SIZES)} behind a colon; found {variant!r}")
    return _experiment(SimpleNamespace(**SIZES[variant]))


def _experiment(size: SimpleNamespace) -> ConfigDict:
    optimizer = adam(clip_norm=1.0, beta2=0.95)
    bert = dict(
        kind="bert",
        num_layers=size.layers,
        head_dim=optional(int, 8),
        width=optional(int),
        feed_forward_multiple=4,
        dropout=0.0,  # 0.1 in the released code, which left it on during evaluation too
        attend_to_selected=not size.name.startswith("pcfg-paper"),  # the released code hides selected positions as keys
        compute="float32",
    )
    main, searched = None if size.ablations is None else size.ablations["kappa_budgets"], _searched(size)
    strategies = _strategies(size, main) | searched
    comparisons = dict(
        all=comparison("The strategies", "figure 1 (right)", "labels", "one_shot", "progressive", "two_shot"),
        first_checkpoint=comparison(
            "(2, T) by first checkpoint", "figure 4 (right)", *searched, kind="first_checkpoints"
        ),
    )
    asked = {}
    if size.ablations is not None:
        strategies |= _ablation_strategies(size)
        comparisons |= dict(
            kappa=comparison("How long on the intermediate checkpoints", "figure 24", *KAPPAS, kind="budgets"),
            temperature=comparison("Temperatures of the teacher", "figure 25", *TEMPERATURES, kind="budgets"),
            adaptive=comparison("Adaptive and fixed curricula", "no figure", *ADAPTIVE),
        )
        asked = _ablations(size.ablations, bert)
    shared = dict(batch_size=size.student_batch, shared_batches=True, optimizer=optimizer)
    return locked(
        dict(
            name=size.name,
            seed=0,
            task=dict(
                kind="pcfg",
                grammar="cfg3b",
                root=optional(int, size.root),
                length=optional(int),
                mask_rate=0.3,
                select_bos=False,  # the released code may select [BOS]
            ),
            teacher=dict(bert, num_heads=size.teacher_heads),
            student=dict(bert, num_heads=size.student_heads),
            teacher_training=dict(
                seed=0,
                extra_seeds=(),
                steps=size.teacher_steps,
                batch_size=size.teacher_batch,
                learning_rate=5e-3,
                checkpoint_every=size.checkpoint_every,
                trajectory=optional(str),
                optimizer=optimizer,
            ),
            student_training=dict(
                shared,
                seeds=(0, 1, 2),
                learning_rates=(5e-3,),
                budgets=size.budgets,
                checkpoint_every=optional(int, size.student_checkpoint_every),
            ),
            strategies=strategies,
            comparisons=comparisons,
            ablations=asked,
            probes=probes(
                ngrams=size.ngrams,
                nonterminals=size.nonterminals,
                agreement=dict(num_batches=2, batch_size=size.teacher_batch),
                students=() if size.student_checkpoint_every is None else PROBED,
                longest_alone=size.longest_alone,
            ),
            sizes=optional(dict, None if size.ablations is None else _sizes(size.ablations, bert, shared)),
            evaluation=dict(
                every=size.evaluate_every, num_batches=size.evaluation_batches, batch_size=size.teacher_batch
            ),
            loop=dict(chunk_steps=size.chunk, save_every=4 * size.chunk, writers=()),
            placement=placement(data=size.data_devices),
            remarks=REMARKS,
        )
    )


def _strategies(size: SimpleNamespace, budgets: tuple[int, ...] | None) -> dict[str, dict]:
    """Returns the strategies of figure 1."""
    equal = selection("equal", count=8)
    return dict(
        labels=strategy("labels", "labels only", selection("final")),
        one_shot=strategy("one_shot", "one-shot", selection("final")),
        progressive=strategy("teacher_split", "progressive (8-shot, T0/2)", equal, kappa=0.5, budgets=budgets),
        two_shot=strategy(
            "fixed_duration",
            f"progressive (2, {size.duration})",
            _chosen(size, size.chosen_by),
            duration=size.duration,
            budgets=budgets,
        ),
    )


def _searched(size: SimpleNamespace) -> dict[str, dict]:
    """Returns (2, T) with every first checkpoint and T, and with those that M_robust and the automatic choice find."""
    fixed, also = f"(2, {size.duration})", dict(duration=size.duration, budgets=(size.grid_budget,))
    peak, auto = _chosen(size, "robust_peak"), _chosen(size, "auto")
    return dict(
        robust_peak=strategy("fixed_duration", f"{fixed} from the peak of M_robust", peak, **also),
        auto=strategy("fixed_duration", f"{fixed}, automatic", auto, **also),
        **search(size.firsts, size.durations, size.grid_budget),
    )


def _chosen(size: SimpleNamespace, kind: str) -> dict:
    return selection(kind) if size.given_steps is None else selection("steps", steps=size.given_steps)


def _ablation_strategies(size: SimpleNamespace) -> dict[str, dict]:
    """Returns the other curricula and temperatures, and the adaptive curricula over the checkpoints of (2, T)."""
    ablations, final, equal = size.ablations, selection("final"), selection("equal", count=8)
    chosen = _chosen(size, size.chosen_by)
    longest = dict(max_steps=ablations["patience"])
    accuracy, agreement = (dict(score=k, window=3, min_gain=0.01, **longest) for k in ("accuracy", "agreement"))
    crossing = dict(ngrams=ablations["crossing"], **longest)
    several, some = dict(budgets=ablations["kappa_budgets"]), dict(budgets=ablations["other_budgets"])
    last = dict(budgets=ablations["other_budgets"][-1:])
    return dict(
        one_shot_soft=strategy("one_shot", "one-shot, temperature 1", final, temperature=1.0, **some),
        progressive_soft=strategy(
            "teacher_split", "progressive, temperature 1", equal, kappa=0.5, temperature=1.0, **some
        ),
        kappa_1=strategy("teacher_split", "progressive (8-shot, T0)", equal, kappa=1.0, **several),
        equal_split=strategy("equal_split", "progressive (8-shot, equal split)", equal, **several),
        saturate=strategy("till_saturate", "till accuracy saturates", chosen, saturation=accuracy, **last),
        agree=strategy("till_saturate", "till agreement saturates", chosen, saturation=agreement, **last),
        robust=strategy("till_robust", "till M_robust crosses", chosen, crossing=crossing, **last),
    )


def _ablations(ablations: dict, bert: dict) -> dict[str, dict]:
    """Returns the ablations: other masks, students and grammars."""
    strategies, budgets = ("one_shot", "two_shot"), ablations["variant_budgets"]
    rates = {f"{100 * rate:g}%": dict(task=dict(mask_rate=rate)) for rate in ablations["mask_rates"]}
    grammars = {grammar: dict(task=dict(grammar=grammar, root=root)) for grammar, root in ablations["grammars"].items()}
    heads = ablations["wide_heads"]
    students = {f"{heads} heads": dict(student=dict(bert, num_heads=heads))}
    return dict(
        mask_rate=ablation("Mask rate", "figure 26", rates, strategies, budgets, base="30%"),
        student=ablation("Size of the student", "figures 24 and 25", students, strategies, budgets, base="smaller"),
        grammar=ablation("Grammar", "figure 27", grammars, strategies, budgets, base="cfg3b"),
    )


def _sizes(ablations: dict, bert: dict, shared: dict) -> dict:
    """Returns models of several sizes trained from the labels."""
    models = {str(heads): dict(bert, num_heads=heads) for heads in ablations["size_heads"]}
    training = dict(seeds=(0, 1, 2), learning_rates=(5e-3,), steps=ablations["size_steps"])
    return dict(shared, **training, panels={"heads": models})
