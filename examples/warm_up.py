"""Warm up a Hugging Face model, then train on with its Trainer, here on the bytes of a file."""

from pathlib import Path

from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from structure_first.data.registry import source
from structure_first.pretraining.warm import warm_up

set_seed(0)
size = dict(n_layer=2, n_head=4, n_embd=64, n_positions=64)
model = GPT2LMHeadModel(GPT2Config(**size, vocab_size=256, bos_token_id=0, eos_token_id=0))
warm_up(model, source("identity", length=8, vocab=20), steps=400)

text = list(Path("README.md").read_bytes())
rows = [{"input_ids": text[at : at + 64], "labels": text[at : at + 64]} for at in range(0, len(text) - 63, 64)]
settings = TrainingArguments("runs/warmed_up", max_steps=20, report_to=[], save_strategy="no", use_cpu=True)
Trainer(model, settings, train_dataset=rows).train()
model.save_pretrained("runs/warmed_up")
