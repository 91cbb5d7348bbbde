"""Checkpoints of a source: their steps from names in the wild, their order, and what is refused or left out."""

import json
import logging

import pytest

from pdjax.errors import UserError
from pdjax.weights.series import series_of

WEIGHTS = "model.safetensors"  # nothing opens it here


@pytest.fixture
def folders(tmp_path):
    """Makes folders with weights, by their paths in a source."""

    def make(*names, file=WEIGHTS, source="run"):
        for name in names:
            folder = tmp_path / source / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
        return tmp_path / source

    return make


@pytest.fixture
def cache(tmp_path):
    """Makes a model in the hub's cache, with commits by references; None has nothing but the reference."""

    def make(name, **commits):
        model = tmp_path / "hub" / f"models--{name}"
        for folder in ("blobs", "refs", "snapshots"):
            (model / folder).mkdir(parents=True)
        (model / "blobs" / "123").touch()
        for reference, commit in commits.items():
            (model / "refs" / reference).write_text(commit)
            snapshot = model / "snapshots" / commit
            if not snapshot.exists():
                snapshot.mkdir()
                (snapshot / WEIGHTS).symlink_to("../../blobs/123")
        return model

    return make


def steps(source):
    return [checkpoint.step for checkpoint in series_of(source)]


def names(source):
    return [checkpoint.name for checkpoint in series_of(source)]


def refused(source):
    with pytest.raises(UserError) as error:
        series_of(source)
    return str(error.value)


