"""Several sources as one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from structure_first.data.batch import Batch, Source


def mixture(sources: Sequence[Source]) -> Source:
    """Each sequence is drawn from one of the sources, every one as likely.

    They share token ids 0 .. vocab - 1; a sequence of a shorter one ends in zeros that bear no loss. Accuracy counts
    all that bear loss, also what nothing before tells, as a language's openers.
    """
    length = max(each.length for each in sources)
    told: dict[str, int | float] = {}  # what members have otherwise than one another is said of each
    for each in sources:
        for name, value in each.settings.items():
            alike = all(other.settings.get(name, value) == value for other in sources)
            told[name if alike else f"{name} of {each.name}"] = value

    def draw(count: int, generator: torch.Generator) -> Batch:
        which = torch.randint(len(sources), (count, 1), generator=generator, device=generator.device)
        tokens = torch.zeros(count, length, dtype=torch.long, device=generator.device)
        loss_mask = torch.zeros_like(tokens, dtype=torch.bool)
        for number, each in enumerate(sources):
            mine = (which == number).flatten()
            if chosen := int(mine.sum()):
                drawn = each.draw(chosen, generator)
                tokens[mine], loss_mask[mine] = (F.pad(part, (0, length - each.length)) for part in drawn)
        return Batch(tokens, loss_mask)

    return Source(
        name="+".join(each.name for each in sources),
        settings=told,
        vocab=max(each.vocab for each in sources),
        length=length,
        window=max(each.window for each in sources),
        teaches="; ".join(each.teaches for each in sources),
        draw=draw,
    )
