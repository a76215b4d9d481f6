"""The grid: whole at every scale, its controls what they say, and every cell's two stages fit each other."""

from dataclasses import replace
from pathlib import Path

import pytest

from structure_first.data.registry import DIAGNOSTICS
from structure_first.evidence.statistics import final
from structure_first.evidence.store import Store
from structure_first.experiments import haystack, skills
from structure_first.model.transformer import Body
from structure_first.runs.jobs import Job, trained

FIVE_DIGITS = {"digits": 5, "leading_zeros": 1, "shifted": 0}
RESULTS = Path(__file__).parents[2] / "book" / "results"


@pytest.mark.parametrize("scale", ["smoke", "laptop", "gpu", "paper"])
def test_the_grid_is_whole(scale):
    cells = skills.EXPERIMENT.recipes(scale)
    split = [cell.split(" / ") for cell in cells]
    assert {task for task, *_ in split} == set(DIAGNOSTICS)
    transforms = {"identity", "reverse", "sort", "set", "union", "delete"}
    asked = {recipe.stage_one.source for recipe in cells.values() if recipe.stage_one}
    assert asked >= transforms | {"stack", "dyck", "dyck_shuffle", "eca"}
    for task in DIAGNOSTICS:
        names = {tuple(rest) for first, *rest in split if first == task}
        assert {(name, transfer) for name in skills.sources(scale) for transfer in skills.TRANSFERS} < names
        assert {("random init",), ("wide init",), ("longer training",), ("random tokens", "full")} < names
        assert (("tuned init",) in names) == (scale in ("smoke", "laptop"))  # it was tuned at one scale
        assert any(name.startswith("shuffled ") for name, *_ in names) and any("permuted" in name for name in names)
    assert set(skills.EXPERIMENT.live) <= set(cells)
    assert not set(skills.EXPERIMENT.live_seeds) & set(range(300, 300 + skills.EXPERIMENT.seeds[scale]))


@pytest.mark.parametrize("scale", ["laptop", "paper"])
def test_positions_of_stage_one_reach_through_stage_two(scale, tmp_path):
    """A transform or a word is at least as long as a diagnostic, so that no position of `full` starts afresh."""
    for cell, recipe in skills.EXPERIMENT.recipes(scale).items():
        if recipe.stage_one and cell.endswith("/ full"):
            job = Job.of(cell, recipe, (0,), tmp_path)
            before = Job((job.replicas[0].before,), tmp_path)
            assert before.shape.context >= job.shape.context, cell
            assert (before.shape.layers, before.shape.width) == (job.shape.layers, job.shape.width)


def best(experiment):
    """The cells of a stored search from the best mean accuracy down."""
    rows = Store(RESULTS / experiment.name).rows()
    return final(rows[rows["scale"] == "laptop"]).groupby("cell").mean().sort_values(ascending=False).index


def test_a_tuned_beginning_is_the_best_of_those_that_were_tried():
    tried, cells, order = skills.TUNING.recipes("laptop"), skills.EXPERIMENT.recipes("laptop"), best(skills.TUNING)
    assert set(order) == set(tried) and len(tried) == 5 * 12 * 2
    for task in DIAGNOSTICS:
        begun = cells[f"{task} / tuned init"]
        assert begun == tried[next(cell for cell in order if cell.startswith(f"{task} / "))]
        assert begun.stage_two.make().name == task and begun.stage_one is None


def test_the_haystack_begins_with_the_best_widths_and_the_best_rate_for_them():
    tried, cells, order = (
        haystack.TUNING.recipes("laptop"),
        haystack.EXPERIMENT.recipes("laptop"),
        best(haystack.TUNING),
    )
    assert set(order) == set(tried)
    widths, rate = (next(cell for cell in order if ("rate" in cell) == rated) for rated in (False, True))
    assert cells["tuned init"] == tried[widths]
    assert cells["tuned init" + haystack.FASTER] == tried[rate]


@pytest.mark.parametrize("scale", ["smoke", "laptop", "paper"])
def test_the_two_rules_taken_apart_hold_the_cells_that_they_are_taken_from(scale):
    apart, joined = haystack.RULES.recipes(scale), haystack.EXPERIMENT.recipes(scale)
    same = {
        "random init": "random init",
        "dyck / everything / resampled rows": "dyck",
        "dyck / everything / mean rows": "dyck mean",
        "dyck / nothing / resampled rows": "dyck embeddings",
        **{f"{name} / everything / resampled rows": f"{name} full" for name in ("identity", "set")},
        **{f"{name} / attention / fresh rows": f"{name} attention" for name in ("dyck", "identity", "set")},
    }
    assert {cell: apart[cell].key for cell in same} == {cell: joined[other].key for cell, other in same.items()}
    assert len({recipe.key for recipe in apart.values()}) == len(apart) == 1 + 3 * (3 * 4 - 1)


