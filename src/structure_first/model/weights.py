"""Weights in and out: our own safetensors with every replica, and Hugging Face's GPT-2 for one of them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from structure_first.errors import UserError, reason
from structure_first.files import replacing, write_text
from structure_first.model.transformer import Shape, Transformer

if TYPE_CHECKING:
    from transformers import GPT2Config, GPT2LMHeadModel


# What a file that is missing, broken or of something else raises when it is read and used.
BROKEN = OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError


def write(path: Path, tensors: dict[str, Tensor], meta: dict) -> None:
    """Write `tensors` and `meta` (JSON) at `path`, or leave what is there as it was and raise `UserError`."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"meta": json.dumps(meta)})


def read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """What `write` wrote at `path`; raises one of `BROKEN` where it cannot be read."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["meta"])  # noqa: SIM118


def save(path: Path, model: Transformer, replica: int = 0) -> None:
    """One replica's weights, with its shape and seed beside them."""
    tensors = {name: parameter[replica] for name, parameter in model.named_parameters()}
    write(path, tensors, {"shape": asdict(model.shape), "seed": model.seeds[replica]})


@torch.no_grad()
def load(*paths: Path) -> Transformer:
    """The transformer whose replicas were saved at `paths`; a missing, broken or different one is a `UserError`."""
    model: Transformer | None = None
    seeds = []
    for replica, path in enumerate(paths):
        try:
            tensors, meta = read(path)
            shape = Shape(**meta["shape"])
            model = model or Transformer(shape, range(len(paths)), fresh=False)
            if shape != model.shape:
                raise ValueError(f"it holds {shape}, not {model.shape}")
            mine = dict(model.named_parameters())
            for name in sorted(mine.keys() | tensors.keys()):
                if tensors[name].shape != mine[name].shape[1:]:  # a row would fill a table
                    raise ValueError(f"its {name} is not that of {shape}")
                mine[name][replica] = tensors[name]
            seeds.append(meta["seed"])
        except BROKEN as error:
            problem = f"cannot read weights from {path}: {reason(error)}"
            raise UserError(f"{problem}; remove the file and train again") from None
    if model is None:
        raise UserError("there are no weights to read; name a file of one replica or more")
    model.seeds = tuple(seeds)
    return model


def _names(shape: Shape) -> dict[str, tuple[str, ...]]:
    """Hugging Face's name of each tensor, and ours; theirs holds query, key and value side by side."""
    names: dict[str, tuple[str, ...]]
    names = {"transformer.wte.weight": ("embedding",), "transformer.wpe.weight": ("position",)}
    in_block = {
        "ln_1.weight": ("attention_norm.scale",),
        "ln_1.bias": ("attention_norm.shift",),
        "attn.c_attn.weight": ("attention.query.weight", "attention.key_value.weight"),
        "attn.c_attn.bias": ("attention.query.bias", "attention.key_value.bias"),
        "attn.c_proj.weight": ("attention.out.weight",),
        "attn.c_proj.bias": ("attention.out.bias",),
        "ln_2.weight": ("mlp_norm.scale",),
        "ln_2.bias": ("mlp_norm.shift",),
        "mlp.c_fc.weight": ("mlp.up.weight",),
        "mlp.c_fc.bias": ("mlp.up.bias",),
        "mlp.c_proj.weight": ("mlp.down.weight",),
        "mlp.c_proj.bias": ("mlp.down.bias",),
    }
    for layer in range(shape.layers):
        for theirs, ours in in_block.items():
            names[f"transformer.h.{layer}.{theirs}"] = tuple(f"blocks.{layer}.{name}" for name in ours)
    names |= {"transformer.ln_f.weight": ("norm.scale",), "transformer.ln_f.bias": ("norm.shift",)}
    return names if shape.tied else names | {"lm_head.weight": ("unembedding",)}


def hf_config(shape: Shape) -> dict:
    """The `config.json` that makes Hugging Face build the same model."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": shape.vocab,
        "n_positions": shape.context,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_embd": shape.width,
        "activation_function": "gelu_new",
        "tie_word_embeddings": shape.tied,
        "embd_pdrop": shape.dropout,
        "attn_pdrop": shape.dropout,
        "resid_pdrop": shape.dropout,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def hf_state(model: Transformer, replica: int = 0) -> dict[str, Tensor]:
    """One replica's weights under Hugging Face's names."""
    mine = dict(model.named_parameters())
    return {
        theirs: torch.cat([mine[name][replica].detach() for name in ours], dim=-1)
        for theirs, ours in _names(model.shape).items()
    }


def export(folder: Path, model: Transformer, replica: int = 0) -> None:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` loads, without needing Hugging Face to write it."""
    with replacing(Path(folder) / "model.safetensors") as temporary:
        save_file(hf_state(model, replica), temporary, metadata={"format": "pt"})
    write_text(Path(folder) / "config.json", json.dumps(hf_config(model.shape), indent=2) + "\n")


def to_hf(model: Transformer, replica: int = 0) -> "GPT2LMHeadModel":
    """One replica as a Hugging Face GPT-2 with the same logits."""
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = GPT2LMHeadModel(GPT2Config(**hf_config(model.shape)))
    theirs.load_state_dict(hf_state(model, replica), strict=False)
    theirs.tie_weights()
    return theirs.eval()


@torch.no_grad()
def from_hf(theirs: "GPT2LMHeadModel", seed: int = 0) -> Transformer:
    """A Hugging Face GPT-2 as a transformer of one replica; raises `UserError` for variants this one does not have."""
    config = theirs.config
    _refuse_variants(config)
    shape = Shape(
        vocab=config.vocab_size,
        context=config.n_positions,
        layers=config.n_layer,
        heads=config.n_head,
        width=config.n_embd,
        tied=config.tie_word_embeddings,
        dropout=config.resid_pdrop,
    )
    model, state = Transformer(shape, [seed], fresh=False), theirs.state_dict()
    mine = dict(model.named_parameters())
    for name, ours in _names(shape).items():
        tensors = state[name].split([mine[part].shape[-1] for part in ours], dim=-1)
        for part, value in zip(ours, tensors, strict=True):
            mine[part][0] = value
    return model


def _refuse_variants(config: "GPT2Config") -> None:
    """Raise `UserError` where a configuration asks for what this transformer does not do."""
    modelled = {
        "model_type": ("gpt2",),
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "n_inner": (None, 4 * config.n_embd),
        "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "attn_pdrop": (config.resid_pdrop,),
        "embd_pdrop": (config.resid_pdrop,),
    }
    for name, values in modelled.items():
        if (given := getattr(config, name, values[0])) not in values:
            allowed = " or ".join(str(value) for value in values if value is not None)
            raise UserError(f"cannot take over a GPT-2 whose {name} is {given}: only {allowed} is modelled here")