SPELLINGS = {
    "step_20k": 20_000,
    "step-100k": 100_000,
    "Step-100K": 100_000,
    "step3000": 3_000,
    "step20": 20,
    "step_0k": 0,
    "step=5": 5,
    "step.7": 7,
    "steps_8": 8,
    "step_1.5M": 1_500_000,
    "step_1.1k": 1_100,
    "step-2m": 2_000_000,
    "checkpoint-500": 500,
    "ckpt_600": 600,
    "iter_0000500": 500,
    "iteration-12": 12,
    "global_step1000": 1_000,
    "globalstep_1000": 1_000,
    "pythia-70m-step1000": 1_000,
    "multiberts-seed_0-step_20k": 20_000,
    "multiberts-seed_0-step_2000k": 2_000_000,
    "models--google--multiberts-seed_3-step_40k": 40_000,
    "step_300-seed_2": 300,
    "step1000-tokens4B": 1_000,
    "stage1-step4000-tokens17B": 4_000,
    "epoch=3-step=500": 500,
    "epoch_2-checkpoint_3-step_500": 500,
    "step_5-global_step_900": 900,
    "checkpoint-400-final": 400,
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(folders, name):
    assert steps(folders(name)) == [SPELLINGS[name]]


@pytest.mark.parametrize(
    "name", ["seed_5", "epoch-3", "footstep5", "500", "20k", "step", "step_x5", "step20kk", "step1b"]
)
def test_names_without_a_step_are_not_guessed_at(folders, name):
    source = folders("step_10", name)
    assert refused(source) == (
        f"expected a step in the name of each checkpoint in {source}, such as step_20k or checkpoint-500; "
        f"found {name}; rename or link them, or name the others by a pattern, such as {source}/step_*"
    )


@pytest.mark.parametrize("name", ["checkpoint_1_5000", "step_1_000", "step-1,000", "step1-step2", "step_500-2024"])
def test_names_with_several_numbers_for_the_step(folders, name):
    assert refused(folders("step_10", name)) == (
        f"expected one number as a checkpoint's step in its name; found {name}; "
        "name it with step_NUMBER alone, by a link, say, or leave it out by a pattern"
    )


def test_half_a_step(folders):
    line = "expected a whole number of steps in a checkpoint's name; found step_1.5; rename it"
    assert refused(folders("step_1.5")) == line


def test_the_order_is_that_of_numbers(folders):
    source = folders("step_20k", "step_100k", "step20", "step3000", "step_1M")
    series = series_of(source)
    assert [checkpoint.name for checkpoint in series] == ["step20", "step3000", "step_20k", "step_100k", "step_1M"]
    assert [checkpoint.step for checkpoint in series] == [20, 3_000, 20_000, 100_000, 1_000_000]
    assert [checkpoint.folder for checkpoint in series] == [source / checkpoint.name for checkpoint in series]
    assert series_of(str(source)) == series


@pytest.mark.parametrize("file", [f"{WEIGHTS}.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_all_that_open_weights_takes(folders, file):
    assert steps(folders("step1", "step2", file=file)) == [1, 2]


def test_what_is_no_checkpoint_is_not_looked_at(folders):
    source = folders("step1", "step2", ".cache")
    (source / "logs").mkdir()
    (source / "README.md").touch()
    (source / "step_3.log").touch()
    assert steps(source) == [1, 2]


def test_the_branch_main_is_left_out_and_said(folders, caplog):
    caplog.set_level(logging.INFO, "pdjax")
    source = folders("step1", "main", "step2")
    assert names(source) == ["step1", "step2"]
    assert caplog.messages == [f"Leaving out main of {source}: it has no step"]


def test_links_by_step_to_folders_without(folders):
    """The folders that links lead to are no further checkpoints."""
    source = folders("abc", "def")
    (source / "step_2").symlink_to("abc")
    (source / "step_1").symlink_to("def")
    assert names(source) == ["step_1", "step_2"]


def test_two_of_one_step(folders):
    source = folders("seed_0-step_20k", "seed_0-step_40k", "seed_1-step_20k")
    assert refused(source) == (
        f"expected one checkpoint of step 20000 in {source}; found seed_0-step_20k, seed_1-step_20k; "
        f"name those of one training by a pattern, such as {source}/seed_0-step_*"
    )
    assert names(source / "seed_0-step_*") == ["seed_0-step_20k", "seed_0-step_40k"]


@pytest.mark.parametrize("other", ["step20000", "step_0.02M", "checkpoint-20000", "step_020k"])
def test_one_step_in_two_spellings(folders, other):
    assert "expected one checkpoint of step 20000" in refused(folders("step_20k", other))


def test_patterns(folders):
    folders("seed_0/step_100/model", "seed_0/step_20/model", "seed_1/step_20/model")
    source = folders("seed_0/step_20/other")
    (source / "seed_0" / "step_20" / "notes").touch()
    series = series_of(source / "seed_0" / "step_*" / "model")
    assert [(checkpoint.step, checkpoint.name) for checkpoint in series] == [
        (20, "step_20/model"),
        (100, "step_100/model"),
    ]
    assert series[0].folder == source / "seed_0" / "step_20" / "model"
    assert refused(source / "*" / "step_*" / "model").endswith(f"such as {source}/seed_0/step_*/model")


def test_a_folder_whose_name_looks_like_a_pattern(folders):
    assert steps(folders("step_1", source="run[1]")) == [1]


EMPTY = "complete the download, remove what is no checkpoint, or name the others by a pattern"


def test_without_weights(folders):
    source = folders("step_1", "step_4")
    for name in ("step_2", "step_3"):
        (source / name).mkdir()
    (source / "step_3" / f"{WEIGHTS}.incomplete").touch()
    line = f"expected weights in every checkpoint of SOURCE; found none in step_2, step_3; {EMPTY}"
    assert refused(source) == line.replace("SOURCE", str(source))
    assert refused(source / "step_*") == line.replace("SOURCE", f"{source}/step_*")
    assert steps(source / "step_[14]") == [1, 4]


def test_broken_links_are_left_for_their_opening_to_refuse(folders):
    source = folders("step_1", "step_2")
    (source / "step_2" / WEIGHTS).unlink()
    (source / "step_2" / WEIGHTS).symlink_to("gone")
    assert steps(source) == [1, 2]


def test_a_broken_link_to_a_folder(folders):
    source = folders("step_1")
    (source / "step_2").symlink_to("gone")
    assert refused(source) == f"expected weights in every checkpoint of {source}; found none in step_2; {EMPTY}"


def test_still_being_written(folders):
    source = folders("checkpoint-1", "tmp-checkpoint-2")
    assert refused(source) == (
        f"expected finished checkpoints in {source}; found tmp-checkpoint-2; finish or remove them"
    )


@pytest.mark.parametrize("pattern", ["", "*"])
@pytest.mark.parametrize("files", [["step_500.safetensors"], ["epoch=1-step=5.ckpt", "step_500.bin"]])
def test_files_in_one_folder(folders, files, pattern):
    source = folders("step_1")
    for name in files:
        (source / name).touch()
    assert refused(source / pattern) == (
        f"expected a folder for each checkpoint in {source}; found files of weights: {', '.join(files)}; move each "
        "into a folder of its own, such as step_500/model.safetensors or step_500/pytorch_model.bin, with a "
        "config.json beside it"
    )


NONE = (
    "expected checkpoints in SOURCE: folders or revisions named by their steps, such as step_20k or checkpoint-500; "
    "found FOUND; name the folder that they are in, or a pattern of theirs such as runs/seed_0-step_*"
)


def test_no_checkpoint(folders, tmp_path):
    source = folders()
    assert (
        refused(source)
        == f"expected a folder of checkpoints, or a pattern; found {source}, which is none; name another"
    )
    source.mkdir()
    assert refused(source) == NONE.replace("SOURCE", str(source)).replace("FOUND", "no folder")
    assert refused(source / "*") == NONE.replace("SOURCE", f"{source}/*").replace("FOUND", "no folder")
    (source / "logs").mkdir()
    (source / "main").mkdir()
    assert refused(source) == NONE.replace("SOURCE", str(source)).replace("FOUND", "logs, main")


def write_state(folder, step, **others):
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, **others}))