def test_the_tuned_grid_begins_where_the_diagnostics_do_best():
    """Every stage two as `tuned init` has it, but looked at more often; every stage one from one beginning."""
    plain, tuned = skills.EXPERIMENT.recipes("laptop"), skills.TUNED.recipes("laptop")
    left_out = {f"{task} / {name} init" for task in DIAGNOSTICS for name in ("wide", "tuned")}
    same = {cell for cell in tuned if cell.endswith(" / same start")}
    assert set(tuned) - same == set(plain) - left_out
    assert {cell.split(" / ")[0] for cell in same} == {"haystack", "sorting", "multiplication"}, (
        "additions begin so anyway"
    )
    for cell, recipe in tuned.items():
        begun = plain[f"{cell.split(' / ')[0]} / tuned init"]
        assert (recipe.body, recipe.stage_two.tied) == (begun.body, begun.stage_two.tied)
        assert recipe.stage_two.stage.lr == begun.stage_two.stage.lr
        if recipe.stage_one:
            assert recipe.alone.body == (begun.body if cell in same else skills.FIRST)
    firsts = {recipe.alone.key for cell, recipe in tuned.items() if recipe.stage_one and cell not in same}
    controls = len(skills.LAPTOP.controlled) + 1
    assert len(firsts) == len(skills.sources("laptop")) + controls, "the controlled ones shuffled, and random tokens"
    assert skills.TUNED.recipes("gpu") == {}, "its sizes were not tuned"
    large = skills.TUNING.recipes("gpu")["multiplication / weights 0.0442 / embeddings 0.02 / rate 0.001"]
    assert (large.body.width, large.body.init, large.stage_two.make().settings) == (512, 512**-0.5, FIVE_DIGITS), (
        "but can be"
    )


def test_a_trained_stage_one_of_every_source_is_stored():
    """So that a reader can begin at stage two."""
    folder = RESULTS / skills.EXPERIMENT.name
    for name in skills.sources("laptop"):
        job = Job.of(
            name,
            skills.EXPERIMENT.recipes("laptop")[f"haystack / {name} / full"],
            [skills.EXPERIMENT.first_seed],
            folder,
        )
        before = job.replicas[0].before
        assert trained([before], folder).shape == Job((before,), folder).shape


def test_longer_training_spends_stage_ones_updates_on_the_diagnostic():
    cells = skills.EXPERIMENT.recipes("laptop")
    extra = (
        cells["sorting / longer training"].stage_two.stage.steps - cells["sorting / random init"].stage_two.stage.steps
    )
    assert extra == cells["sorting / set / full"].stage_one.stage.steps
    assert cells["sorting / shuffled set / full"].stage_one.stage.mastery is None


def test_the_paper_multiplies_with_a_larger_model():
    large = skills.EXPERIMENT.recipes("paper")["multiplication / random init"]
    assert (large.body, large.stage_two.stage.batch) == (Body(layers=4, heads=8, width=512), 64)
    assert large.stage_two.settings == {} and large.stage_two.make().settings == FIVE_DIGITS


@pytest.mark.parametrize("scale", ["smoke", "laptop", "paper"])
def test_sums_drawn_otherwise_differ_in_nothing_else(scale):
    cells, ours = skills.DRAWN.cells(scale), skills.EXPERIMENT.recipes(scale)
    assert {cell.factors.swept for cell in cells.values()} == set(skills.DRAWS)
    for name, cell in cells.items():
        factors = cell.factors
        front = factors.front.split(",")[0].removeprefix("shuffled ")
        plain = ours[" / ".join(filter(None, (factors.task, front, factors.carried)))]
        settings = {**plain.stage_two.settings, **skills.DRAWS[factors.swept]}
        plain = replace(plain, stage_two=replace(plain.stage_two, settings=settings))
        if factors.front == skills.THEIR_STACK:
            settings = {**plain.stage_one.settings, "forced": 1}
            plain = replace(plain, stage_one=replace(plain.stage_one, settings=settings))
        if plain.stage_one and plain.stage_one.settings.get("length") == 64:  # at the paper's size
            settings = {**plain.stage_one.settings, "length": 20}
            plain = replace(plain, stage_one=replace(plain.stage_one, settings=settings))
        if factors.front == "shuffled eca":
            plain = replace(plain, stage_one=replace(plain.stage_one.at(mastery=None), source="shuffled:eca"))
        assert cell.recipe == plain, name
