"""The templates beside this file, which show text from strangers' files and let none of it be markup."""

from functools import cache, partial
from typing import Any

from ckptswap.report.text import fixed, number, plural, safe


@cache
def template(name: str) -> Any:
    """A template beside this file, which escapes all that it shows; jinja2 is loaded only here."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=PackageLoader("ckptswap", "report"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else safe(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    broken = Markup(".<wbr>")  # where a long name may go on in a new line
    environment.filters["breakable"] = lambda name: escape(safe(name)).replace(".", broken)
    environment.filters |= {"number": number, "plural": plural, "zip": zip}
    environment.filters["drop"] = partial(fixed, places=4, signed=True)
    return environment.get_template(name)