@pytest.fixture
def trained(folders):
    """What a Trainer leaves that saves every 50 steps: the final model around checkpoints."""
    return folders("", "checkpoint-50", "checkpoint-100")


def left_out(source, reason):
    return [f"Leaving out the model in {source} itself: {reason}"]


def test_a_final_model_without_a_step(trained, caplog):
    caplog.set_level(logging.INFO, "pdjax")
    assert steps(trained) == [50, 100]
    assert caplog.messages == left_out(trained, "no trainer_state.json says its step")


def test_a_final_model_behind_the_last_checkpoint(trained, caplog):
    caplog.set_level(logging.INFO, "pdjax")
    write_state(trained, 120, best_model_checkpoint=None)
    assert steps(trained) == [50, 100, 120]
    assert series_of(trained)[-1].folder == trained
    assert names(trained)[-1] == "run"
    assert not caplog.messages


def test_a_final_model_that_is_the_last_checkpoint(trained, caplog):
    caplog.set_level(logging.INFO, "pdjax")
    write_state(trained, 100)
    assert [checkpoint.folder.name for checkpoint in series_of(trained)] == ["checkpoint-50", "checkpoint-100"]
    assert caplog.messages == left_out(trained, "a checkpoint beside it has its step 100")


def test_a_final_model_that_may_be_the_best(trained, caplog):
    caplog.set_level(logging.INFO, "pdjax")
    write_state(trained, 120, best_model_checkpoint="out/checkpoint-50")
    assert steps(trained) == [50, 100]
    assert caplog.messages == left_out(trained, "it may be the best, not the last")
    write_state(trained, 120, best_model_checkpoint="out/checkpoint-120")
    assert steps(trained) == [50, 100, 120]


DAMAGES = {
    "{": "JSON in FILE; found Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    "{}": "a global_step in FILE; found None",
    '{"global_step": "5"}': "a global_step in FILE; found '5'",
    '{"global_step": -1}': "a global_step in FILE; found -1",
}


@pytest.mark.parametrize("text", DAMAGES)
def test_a_damaged_trainer_state(trained, text):
    file = trained / "trainer_state.json"
    file.write_text(text)
    assert refused(trained) == f"expected {DAMAGES[text].replace('FILE', str(file))}; copy or download the file again"


def test_one_checkpoint(folders):
    """Its optimizer's states beside the weights are no checkpoints."""
    source = folders("checkpoint-500") / "checkpoint-500"
    (source / "global_step500").mkdir()
    assert [tuple(checkpoint) for checkpoint in series_of(source)] == [(500, source, "checkpoint-500")]


def test_one_model(folders):
    source = folders("")
    assert refused(source) == (
        f"expected checkpoints in {source}, or its own step, in its name or trainer_state.json; found the weights of "
        "one model alone; name the folder that the training's checkpoints are in, or name this one by its step"
    )
    write_state(source, 400)
    assert steps(source) == [400]


def test_revisions_in_the_hubs_cache(cache, caplog):
    caplog.set_level(logging.INFO, "pdjax")
    model = cache("EleutherAI--pythia-70m", step3000="aaa", step512="bbb", main="ccc", step143000="ccc")
    expected = [(512, "bbb", "step512"), (3_000, "aaa", "step3000"), (143_000, "ccc", "step143000")]
    assert [(c.step, c.folder.name, c.name) for c in series_of(model)] == expected
    assert caplog.messages == [f"Leaving out main of {model}: it has no step"]
    assert series_of(model / "snapshots") == series_of(model)
    assert names(model / "refs" / "step*") == ["step512", "step3000", "step143000"]


