"""Text for people: numbers with their nouns, errors as one line, and names that are safe to print."""

import re
import shlex

# Control characters (C0, DEL, C1), line and paragraph separators, marks that change the direction of writing, and
# halves of surrogate pairs, which stand for the bytes of file names that are not UTF-8.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def pluralize(number: int, noun: str) -> str:
    """A number with its noun, such as "1 face" or "3,226 faces"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(value: object, keep: str = "") -> str:
    """A value as text without characters that steer a terminal: they become escapes such as `\\x1b`.

    Args:
        value: What is printed, such as the name of a file that a stranger made.
        keep: Characters that stay as they are.
    """

    def escape(match: re.Match[str]) -> str:
        letter = match[0]
        return letter if letter in keep else letter.encode("unicode_escape", "surrogatepass").decode("ascii")

    return UNPRINTABLE.sub(escape, str(value))


def first_line(error: BaseException, max_length: int = 300) -> str:
    """An exception as one printable line of at most `max_length` characters.

    An `OSError` gives its file and its reason. An exception without a message gives the name of its type.
    """
    if isinstance(error, OSError) and error.filename and error.strerror:
        filename = error.filename
        name = filename.decode("utf-8", "surrogateescape") if isinstance(filename, bytes) else filename
        text = f"{name}: {error.strerror}"
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[0] if lines else type(error).__name__
    text = printable(text)
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def one_line(text: object, max_length: int = 300) -> str:
    """A text of others, such as a server's, as one printable line of at most `max_length` characters."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= max_length else f"{line[: max_length - 1]}…"


def command_line(*words: object) -> str:
    """Words as a command that can be pasted into a shell, each quoted where it must be."""
    return shlex.join(str(word) for word in words)
