"""A real experiment of two stages: it runs once, goes on after a kill, and two of them do not mix."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from structure_first.errors import UserError
from structure_first.evidence.store import Store
from structure_first.model.transfer import Transfer, group
from structure_first.model.transformer import Body
from structure_first.runs import execution, jobs, planning
from structure_first.runs.jobs import Job
from structure_first.runs.planning import chosen, named, plan
from structure_first.runs.recipe import Experiment, Phase, Recipe
from structure_first.runs.runner import run
from structure_first.training.devices import LARGE, choose_products
from structure_first.training.loop import Run
from structure_first.training.stage import Stage

QUICK = Stage(steps=12, batch=8, warmup=2, held_out=16, evaluate_every=4)
LEFT = {"mastery", "rms mean row", "rms rows", "rms positions"}
SECOND = Phase("haystack", QUICK, {"pairs": 2})
COPY = Phase("identity", QUICK, {"length": 3, "vocab": 5}, tied=True)


def cells(scale: str) -> dict[str, Recipe]:
    return {
        "random init": Recipe(None, None, SECOND),
        "identity full": Recipe(COPY, Transfer(), SECOND),
        "identity attention": Recipe(COPY, Transfer.only("attention"), SECOND),
    }


EXPERIMENT = Experiment("tiny", "Does it run?", cells, {"smoke": 3})


def test_it_runs_once_and_adds_only_what_is_missing(tmp_path):
    first = run(EXPERIMENT, "smoke", range(2), tmp_path, workers=1)
    assert set(first["cell"]) == {*cells("smoke"), *(cell for cell in first["cell"] if cell.startswith("stage one: "))}
    assert set(first["seed"]) == {0, 1} and set(first["metric"]) == {"accuracy", "loss", *LEFT}
    assert sorted(first.loc[first["stage"] == 2, "step"].unique()) == [0, 4, 8, 12]
    store = Store(tmp_path / "tiny")
    written = store.manifest()["runs"]
    assert set(first["run"]) == set(written)
    assert all({"recipe", "seeds", "seconds", "code", "packages", "device"} <= set(run) for run in written.values())
    wider = run(EXPERIMENT, "smoke", range(3), tmp_path, workers=1)
    new = set(wider["run"]) - set(first["run"])
    assert set(wider.loc[wider["run"].isin(new), "seed"]) == {2}
    pd.testing.assert_frame_equal(wider[wider["seed"] < 2].reset_index(drop=True), first)
    assert plan(EXPERIMENT, "smoke", range(3), store, "cpu", 2).jobs == []


def test_a_part_of_a_run_is_its_beginning_and_goes_on_to_the_same_end(tmp_path):
    columns = ["cell", "stage", "seed", "step", "metric", "value"]
    whole = run(EXPERIMENT, "smoke", range(2), tmp_path / "whole", workers=1)[columns]
    for _ in range(2):  # a second time there is nothing to train
        part = run(EXPERIMENT, "smoke", range(2), tmp_path / "parts", workers=1, part=1 / 3)
        begun = whole[(whole["stage"] == 1) | (whole["step"] <= 4)]
        pd.testing.assert_frame_equal(
            *(rows.sort_values(columns, ignore_index=True) for rows in (part[columns], begun))
        )
        assert set(Store(tmp_path / "parts" / "tiny").rows()["stage"]) == {1}, "what is not ended is not stored"
    pd.testing.assert_frame_equal(run(EXPERIMENT, "smoke", range(2), tmp_path / "parts", workers=1)[columns], whole)
    again = run(EXPERIMENT, "smoke", range(2), tmp_path / "parts", workers=1, part=1 / 3)
    assert again.loc[again["stage"] == 2, "step"].max() == 4 and not list((tmp_path / "parts").rglob("checkpoints/*"))


def test_one_process_and_two_give_the_same_rows_bit_for_bit(tmp_path):
    columns = ["cell", "stage", "seed", "step", "metric", "value"]
    alone = run(EXPERIMENT, "smoke", range(3), tmp_path / "a", workers=1)[columns]
    shared = run(EXPERIMENT, "smoke", range(3), tmp_path / "b", workers=2)[columns]
    pd.testing.assert_frame_equal(alone, shared, check_exact=True)


def test_a_program_computes_with_one_thread_after_whatever_ran_before(tmp_path):
    job = Job.of("random init", cells("smoke")["random init"], range(2), tmp_path)
    before, rows = torch.get_num_threads(), []
    for threads, products in ((1, 0), (2, LARGE)):
        torch.set_num_threads(threads)
        choose_products(products)
        rows.append(execution.execute_or_split(job, print)[0][1])
        job.checkpoint.unlink()
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    pd.testing.assert_frame_equal(*rows, check_exact=True)


def test_wide_bodies_are_rounded_on_a_gpu_alone_and_the_manifest_says_so(tmp_path, monkeypatch):
    rows = run(EXPERIMENT, "smoke", range(1), tmp_path, "cpu", workers=1, cells=["random init"])
    assert Store(tmp_path / "tiny").manifest()["runs"][rows["run"][0]]["precision"] == "float32"
    narrow = Job.of("", Recipe(None, None, SECOND), (0,), tmp_path)
    wide = Job.of("", Recipe(None, None, SECOND, Body(width=256)), (0,), tmp_path)
    assert replace(wide, device="cpu").compute.precision == "float32"
    monkeypatch.setattr(jobs, "pick_device", lambda name: torch.device("cuda"))
    assert (narrow.compute.precision, wide.compute.precision) == ("float32", "bfloat16")


def test_changed_settings_are_run_again_beside_the_old(tmp_path):
    run(EXPERIMENT, "smoke", range(1), tmp_path, workers=1, cells=["random init"])
    longer = replace(SECOND, stage=replace(QUICK, steps=16))
    changed = replace(EXPERIMENT, cells=lambda scale: {"random init": Recipe(None, None, longer)})
    rows = run(changed, "smoke", range(1), tmp_path, workers=1)
    assert rows["step"].max() == 16 and rows["run"].nunique() == 1, "no row of the former settings is returned"
    stored = Store(tmp_path / "tiny").rows()
    assert sorted(stored.groupby("configuration")["step"].max()) == [12, 16]
    pd.testing.assert_frame_equal(planning.current(changed, "smoke", stored), rows)
    assert planning.current(EXPERIMENT, "smoke", stored)["step"].max() == 12


def test_cells_with_one_stage_two_train_as_one_program_and_see_the_same_data(tmp_path):
    found = plan(EXPERIMENT, "smoke", range(2), Store(tmp_path / "tiny"), "cpu", 1).jobs
    assert [(job.stage, len(job.replicas)) for job in found] == [(1, 1), (1, 1), (2, 3), (2, 3)]
    rows = run(EXPERIMENT, "smoke", range(2), tmp_path, workers=1)
    alone = run(EXPERIMENT, "smoke", range(2), tmp_path / "alone", workers=1, cells=["identity attention"])
    columns = ["stage", "seed", "step", "metric", "value"]
    together = rows[rows["cell"].isin(alone["cell"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(together[columns], alone[columns], atol=1e-4, rtol=1e-3)
    seen = Store(tmp_path / "tiny").manifest()["runs"]
    assert {seen[run]["replicas"] for run in rows.loc[rows["stage"] == 2, "run"]} == {3}


def test_a_program_that_ends_in_part_goes_on_with_the_same_programs(tmp_path):
    store = Store(tmp_path / "tiny")
    whole = plan(EXPERIMENT, "smoke", range(4), store, "cpu", 2).jobs
    run(EXPERIMENT, "smoke", range(4), tmp_path, workers=1, cells=["random init"])
    left = plan(EXPERIMENT, "smoke", range(4), store, "cpu", 2).jobs
    kept = [tuple(each for each in job.replicas if each.cell != "random init") for job in whole]
    assert [job.replicas for job in left] == [replicas for replicas in kept if replicas]


def test_too_little_memory_splits_the_program_and_says_so(tmp_path, monkeypatch, capfd):
    fit = execution.fit

    def small(model, *rest, **settings):
        if model.replicas > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fit(model, *rest, **settings)

    monkeypatch.setattr(execution, "fit", small)
    rows = run(EXPERIMENT, "smoke", range(3), tmp_path, workers=1)
    assert "5 replicas need more memory than there is; training them as two programs" in capfd.readouterr().err
    assert len(rows.query("metric == 'mastery'")) == 6
    monkeypatch.setattr(execution, "fit", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("")))
    with pytest.raises(UserError, match="one model alone needs more memory"):
        run(EXPERIMENT, "smoke", range(1), tmp_path / "other", workers=1)


def test_a_plan_knows_the_free_memory_and_counts_what_a_model_takes(tmp_path, monkeypatch, capfd):
    job = Job.of("random init", cells("smoke")["random init"], range(4), tmp_path)
    each = planning.bytes_of(job)
    wider = Job.of(
        "", replace(job.replicas[0].recipe, stage_two=replace(SECOND, stage=replace(QUICK, batch=80))), (0,), tmp_path
    )
    assert 2 * each < planning.bytes_of(wider) < 11 * each
    monkeypatch.setattr(planning, "usable_memory", lambda device: 2.1 * each)
    found = plan(EXPERIMENT, "smoke", range(4), Store(tmp_path / "tiny"), "cpu", 1)
    assert found.split and max(len(job.replicas) for job in found.jobs if job.stage == 2) == 2
    monkeypatch.setattr(planning, "usable_memory", lambda device: 1.1 * each)
    run(EXPERIMENT, "smoke", range(4), tmp_path, workers=1, cells=["random init"])
    assert "too little free memory for whole programs; 4 are parts" in capfd.readouterr().err


def test_the_costs_add_up(tmp_path):
    found = plan(EXPERIMENT, "smoke", range(3), Store(tmp_path / "tiny"), "cpu", 1).jobs
    table = planning.costs(found, workers=1)
    assert table["models"].tolist() == [3, 9] and table["cells"].tolist() == [1, 3]
    assert table["updates"].tolist() == [QUICK.steps, QUICK.steps]
    assert (table[["PFLOPs", "MB a model", "hours"]] > 0).all(axis=None)


SCRIPT = """
from pathlib import Path
from structure_first.errors import UserError
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Experiment, Phase, Recipe, plain
from structure_first.runs.runner import run
from structure_first.training.stage import Stage

