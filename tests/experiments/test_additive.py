"""Structure in front of text: what each cell spends, and a real run of a few."""

import json
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest

from structure_first.cost import flops
from structure_first.data.corpora import cached
from structure_first.evidence.statistics import final
from structure_first.experiments import additive, published, substitutive
from structure_first.runs.jobs import Job
from structure_first.runs.planning import chosen
from structure_first.runs.runner import run

SCALES = ("smoke", "laptop", "gpu", "paper")
RAN = (
    "code / random init",
    "code / identity 1 %",
    "code / identity 1 % / mlp",
    "code / text 10 %",
    "code / mixture 1 %",
    "code / as many FLOPs 10 %",
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRUCTURE_FIRST_CORPORA", str(tmp_path_factory.mktemp("corpora")))
        yield


@pytest.fixture(scope="module")
def rows(packed, tmp_path_factory) -> tuple[pd.DataFrame, dict]:
    out = tmp_path_factory.mktemp("results")
    found = run(additive.EXPERIMENT, "smoke", [0, 1], out, "cpu", workers=1, cells=RAN)
    return found, json.loads((out / "additive" / "manifest.json").read_text())


@pytest.mark.parametrize("scale", ["laptop", "gpu", "paper"])
def test_every_front_has_the_share_that_its_name_says(scale):
    size = additive.SIZES[scale]
    whole = size.stage_two.steps * size.stage_two.batch * (size.context + 1)
    for cell, recipe in additive.EXPERIMENT.recipes(scale).items():
        front = cell.split(" / ")[1]
        if recipe.stage_one is None:
            continue
        share = float(front.split()[-2]) / 100
        stage = recipe.stage_one.stage
        length = size.context + 1 if "/" in recipe.stage_one.source else recipe.stage_one.make().length
        step = stage.batch * length
        assert abs(stage.steps * step - share * whole) <= max(step, 1), cell


@pytest.mark.parametrize("scale", SCALES)
def test_every_corpus_has_the_same_cells_and_what_is_compared_is_alike(scale):
    found, size = additive.EXPERIMENT.recipes(scale), additive.SIZES[scale]
    fronts = Counter(cell.split(" / ", 1)[1] for cell in found)
    assert set(fronts.values()) == {len(size.corpora)}
    for corpus in size.corpora:
        for cell, recipe in found.items():
            if cell.startswith(f"{corpus} / ") and recipe.stage_one is not None:
                base = found[f"{corpus} / random init"]
                assert recipe.stage_two == base.stage_two and recipe.body == base.body, cell


def test_the_untuned_runs_differ_in_what_was_tuned_and_in_nothing_else():
    tuned, untuned = additive.FORMER.recipes("laptop"), additive.UNTUNED.recipes("laptop")
    assert untuned.keys() == tuned.keys()
    for cell in ("code / random init", "code / identity 1 % / mlp", "math / text 10 %"):
        again = replace(untuned[cell], body=tuned[cell].body, stage_two=untuned[cell].stage_two.at(warmup=200))
        assert again == tuned[cell] and untuned[cell].key != tuned[cell].key


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", [published.EXPERIMENT, substitutive.EXPERIMENT])
def test_what_a_chapter_runs_live_is_there_at_every_scale(scale, experiment):
    assert set(experiment.live) <= set(experiment.recipes(scale))


def test_as_many_flops_are_as_many(packed):
    found = additive.EXPERIMENT.recipes("smoke")
    longer, base = (found[f"code / {name}"] for name in ("as many FLOPs 10 %", "random init"))
    job = Job.of("x", base, [0], None)
    step = job.phase.stage.batch * flops.training(job.shape, job.phase.make())
    extra = (longer.stage_two.stage.steps - base.stage_two.stage.steps) * step
    assert abs(extra - additive.spent(found["code / identity 10 %"])[1]) <= step / 2


@pytest.mark.parametrize("corpus", ["code", "language"])
def test_the_vocabulary_that_flops_are_counted_with_is_the_corpus_s(packed, corpus):
    size = additive.SIZES["smoke"]
    made = size.phase(corpus).make()
    name, tokeniser, vocab = size.corpora[corpus]
    assert (made.vocab, made.length) == (vocab, size.context + 1) and made.held_out is not None
    assert (cached.corpus_folder(name, tokeniser, size.pool) / "manifest.json").exists()


def test_a_real_run_has_a_row_for_every_seed(rows):
    found, manifest = rows
    last = final(found, "loss")
    assert set(last.index.get_level_values("cell")) == set(RAN) and last.groupby("cell").size().eq(2).all()
    first = found[(found["metric"] == "loss") & (found["stage"] == 2) & (found["step"] == 0)]
    assert (last["code / random init"] < first.set_index(["cell", "seed"])["value"]["code / random init"]).all()
    assert set(found.loc[found["metric"] == "mastery", "cell"]) == {
        cell for cell in RAN if additive.EXPERIMENT.recipes("smoke")[cell].stage_one
    }
    read = [run["source"] for run in manifest["runs"].values() if run["stage"] == 2]
    assert all(each["name"] == "packed:code" and each["tokens"] > 20_000 for each in read)
    assert len({each["digest"] for each in read}) == 1
    assert all(
        run["recipe"]["stage_two"] is None or run["recipe"]["stage_two"]["tied"] for run in manifest["runs"].values()
    )


def test_text_in_front_is_read_with_everything_carried_over(rows):
    found, _ = rows
    start = found[(found["metric"] == "loss") & (found["stage"] == 2) & (found["step"] == 0)]
    start = start.set_index(["cell", "seed"])["value"]
    assert (start["code / text 10 %"] < start["code / random init"]).all()


def test_the_shares_of_the_text_end_their_schedules():
    found, share = substitutive.EXPERIMENT.recipes("laptop"), substitutive.EXPERIMENT.factors("laptop")["text"]
    whole = additive.SIZES["laptop"].stage_two.steps
    assert set(share) == set(substitutive.SHARES)
    for cell, recipe in found.items():
        stage = recipe.stage_two.stage
        assert stage.steps == round(share[cell] * whole)
        assert stage.lr_at(stage.steps - 1) < 1.05 * stage.floor * stage.lr
    small = chosen(substitutive.EXPERIMENT, "laptop", ["code / width 32 / random init / 100 %"]).recipes("laptop")
    assert [recipe.body.width for recipe in small.values()] == [32]
