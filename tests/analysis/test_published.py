"""The published recipe: gains and savings are over random init of the same seed and settings."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from structure_first.analysis import published as analysis
from structure_first.analysis.stored import with_factors
from structure_first.analysis.text import savings
from structure_first.book.figures import published as draw
from structure_first.book.figures.style import GREY, PALETTE
from structure_first.evidence.store import Store
from structure_first.experiments.published import EXPERIMENT, PUBLISHED

RESULTS = Path(__file__).parents[2] / "book" / "results"

CURVES = {  # at a quarter, half and all of the text
    "code / random init": (3.0, 2.5, 2.0),
    "code / set": (2.0, 1.8, 1.5),
    "code / set / permuted": (2.5, 2.0, 1.8),
    "code / random init / wider start at 0.002": (2.0, 1.5, 1.0),
    "code / set / wider start at 0.002": (2.0, 1.6, 1.2),
}


FRONTS = ("random init", "set")


@pytest.fixture
def found(rows_of) -> pd.DataFrame:
    losses = {
        (cell, seed): {0: 5.0} | {step: value + seed / 100 for step, value in zip((375, 750, 1500), curve, strict=True)}
        for cell, curve in CURVES.items()
        for seed in (700, 701, 702)
    }
    first = rows_of({("code / set", 700): {2500: 0.1}}, metric="loss", stage=1)
    rows = pd.concat([rows_of(losses, metric="loss"), first]).sample(frac=1, random_state=0)
    return analysis.curves(with_factors(rows, EXPERIMENT))


def test_a_saving_is_told_of_runs_whose_schedule_ends_with_their_text(rows_of, tmp_path):
    losses = {
        "code / nca / wider start at 0.002": 1.0,  # at no published rate, though first by name
        "code / random init": 2.0,
        "code / set": 1.8,
        "code / set / 50 % of the text": 2.2,
        "code / set / permuted": 1.7,
        "math / random init": 1.0,
        "math / set": 0.9,
    }
    by_seed = {(cell, seed): loss for cell, loss in losses.items() for seed in (700, 701, 702)}
    rows = rows_of(by_seed, metric="loss", flops=10**15).assign(run=lambda rows: rows["cell"])
    recipes = EXPERIMENT.recipes("laptop")
    Store(tmp_path / "published").append(rows, {cell: {"configuration": recipes[cell].key} for cell in losses})
    models = analysis.shorter(tmp_path)
    assert set(models["cell"]) == {"code / random init", "code / set", "code / set / 50 % of the text"}
    (line,) = savings(models).to_dict("records")
    assert (line["in front"], line["seeds"], line["of the text"]) == ("set", 3, "71%"), "half of the way, by logarithms"


def test_a_schedule_that_ends_early_is_set_beside_the_long_run_on_its_way(found):
    less = found[(found["cell"] == "code / set") & (found["step"] == 750)].assign(loss=found["loss"] + 0.25)
    table = analysis.stopped_early(less, found)
    assert table.reset_index().to_dict("records") == [
        {
            "text": "code, width 128",
            "in front": "set",
            "of the text": "50%",
            "higher than on its way, nats": "+0.250",
            "seeds": 3,
        }
    ]


def test_a_live_run_is_a_part_of_the_curve_beside_the_stored_ones(rows_of, tmp_path):
    def losses(ends, seed):
        return {
            (cell, seed): {0: 5.0, 75: 4.0 + lag, 375: end}
            for cell, end, lag in zip(EXPERIMENT.live, ends, (0, 0.2), strict=True)
        }

    kept = rows_of(losses((3.0, 2.8), 700) | losses((3.2, 2.9), 701), metric="loss")
    later = kept[kept["step"] == 375].assign(step=1_500, value=1.0)
    recipes = EXPERIMENT.recipes("laptop")
    rows = pd.concat([kept, later]).assign(run=lambda rows: rows["cell"])
    runs = {cell: {"configuration": recipes[cell].key} for cell in EXPERIMENT.live}
    Store(tmp_path / "published").append(rows, runs)
    mine = rows_of(losses((3.1, 2.7), 710), metric="loss")
    found = analysis.early(mine, tmp_path)
    ends = found[found["step"] == 375].set_index(["whose", "seed"])["lead"].round(6)
    assert ends.to_dict() == {("yours", 710): 0.4, ("stored", 700): 0.2, ("stored", 701): 0.3}
    assert analysis.early_said(found).splitlines() == [
        "- **Yours** (seeds: 1): at worst -0.200 nats a token, after 375 updates +0.400.",
        "- **Stored** (seeds: 2): at worst -0.200 nats a token, after 375 updates +0.250 (+0.200 to +0.300).",
    ]
    fig = draw.early(found)
    looks = [(trace.name, trace.line.color, trace.line.width, list(trace.y)) for trace in fig.data]
    assert looks == [
        ("stored seeds", GREY, 1.5, [-0.2, 0.2]),
        ("stored seeds", GREY, 1.5, [-0.2, 0.3]),
        ("your run", PALETTE[0], 4, [-0.2, 0.4]),
    ]
    assert set(analysis.early(mine, tmp_path / "nowhere")["whose"]) == {"yours"}


@pytest.fixture
def last(found) -> pd.DataFrame:
    return analysis.ends(found)


def test_gains_are_over_the_same_seed_and_settings(last):
    gains = last.groupby("cell")["gain"].agg(["min", "max"])
    assert gains.loc["code / set"].to_list() == pytest.approx([0.5, 0.5])
    assert gains.loc["code / set / wider start at 0.002"].to_list() == pytest.approx([-0.2, -0.2])
    assert (gains.loc[[cell for cell in CURVES if "random init" in cell]] == 0).all(axis=None)


def test_what_is_needed_is_read_off_the_curve_after_training_began(last):
    needed = last.groupby("cell")["needed"].median()
    assert needed["code / set"] == 0.25 and needed["code / set / permuted"] == pytest.approx(0.5)
    assert np.isinf(needed["code / set / wider start at 0.002"])


def test_what_was_published_is_the_rung_of_the_papers_rate(last):
    ours = analysis.published(pd.concat([last, last.assign(swept="warmed up")]))
    assert set(ours["label"]) == {"random init", "set", "set, permuted"} and set(ours["swept"]) == {"no warm-up"}


def test_the_answers_stand_in_tables(last):
    table = analysis.answers(analysis.published(last)).set_index("in front")
    assert table.loc["random init"].to_list() == [3, "9.010", "", "", ""]
    assert table.loc["set"].to_list() == [3, "8.510", "+0.500", "25%", "67% (set)"]
    assert table.loc["set, permuted"].to_list()[-3:] == ["+0.200", "50%", ""]
    steps = analysis.worth(analysis.climbed(last)).T.to_dict()
    assert steps == {
        ("code, width 128", "as published at 0.0003"): {
            "random init ends at": "9.010",
            "set": "+0.500",
            "set, permuted": "+0.200",
            "seeds": 3,
        },
        ("code, width 128", "wider start at 0.002"): {
            "random init ends at": "8.010",
            "set": "-0.200",
            "set, permuted": "",
            "seeds": 3,
        },
    }


def test_of_problems_a_table_says_how_many_are_solved(rows_of):
    shares = {"random init": (0.1, 0.2, 0.4), "set": (0.2, 0.4, 0.5), "set / permuted": (0.0, 0.1, 0.3)}
    solved = {
        (f"math / {name}", seed): dict(zip((0, 375, 750, 1500), (0.0, *share), strict=True))
        for name, share in shares.items()
        for seed in (700, 701)
    }
    last = analysis.ends(analysis.curves(with_factors(rows_of(solved, metric="problems"), EXPERIMENT), "problems"))
    assert analysis.solved(last).T.to_dict("list") == {
        "random init": ["40.0%", "41.2%", "+0.0", 2],
        "set": ["50.0%", "42.5%", "+10.0", 2],
        "set, permuted": ["30.0%", "", "-10.0", 2],
    }


def test_the_problems_that_are_told_were_solved_by_models_as_published():
    solved = analysis.as_published("problems", RESULTS)
    assert set(solved["swept"]) == {PUBLISHED} and "random init" in set(solved["label"])
    assert set(solved.groupby(["width", "label"])["seed"].nunique()) <= {3, 6}
    assert not solved.duplicated(["width", "label", "seed"]).any()


def test_a_step_has_the_rate_that_is_best_for_random_init_but_the_first_its_own(rows_of):
    pairs = {
        "": (2.0, 1.9),
        " / no warm-up at 0.001": (1.9, 1.8),
        " / warmed up at 0.001": (2.0, 0.5),
        " / warmed up at 0.002": (1.5, 1.4),
    }
    ends = {
        f"code / {front}{name}": end for name, pair in pairs.items() for front, end in zip(FRONTS, pair, strict=True)
    }
    ends |= {"math / random init": 1.0, "math / set": 0.5}
    models = {(cell, seed): {1500: end} for cell, end in ends.items() for seed in (700, 701, 702)}
    models["code / random init / warmed up at 0.001", 702] = {1500: 0.1}  # the luck of one seed
    models["code / random init / warmed up at 0.004", 700] = {1500: 1.0}  # beside which no front has run
    rows = rows_of(models, metric="loss")
    found = analysis.climbed(analysis.ends(analysis.curves(with_factors(rows, EXPERIMENT))))
    assert set(found["task"]) == {"code"}, "on mathematics there is one step"
    fronts = found[found["label"] == "set"].set_index("step")
    assert fronts["amount"].to_dict() == {"as published": 3e-4, "no warm-up": 1e-3, "warmed up": 2e-3}
    assert fronts["gain"].to_list() == pytest.approx([0.1] * 9)


def test_each_width_climbs_by_itself_and_stands_by_itself(rows_of):
    sizes = []
    for scale, rate in {"laptop": "0.002", "gpu": "0.0005"}.items():
        cells = [f"code / random init{rung}" for rung in ("", f" / warmed up at {rate}")]
        rows = rows_of({(cell, 700): {1500: 1.0} for cell in cells}, metric="loss", scale=scale)
        sizes.append(analysis.curves(with_factors(rows, EXPERIMENT)))
    found = analysis.climbed(analysis.ends(pd.concat(sizes, ignore_index=True)))
    steps = ("as published", "warmed up")
    assert list(zip(found["width"], found["step"], strict=True)) == [(w, step) for w in (128, 512) for step in steps]


def test_what_is_in_front_is_reckoned_from_the_recipe():
    recipe = EXPERIMENT.recipes("laptop")["code / set"]
    said = analysis.pinch(recipe)
    assert said.startswith("Stage one takes 2,500 updates and 10 M tokens, stage two 1,500 and 6.2 M.")


def test_a_part_is_told_beside_the_whole_where_both_parts_ran(rows_of):
    ends = {"random init": 2.0, "set": 1.5, "set / attention": 1.6, "set / mlp": 1.9, "set / permuted": 1.8}
    ends |= {
        "set / attention permuted": 1.7,
        "set / mlp permuted": 1.95,
        "set / norms": 2.1,
        "set / without norms": 1.4,
    }
    losses = {
        (f"code / {name}", seed): {0: 5.0, 1500: end + (seed - 700) / 100 * (name == "set / mlp")}
        for name, end in ends.items()
        for seed in (700, 701, 702)
    }
    losses |= {(f"code / {name} / warmed up at 0.002", 700): {0: 5.0, 1500: 1.0} for name in ("random init", "set")}
    alone = {"attention": 1.6, "mlp": 1.91}  # of a seed that has no baseline yet: there is a difference, and no gain
    losses |= {(f"code / set / {part}", 703): {0: 5.0, 1500: end} for part, end in alone.items()}
    found = analysis.parts(analysis.ends(analysis.curves(with_factors(rows_of(losses, metric="loss"), EXPERIMENT))))
    assert set(found["start"]) == {"code, width 128, no warm-up at 0.0003"}, "the other start has not all parts"
    assert analysis.parts_told(found).droplevel("start").T.to_dict("list") == {
        "all of Set": ["+0.500", 3],
        "all permuted": ["+0.200", 3],
        "its attention": ["+0.400", 3],
        "attention permuted": ["+0.300", 3],
        "its MLPs": ["+0.090 (+0.080 to +0.100)", 3],
        "MLPs permuted": ["+0.050", 3],
        "its norms": ["-0.100", 3],
        "all but norms": ["+0.600", 3],
        "attention less MLPs": ["+0.310 (+0.300 to +0.320)", 4],
        "attention less its own numbers in random order": ["+0.100", 3],
        "MLPs less their own numbers in random order": ["+0.040 (+0.030 to +0.050)", 3],
    }
    fig = draw.parts(found)
    assert [trace.name for trace in fig.data][1::2] == list(analysis.PARTS), "seeds and median of each"


def test_the_curves_end_on_the_dotted_line(found):
    fig = draw.curves(found[found["swept"] == "no warm-up"])
    medians = {trace.name: trace for trace in fig.data if trace.showlegend}
    assert set(medians) == {"random init", "set", "set, permuted"}
    (dotted,) = fig.layout.shapes
    assert medians["random init"].y[-1] == dotted.y0 == pytest.approx(9.01)
    assert medians["set"].x[0] == 0.25, "not the loss before training"


def test_sizes_are_compared_within_themselves_though_their_cells_have_one_name(rows_of, keep_sizes):
    found = analysis.every_size(keep_sizes)
    assert list(found["width"].unique()) == [128, 512]
    last = analysis.ends(found).set_index(["width", "cell"])
    assert last.loc[(128, "code / set"), "gain"] == pytest.approx(0.5)
    assert last.loc[(512, "code / set"), "gain"] == pytest.approx(-0.25)
    assert np.isinf(last.loc[(512, "code / set"), "needed"])
    table = analysis.answers(analysis.published(last.reset_index())).set_index("in front", append=True)
    assert table.loc[("code, width 128", "set")].to_list()[2:4] == ["+0.500", "100%"]
    assert table.loc[("code, width 512", "set")].to_list()[2:4] == ["-0.250", "never"]


@pytest.fixture
def keep_sizes(tmp_path, rows_of):
    for scale, ends in {"laptop": (2.0, 1.5), "gpu": (1.0, 1.25)}.items():
        for cell, loss in zip(("code / random init", "code / set"), ends, strict=True):
            key = EXPERIMENT.recipes(scale)[cell].key
            rows = rows_of({(cell, 700): {0: 5.0, 1500: loss}}, metric="loss", run=f"{cell} {scale}", scale=scale)
            Store(tmp_path / "published").append(rows, {f"{cell} {scale}": {"configuration": key}})
    return tmp_path


def test_the_gain_is_drawn_against_the_updates_of_stage_one(rows_of):
    losses = {
        ("code / random init", 700): {3000: 1.0},
        ("code / set / 100 updates", 700): {3000: 1.2},
        ("code / set", 700): {3000: 1.5},
        ("code / set / permuted", 700): {3000: 1.3},
        ("code / union", 700): {3000: 0.1},
    }
    rows = with_factors(rows_of(losses, metric="loss", scale="gpu"), EXPERIMENT)
    fig = draw.doses(analysis.ends(analysis.curves(rows)))
    medians = {trace.name: dict(zip(trace.x, trace.y, strict=True)) for trace in fig.data if trace.showlegend}
    assert medians["set"] == pytest.approx({100: -0.2, 2500: -0.5})
    assert medians["set, permuted"] == pytest.approx({2500: -0.3}) and len(medians) == 2


def test_the_ladder_goes_from_step_to_step_and_what_was_never_reached_is_at_its_top(last):
    fig = draw.ladder(analysis.climbed(last), whats=(draw.LOSS, draw.GAIN, draw.NEEDED))
    assert [each.text for each in fig.layout.annotations] == ["code,<br>width 128"]
    medians = {(each.name, each.yaxis): (each.x, each.y) for each in fig.data if each.mode == "lines+markers"}
    steps, gains = medians["set", "y2"]
    assert list(steps) == ["as published", "wider start"] and list(gains) == pytest.approx([0.5, -0.2])
    assert medians["set", "y3"][1][1] == draw.NEVER and ("random init", "y2") not in medians
    (hovers,) = (each.hovertemplate for each in fig.data if each.name == "set" and each.yaxis == "y3")
    told = ["set, %{x}: %{y:.0%} of the text, median<extra></extra>", "set, %{x}: never, median<extra></extra>"]
    assert list(hovers) == told, "no dot stands for a share above all of the text"


def test_a_line_of_the_ladder_goes_up_its_steps_in_order(last):
    steps = analysis.climbed(last)
    last_one = steps[steps["step"] == "wider start"]
    parts = [last_one.assign(step="tuned"), last_one, steps[steps["step"] == "as published"]]
    every = pd.concat(parts, ignore_index=True)
    drawn = [list(each.x) for each in draw.ladder(every).data if each.name == "set" and each.mode == "lines+markers"]
    assert drawn == [["as published", "wider start", "tuned"]] * 2


def test_a_front_is_told_apart_by_what_the_context_has(tmp_path, rows_of):
    measured = {"loss": (1.5, 1.8), "loss in sight": (1.0, 1.5), "loss elsewhere": (2.0, 2.1)}
    for place, cell in enumerate(("code / random init", "code / set")):
        run, key = f"{cell} gpu", EXPERIMENT.recipes("gpu")[cell].key
        rows = [
            rows_of({(cell, 700): {0: 5.0, 3000: ends[place]}}, metric=metric, run=run, scale="gpu")
            for metric, ends in measured.items()
        ]
        Store(tmp_path / "published").append(pd.concat(rows, ignore_index=True), {run: {"configuration": key}})
    found = analysis.by_place(tmp_path)
    told = {"where the context has it": "-0.500", "elsewhere": "-0.100", "seeds": 1}
    assert analysis.worth_by_place(found).T.to_dict() == {("code, width 512", "set"): told}
    unpaired = found.assign(width=128, gain=np.nan)
    fig = draw.by_place(pd.concat([found, unpaired]))
    assert [title.text for title in fig.layout.annotations] == ["code, width 512"], "of no gain there is no panel"
    (medians,) = (trace for trace in fig.data if trace.showlegend)
    assert dict(zip(medians.x, medians.y, strict=True)) == pytest.approx(
        {"where the context has it": -0.5, "elsewhere": -0.1}
    )
