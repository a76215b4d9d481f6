"""A training that is stopped by an error."""

from collections.abc import Callable
from pathlib import Path

import pytest

from structure_first.data.batch import Source
from structure_first.model.transformer import Transformer
from structure_first.training.loop import fit
from structure_first.training.stage import Stage


@pytest.fixture(scope="session")
def stopped() -> Callable[[int, Path, Transformer, Source, Stage], None]:
    """Train, with a checkpoint after every step, up to the first evaluation at so many steps or more."""

    class Stop(Exception):
        pass

    def run(least: int, path: Path, model: Transformer, source: Source, stage: Stage) -> None:
        def watch(step: int, model: Transformer) -> None:
            if step >= least:
                raise Stop

        with pytest.raises(Stop):
            fit(model, source, stage, checkpoint=path, checkpoint_seconds=0, watch=watch)

    return run
