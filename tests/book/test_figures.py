"""Figures: what is put on the page, and that what they draw is all there is in the rows."""

import html
import json
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.colors import sample_colorscale, unlabel_rgb

from structure_first.book.figures import data, model, runs, style, tokens
from structure_first.data.diagnostics import KEY
from structure_first.data.registry import source
from structure_first.seeding import generator

SHADES = sample_colorscale(tokens.WHEEL, np.linspace(0, 1, 50))
BRACKETS = [source(name, length=24, k=3) for name in ("dyck", "dyck_shuffle", "shuffled:dyck")]


@pytest.fixture
def page(monkeypatch) -> list[str]:
    """What `show` displays during a build."""
    shown = []
    monkeypatch.setenv("STRUCTURE_FIRST_BOOK", "1")
    monkeypatch.setattr("IPython.display.display", lambda it: shown.append(it.data))
    return shown


def times(**cells: list[float]) -> pd.Series:
    index = [(cell, seed) for cell, values in cells.items() for seed in range(len(values))]
    values = [value for values in cells.values() for value in values]
    return pd.Series(values, pd.MultiIndex.from_tuples(index, names=["cell", "seed"]))


def test_what_show_puts_on_the_page(page):
    fig = go.Figure(go.Scatter(x=[1], y=[np.nan], name="</script><!--<script>"))
    style.show(fig, 'a "quoted" <alternative>', "1 < 2 & so on")
    (html,) = page
    parts = re.fullmatch(
        r'<figure class="sf-figure" aria-label="(.*)"><div class="sf-plot"></div>\n'
        r'<script type="application/json">(.*)</script><noscript><p>(.*)</p></noscript>'
        r"<figcaption>(.*)</figcaption><details .*</details></figure>",
        html,
    )
    alt, data, without, caption = parts.groups()
    assert without.endswith('It shows: a "quoted" &lt;alternative&gt;')
    assert alt == "a &quot;quoted&quot; &lt;alternative&gt;"
    assert caption == "1 &lt; 2 &amp; so on"
    assert "<" not in data
    drawing = json.loads(data)
    assert list(drawing) == ["data", "layout"]
    assert drawing["data"][0]["name"] == "</script><!--<script>"
    assert drawing["data"][0]["y"] == [None]


def test_outside_a_build_plotly_shows_the_figure(monkeypatch):
    shown: list = []
    monkeypatch.setattr(style, "say", shown.append)
    monkeypatch.delenv("STRUCTURE_FIRST_BOOK", raising=False)
    monkeypatch.setattr(go.Figure, "show", lambda it: shown.append(it))
    fig = model.flops_bars({"MLP": 1})
    style.show(fig, "alt", "caption")
    assert shown == [fig, "caption"]


def luminance(colour: str) -> float:
    given = unlabel_rgb(colour) if colour.startswith("rgb") else [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    parts = (value / 255 for value in given)
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [*style.PALETTE, *SHADES])
def test_colours_stand_out_from_both_themes(colour):
    assert contrast(colour, "#ffffff") >= 3
    assert contrast(colour, "#121212") >= 3


@pytest.mark.parametrize("colour", SHADES)
def test_white_is_readable_on_a_cell(colour):
    assert contrast(colour, "#ffffff") >= 4.5


@pytest.mark.parametrize("name", ["identity", "set", "stack", "shuffled:union", "haystack", "dyck", "eca", "random"])
def test_every_token_of_a_sequence_is_a_cell_of_its_role(name):
    of = source(name)
    batch = of.draw(2, generator("cpu", 0))
    bars = {bar.name: bar for bar in data.cells(of, batch) if bar.type == "bar"}
    assert sum(len(bar.x) for bar in bars.values()) == batch.tokens.numel()
    assert len(bars["predicted"].x) == batch.loss_mask.sum()
    if name == "set":
        assert len(bars["separator"].x) == 2
        assert len(bars["pad"].x) == (batch.tokens == of.vocab - 1).sum()


def test_words():
    assert tokens.words(source("dyck", k=2, length=4)) == ["(", "[", ")", "]"]
    assert tokens.words(source("dyck_shuffle", k=5, length=4))[4:6] == ["(4", "0)"]
    assert tokens.words(source("stack", length=3, vocab=3)) == ["↑", "1", "2", "|", "·"]
    assert tokens.words(source("random", vocab=3)) == ["0", "1", "2"]
    for of in (*BRACKETS, source("stack"), source("eca"), source("haystack")):
        assert len(tokens.words(of)) == len(tokens.shades(of)) == of.vocab


