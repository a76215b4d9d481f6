"""One cell beside another, as the ledger has it: the gain, its interval, its verdict, and all of that in words."""

from collections import Counter
from dataclasses import dataclass
from math import nan

import numpy as np

from structure_first.evidence.statistics import LEARNT

ENOUGH_SEEDS = 6  # with five, even the range from the lowest to the highest misses the median more often than 1 in 20
FEWEST_SEEDS = 3  # of which an interval says anything
COLUMNS = ("published", "tuned")
UNITS = {"accuracy": "accuracy", "loss": "nats gained"}
SIZES = {  # of a scale's models, in words
    "smoke": "a size that tells nothing",
    "laptop": "a size for two cores",
    "gpu": "a size for one GPU",
    "paper": "the paper's own size",
}
BRIEFLY = {scale: size.removeprefix("a size for ") for scale, size in SIZES.items()}
VERDICTS = ("too few seeds", "not reproduced", "partly", "reproduced")


@dataclass(frozen=True)
class Comparison:
    """One cell beside another: the gain of the treated one, its median over seeds and 95 % interval."""

    treated: str
    control: str
    measured: float  #: the median gain over seeds, in `unit`
    low: float  #: of its 95 % interval, by bootstrap
    high: float
    seeds: int
    scale: str
    unit: str  #: what a gain is of
    threshold: float  #: from which gain on it counts as reproduced
    experiment: str
    said: str  #: what is compared, in words
    task: str = ""  #: the corpus or the diagnostic, in words
    share: float | None = None  #: the tokens of its stage one, as a share of its text's
    learnt: float = nan  #: the held-out accuracy of its stage one, the median over seeds; NaN where it is on no rule
    by_seed: tuple[tuple[int, float], ...] = ()  #: each seed and its gain
    cells: tuple[str, ...] = ()  #: whose rows tell the gain; none where they cannot be made again
    elsewhere: tuple["Comparison", ...] = ()  #: the same at other scales
    lacking: str = ""  #: what it means to the claim if this gains nothing, in words

    @property
    def verdict(self) -> str:
        """Reproduced: the whole interval of enough seeds reaches `threshold`, half the paper's effect. Partly: it is
        above zero.
        """
        if self.seeds < FEWEST_SEEDS:
            return "too few seeds"
        if self.low >= self.threshold and self.seeds >= ENOUGH_SEEDS:
            return "reproduced"
        return "partly" if self.low > 0 else "not reproduced"

    @property
    def told(self) -> str:
        """What is gained, on what, and how much of it, in words."""
        where = f" on {self.task}" * bool(self.task)
        if self.high == -np.inf:
            return f"no {self.unit}{where}, {self.nowhere}"
        return f"{self.unit}{where} {self.gain(self.digits)}"

    @property
    def nowhere(self) -> str:
        """Of how many seeds it is true that there is no saving, where the whole interval has none, in words."""
        return "in any seed" if all(gain == -np.inf for _, gain in self.by_seed) else "in the median"

    @property
    def digits(self) -> int:
        """Behind the point of a gain, in words: enough to tell whether its interval reaches the threshold."""
        fewest = 3 if self.unit == UNITS["loss"] else 2
        reaches = self.low >= self.threshold
        return next((each for each in range(fewest, 6) if (round(self.low, each) >= self.threshold) == reaches), 6)

    @property
    def seeds_told(self) -> str:
        """The gain of each seed, in words."""
        return ", ".join(f"{seed} {gain:+z.{self.digits}f}" for seed, gain in self.by_seed).replace("-inf", "none")

    @property
    def counted(self) -> str:
        """How many seeds, of which size, in words; and how well stage one was learnt, where that was not enough."""
        few = "" if self.seeds >= ENOUGH_SEEDS else ", which are few,"
        return f"{self.seeds} seeds{few} at {SIZES[self.scale]}{self.unlearnt}"

    @property
    def unlearnt(self) -> str:
        """How well stage one was learnt, in words, where that was not enough."""
        return f", after a stage one learnt to {self.learnt:.0%} only" if self.learnt < LEARNT else ""

    @property
    def otherwise(self) -> dict[str, str]:
        """The scales at which the same has another verdict, and that one."""
        ran = [each for each in self.elsewhere if each.seeds >= FEWEST_SEEDS]
        return {each.scale: each.verdict for each in ran if each.verdict != self.verdict}

    @property
    def in_words(self) -> str:
        """What is gained, on how many seeds of which size, and where that is otherwise."""
        other = ", ".join(f"{verdict} at {SIZES[scale]}" for scale, verdict in self.otherwise.items())
        return "; ".join(filter(None, (self.told, self.counted, other)))

    def gain(self, digits: int = 3, ends: str = "({} to {})") -> str:
        """The gain and its interval, `none` for what not even all of the text was enough for."""
        if self.high == -np.inf:
            return f"none, {self.nowhere}"
        middle, *both = (f"{value:+z.{digits}f}" for value in (self.measured, self.low, self.high))
        return f"{middle} {ends.format(*both)}".replace("-inf", "none")


