"""What a plan says, against what torch counts and what a run measures."""

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from structure_first.cost import flops
from structure_first.cost.memory import weight_count
from structure_first.errors import UserError
from structure_first.pretraining.config import Config, read
from structure_first.pretraining.stages import jobs, stand_in, vocab
from structure_first.pretraining.two_stages import train
from structure_first.runs import budget
from structure_first.runs.budget import GPUS, THIS, Cost, cost, update_of

CONFIG = """
shape: {layers: 2, heads: 2, width: 64}
stage_one: {source: set, settings: {length: 6, vocab: 9}, steps: 4, batch: 4, lr: 1e-3, curriculum: [2, 4]}
corpus: {name: CORPUS, tokeniser: bytes, context: 24, held_out: 0.2}
stage_two: {steps: 6, batch: 8, lr: 1e-3, held_out: 8, evaluate_every: 3}
"""
BIG = """
shape: gpt2
corpus: {name: c4, tokeniser: gpt2, vocab: 50257, context: 1024}
stage_two: {steps: 100, batch: 64, lr: 1e-3}
"""


def costs(config: Config, gpu: str = THIS, gpus: int = 1, utilisation: float = 0.3) -> list[Cost]:
    return [cost(job, gpu, gpus, utilisation) for job in jobs(config, stand_in(config.corpus))]


@pytest.fixture
def config(tmp_path):
    """A configuration from text; CORPUS is a small corpus."""
    (tmp_path / "corpus.txt").mkdir()
    for number in range(60):
        (tmp_path / "corpus.txt" / f"{number}.txt").write_text(f"document {number} " + "lorem ipsum " * (number % 9))

    def made(text: str = CONFIG, *changes: tuple[str, str]):
        for old, new in (("CORPUS", f"{tmp_path}/corpus.txt"), *changes):
            text = text.replace(old, new)
        (tmp_path / "run.yaml").write_text(text)
        return read(tmp_path / "run.yaml")

    return made


def test_a_plan_says_what_a_run_then_measures(tmp_path, config):
    made = config()
    planned = costs(made, "h100")
    rows = train(made, tmp_path / "run", "cpu")
    for each in planned:
        last = rows[(rows["stage"] == each.job.stage) & (rows["step"] == each.job.phase.stage.steps)]
        assert set(last["tokens"]) == {each.tokens} and set(last["flops"]) == {each.flops}


def test_flops_are_those_that_torch_counts(config):
    """Of one update of each stage; torch counts no fused attention on a CPU, so that it is made to run as products."""
    made = config(CONFIG.replace("heads: 2", "heads: 1"), (", curriculum: [2, 4]", ""))
    for job in jobs(made, stand_in(made.corpus)):
        update = update_of(job, job.phase.stage.batch)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            update()
        assert counter.get_total_flops() == flops.spent(job.phase.stage, job.source, job.shape, 1) > 0


def test_nothing_is_packed_or_trained(tmp_path, config, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    made = config()
    costs(made, "a100-80gb", 8)
    assert sorted(set(tmp_path.rglob("*")) - set(before)) == [tmp_path / "run.yaml"]


def test_memory_shrinks_by_every_means_there_is(config):
    def cost(compute: str = "", gpus: int = 1):
        return costs(config(BIG + f"compute: {{{compute}}}"), "h100", gpus)[-1]

    whole = cost()
    assert whole.micro_batch == 64 and not whole.fits and 0 < whole.most < 64
    assert cost(f"micro_batch: {whole.most}").fits and not cost(f"micro_batch: {whole.most + 1}").fits
    assert cost("recompute: true").memory["activations"] < cost("precision: bfloat16").memory["activations"]
    assert cost("precision: bfloat16").memory["activations"] < whole.memory["activations"]
    spread = cost("sharded: true", 8)
    assert spread.micro_batch == 8 and spread.memory["AdamW"] * 8 == whole.memory["AdamW"]
    assert whole.memory["weights"] == 4 * weight_count(whole.job.shape) == pytest.approx(4 * 124.4e6, rel=1e-2)


def test_hours_follow_from_the_data_sheet(config):
    one, eight, low, again = (
        costs(config(BIG + f"compute: {{{compute}}}"), gpu, gpus, share)[-1]
        for compute, gpu, gpus, share in [
            ("", "h100", 1, 0.5),
            ("", "h100", 8, 0.5),
            ("precision: bfloat16", "h100", 1, 0.25),
            ("recompute: true", "h100", 1, 0.5),
        ]
    )
    assert one.hours == (one.flops + one.evaluation_flops) / (67e12 * 0.5) / 3600
    assert one.hours == pytest.approx(8 * eight.hours) and low.hours == pytest.approx(one.hours * 67 * 2 / 989)
    assert again.hours - one.hours == pytest.approx(one.flops / 3 / (67e12 * 0.5) / 3600)
    assert all(gpu.float32 < gpu.bfloat16 and gpu.memory >= 24 for gpu in GPUS.values())


def test_this_machine_is_timed(config, monkeypatch):
    timed = []
    monkeypatch.setattr(budget, "seconds_of", lambda update, **_: timed.append(update()) or 2.0)
    first, second = costs(config(), "this")
    assert len(timed) == 2
    assert second.hours * 3600 == pytest.approx(2.0 * (6 + 3 * 8 / 8 / 3))
    assert first.hours > 0 and second.available > 0


def test_a_machine_too_small_is_not_timed(config, monkeypatch):
    monkeypatch.setattr(budget.memory, "free_memory", lambda _: 1000)
    for each in costs(config(), "this"):
        assert each.hours is None and not each.fits and each.most == 0


def test_the_vocabulary_is_known_without_packing(tmp_path, config):
    from structure_first.data.corpora.packing import pack

    for tokeniser, size in (("bytes", 256), ("characters", 99), ("'bpe:1000'", 1000)):
        assert vocab(config(CONFIG, ("bytes", tokeniser)).corpus) == size
    made = pack(f"{tmp_path}/corpus.txt", "bpe:300", tmp_path / "packed", held_out=0.2)
    both = ("name: CORPUS, tokeniser: bytes", f"packed: {tmp_path}/packed"), (", held_out: 0.2}", "}")
    text = CONFIG
    for old, new in both:
        text = text.replace(old, new)
    assert vocab(config(text).corpus) == made["tokeniser"]["vocab"]
    assert vocab(config(BIG).corpus) == 50257


@pytest.mark.parametrize(
    ("changes", "options", "line"),
    [
        ((), {"gpu": "h10"}, "unknown GPU 'h10'; did you mean 'h100'?"),
        ((), {"gpus": 0}, "--gpus must be from 1 to 65,536, not 0"),
        ((), {"utilisation": 1.5}, "--utilisation must be a share above 0 and at most 1, not 1.5"),
        ([("tokeniser: bytes", "tokeniser: 'bpe:7'")], {}, "write bpe:VOCAB with a vocabulary of 257"),
        ([("corpus.txt", "none.txt")], {}, "there is no file .*none.txt"),
    ],
)
def test_what_is_not_there_is_one_line(config, changes, options, line):
    with pytest.raises(UserError, match=line):
        costs(config(CONFIG, *changes), **({"gpu": "h100"} | options))
