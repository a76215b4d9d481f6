"""The store: what is appended is there, what is broken says so in one line, and no row is without its run."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

from structure_first import __version__, files
from structure_first.errors import UserError
from structure_first.evidence import store as module
from structure_first.evidence.store import COLUMNS, Store, environment


def measured(cell="dyck", seeds=(0, 1), value=0.5, scale="smoke", stage=2) -> pd.DataFrame:
    """Two evaluations of each seed."""
    return pd.DataFrame(
        dict(experiment="haystack", scale=scale, cell=cell, stage=stage, seed=seed, value=value, metric="accuracy")
        | dict(step=step, tokens=10 * step, flops=1000 * step)
        for seed in seeds
        for step in (100, 200)
    )


def of_run(run: str, rows: pd.DataFrame, configuration: str = "0") -> tuple[pd.DataFrame, dict[str, dict]]:
    return rows.assign(run=run), {run: {"configuration": configuration}}


def failure(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "haystack")
    store.append(*of_run("run-a", measured()))
    return store


def test_an_empty_folder_has_no_rows(tmp_path):
    rows = Store(tmp_path / "nowhere").rows()
    assert rows.empty and list(rows.columns) == [*COLUMNS, "configuration"]
    assert not (tmp_path / "nowhere").exists()


def test_seconds_are_of_the_rows_programs_as_much_as_is_theirs(store):
    cost = {"a": dict(seeds=[0, 1], replicas=4, seconds=10.0), "b": dict(seeds=[0], replicas=1, seconds=2.5)}
    for run, spent in cost.items():
        rows, runs = of_run(run, measured(run, spent["seeds"]))
        store.append(rows, {run: runs[run] | spent})
    rows = store.rows()
    assert store.seconds(rows[rows["cell"].isin(cost)]) == 7.5 and store.seconds(rows[rows["cell"] == "a"]) == 5.0


def test_rows_are_added(store):
    store.append(*of_run("run-b", measured("random init", seeds=(1,))))
    store.append(*of_run("run-c", measured(scale="laptop")))
    rows = Store(store.folder).rows()
    assert rows.groupby(["scale", "cell"]).size().to_dict() == {
        ("laptop", "dyck"): 4,
        ("smoke", "dyck"): 4,
        ("smoke", "random init"): 2,
    }
    assert rows.dtypes.astype(str).loc[["stage", "flops", "value"]].to_list() == ["int64", "int64", "float64"]
    assert store.manifest()["runs"] == {f"run-{x}": {"configuration": "0"} for x in "abc"}
    assert sorted(path.name for path in store.folder.iterdir()) == ["manifest.json", "rows.parquet"]


def test_new_rows_of_a_seed_replace_all_its_old_ones(store):
    store.append(*of_run("run-b", measured(seeds=(1, 2), value=0.9).query("step == 100")))
    rows = store.rows()
    assert rows.groupby("seed")["value"].apply(list).to_dict() == {0: [0.5, 0.5], 1: [0.9], 2: [0.9]}
    assert set(store.manifest()["runs"]) == {"run-a", "run-b"}
    store.append(*of_run("run-c", measured(seeds=(0,), value=0.7)))
    assert set(store.manifest()["runs"]) == {"run-b", "run-c"}, "a run without rows left its manifest behind"


def test_every_row_is_looked_at_as_often_however_many_runs_there_are(tmp_path, monkeypatch):
    """Minutes for each program of a large experiment, were it once a run."""
    looked = []
    monkeypatch.setattr(module, "set", lambda rows: looked.append(1) or set(rows), raising=False)
    for count in (1, 40):
        looked.append(0)
        rows = pd.concat([measured(f"cell {each}").assign(run=f"run {each}") for each in range(count)])
        Store(tmp_path / f"{count}").append(rows, {f"run {each}": {"configuration": "0"} for each in range(count)})
    first, second = "".join(map(str, looked)).split("0")[1:]
    assert first == second


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_killed_between_two_writes_it_still_has_every_rows_run(store, monkeypatch, writes):
    """Whole files are replaced one after another; stop before each of them."""
    replacing, left = module.replacing, [writes]

    def killed_in_time(path):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return replacing(path)

    for where in (module, files):
        monkeypatch.setattr(where, "replacing", killed_in_time)
    with pytest.raises(KeyboardInterrupt):
        store.append(*of_run("run-b", measured(seeds=(1, 2), value=0.9)))
    monkeypatch.undo()
    rows = store.rows()
    assert sorted(rows["seed"].unique()) == ([0, 1] if writes < 2 else [0, 1, 2])
    store.append(*of_run("run-b", measured(seeds=(1, 2), value=0.9)))
    assert set(store.manifest()["runs"]) == {"run-a", "run-b"} and len(store.rows()) == 6


def test_another_format_is_refused_and_left_alone(store):
    manifest = store.folder / "manifest.json"
    manifest.write_text(json.dumps({"format": 99}))
    before = {path: path.read_bytes() for path in store.folder.iterdir()}
    for call in (store.rows, lambda: store.append(*of_run("run-b", measured()))):
        assert "was written in format 99, this version reads 2" in failure(call)
    assert {path: path.read_bytes() for path in store.folder.iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", None])
def test_broken_rows_are_one_line(store, content):
    path = store.folder / "rows.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    broken = path.read_bytes()
    assert f"cannot read results {path}" in failure(store.rows)
    failure(store.append, *of_run("run-b", measured()))
    assert path.read_bytes() == broken


def test_rows_that_lack_a_column_are_one_line(store):
    path = store.folder / "rows.parquet"
    pd.read_parquet(path).drop(columns="flops").to_parquet(path)
    assert "flops" in failure(store.rows)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "Expecting value"),
        ("[1]", "it must be an object, not [1]"),
        ("{", "Expecting property name"),
        ("[" * 200_000, "recursion"),
        ('{"runs": {}}', "format is missing"),
        ('{"format": 2}', "runs is missing"),
        ('{"format": 2, "runs": 3}', "runs must be an object, not 3"),
        ('{"format": 2, "runs": []}', "runs must be an object, not []"),
        ('{"format": 2, "runs": {"run-a": 3}}', "runs['run-a'] must be an object, not 3"),
        ('{"format": 2, "runs": {"run-a": {}}}', "runs['run-a'].configuration is missing"),
        ('{"format": 2, "runs": {"run-a": {"configuration": 3}}}', "runs['run-a'].configuration must be text, not 3"),
        ('{"format": 2, "runs": {"run-a": {"configuration": "0", "recipe": 3}}}', "recipe must be an object, not 3"),
        ('{"format": 2, "runs": {"run-a": {"configuration": "0", "stage": true}}}', "stage must be 1 or 2, not True"),
    ],
)
def test_a_broken_manifest_is_one_line(store, tmp_path, content, said):
    (store.folder / "manifest.json").write_text(content)
    before = {path: path.read_bytes() for path in store.folder.iterdir()}
    other = other_store(tmp_path / "other", of_run("run-b", measured("random init")))
    for call in (store.rows, lambda: store.append(*of_run("run-b", measured())), lambda: store.merge(other)):
        told = failure(call)
        assert "cannot read manifest" in told and said in told and "; restore or remove the folder" in told
    assert {path: path.read_bytes() for path in store.folder.iterdir()} == before


def test_whatever_a_manifest_holds_is_read_or_refused(store, misshapen):
    run = {"configuration": "0", "stage": 2, "recipe": {"stage_two": {}}, "source": {"tokens": 3}, "seeds": [0]}
    refused = 0
    for manifest in misshapen({"format": 2, "runs": {"run-a": run}}):
        (store.folder / "manifest.json").write_text(json.dumps(manifest))
        try:
            assert set(store.rows()["configuration"]) <= {"0", "x"}
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 80


def test_rows_without_their_manifest_are_refused(store):
    (store.folder / "manifest.json").unlink()
    assert "has rows of runs that" in failure(store.rows)


def test_a_full_disk_leaves_the_rows_as_they_were(store, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = store.rows()
    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    assert "No space left on device" in failure(store.append, *of_run("run-b", measured(value=0.9)))
    assert store.rows().equals(before)
    assert not list(store.folder.glob(".*.tmp"))


HOLD = "import sys; from structure_first.evidence.store import Store\n" + (
    "with Store(sys.argv[1]).locked(): print('held', flush=True); sys.stdin.read()"
)


def test_a_second_process_is_refused_while_the_first_writes(store):
    command = [sys.executable, "-c", HOLD, store.folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is writing to"), store.locked():
            pass
        first.kill()
    with store.locked():
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"), Store(tmp_path / "file" / "haystack").locked():
        pass


def test_a_manifest_says_what_ran_and_where(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", (*module.PACKAGES, "no-such-package"))
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    found = environment()
    assert {"code", "python", "packages", "device", "processor", "written"} <= set(found) and json.dumps(found)
    assert found["packages"].pop("no-such-package") == "not installed"
    assert found["packages"] == {name: version(name) for name in found["packages"]}
    assert {"torch", "numpy", "sympy", "tokenizers"} < set(found["packages"])
    assert (found["code"], found["python"]) == (__version__, platform.python_version())
    assert found["device"] == platform.machine() and found["processor"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(found["written"])) < timedelta(minutes=1)


def test_a_manifest_names_the_commit_and_whether_the_tree_was_clean(tmp_path, monkeypatch):
    """In a checkout of its own; where the code is in none, it says nothing."""
    package = tmp_path / "src" / "structure_first"
    package.mkdir(parents=True)
    for name in ("store.py", "seeding.py"):
        (package / name).touch()
    monkeypatch.setattr(module, "__file__", str(package / "store.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    said = module.checkout.__wrapped__

    def git(*words: str) -> str:
        command = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    assert said() == {}
    git("init", "-q"), git("commit", "-qm", "nothing", "--allow-empty")
    assert said() == {}, "it is in the folder of a checkout, but none of its files"
    (tmp_path / "notes").touch()
    git("add", "src"), git("commit", "-qm", "all")
    commit = git("rev-parse", "HEAD").strip()
    assert said() == {"commit": commit, "clean": True}
    (package / "seeding.py").write_text("changed = 1\n")
    assert said() == {"commit": commit, "clean": False}


def test_rows_of_another_configuration_stay_beside_those_of_the_same_cell(store):
    store.append(*of_run("run-b", measured(value=0.9), "another"))
    assert store.rows().groupby("configuration")["value"].first().to_dict() == {"0": 0.5, "another": 0.9}
    store.append(*of_run("run-c", measured(value=0.7), "another"))
    assert store.rows().groupby("configuration")["value"].first().to_dict() == {"0": 0.5, "another": 0.7}


def other_store(folder: Path, *runs: tuple) -> Store:
    store = Store(folder)
    for run in runs:
        store.append(*run)
    return store


def put_weights(store: Store, content: bytes) -> Path:
    path = store.folder / "weights/0/2.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_rows_stand_in_one_order_whichever_run_came_first(store, tmp_path):
    fresh = measured("random init")
    other = other_store(tmp_path / "other", of_run("run-b", fresh), of_run("run-a", measured()))
    store.append(*of_run("run-b", fresh[::-1]))
    pd.testing.assert_frame_equal(store.rows(), other.rows())


def test_what_two_machines_made_is_merged(store, tmp_path):
    fresh = of_run("run-b", measured(seeds=(1, 2)).query("seed == 2")), of_run("run-c", measured("random init"))
    other = other_store(tmp_path / "other", of_run("run-a", measured()), *fresh)
    put_weights(other, b"weights")
    before = store.rows()
    assert store.merge(other) == 3 and store.merge(other) == 0
    rows = store.rows()
    assert rows.groupby("cell")["seed"].unique().map(list).to_dict() == {"dyck": [0, 1, 2], "random init": [0, 1]}
    pd.testing.assert_frame_equal(rows[rows["run"] == "run-a"].reset_index(drop=True), before)
    assert set(store.manifest()["runs"]) == {"run-a", "run-b", "run-c"}
    assert (store.folder / "weights/0/2.safetensors").read_bytes() == b"weights"


def test_a_stage_one_stays_beside_the_stage_two_of_the_same_name(store):
    store.append(*of_run("run-b", measured(value=0.9, stage=1)))
    assert store.rows().groupby("stage")["value"].unique().map(list).to_dict() == {1: [0.9], 2: [0.5]}


def test_weights_that_are_there_are_not_replaced_by_a_merge(store, tmp_path):
    other = other_store(tmp_path / "other", of_run("run-b", measured("random init")))
    ours, _ = put_weights(store, b"ours"), put_weights(other, b"theirs")
    store.merge(other)
    assert ours.read_bytes() == b"ours"


def test_a_full_disk_leaves_no_half_of_the_weights(store, tmp_path, monkeypatch):
    def full(_, target):
        Path(target).write_bytes(b"wei")
        raise OSError(28, "No space left on device")

    put_weights(other := Store(tmp_path / "other"), b"weights")
    monkeypatch.setattr(module.shutil, "copyfile", full)
    assert "No space left on device" in failure(store.merge, other)
    assert not list(store.folder.glob("weights/*/*"))


@pytest.mark.parametrize("change", ["value", "tokens", "flops", "rows"])
def test_a_conflict_is_named_and_nothing_is_merged(store, tmp_path, change):
    rows = measured().query("step == 100") if change == "rows" else measured().assign(**{change: 1})
    other = other_store(tmp_path / "other", of_run("run-a", rows), of_run("run-c", measured("random init")))
    put_weights(other, b"weights")
    before = {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
    said = failure(store.merge, other)
    both = "smoke, dyck, stage 2, seed 0; smoke, dyck, stage 2, seed 1"
    assert f"differ in 2 models ({both}); nothing was merged" in said
    assert {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()} == before


def test_of_many_conflicts_the_first_ten_are_named(store, tmp_path):
    store.append(*of_run("run-b", measured(seeds=range(12))))
    said = failure(store.merge, other_store(tmp_path / "other", of_run("run-c", measured(seeds=range(12), value=0.1))))
    assert said.count("smoke, dyck") == 10 and "seed 9; and 2 more); nothing was merged" in said
