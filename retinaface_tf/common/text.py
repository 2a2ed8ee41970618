"""Words for numbers, in what the commands say."""


def count(number: int, noun: str) -> str:
    """Such as "1 face" or "3,226 faces"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
