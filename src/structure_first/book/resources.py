"""What pages would fetch from another host: the book must draw without a network."""

import re
from html.parser import HTMLParser
from pathlib import Path


def remote_resources(html: Path) -> list[str]:
    """What the pages and style sheets below `html` would fetch from another host, each as "PAGE: ADDRESS"."""
    remote = []
    for path in sorted(html.rglob("*")):
        if path.suffix == ".html":
            page = _Resources()
            page.feed(path.read_text())
            addresses = page.addresses
        elif path.suffix == ".css":
            addresses = _in_style(path.read_text())
        else:
            continue
        remote += [f"{path.relative_to(html)}: {it}" for it in addresses if re.match(r"(https?:)?//", it.strip(), re.I)]
    return remote


def _in_style(css: str) -> list[str]:
    return [a or b for a, b in re.findall(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""", css)]


class _Resources(HTMLParser):
    """Collects the addresses that a browser fetches by itself; a link that waits for a click is none."""

    _fetched_links = frozenset(
        ["stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch", "manifest"]
    )

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self._style = False

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self._style = tag == "style"
        self.addresses += [values[name] for name in ("src", "poster", "data") if name in values]
        self.addresses += [part.split()[0] for part in values.get("srcset", "").split(",") if part.split()]
        if tag == "link" and self._fetched_links & set(values.get("rel", "").lower().split()):
            self.addresses.append(values.get("href", ""))
        if tag in ("image", "use"):
            self.addresses += [values[name] for name in ("href", "xlink:href") if name in values]
        self.addresses += _in_style(values.get("style", ""))

    def handle_data(self, data):
        if self._style:
            self.addresses += _in_style(data)

    def handle_endtag(self, tag):
        self._style = False