def test_snapshots_that_nothing_refers_to(cache, caplog):
    """Revisions before an update, say."""
    caplog.set_level(logging.INFO, "pdjax")
    model = cache("owner--name", step1="aaa", step2="bbb")
    (model / "refs" / "step2").write_text("ccc")
    (model / "snapshots" / "bbb").rename(model / "snapshots" / "ddd")
    (model / "snapshots" / "ccc").mkdir()
    (model / "snapshots" / "ccc" / WEIGHTS).touch()
    assert [checkpoint.folder.name for checkpoint in series_of(model)] == ["aaa", "ccc"]
    assert caplog.messages == [f"Leaving out the snapshot ddd of {model}: no reference leads there"]


def test_revisions_of_two_stages(cache):
    model = cache(
        "owner--name", **{f"stage{stage}-step{step}": f"{stage}{step}" for stage in (1, 2) for step in (5, 10)}
    )
    pattern = model / "refs" / "stage1-step*"
    assert refused(model) == (
        f"expected one checkpoint of step 10 in {model}; found stage1-step10, stage2-step10; "
        f"name those of one training by a pattern, such as {pattern}"
    )
    assert names(pattern) == ["stage1-step5", "stage1-step10"]


def test_a_revision_that_is_not_downloaded(cache):
    model = cache("owner--name", step1="aaa", step2="bbb")
    (model / "refs" / "step3").write_text("ccc")
    (model / "snapshots" / "bbb" / WEIGHTS).unlink()
    assert refused(model) == f"expected weights in every checkpoint of {model}; found none in step2, step3; {EMPTY}"


@pytest.mark.parametrize("commit", ["", "../elsewhere"])
def test_a_damaged_reference(cache, commit):
    model = cache("owner--name", step1="aaa")
    (model / "refs" / "step2").write_text(commit)
    reference = model / "refs" / "step2"
    assert refused(model) == (
        f"expected the commit of a snapshot in {reference}; found {commit!r}; download this revision again"
    )


def test_steps_as_links_beside_the_snapshots(cache):
    model = cache("owner--name", main="aaa")
    (model / "snapshots" / "step_5").symlink_to("aaa")
    assert [tuple(c) for c in series_of(model / "snapshots")] == [(5, model / "snapshots" / "step_5", "step_5")]


def test_models_in_the_hubs_cache(cache):
    cache("google--multiberts-seed_0-step_100k", main="aaa")
    model = cache("google--multiberts-seed_0-step_20k", main="bbb", old="ccc")
    single = cache("google--multiberts-seed_0-step_40k", v1="ddd")
    hub = model.parent
    (hub / ".locks").mkdir()
    expected = [
        (20_000, model / "snapshots" / "bbb", "google/multiberts-seed_0-step_20k"),
        (40_000, single / "snapshots" / "ddd", "google/multiberts-seed_0-step_40k"),
    ]
    assert [tuple(checkpoint) for checkpoint in series_of(hub)[:2]] == expected
    assert steps(hub) == [20_000, 40_000, 100_000]
    cache("google--multiberts-seed_1-step_20k", main="aaa")
    pattern = hub / "models--google--multiberts-seed_0-step_*"
    assert refused(hub).endswith(f"such as {pattern}")
    assert steps(pattern) == [20_000, 40_000, 100_000]
    assert [tuple(checkpoint) for checkpoint in series_of(model)] == expected[:1]


def test_other_models_in_the_hubs_cache(cache):
    cache("owner--name-step_1", main="aaa")
    hub = cache("owner--other", main="bbb").parent
    assert f"each checkpoint in {hub}, such as step_20k or checkpoint-500; found owner/other; " in refused(hub)
    assert refused(hub / "models--*").endswith(f"by a pattern, such as {hub}/models--owner--name-step_*")


def test_a_model_in_the_hubs_cache_that_is_not_downloaded(cache):
    model = cache("owner--name-step_1", main="aaa")
    cache("owner--name-step_2")
    line = f"expected weights in every checkpoint of {model.parent}; found none in owner/name-step_2; {EMPTY}"
    assert refused(model.parent) == line


def test_several_revisions_without_main(cache):
    model = cache("owner--name-step_1", old="aaa", new="bbb")
    assert refused(model.parent) == (
        f"expected one revision in {model / 'snapshots'}, or {model / 'refs' / 'main'} to say which; found aaa, bbb; "
        "remove the others, or download the model again"
    )


def test_one_model_in_the_hubs_cache(cache):
    model = cache("owner--name", main="aaa")
    assert "found owner/name; rename or link them" in refused(model)
