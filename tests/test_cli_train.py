"""The verbs `train` and `plan`, and the configurations that come with the book."""

from pathlib import Path

import pytest

from structure_first.evidence.store import Store
from structure_first.pretraining.config import Config, read
from structure_first.pretraining.mistakes import names
from structure_first.pretraining.stages import jobs, stand_in
from structure_first.runs.budget import cost

CONFIGS = sorted((Path(__file__).parents[1] / "book" / "configs").glob("*.yaml"))
TINY = """
shape: {layers: 1, heads: 2, width: 32}
stage_one: {source: identity, settings: {length: 4, vocab: 8}, steps: 4, batch: 4, lr: 1e-3}
corpus: {name: CORPUS, tokeniser: bytes, context: 16, held_out: 0.2}
stage_two: {steps: 6, batch: 4, lr: 1e-3}
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    for number in range(60):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"document {number} " + "lorem ipsum " * (number % 9))
    (tmp_path / "tiny.yaml").write_text(TINY.replace("CORPUS", "./texts"))
    return "tiny.yaml"


def test_it_trains_once_and_says_where_things_are(said, tiny):
    out, _ = said("train", tiny, "--device", "cpu")
    lines = out.splitlines()
    rows = Store(Path("runs/tiny")).rows()
    for stage, steps in ((1, 4), (2, 6)):
        last = rows[(rows["stage"] == stage) & (rows["step"] == steps) & (rows["metric"] == "loss")]
        loss = f"stage {stage}  held-out loss {last['value'].item():.4f} nats a token after {steps} updates"
        assert lines[stage - 1].startswith(loss)
    assert lines[2].endswith("in runs/tiny") and Path("runs/tiny/export/model.safetensors").exists()
    assert said("train", tiny) == (out, "")
    Path(tiny).write_text(Path(tiny).read_text().replace("steps: 6", "steps: 7"))
    assert "runs/tiny holds a run with stage_two.steps 6, not 7" in said("train", tiny)[1]


def test_a_try_stops_early_and_leaves_the_run_alone(said, tiny):
    said("train", tiny, "--steps", 2, "--device", "cpu")
    rows = Store(Path("runs/tiny-2-steps")).rows()
    assert rows["step"].max() == 2 and set(rows["stage"]) == {1, 2} and not Path("runs/tiny").exists()


def test_a_plan_is_printed_and_leaves_nothing(said, tiny):
    out, _ = said("plan", tiny, "--gpu", "a100-80gb", "--gpus", 2, "--price", 3)
    assert "4 updates, 144 tokens" in out and "6 updates, 408 tokens" in out and "at 3 a GPU-hour" in out
    assert "stage one is 35.29% of stage two's tokens" in out and "does NOT fit" not in out
    assert sorted(path.name for path in Path().iterdir()) == ["texts", "tiny.yaml"]


def test_what_does_not_fit_is_said_plainly(said, tiny):
    Path("big.yaml").write_text(
        TINY.replace("{layers: 1, heads: 2, width: 32}", "gpt2-xl").replace("CORPUS", "./texts")
    )
    assert "it does NOT fit; not one sequence at once would; try" in said("plan", "big.yaml", "--gpu", "a10")[0]
    Path("wide.yaml").write_text(
        TINY.replace("CORPUS", "./texts").replace("batch: 4, lr: 1e-3}", "batch: 16000000, lr: 1}")
    )
    assert "it does NOT fit; compute.micro_batch: " in said("plan", "wide.yaml")[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_configuration_of_the_book_is_read_and_planned(path):
    def costs(config: Config):
        return [cost(job, "h100", 8) for job in jobs(config, stand_in(config.corpus))]

    made = read(path)
    first, second = costs(made)
    assert first.fits and second.fits and first.tokens < second.tokens and 0 < second.hours < 24
    short = costs(made.stopped_at(3))
    assert [cost.job.phase.stage.steps for cost in short] == [3, 3] and short[1].tokens < second.tokens


def test_the_quick_one_names_every_section():
    assert CONFIGS[-1].stem == "quick"
    assert {*names(Config)} - {"allow_larger_stage_one"} == {
        line.partition(":")[0] for line in CONFIGS[-1].read_text().splitlines() if line[:1].isalpha()
    }
    assert set(Config.model_fields) == set(names(Config))
