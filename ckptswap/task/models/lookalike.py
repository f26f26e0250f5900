"""What to type for a checkpoint that does not say what model it is: its network is looked for by its names.

Networks are built without memory, the shortest names first, and one is named only where every tensor fits it.
"""

import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError
from ckptswap.formats.torch_tensors import HYPERPARAMETERS_KEY
from ckptswap.registry import source_of
from ckptswap.task.fit import Fit, fit_of

SECONDS = 4.0  # of processor time, for looking
_TIMM = {
    "layer1.0.conv1.weight": ("resnet*", "resnext*", "wide_resnet*", "seresnet*"),
    "blocks.0.attn.qkv.weight": (
        "vit_*_patch??_224",
        "vit_*_patch14_dinov2",
        "deit*_224",
        "swin_*_224",
        "vit_*",
        "beit*",
    ),
    "blocks.0.conv_dw.weight": ("convnext*",),
    "conv_head.bias": ("mobilenetv3_*", "tf_mobilenetv3_*"),
    "conv_stem.weight": (
        "efficientnet_b?",
        "mobilenetv2_*",
        "tf_efficientnet_b?",
        "tf_efficientnetv2_?",
        "efficientnet*",
    ),
    "denseblock1.denselayer1.conv1.weight": ("densenet*",),
    "pre_logits.fc1.weight": ("vgg*",),
}
_TORCHVISION = {
    "backbone.layer1.0.conv1.weight": ("fcn_*", "deeplabv3_*"),
    "features.0.0.weight": ("mobilenet*", "efficientnet*", "convnext*"),
    "features.0.weight": ("vgg*", "alexnet"),
    "encoder.layers.encoder_layer_0.ln_1.weight": ("vit_*",),
}
"""The end of a name that a family's networks have → what these are called."""
_SMP_DECODERS = {
    "decoder.blocks.0.conv1.0.weight": ("Unet", "Linknet"),
    "decoder.p5.weight": ("FPN",),
    "decoder.aspp.0.convs.0.0.weight": ("DeepLabV3",),
    "decoder.aspp.0.convs.1.0.0.weight": ("DeepLabV3Plus",),
    "decoder.psp.blocks.0.pool.1.0.weight": ("PSPNet",),
}
_ENCODERS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg11_bn", "vgg16_bn", "mobilenet_v2")
_TRANSFORMERS = (
    "attention.self.query.weight",
    "attention.attention.query.weight",
    "self_attn.q_proj.weight",
    "attn.c_attn.weight",
)
_NNUNET = "encoder.stages.0.0.convs.0.conv.weight"
_CLASSES = {"timm": "num_classes", "torchvision": "num_classes", "smp": "classes"}
_CHANNELS = {"timm": "in_chans", "smp": "in_channels"}
_WITH_CODE = {"torchscript": "script", "torch.export": "export"}
"""Formats that hold a network beside its tensors → what builds it."""
Candidate = tuple[str, dict[str, Any]]


def what_to_type(checkpoint: Checkpoint) -> str:
    """What builds the network of a checkpoint that does not say it, as flags where they can be told."""
    if checkpoint.format in _WITH_CODE:
        return f"pass --model {_WITH_CODE[checkpoint.format]}:{checkpoint.path}, which runs the code that it holds"
    if HYPERPARAMETERS_KEY in checkpoint.metadata or any("Lightning" in note for note in checkpoint.notes):
        return (
            "Lightning wrote it: pass --model lightning:FILE.py:CLASS, the file and class of its LightningModule"
        )
    if any(entry.kind.startswith("lora.") for entry in checkpoint.values()):
        return (
            "it holds the factors of an adapter (LoRA) and not its base: peft:FOLDER is both, for a folder that "
            "save_pretrained of peft wrote"
        )
    if any(name.endswith(_NNUNET) for name in checkpoint):
        return (
            "its names are those of nnU-Net: pass --model file.py:function with one that calls its "
            "get_network_from_plans with what plans.json says"
        )
    if any(name.endswith(_TRANSFORMERS) for name in checkpoint):
        home = Path(checkpoint.path).parent
        if (home / "config.json").is_file():
            return f"its names are those of transformers: give its folder, {home}, whose config.json says it"
        return (
            "its names are those of transformers: give the folder that save_pretrained wrote instead, or name one "
            "with the same config.json by --model hf:FOLDER"
        )
    alike = lookalike(checkpoint)
    if alike is None:
        return (
            "pass --model with what builds it: timm:NAME, torchvision:NAME, smp:NAME, or file.py:function of yours"
        )
    spec, args = alike
    return f"all its tensors fit --model {spec}{f' --model-args {_words(args)}' if args else ''}"


