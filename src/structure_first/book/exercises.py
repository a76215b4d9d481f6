"""What a reader runs below the cell that they fill in: an exercise's visible test, and what it says."""

from collections.abc import Callable


def check(test: Callable[[], None]) -> Callable[[], None]:
    """Decorate a visible test: run it, print in one line whether it holds, and leave what does so again when called.

    A test that holds prints its docstring; else it says what does not hold: its assertion's message, or what stopped
    the answer. An answer that raises `NotImplementedError` is not filled in.
    """

    def checked() -> None:
        try:
            test()
        except NotImplementedError:
            said = "not yet: the cell above waits for your code"
        except AssertionError as error:
            said = f"not yet: {error}"
        except Exception as error:  # whatever a first try stops with
            said = f"not yet: your code stops with {type(error).__name__}: {error}"
        else:
            said = f"right: {test.__doc__}"
        print(" ".join(said.split()))

    checked()
    return checked
