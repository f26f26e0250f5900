"""`peft:ADAPTER`: the base that an adapter names, with its products added.

Also where transformers calls the modules that the adapter was trained on otherwise than the base's file does.
"""

from contextlib import ExitStack

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError, ModelError
from ckptswap.formats.format import CheckpointSource
from ckptswap.formats.peft import absolute, base_and_adapter, merged
from ckptswap.renaming import renamed
from ckptswap.task.models import hf
from ckptswap.task.models.named import model_of


def open_merged(spec: str) -> Checkpoint:
    """`ADAPTER`, or `BASE+ADAPTER` where the base lies elsewhere than the adapter says: the base's tensors, each
    that the adapter touches with its product added, under the names of the base's file. Nothing is computed yet.

    Raises `FileError` where the base is not there, `FormatError` for an adapter that is more than low-rank
    products, `MismatchError` where it does not fit the base, and what opening raises.
    """
    with ExitStack() as stack:
        base, adapter = base_and_adapter(spec, stack)
        try:
            whole = merged(base, adapter)
        except MismatchError:
            if (own := _by_modules(base)) is None:
                raise
            whole = merged(own, adapter)
            whole = renamed(whole, {new: old for old, new in own.renames.items()})
        stack.pop_all()
    whole.path = f"peft:{spec}"
    return whole


def _by_modules(base: Checkpoint) -> Checkpoint | None:
    """The base under the names of transformers' modules; None where it does not say which network it is of."""
    try:
        spec, args = model_of(base)
    except ModelError:
        return None
    source, _, name = spec.partition(":")
    if source != "transformers":
        return None
    from ckptswap.task.models.bounds import bounded_by  # torch takes seconds, and is seldom needed here
    from ckptswap.task.models.hf_names import as_loaded

    with bounded_by(base, spec, args):
        return as_loaded(hf.outlined(name, args), base)[0]


MERGED = CheckpointSource(open_merged, absolute)
