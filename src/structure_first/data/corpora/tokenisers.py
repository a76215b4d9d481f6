"""Texts as tokens: bytes, characters, a byte-level BPE of our own, or any tokeniser of the hub.

Every document begins with the tokeniser's `separator`. A tokeniser saves itself as a folder that `AutoTokenizer` of
`transformers` reads; its digest is that of what it saves.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import numpy as np

from structure_first.errors import UserError, reason, unknown
from structure_first.files import write_text

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
SEPARATORS = ("<|endoftext|>", "</s>", "<s>", "[SEP]", "<eos>", "<bos>")  # what hub tokenisers call theirs
VOCABS = (257, 1 << 20)  # of a BPE: 256 bytes, the separator and what it learns
BYTE_LEVEL = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
TIMEOUT = 20  # seconds in which the hub must answer
LEARNT_FROM = 1 << 26  # characters of the corpus, at most
OF_A_LIMIT = 8  # characters for each token that is packed: about twice as many as a token has
OF_A_VOCAB = 256  # and for each that is to be learnt, whichever is more


class Bytes:
    """UTF-8: a token is a byte. 255, which UTF-8 never uses, begins a document, and 254 pads."""

    name, vocab, separator, pad = "bytes", 256, 255, 254

    def encode(self, texts):
        """The tokens of all texts, one after another `[token]`, and how many each has `[text]`; no separators."""
        encoded = [text.encode() for text in texts]
        return np.frombuffer(b"".join(encoded), np.uint8), np.fromiter(map(len, encoded), np.int64, len(encoded))

    def decode(self, tokens):
        return tokens[tokens < self.pad].astype(np.uint8).tobytes().decode(errors="replace")

    def to_json(self) -> str:
        """What `tokenizers` reads."""
        letters = byte_letters()
        letters[self.pad], letters[self.separator] = "<pad>", "<begin>"
        split = {"type": "ByteLevel", **BYTE_LEVEL}
        return one_each(letters, ["<pad>", "<begin>"], split, split, {"type": "BPE", "merges": []})


class Characters:
    """The 95 printable characters of ASCII, then pad, unknown, begin and separator, as in DeepMind-Math.

    The separator stands for a line's end: between a question and its answer.
    """

    name, vocab, pad, unknown, separator, line = "characters", 99, 95, 96, 97, 98

    def __init__(self):
        self._token = np.full(128, self.unknown, np.uint8)
        self._token[32:127] = np.arange(95)
        self._token[10] = self.line
        self._letter = np.array([*map(chr, range(32, 127)), "", "?", "", "\n"])

    def encode(self, texts):
        points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
        return self._token[np.minimum(points, 127)], np.fromiter(map(len, texts), np.int64, len(texts))

    def decode(self, tokens):
        return "".join(self._letter[tokens])

    def to_json(self) -> str:
        letters = [*map(chr, range(32, 127)), "<pad>", "<unknown>", "<begin>", "\n"]
        each = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
        model = {"type": "WordLevel", "unk_token": "<unknown>"}
        return one_each(letters, letters[95:98], each, {"type": "Fuse"}, model)


class Trained:
    """A tokeniser of the package `tokenizers`, from its JSON; `name` is how it was asked for."""

    def __init__(self, name: str, json_text: str):
        from tokenizers import Tokenizer

        self.name, self._json = name, json_text
        self._tokenizer = Tokenizer.from_str(json_text)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # a document that holds "<|endoftext|>" ends none
        self.vocab = 1 + max(self._tokenizer.get_vocab().values())  # ids may have gaps
        numbers = map(self._tokenizer.token_to_id, SEPARATORS)
        known = [number for number in numbers if number is not None]
        if not known:
            raise UserError(f"tokeniser {name} has none of the separators {', '.join(SEPARATORS)}; name another")
        self.separator = known[0]

    def encode(self, texts):
        encoded = [each.ids for each in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return np.fromiter(chain.from_iterable(encoded), np.uint32, lengths.sum()), lengths

    def decode(self, tokens):
        return self._tokenizer.decode(tokens[tokens != self.separator].tolist(), skip_special_tokens=False)

    def to_json(self) -> str:
        return self._json


Tokeniser = Bytes | Characters | Trained  # ids are 0 .. vocab - 1, the separator included


def tokeniser(name: str, texts: Callable[[], Iterable[str]], limit_tokens: int | None = None) -> Tokeniser:
    """The tokeniser `bytes`, `characters`, `bpe:VOCAB` learnt from `texts`, of a folder or file, or of the hub.

    Where no more than `limit_tokens` will be packed, a BPE learns from about as much: see `learnt`.
    """
    kind, _, size = name.partition(":")
    if name in OURS:
        return OURS[name]()
    if kind == "bpe":
        if not size.isdecimal() or len(size) > 9 or not VOCABS[0] <= int(size) <= VOCABS[1]:
            raise UserError(f"tokeniser {name!r}: write bpe:VOCAB with a vocabulary of {VOCABS[0]:,} to {VOCABS[1]:,}")
        return Trained(name, learnt(int(size), texts(), limit_tokens))
    return saved(local(name) or fetched(name), name)


OURS = {each.name: each for each in (Bytes, Characters)}


def local(name: str) -> Path | None:
    """The file of a tokeniser that is named by a path; None of one of ours, and of one of the hub."""
    if name in OURS or name.partition(":")[0] == "bpe" or not os.path.exists(name):
        return None
    return Path(name) if os.path.isfile(name) else Path(name) / FILE


def learnt(vocab: int, texts: Iterable[str], limit_tokens: int | None = None) -> str:
    """A byte-level BPE of the first texts, as JSON; the same texts, vocabulary and limit give the same.

    It learns from `LEARNT_FROM` characters. Of a corpus of which `limit_tokens` are packed it reads no more than
    `OF_A_LIMIT` characters a token, but at least `OF_A_VOCAB` for each token of its vocabulary: a corpus that is
    generated costs as much to learn from as to pack.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[SEPARATORS[0]],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    wanted = LEARNT_FROM if limit_tokens is None else max(OF_A_LIMIT * limit_tokens, OF_A_VOCAB * vocab)
    bpe.train_from_iterator(first_texts(texts, min(wanted, LEARNT_FROM)), trainer)
    return bpe.to_str()


