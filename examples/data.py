"""Endless procedural data for a training loop of one's own."""

from torch.utils.data import DataLoader

from structure_first.data.endless import endless

rows = endless("set", length=32, vocab=50, seed=0)  # a datasets.IterableDataset; workers and ranks share it out
for step, batch in zip(range(3), DataLoader(rows, batch_size=64), strict=False):
    told = (batch["labels"] != -100).sum()  # where the source bears no loss, the label is -100
    print(f"batch {step}: {tuple(batch['input_ids'].shape)}, {told} tokens to predict")
