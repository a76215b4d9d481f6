"""The built book as one PDF: an installed Chromium prints each page, figures drawn, and pypdf binds them."""

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from structure_first.book.chapters import listed
from structure_first.errors import UserError
from structure_first.files import replacing

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
DRAWN = 30_000  # milliseconds of a page's own clock until it is printed
LONGEST = 300  # seconds


def printed(out: Path, root: Path = Path(".")) -> Path:
    """Print the built book of `root` to the file `out`; raises `UserError` where there is no book, browser or pypdf."""
    try:
        from pypdf import PdfWriter
    except ImportError:
        raise UserError("pypdf is not installed; pip install pypdf") from None
    book = Path(root).resolve() / "book"
    html = book / "_build" / "html"
    pages = {name: html / f"{name}.html" for name in listed(book)}
    if missing := [name for name, page in pages.items() if not page.exists()]:
        raise UserError(f"{html} has no page {missing[0]}; build the book first: make book")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UserError(f"no browser is installed that prints pages; install one of {', '.join(BROWSERS[:3])}")
    bound = PdfWriter()
    with TemporaryDirectory() as folder, tqdm(pages.items(), unit="page", disable=None) as progress:
        for number, (name, page) in enumerate(progress):
            one = Path(folder) / f"{number}.pdf"
            command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
            command += [f"--user-data-dir={folder}", f"--virtual-time-budget={DRAWN}", f"--print-to-pdf={one}"]
            try:
                said = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=LONGEST)
            except subprocess.TimeoutExpired:
                raise UserError(f"{browser} did not print {name} within {LONGEST} seconds; try again") from None
            if not one.exists():
                reason = (said.stderr.strip().splitlines() or ["it gave no reason"])[-1]
                raise UserError(f"{browser} did not print {name}: {reason}")
            title = re.search(r"<title>(.*?) &#8212; ", page.read_text(), re.DOTALL)
            bound.append(one, outline_item=unescape(title[1]) if title else name)
        with replacing(out) as temporary:
            bound.write(temporary)
    return out
