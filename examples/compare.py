"""Two structures in front of one's own text, and none: where the held-out loss ends."""

from dataclasses import replace
from pathlib import Path

from structure_first.evidence.statistics import final
from structure_first.pretraining.config import read
from structure_first.pretraining.two_stages import train

quick = read(Path("book/configs/quick.yaml")).stopped_at(20)  # a try; without this, as long as the file says
own = replace(quick.corpus, name="src/**/*.py", limit_tokens=1_000_000)  # a path to one's own text
for front in ("identity", "set", None):
    stage_one = front and replace(quick.stage_one, source=front)
    run = quick.model_copy(update={"corpus": own, "stage_one": stage_one})
    rows = train(run, Path("runs", f"after {front}"))
    print(f"after {front}: {final(rows, 'loss').item():.4f} nats a byte")