def first_texts(texts: Iterable[str], characters: int, each: int = 0) -> Iterator[str]:
    """Whole texts until they have that many characters, `each` more counted for every text."""
    for text in texts:
        yield text
        characters -= len(text) + each
        if characters <= 0:
            return


def fetched(name: str) -> Path:
    """The `tokenizer.json` of a tokeniser of the hub."""
    from huggingface_hub import HfApi, errors, hf_hub_download

    instead = "bytes, characters, bpe:8192 and a folder with a tokenizer.json need no network"
    try:
        try:
            path = hf_hub_download(name, FILE, local_files_only=True)
        except errors.LocalEntryNotFoundError:
            HfApi().model_info(name, timeout=TIMEOUT)  # a download alone would try for half a minute
            path = hf_hub_download(name, FILE)
        return Path(path)
    except Exception as error:  # the network's errors have many classes, of which one is an entry's that is not there
        absent = (errors.EntryNotFoundError, errors.RepositoryNotFoundError, errors.HFValidationError)
        if isinstance(error, absent) and not isinstance(error, errors.LocalEntryNotFoundError):
            problem = unknown("tokeniser", name, (*OURS, "bpe:8192"))
            raise UserError(f"{problem} (the hub has no {FILE} of that name that is open to you)") from None
        raise UserError(f"cannot fetch the tokeniser {name!r} from the hub ({reason(error)}); {instead}") from None


def save(tokeniser: Tokeniser, folder: Path) -> None:
    """Write what `saved` and `AutoTokenizer` read."""
    from tokenizers import Tokenizer

    described = tokeniser.to_json()
    separator = Tokenizer.from_str(described).id_to_token(tokeniser.separator)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": separator, "eos_token": separator}
    for name, text in ((FILE, described), (SETTINGS, json.dumps(settings, indent=1))):
        write_text(Path(folder) / name, text)


def saved(path: Path, name: str | None = None) -> Tokeniser:
    """The tokeniser in a file, which was once made under `name`; without one, ours are known by what they say."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        ours = (OURS[each]() for each in OURS if name in (None, each))
        return next((each for each in ours if each.to_json() == text), None) or Trained(name or str(path), text)
    except UserError:
        raise
    except Exception as error:  # what `tokenizers` raises has no class of its own
        problem = f"cannot read the tokeniser {path} ({reason(error)})"
        raise UserError(f"{problem}; name a tokenizer.json of `tokenizers`") from None


def digest(tokeniser: Tokeniser) -> str:
    return blake2b(tokeniser.to_json().encode(), digest_size=16).hexdigest()


def byte_letters() -> list[str]:
    """The printable letter by which byte-level tokenisers write each byte (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte if byte in plain else 256 + rest.index(byte)) for byte in range(256)]


def one_each(letters: list[str], special: list[str], split: dict, decoder: dict, model: dict) -> str:
    """The JSON of a tokeniser with a token for each letter, in their order."""
    ids = {letter: number for number, letter in enumerate(letters)}
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    description = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[token], "content": token, **flags} for token in special],
        "normalizer": None,
        "pre_tokenizer": split,
        "post_processor": None,
        "decoder": decoder,
        "model": model | {"vocab": ids},
    }
    return json.dumps(description, ensure_ascii=False, indent=1)
