"""What every test shares: hypothesis without a deadline (the first call of an array operation is slow), fixed in CI.

And the shapes in signatures: where beartype is there, calls are held to their annotations. What users call with
anything, as `data.registry`, is left out: it says itself what is wrong.
"""

import os
from importlib.util import find_spec

from hypothesis import settings
from jaxtyping import install_import_hook

SHAPED = ("batch", "controls", "diagnostics", "mixtures", "parts", "procedural")
CHECKED = ["structure_first.model", *(f"structure_first.data.{module}" for module in SHAPED)]

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

if find_spec("beartype"):
    install_import_hook(CHECKED, "beartype.beartype")