@dataclass(frozen=True)
class Answer:
    """What the rows say to a claim. What decides is the weakest comparison or, where a case is enough, the strongest;
    seeds and scale are the least of any.
    """

    seeds: int
    scale: str
    comparisons: tuple[Comparison, ...]
    decides: Comparison

    @property
    def verdict(self) -> str:
        """That of what decides."""
        return self.decides.verdict

    @property
    def told(self) -> str:
        """The verdict, and that a gain is missing without which the claim is of nothing, in words."""
        failed = (each for each in self.comparisons if each.verdict == self.verdict == "not reproduced")
        lacking = next((each.lacking for each in failed if each.lacking), "")
        return f"{self.verdict}: {lacking}" if lacking else self.verdict

    @property
    def by_verdict(self) -> dict[str, list[str]]:
        """The tasks on which each verdict holds, the best verdict first; of a task's comparisons the weakest tells."""
        best_first = sorted(self.comparisons, key=lambda each: VERDICTS.index(each.verdict), reverse=True)
        weakest = {each.task: each.verdict for each in best_first}  # the last of a task
        return {
            verdict: sorted(task for task, own in weakest.items() if own == verdict)
            for verdict in reversed(VERDICTS)
            if verdict in weakest.values()
        }

    @property
    def sizes(self) -> str:
        """How many seeds at least, of models of which size, how many tokens stand in front of a text, as a share of its
        own, and how well what decides had learnt its stage one where that was not enough, in a few words.
        """
        more = " or more" * (len({each.seeds for each in self.comparisons}) > 1)
        scales = [scale for scale in SIZES if scale in {each.scale for each in self.comparisons}]
        sizes = " and ".join(BRIEFLY[scale] for scale in scales)
        shares = [each.share for each in self.comparisons if each.share]
        ends = dict.fromkeys(f"{float(f'{100 * end(shares):.2g}'):g}" for end in (min, max) if shares)
        dose = f", front {' to '.join(ends)} %" if ends else ""
        return f"{self.seeds} seeds{more}, {sizes}{dose}{self.decides.unlearnt}"

    @property
    def others(self) -> str:
        """How the comparisons agree, in words; empty where there is but one."""
        many = len(self.comparisons)
        rest = Counter(each.verdict for each in self.comparisons if each.verdict != self.verdict)
        if not rest:
            return {1: "", 2: "in both comparisons"}.get(many, f"in all {many} comparisons")
        return f"of {many} comparisons " + ", ".join(f"{count} {verdict}" for verdict, count in rest.items())


@dataclass(frozen=True)
class Entry:
    """A line of the ledger; a column is None where it has not run."""

    id: str
    statement: str
    paper: str
    asked: str = ""  #: the statement as a newspaper has it, where the first page answers it
    published: Answer | None = None
    tuned: Answer | None = None
