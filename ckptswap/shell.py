"""Words as a shell reads them, be it sh, bash or zsh."""

import shlex
from collections.abc import Iterable


def quoted(word: str) -> str:
    """A word for a command line. zsh would look up one that begins with `=`, which `shlex` leaves bare.

    >>> print(quoted("=conv.bias"), quoted("a b"), quoted("a.pt"))
    '=conv.bias' 'a b' a.pt
    """
    bare = shlex.quote(word)
    return f"'{word}'" if bare == word and word.startswith("=") else bare


def joined(words: Iterable[str]) -> str:
    """A whole command line, which `shlex.split` takes apart again.

    >>> print(joined(["ckptswap", "show", "a b.pt", "--only", "=conv.bias"]))
    ckptswap show 'a b.pt' --only '=conv.bias'
    """
    return " ".join(map(quoted, words))


def printable(word: str) -> str:
    """A word for a command line that is shown on a terminal: what is not printed is spelt as bash and zsh read it.

    >>> print(printable("a\\nb"), printable("a b"))
    $'a\\u000ab' 'a b'
    """
    return quoted(word) if word.isprintable() else f"$'{''.join(map(_spelt, word))}'"


def _spelt(letter: str) -> str:
    if letter.isprintable() and letter not in "'\\":
        return letter
    return f"\\u{ord(letter):04x}" if ord(letter) <= 0xFFFF else f"\\U{ord(letter):08x}"
