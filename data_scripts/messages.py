"""One line for the user, whatever stood in the input that it speaks of."""

LONGEST = 600  # characters of a message; a file's name, a key and some of what was found


def one_line(text: object) -> str:
    """Return a text on one line that every terminal and file can show, cut in the middle where it is very long.

    White space becomes single spaces; characters that do not print, lone surrogates among them, are escaped.
    """
    line = " ".join(str(text).split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - 200]} … {line[-190:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


class OneLine:
    """Mixed into an exception whose message is for the user: keeps it on one line."""

    def __init__(self, message: object = ""):
        super().__init__(one_line(message))