@pytest.mark.parametrize("k", [3, 16])
def test_a_closer_has_the_colour_of_its_opener(k):
    colours = tokens.shades(source("dyck", k=k, length=48))
    assert colours[:k] == colours[k:] and len(set(colours)) == k


def test_a_colour_is_a_value_and_what_holds_values_apart_has_none():
    colours = tokens.shades(source("haystack"))
    assert len(set(colours[1:KEY])) == KEY - 1 and set(colours[KEY:]) == {colours[0]} == {style.GREY}
    marked = tokens.shades(source("identity", length=4, vocab=6))
    assert len(set(marked[:-2])) == 6 and marked[-2:] == [style.GREY] * 2


def test_a_gallery_shows_where_identity_looks():
    of = source("identity", length=4, vocab=6)
    triangle = data.gallery(of, statistics_of=2_000).data[-1]
    assert np.isnan(triangle.z[:4, 4:]).all()  # no position tells of an earlier one
    tie = np.nan_to_num(triangle.z) > 0.9
    assert sorted(zip(*map(np.ndarray.tolist, tie.nonzero()), strict=True)) == [(5, 0), (6, 1), (7, 2), (8, 3)]


def test_an_exhibit_says_in_words_what_it_shows(page):
    data.exhibit("reverse", 500, length=3, vocab=5)
    assert re.search(r'aria-label="Sequences of reverse .*: (\d) (\d) (\d) \| \3 \2 \1\.', page[0])
    assert (
        "tokens from last to first. Teaches to copy a sequence backwards. Here with length 3, vocab 5: 7 to" in page[0]
    )


@pytest.mark.parametrize("name", ["dyck", "reversed_addition"])
def test_an_exhibit_reads_out_the_first_sequence_that_it_draws(page, name):
    settings = {"length": 16} if name == "dyck" else {}
    data.exhibit(name, 100, **settings)
    told = re.search(r"as rows of cells, the first: (.*?)\. (?:Arrows|Beside)", page[0])[1]
    traces = data.gallery(source(name, **settings), statistics_of=100).select_traces({"mode": "text"})
    drawn = {x: text for each in traces for x, y, text in zip(each.x, each.y, each.text, strict=True) if y == 0}
    assert html.unescape(told).split(" ") == [drawn[x] for x in sorted(drawn)]


def test_match_distances():
    lines = data.match_distances(BRACKETS, count=50).data
    assert [line.name for line in lines] == ["dyck", "dyck_shuffle", "shuffled:dyck"]
    assert lines[0].y[-1] == lines[1].y[-1] == 1
    assert lines[2].y[-1] < 1
    assert all(x % 2 for x in lines[0].x[:-1])  # between partners lies a whole word


def test_a_depth_path_begins_and_ends_on_the_ground():
    grey, path = data.depth_path(BRACKETS[0], others=3).data
    assert path.y[0] == path.y[-1] == 0
    assert set(np.abs(np.diff(path.y))) == {1}
    assert np.isnan(grey.y).sum() == 3
    assert re.match(r"position 0: [(\[{]  closed at \d+", path.text[1])


def test_an_automaton_for_each_rule():
    fig = data.automaton((90, 110), width=7, steps=4)
    assert [trace.visible for trace in fig.data] == [True, False]
    assert fig.layout.sliders[0].steps[1].args == ("visible", (False, True))
    first = fig.data[0].z
    assert (first[1] == np.roll(first[0], 1) ^ np.roll(first[0], -1)).all()
    assert (fig.data[1].z[0] == first[0]).all()


def test_neural_automata_stand_side_by_side_and_go_on_with_the_slider():
    fig = data.neural(rules=2)
    (slider,) = fig.layout.sliders
    assert len(fig.data) == 2 and len(slider.steps) == 27
    tokens = source("nca").draw(2, generator("cpu", 0)).tokens.view(2, 27, 38)
    for step in (0, 26):
        (change,) = slider.steps[step].args
        for rule, grid in enumerate(np.array(change["z"])):
            corner = int(tokens[rule, step, 1])
            assert grid.shape == (12, 12)
            assert corner == grid[0, 0] + 10 * grid[0, 1] + 100 * grid[1, 0] + 1000 * grid[1, 1]
    assert (fig.data[0].z == np.array(slider.steps[0].args[0]["z"][0])).all()


def test_answer_lengths_are_shares():
    for line in data.answer_lengths([source("set"), source("delete")], count=300).data:
        assert line.y.sum() == pytest.approx(1)
    assert line.x.tolist() == [63]