def lookalike(checkpoint: Checkpoint) -> Candidate | None:
    """The spec and arguments of a network that a checkpoint fills and that has a place for all of it; None where
    none was found in a few seconds."""
    start: float | None = None
    for spec, args in _candidates(checkpoint):
        start = time.process_time() if start is None else start  # the library is imported by now
        if time.process_time() - start > SECONDS:
            return None
        fit = _fit(checkpoint, spec, args)
        if fit is None or len(fit.unlike) > 4:
            continue
        more = args | _told(spec.partition(":")[0], fit)
        if more != args:
            fit = _fit(checkpoint, spec, more)
        if fit is not None and not fit.problems:
            return spec, more
    return None


def fitting_args(checkpoint: Checkpoint, spec: str, args: Mapping[str, Any]) -> str:
    """The arguments with which a network of a library has a place for all of a checkpoint, as they are typed; ''
    where classes and channels do not explain what is in the way."""
    kind = spec.partition(":")[0]
    fit = _fit(checkpoint, spec, args) if kind in _CLASSES else None
    if fit is None or not 0 < len(fit.unlike) <= 4:
        return ""
    more = {**args, **_told(kind, fit)}
    again = _fit(checkpoint, spec, more)
    return _words(more) if again is not None and not again.problems else ""


def _words(args: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in args.items())


def _candidates(checkpoint: Checkpoint) -> Iterator[Candidate]:
    names = tuple(checkpoint)
    for decoder, architectures in _SMP_DECODERS.items():
        if any(name.endswith(decoder) for name in names):
            yield from (
                (f"smp:{name}", {"encoder_name": encoder}) for name in architectures for encoder in _ENCODERS
            )
    for source, families in (("torchvision", _TORCHVISION), ("timm", _TIMM)):
        globs = [glob for tell, those in families.items() if any(name.endswith(tell) for name in names)
                 for glob in those]  # fmt: skip
        known = sorted(_known(source) if globs else (), key=lambda name: (len(name), name))
        yield from ((f"{source}:{name}", {}) for glob in globs for name in known if fnmatchcase(name, glob))


def named_so(name: str) -> list[str]:
    """The specs of the networks that libraries have by a name, in its letters or in small ones.

    >>> named_so("resnet18")
    ['timm:resnet18', 'torchvision:resnet18']
    """
    of = {source: _known(source) for source in ("timm", "torchvision")}
    return [
        f"{source}:{known}" for source, names in of.items() for known in names if known in (name, name.lower())
    ]


def _known(source: str) -> list[str]:
    """The names of a library's networks; none where it is not installed."""
    try:
        module = import_module(source)
    except ImportError:
        return []
    return list((module if source == "timm" else module.models).list_models())


def _fit(checkpoint: Checkpoint, spec: str, args: Mapping[str, Any]) -> Fit | None:
    """How a checkpoint meets a network that has no values; None where that cannot be built."""
    registered = source_of("models", spec)
    assert registered is not None
    source, rest = registered
    try:
        with torch.device("meta"):
            return fit_of(source.made(rest, args).state_dict(), checkpoint)
    except (CkptswapError, RuntimeError, NotImplementedError):
        return None


def _told(source: str, fit: Fit) -> dict[str, Any]:
    """The arguments that the shapes of what does not fit tell: classes of the head, channels of the first."""
    told: dict[str, Any] = {}
    for name in fit.unlike:
        theirs, ours = fit.checkpoint[name].shape, fit.own[name].shape
        if len(theirs) == len(ours) and theirs[1:] == ours[1:]:
            told[_CLASSES[source]] = theirs[0]
        elif source in _CHANNELS and theirs[:1] == ours[:1] and theirs[2:] == ours[2:]:
            told[_CHANNELS[source]] = theirs[1]
    if source == "timm" and fit.missing and not fit.unexpected:
        told["num_classes"] = 0
    return told
