"""Corpora of the Hugging Face hub, streamed through `datasets`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from structure_first.errors import UserError, reason

TIMEOUT = 20  # seconds in which the hub must answer


@dataclass(frozen=True)
class Hub:
    """A data set of the hub, or a local folder laid out like one."""

    name: str
    config: str | None = None
    column: str = "text"
    offline: str = "language"  # the corpus that needs no network


HUB = {
    "c4": Hub("allenai/c4", "en"),
    "codeparrot": Hub("codeparrot/codeparrot-clean-train", column="content", offline="code"),
}


def stream(hub: Hub, column: str, state: dict | None = None) -> tuple[Iterator[str], Callable[[], dict]]:
    """The texts of a data set's training split, one at a time, and a function that says where the reading is.

    That is in what JSON can hold; given it as `state`, a stream goes on there without reading what came before.
    """
    from huggingface_hub import HfApi

    with connected(hub):
        if not Path(hub.name).exists():
            HfApi().dataset_info(hub.name, timeout=TIMEOUT)  # `datasets` would try for half a minute
        from datasets import load_dataset

        rows = load_dataset(hub.name, hub.config, split="train", streaming=True)

    def texts() -> Iterator[str]:
        with connected(hub):
            if state is not None:
                rows.load_state_dict(state)
            for row in rows:
                if not isinstance(row.get(column), str):
                    problem = f"{hub.name} has no text under {column!r}; it has {', '.join(row)}"
                    raise UserError(f"{problem}; name one with --text-column")
                yield row[column]

    return texts(), rows.state_dict


@contextmanager
def connected(hub: Hub) -> Iterator[None]:
    """Within, whatever `datasets` raises becomes one line that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        from datasets.exceptions import DatasetNotFoundError
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

        instead = f"the corpus {hub.offline!r} needs no network, and a path of your own text serves as well"
        if isinstance(error, DatasetNotFoundError | RepositoryNotFoundError | HFValidationError):
            raise UserError(f"the hub has no data set {hub.name!r} that is open to you; {instead}") from None
        raise UserError(f"cannot read {hub.name} from the hub ({reason(error)}); {instead}") from None