def test_every_seed_has_its_curve(rows_of):
    ends = {("dyck", 0): 0.9, ("dyck", 1): 0.2, ("dyck", 2): 1.0, ("random init", 0): 0.1}
    fig = runs.jump_curves(rows_of({model: {0: 0.1, 10: end} for model, end in ends.items()}))
    assert [trace.name for trace in fig.data] == ["dyck"] * 3 + ["random init"]
    assert [trace.showlegend for trace in fig.data] == [True, False, False, True]
    assert [trace.y[-1] for trace in fig.data] == [0.9, 0.2, 1.0, 0.1]
    assert len({trace.line.color for trace in fig.data}) == 2
    chosen = runs.jump_curves(rows_of({("a", 0): 0.1, ("b", 0): 0.2, ("c", 0): 0.3}), cells=["c", "a"])
    assert [trace.name for trace in chosen.data] == ["c", "a"]


def test_seeds_that_never_jumped_count():
    fig = runs.share_jumped(times(slow=[np.inf, 150, np.inf], fast=[10, 10, 30, np.inf], one=[20]), 100, 0.9)
    lines = {line.name: line for line in fig.data}
    assert list(lines) == ["slow (3 seeds)", "fast (4 seeds)", "one (1 seed)"], "from the bottom, as the legend is"
    fast, slow = lines["fast (4 seeds)"], lines["slow (3 seeds)"]
    assert fast.x == (0, 10, 10, 30, 100) and lines["one (1 seed)"].y[-1] > 1, "no line hides another"
    assert list(fast.y - fast.y[0]) == pytest.approx([0, 0.25, 0.5, 0.75, 0.75]) and fast.y[0] < 0.02
    assert (slow.x, tuple(slow.y)) == ((0, 100), (0, 0))  # one jumped, but after the horizon
    assert fast.text[-1] == "3 of 4 seeds"


def test_each_cell_is_shown_to_its_own_horizon_and_those_that_have_not_run_are_not():
    found = times(dyck=[2500.0], longer=[6000.0], other=[1.0], slow=[np.inf])
    horizon = pd.Series({"dyck": 4000, "longer": 8000, "other": 4000, "slow": 4000})
    fig = runs.share_jumped(found, horizon, 0.9, ("longer", "dyck", "slow", "not yet run"))
    lines = {trace.name: (trace.x[-1], trace.y[-1].round(1)) for trace in fig.data}
    assert lines == {"dyck (1 seed)": (4000, 1.0), "longer (1 seed)": (8000, 1.0), "slow (1 seed)": (4000, 0.0)}
    assert not runs.share_jumped(found, horizon, 0.9, ("not yet run",)).data


def test_a_dot_for_every_seed_and_the_best_cell_first():
    fig = runs.seed_dots(times(low=[0.1, 0.2, 0.9], high=[0.8, 0.9, 1.0], two=[0.0, 0.1]))
    dots = [trace for trace in fig.data if trace.mode == "markers"]
    assert [(trace.name, list(trace.x)) for trace in dots] == [
        ("high", [0.8, 0.9, 1.0]),
        ("low", [0.1, 0.2, 0.9]),
        ("two", [0.0, 0.1]),
    ]
    medians = {trace.name: trace.x[0] for trace in fig.data if trace.mode == "lines"}
    assert medians == {"high, median": 0.9, "low, median": 0.2}, "between two seeds there is none"
    assert fig.layout.yaxis.ticktext == ("high ", "low ", "two ")


def test_attention_maps():
    pattern = np.full((3, 2, 2), 0.5)
    fig = model.attention_map(pattern, ["a", "b"])
    assert len(fig.data) == 3
    assert fig.data[2].text[1][0] == "head 2: b looks at a"
    assert fig.layout.xaxis3.ticktext == ("a", "b")


def test_flops_bars_are_sorted_shares():
    (bars,) = model.flops_bars({"head": 1, "MLP": 3}).data
    assert bars.y == ("head ", "MLP ")  # plotly draws the first at the bottom
    assert bars.text == ("25%", "75%")


def test_a_panel_for_each_value_of_a_column_holds_its_rows():
    found = pd.DataFrame({"task": ["b", "a", "b"], "swept": ["y", "y", "x"], "value": [1, 2, 3]})
    fig, parts = style.facets(found, 300, across="task")
    assert [(at, part["value"].to_list()) for at, part in parts] == [
        ({"row": 1, "col": 1}, [1, 3]),
        ({"row": 1, "col": 2}, [2]),
    ]
    assert [title.text for title in fig.layout.annotations] == ["b", "a"] and fig.layout.height == 300
    _, parts = style.facets(found, 300, across="task", down="swept")
    values = {(at["row"], at["col"]): part["value"].to_list() for at, part in parts}
    assert values == {(1, 1): [1], (1, 2): [2], (2, 1): [3], (2, 2): []}
    fig, parts = style.facets(found, 300, down="swept")
    assert [at["row"] for at, _ in parts] == [1, 2]
    assert [title.text for title in fig.layout.annotations] == ["y", "x"]


