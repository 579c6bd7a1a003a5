"""A rich console that prints on any stream, even one that is closed or whose encoding lacks a character."""

import io

from rich.console import Console

from configuration.errors import show


class EncodedText(io.StringIO):
    """Text in memory for a stream of some encoding, by which a console chooses what it draws lines with."""

    encoding = "utf-8"


class TolerantConsole(Console):
    """Print through `show`, which escapes what cannot be encoded and ignores a closed stream.

    Args:
        console: the one to print as; stdout's by default.
    """

    def __init__(self, console: Console | None = None):
        console = console or Console()
        self.text = EncodedText()
        self.text.encoding = console.encoding
        self.target = console.file
        super().__init__(
            file=self.text,
            width=console.width,
            force_terminal=console.is_terminal,
            color_system=console.color_system,
        )

    def print(self, *objects, **settings) -> None:
        """Print as rich does, then pass on what it wrote."""
        super().print(*objects, **settings)
        show(self.text.getvalue(), self.target, end="")
        self.text.seek(0)
        self.text.truncate()
