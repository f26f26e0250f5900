"""`hf:FOLDER` and `transformers:CLASS`: transformers' networks, built from a configuration.

A folder that `save_pretrained` wrote says by its config.json which class it is of; `transformers:CLASS` takes that
configuration as its arguments. Nothing is downloaded and no code but the library's own is run.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError, near
from ckptswap.formats.objects import parse_object
from ckptswap.formats.smp_folder import CONFIG, CONFIG_MOST
from ckptswap.plainfiles import read_plain
from ckptswap.registry import Source, library
from ckptswap.task.callables import call, faults_of

_DTYPES = ("F64", "F32", "F16", "BF16")
_NOT_OF_THE_MODEL = ("architectures", "transformers_version", "_name_or_path")
_CHOSEN_HERE = ("attn_implementation", "experts_implementation", "use_cache")
_REACHING_OUT = {
    "auto_map": "names code of its own",
    "quantization_config": "is of a quantised model",
    "backbone": "takes a part from elsewhere",
    "use_timm_backbone": "takes a part from elsewhere",
    "use_pretrained_backbone": "takes a part from elsewhere",
}
"""Keys of a configuration by which more than the library's own classes would be wanted, and what they mean."""


def built_from_folder(folder: str, args: Mapping[str, Any]) -> Any:
    """The network that a folder's config.json names, with `args` in the place of its values. Code of the folder's
    own (`auto_map`) is left aside. Raises `ModelError` where it names none that transformers has.
    """
    path = config_in(folder)
    try:
        config = parse_object(read_plain(path, CONFIG_MOST))
    except ValueError as error:
        raise ModelError(f"{path} is not a configuration", remedy=f"it {error}") from None
    named = spec_of({key: value for key, value in config.items() if key != "auto_map"})
    if named is None:
        raise ModelError(f"{path} names no architecture", remedy="name the model itself with --model")
    spec, own = named
    return built(spec.partition(":")[2], {**own, **args})


def config_in(folder: str) -> Path:
    """Where a folder says what network it is of. Raises `ModelError` where it says nothing."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ModelError(f"there is no file {path}", remedy="name a folder that save_pretrained wrote")
    return path


def spec_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The spec and arguments that `save_pretrained`'s config.json means; None where it names no class.

    >>> spec_of({"architectures": ["BertModel"], "hidden_size": 8, "transformers_version": "5"})
    ('transformers:BertModel', {'hidden_size': 8})
    """
    named = config.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        return None
    args = {key: value for key, value in config.items() if key not in _NOT_OF_THE_MODEL}
    return f"transformers:{named[0]}", args


def with_dtype(args: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """The configuration in the precision that most of a checkpoint's numbers have, whatever it was saved with.

    >>> import numpy as np
    >>> with_dtype({"torch_dtype": "float16"}, Checkpoint.from_arrays({"w": np.zeros(2, np.float32)}))
    {'dtype': 'float32'}
    """
    numbers = Counter[str]()
    for entry in checkpoint.values():
        if entry.dtype in _DTYPES:
            numbers[entry.dtype] += entry.numel
    own = {key: value for key, value in args.items() if key not in ("dtype", "torch_dtype")}
    given = args.get("dtype", args.get("torch_dtype"))
    dtype = dtypes.to_numpy(numbers.most_common(1)[0][0]).name if numbers else given
    return own if dtype is None else {**own, "dtype": dtype}


def built(name: str, args: Mapping[str, Any]) -> Any:
    """A class of transformers with a configuration, its attention written out (`eager`), which can be replayed.

    Raises `ModelError` for a class that transformers does not have, or a configuration that is not one of it.
    """
    outlined(name, args)  # whoever bounds its size counts before memory is taken
    model_class = _model_class(name)
    with _offline(), _quiet():
        return call(f"transformers:{name}", model_class._from_config, _chosen(model_class, args), ModelError)


def outlined(name: str, args: Mapping[str, Any]) -> Any:
    """The same without any memory: its tensors are on the meta device. Raises what `built` raises."""
    import torch  # takes seconds, and a declaration must cost nothing

    _refuse_reaching_out(name, args)
    model_class = _model_class(name)
    known = model_class.config_class.model_type
    if args.get("model_type", known) != known:
        raise ModelError(
            f"{name} is not of the type {args['model_type']!r} that its configuration names",
            remedy=f"transformers knows it as {known!r}",
        )
    with _offline(), _quiet(), faults_of(f"transformers:{name}", ModelError), torch.device("meta"):
        return model_class._from_config(**_chosen(model_class, args))


def _chosen(model_class: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    """How a class is built: its configuration, and the kinds of attention and experts that can be replayed."""
    how = {"config": _config(model_class.config_class, args), "attn_implementation": "eager"}
    if model_class._can_set_experts_implementation():
        how["experts_implementation"] = "batched_mm"  # the others look which experts are asked
    return how


def _model_class(name: str) -> Any:
    """The class of transformers, with a configuration of its own. Raises `ModelError` where there is none."""
    transformers = library("transformers")
    known = getattr(transformers, name, None)
    is_model = isinstance(known, type) and issubclass(known, transformers.PreTrainedModel)
    if not is_model or getattr(known, "config_class", None) is None:
        remedy = near(name, dir(transformers)) or "if it is the folder's own code, build it in a file.py"
        raise ModelError(f"transformers has no model {name!r}", remedy=remedy)
    return known


def _config(form: type, args: Mapping[str, Any]) -> Any:
    """A configuration of its own for each model, which is written to while that is built."""
    config = form.from_dict(_without_choices(args))  # type: ignore[attr-defined]
    for part in (config, *(getattr(config, key, None) for key in config.sub_configs)):
        if part is not None and hasattr(part, "use_cache"):
            part.use_cache = True  # without, decoders look whether the positions are of several texts
    return config


def _without_choices(value: Any) -> Any:
    """A configuration without what is chosen here: attention may name code on a hub, at any depth."""
    if isinstance(value, Mapping):
        return {
            key: _without_choices(part)
            for key, part in value.items()
            if not any(str(key).lstrip("_").startswith(choice) for choice in _CHOSEN_HERE)
        }
    return [_without_choices(part) for part in value] if isinstance(value, list) else value


def _refuse_reaching_out(name: str, value: Any) -> None:
    """Raises `ModelError` for a configuration that wants code, files or the network, at any depth."""
    for key, part in value.items() if isinstance(value, Mapping) else ():
        is_place = key == "architecture" and isinstance(part, str) and bool({":", "/"} & {*part})
        if (key in _REACHING_OUT and part) or is_place:
            raise ModelError(
                f"the configuration of {name} {_REACHING_OUT.get(key, 'takes a part from elsewhere')} ({key})",
                remedy="if you trust it, build it in a file of yours and name that with --model file.py:FUNCTION",
            )
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for part in parts:
        _refuse_reaching_out(name, part)


@contextmanager
def _offline() -> Iterator[None]:
    """In here the hub is not asked, whatever the library has in mind."""
    constants = library("huggingface_hub.constants")
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before  # type: ignore[attr-defined]


@contextmanager
def _quiet() -> Iterator[None]:
    """In here the library keeps its advice on configurations to itself: what it says is not about our command."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


FOLDER = Source(
    built_from_folder,
    libraries=("transformers",),
    completed=with_dtype,
    file=lambda folder: str(Path(folder) / CONFIG),
)
CLASS = Source(built, libraries=("transformers",), is_safe=True, builds_on_meta=True, completed=with_dtype)