@pytest.mark.parametrize(
    "fig",
    [
        data.gallery(source("set", length=4, vocab=4), statistics_of=100),
        data.automaton((30,), width=5, steps=3),
        data.neural(rules=1),
        data.depth_path(BRACKETS[0], others=2),
        data.match_distances(BRACKETS, count=3),
        data.answer_lengths([source("set")], count=10),
        runs.jump_curves(pd.DataFrame([dict(cell="a", stage=2, seed=0, step=1, metric="accuracy", value=0.1)])),
        runs.share_jumped(times(a=[1.0]), 10, 0.9),
        runs.seed_dots(times(a=[1.0])),
        model.attention_map(np.ones((1, 1, 1)), ["a"]),
        model.flops_bars({"a": 1}),
    ],
)
def test_layouts_leave_the_colours_to_the_theme(fig):
    layout = fig.to_plotly_json()["layout"]
    assert layout["height"]
    own = json.dumps(layout | {"template": {"layout": {**style.TEMPLATE.layout.to_plotly_json(), "colorway": []}}})
    assert not re.search(r"color|#[0-9a-f]{6}|rgba", own.replace("colorway", ""))


def test_diagnostics_are_written_as_people_write_them_and_arrows_end_at_the_answer():
    for name, digits in (("addition", "first"), ("reversed_addition", "last"), ("haystack", "")):
        of = source(name)
        (drawn,) = of.draw(1, generator("cpu", 0)).tokens.tolist()
        written = [tokens.words(of)[token] for token in drawn]
        places = tokens.origins(of, drawn)
        if digits:
            sides = "".join(written).rstrip("■").replace("+", "=").split("=")
            a, b, total = (int(side if digits == "first" else side[::-1]) for side in sides)
            assert a + b == total
            assert sum(int(written[tells]) for tells, _ in places) % 10 == int(written[places[0][1]])
        else:
            ((tells, told),) = places
            assert written[tells] == written[told] and written[told - 1] == written[tells - 1] + "?"
    (arrows,) = data.arrows(of, of.draw(3, generator("cpu", 0)))
    assert len(arrows.x) == 15 and arrows.marker.size[3] and not arrows.marker.size[2]
    assert not tokens.origins(source("shuffled:haystack"), drawn), "in no order, no place tells"


def test_a_colour_means_the_same_in_every_figure():
    found = style.looks(["random init", "dyck", "dyck permuted", "shuffled dyck", "dyck at 0.004", "tuned init"])
    assert [look["color"] for look in found.values()] == [style.meant(name) for name in found]
    assert found["random init"]["color"] == style.GREY
    assert len({found[name]["color"] for name in ("random init", "dyck", "dyck permuted", "shuffled dyck")}) == 4
    assert found["dyck"]["color"] == found["dyck at 0.004"]["color"]
    assert found["dyck"]["dash"] != found["dyck at 0.004"]["dash"]
    (line,) = [line for line in runs.share_jumped(times(dyck=[5.0], a=[1.0]), 10, 0.9).data if "dyck" in line.name]
    assert line.line.color == found["dyck"]["color"]


def test_seeds_that_have_jumped_are_counted_by_the_name_and_come_first():
    final = times(low=[0.1, 0.9], high=[0.8, 0.8])
    fig = runs.seed_dots(final, reached=final > 0.85)
    assert fig.layout.yaxis.ticktext == ("low <br><b>1 of 2</b> ", "high <br><b>0 of 2</b> ")


def test_on_a_phone_panels_stand_below_each_other():
    found = pd.DataFrame({"task": ["b", "a", "c"], "value": [1, 2, 3]})
    narrow = style.facets(found, 400, across="task", shared_yaxes=True)[0].layout.meta["narrow"]
    axes = [narrow[f"yaxis{axis}"]["domain"] for axis in ("", "2", "3")]
    assert all(low > high for (low, _), (_, high) in pairwise(axes)) and narrow["height"] > 800
    assert [title["y"] for title in narrow["annotations"]] == [1, pytest.approx(2 / 3), pytest.approx(1 / 3)]
