"""YAML from anyone: of bounded size, depth and cost, in which a key stands once and 5e-4 is a number."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from structure_first.errors import UserError, reason

EXAMPLE = "book/configs/quick.yaml"
LARGEST, DEEPEST = 1 << 16, 16  # bytes of a file, and sections within one another


class Loader(yaml.SafeLoader):
    """What nothing this package reads has need of is refused before it is built: an alias stands for any amount."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ConstructorError(None, None, "an alias; write out what it stands for", self.peek_event().start_mark)
        self.depth += 1
        if self.depth > DEEPEST:
            raise ConstructorError(None, None, f"more than {DEEPEST} levels deep", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        counts = Counter(self.construct_object(key, deep=True) for key, _ in node.value)
        for key, count in counts.items():
            if count > 1:
                raise ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
Loader.add_implicit_resolver("tag:yaml.org,2002:float", SCIENTIFIC, list("-+0123456789"))


def read_yaml(path: Path, advice: str = f"write one like {EXAMPLE}") -> Any:
    """What a file says, as JSON would hold it; raises `UserError` in one line that ends in `advice`."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UserError(f"{path} has more than {LARGEST:,} bytes; {advice}")
        return json.loads(json.dumps(yaml.load(content.decode("utf-8-sig"), Loader), default=str))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {advice}") from None
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        raise UserError(f"{path} is no YAML ({reason(error)}); {advice}") from None