copy = Phase("identity", Stage(steps=2, batch=4, warmup=1, held_out=4, evaluate_every=2), {"length": 3, "vocab": 5})
cells = {"one": Recipe(None, None, copy), "two": Recipe(None, None, copy, Body(layers=1))}
try:
    run(Experiment("own", "Does it run?", lambda scale: cells, {"smoke": 1}), "smoke", [0], Path("out"), "cpu", 2)
except UserError as error:
    print(error)
"""


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    (tmp_path / "own.py").write_text(SCRIPT)
    said = subprocess.run([sys.executable, "own.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    line = 'a worker loads the script that began the run; put what the script does under if __name__ == "__main__":\n'
    assert (said.returncode, said.stdout) == (0, line) and "Traceback" not in said.stderr


def test_a_mistyped_cell_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match="did you mean 'identity full'"):
        run(EXPERIMENT, "smoke", range(1), tmp_path, cells=["identiti full"])


def test_a_star_stands_for_any_part_of_a_cells_name():
    named = chosen(EXPERIMENT, "smoke", ["identity *", "random init", "* full"]).cells("smoke")
    assert list(named) == ["identity full", "identity attention", "random init"]
    with pytest.raises(UserError, match=r"unknown cell 'dyck \*'"):
        chosen(EXPERIMENT, "smoke", ["dyck *"])


def test_a_named_cell_may_have_commas():
    known = ["code, then language / set", "code, then math / set", "random init"]
    assert named("code, then language / set, random init", known) == ["code, then language / set", "random init"]
    assert named("*math / set,code, then language / set", known) == ["*math / set", "code, then language / set"]
    assert named("rando init, code, then math / set,none", known) == ["rando init", "code, then math / set", "none"]


def test_a_cluster_without_dask_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "structure_first.runs.cluster", raising=False)
    with pytest.raises(UserError, match=r"--cluster needs distributed, .*pip install -e \".\[cluster\]\""):
        run(EXPERIMENT, "smoke", range(1), tmp_path, cluster="tcp://127.0.0.1:9")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused(tmp_path):
    with Store(tmp_path / "tiny").locked(), pytest.raises(UserError, match="another process is writing"):
        run(EXPERIMENT, "smoke", range(1), tmp_path)


def test_a_folder_of_another_version_is_refused_and_left_alone(tmp_path):
    run(EXPERIMENT, "smoke", range(1), tmp_path, workers=1, cells=["random init"])
    manifest = tmp_path / "tiny" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    before = manifest.read_bytes()
    with pytest.raises(UserError, match="format 99"):
        run(EXPERIMENT, "smoke", range(2), tmp_path, workers=1)
    assert manifest.read_bytes() == before


def rates(scale: str) -> dict[str, Recipe]:
    return {f"lr {lr}": Recipe(None, None, SECOND.at(lr=lr)) for lr in (1e-3, 2e-3, 3e-3)}


def rules(scale: str) -> dict[str, Recipe]:
    chosen = {"full": Transfer(), "attention": Transfer.only("attention"), "mlp": Transfer.only("mlp")}
    return {name: Recipe(COPY, rule, SECOND) for name, rule in chosen.items()}


THREE, GRID = Experiment("three", "", rates, {}), Experiment("grid", "", rules, {})


def dying(name: str, out: str, at: int) -> None:
    """Run one of these in a process that is killed in that update."""
    update, left = Run.update, iter(range(at - 1))

    def update_or_die(*given):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        update(*given)

    Run.update = update_or_die
    run(globals()[name], "smoke", range(2), Path(out), workers=1)


@pytest.fixture
def killed_run(killed, tmp_path) -> Callable[[str], Store]:
    """Run one of these until it is killed: of THREE in the third of its programs, of GRID in the first of stage two."""

    def run(name: str) -> Store:
        killed(f"import test_runner as it; it.dying({name!r}, {str(tmp_path / 'killed')!r}, 31)", tmp_path / "never")
        return Store(tmp_path / "killed" / name.lower())

    return run


def test_a_killed_run_goes_on_and_repeats_no_finished_cell(tmp_path, killed_run):
    store = killed_run("THREE")
    finished = store.rows()
    assert 1 <= finished["cell"].nunique() < 3
    run(THREE, "smoke", range(2), tmp_path / "killed", workers=1)
    after = store.rows()
    assert after["cell"].nunique() == 3 and set(finished["run"]) < set(after["run"])
    kept = after[after["run"].isin(finished["run"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, finished, check_exact=True)


def test_a_stage_one_begins_as_the_recipe_says(tmp_path):
    recipe = replace(cells("smoke")["identity full"], body_stage_one=Body(init=0.1, init_embedding=0.2))
    job = Job.of("identity", recipe, (0,), tmp_path)
    before = Job((job.replicas[0].before,), tmp_path)
    assert (before.shape.init, before.shape.init_embedding) == (0.1, 0.2)
    assert (job.shape.init, job.shape.init_embedding) == (0.02, 0.02)
    assert recipe.alone == replace(recipe, body=recipe.body_stage_one, body_stage_one=None).alone, "it is shared"


def test_one_stage_ones_attention_is_composed_with_anothers_mlps(tmp_path):
    reverse = replace(COPY, source="reverse")
    composed = Recipe(COPY, Transfer.only("attention", mlp="from(turned)"), SECOND, beside={"turned": reverse})
    experiment = Experiment("tiny", "", lambda scale: {"composed": composed}, {"smoke": 2})
    rows = run(experiment, "smoke", range(2), tmp_path, workers=1)
    assert {cell.partition("(")[0] for cell in rows["cell"]} == {
        "composed",
        "stage one: identity",
        "stage one: reverse",
    }
    job = Job.of("composed", composed, range(2), tmp_path / "tiny")
    model = jobs.initial_model(job)
    attention = jobs.trained([each.before for each in job.replicas], job.folder)
    mlps = jobs.trained([each.beside["turned"] for each in job.replicas], job.folder)
    fresh = jobs.initial_model(
        replace(job, replicas=Job.of("", Recipe(None, None, SECOND), range(2), tmp_path).replicas)
    )
    for name, tensor in model.named_parameters():
        source = {"attention": attention, "mlp": mlps}.get(group(name), fresh)
        assert torch.equal(tensor, source.get_parameter(name)), name
    assert composed.others == {}
    assert composed.key != replace(composed, beside={"turned": COPY}).key


def test_a_recipe_may_itself_be_stage_one_and_goes_on_as_its_stage_two_left_it(tmp_path):
    """Pretraining, then a text, then what comes after it: as often as one likes."""
    text, later = replace(COPY, source="reverse"), replace(COPY, source="sort")
    trained, everything = Recipe(COPY, Transfer(), text), Transfer(embeddings="keep")
    cells = {
        "pretrained": trained,
        "tuned": Recipe(trained, everything, later),
        "tuned alone": Recipe(Recipe(None, None, text), everything, later),
    }
    experiment = Experiment("tiny", "", lambda scale: cells, {"smoke": 2})
    rows = run(experiment, "smoke", range(2), tmp_path, workers=1, cells=["tuned*"])
    store = Store(tmp_path / "tiny")
    job = Job.of("tuned", cells["tuned"], range(2), store.folder)
    pretrained = jobs.trained([each.before for each in job.replicas], job.folder)
    for name, tensor in jobs.initial_model(job).named_parameters():
        assert torch.equal(tensor, pretrained.get_parameter(name)), name
    mine = rows[rows["metric"] == "loss"]
    ended = mine.sort_values("step").groupby(["stage", "cell"]).size()
    assert {cell.partition("(")[0] for stage, cell in ended.index if stage == 1} == {
        "stage one: identity",
        "stage one: reverse",
    }
    assert {cell for stage, cell in ended.index if stage == 2} == {"tuned", "tuned alone"}
    assert plan(chosen(experiment, "smoke", ["tuned*"]), "smoke", range(2), store, "cpu", 2).jobs == []
    again = run(experiment, "smoke", range(2), tmp_path, workers=1, cells=["pretrained"])
    title = trained.title
    columns = ["seed", "step", "metric", "value"]
    first = rows.loc[rows["cell"] == title, columns].sort_values(columns, ignore_index=True)
    second = again.loc[again["cell"] == "pretrained", columns].sort_values(columns, ignore_index=True)
    pd.testing.assert_frame_equal(
        first, second, check_exact=True
    )  # the data follow from the recipe, not from its place
    for path in store.folder.glob(f"weights/{trained.key}/*"):
        path.unlink()
    left = plan(chosen(experiment, "smoke", ["tuned"]), "smoke", range(2), store, "cpu", 2).jobs
    assert left == [], "what has ended needs no weights"
    left = plan(chosen(experiment, "smoke", ["tuned"]), "smoke", range(3), store, "cpu", 2).jobs
    assert {(job.stage, seed) for job in left for seed in job.seeds} == {(1, 2), (2, 2)}
    assert len([job for job in left if job.stage == 1]) == 2, "its stage one, and that one's"


def test_a_wider_init_is_wider(tmp_path):
    narrow = Job.of("narrow", Recipe(None, None, SECOND), (0,), tmp_path)
    wide = Job.of("wide", Recipe(None, None, SECOND, Body(init=0.2)), (0,), tmp_path)
    a, b = (jobs.initial_model(job) for job in (narrow, wide))
    for name in ("embedding", "position", "unembedding", "blocks.0.mlp.up.weight"):
        torch.testing.assert_close(10 * a.get_parameter(name), b.get_parameter(name))


def test_a_grid_killed_in_its_second_stage_ends_as_if_it_had_not_been(tmp_path, killed_run):
    store = killed_run("GRID")
    learnt, trained = store.rows(), store.manifest()["runs"]
    assert set(learnt["stage"]) == {1}
    for folder in ("killed", "whole"):
        run(GRID, "smoke", range(2), tmp_path / folder, workers=1)
    pd.testing.assert_frame_equal(store.rows(), Store(tmp_path / "whole" / "grid").rows(), check_exact=True)
    again = {run: store.manifest()["runs"][run] for run in trained}
    assert again == trained, "stage one was not trained again: its manifest says when it was"
