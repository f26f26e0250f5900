"""Where images and their masks or classes lie in a folder, told by its look. No torch.

- `images/` and `masks/`, also with folders in them; a mask has its image's name, or that and `_mask` or the like;
- `JPEGImages/` and `SegmentationClass/` (Pascal VOC), whose 255 is ignored;
- `leftImg8bit/` and `gtFine/` (Cityscapes): `labelTrainIds`, or `labelIds` read as those; 255 is ignored;
- `images=PATTERN,masks=PATTERN` of `--data-args`: pairs are those whose stars stand for the same text;
- one folder a class (image classification), classes numbered in the sorted order of their names; they take turns,
  so that the first samples are of all classes;
- images alone, where no labels are needed.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ckptswap.errors import DataError, listing, near
from ckptswap.naming import natural_key
from ckptswap.patterns import starred_path
from ckptswap.task.data.pictures import IMAGES, LOSSY, MASKS
from ckptswap.task.data.request import refuse_unknown

_OTHER_IMAGES = (".gif", ".webp", ".jfif", ".jp2", ".heic", ".npz", ".nii", ".gz", ".dcm", ".mha", ".mhd", ".nrrd")
SUFFIXES = ("_mask", "-mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation")
"""What masks may have behind their image's name."""
_SOURCES = {".txt": "text", ".jsonl": "text", ".ndjson": "text", ".npz": "npz"}
"""Which source reads a file of such a name."""
PARTS = ("train", "val", "valid", "validation", "test")
VOC = ("JPEGImages", "SegmentationClass")
CITYSCAPES = ("leftImg8bit", "gtFine")
IGNORED = 255
TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13,
             27: 14, 28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip
"""Cityscapes' 19 classes that are scored, by their label id; all others are ignored."""


@dataclass(frozen=True)
class FolderSample:
    """One sample: its name, its image, and its mask, or the number of its class, or neither."""

    name: str
    image: Path
    target: Path | int | None


@dataclass(frozen=True)
class FolderLayout:
    """The samples of a folder in their order; `renumbered` are class ids of masks that are read as others."""

    pairs: tuple[FolderSample, ...]
    notes: tuple[str, ...] = ()
    renumbered: Mapping[int, int] | None = None


def layout_of(root: Path, *, has_targets: bool, args: Mapping[str, Any]) -> FolderLayout:
    """The samples of a folder. Raises `DataError` where files are missing or don't fit each other."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}", remedy=_meant(root) or "check --data")
    look, takes, read = _look_of(root, args, has_targets=has_targets)
    refuse_unknown(args, ("color", *takes), f"{root} {look}, and")
    return read(root, args, has_targets)


Read = Callable[[Path, Mapping[str, Any], bool], FolderLayout]
"""From a folder, its arguments, and whether there must be targets, to its samples."""


def _look_of(root: Path, args: Mapping[str, Any], *, has_targets: bool) -> tuple[str, tuple[str, ...], Read]:
    """What a folder looks like in words, which arguments that look takes beside `color`, and what reads it."""
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    if "images" in args or "masks" in args:
        return "is read by pattern", ("images", "masks"), _by_pattern
    if folders & {"images", "masks"} or not any(_is_folder(root / name) for name in folders):
        return "is of images and masks", (), _images_and_masks
    if folders.issuperset(VOC):
        return "is of Pascal VOC's look", ("split",), _voc
    if folders.issuperset(CITYSCAPES[: 1 + has_targets]):
        return "is of Cityscapes' look", ("split", "labels"), _cityscapes
    return "has a folder a class", (), _classes


def _meant(path: Path) -> str:
    """What somebody may have wanted to write who wrote what is no folder."""
    source = _SOURCES.get(path.suffix.lower())
    if source is not None and path.is_file():
        return f"write --data {source}:{path}"
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    return near(path.name, [folder.name for folder in beside if _is_folder(folder)])


def ignored_of(root: Path) -> int | None:
    """The mask value that a folder's look says is not scored; None where it says nothing."""
    known = (VOC, CITYSCAPES)
    is_known = any(all((root / name).is_dir() for name in names) for names in known)
    return IGNORED if is_known and not (root / "images").is_dir() else None


def files(folder: Path, *, are_masks: bool = False) -> dict[str, Path]:
    """Name below the folder, without its ending → file, in natural order."""
    if not folder.is_dir():
        remedy = "it needs images/ and masks/, or one folder a class"
        raise DataError(f"{folder.parent} has no folder {folder.name}/", remedy=remedy)
    by_name: dict[str, Path] = {}
    for path in _walked(folder):
        suffix = path.suffix.lower()
        if suffix not in (MASKS if are_masks else IMAGES):
            raise _refused(path, is_lossy=suffix in LOSSY)
        if not path.is_file():
            raise DataError(f"{path} is not a plain file", remedy="take it away")
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in by_name:
            raise DataError(f"{folder} has both {by_name[name].name} and {path.name}", remedy="keep one")
        by_name[name] = path
    return by_name


def _walked(folder: Path) -> Iterator[Path]:
    """All that is named like an image, folders' content behind the files beside them."""
    entries = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    looked_at = [path for path in entries if not path.name.startswith(".")]
    named = [path for path in looked_at if path.suffix.lower() in (*IMAGES, *_OTHER_IMAGES)]
    yield from named
    for path in looked_at:
        if path not in named and _is_folder(path):
            yield from _walked(path)


def _is_folder(path: Path) -> bool:
    """A link to a folder is none: it could lead round in a circle."""
    return path.is_dir() and not path.is_symlink() and not path.name.startswith(".")


def _refused(path: Path, *, is_lossy: bool) -> DataError:
    if is_lossy:
        return DataError(
            f"{path} is a JPEG, whose loss changes the class ids of a mask at every edge",
            remedy="save masks as PNG, TIFF, BMP or NPY, from what they were drawn as",
        )
    return DataError(f"{path} is neither PNG, JPEG, TIFF, BMP nor NPY", remedy="convert it")


def _images_and_masks(root: Path, _: Mapping[str, Any], has_targets: bool) -> FolderLayout:
    is_flat = not has_targets and not any(_is_folder(path) for path in root.iterdir())
    place = root if is_flat else root / "images"
    images = files(place)
    masks = files(root / "masks", are_masks=True) if has_targets else {}
    if not images:
        raise DataError(f"{place} has no PNG, JPEG, TIFF, BMP or NPY file", remedy="check --data")
    if not has_targets:
        return FolderLayout(tuple(FolderSample(name, image, None) for name, image in images.items()))
    found = {name: _mask_of(name, masks) for name in images}
    without = [images[name].name for name, mask in found.items() if mask is None]
    if len(without) == len(images):
        there = listing([mask.name for mask in masks.values()], most=2) or "no masks"
        raise DataError(
            f"no pairs found in {root}: {listing(without, most=2)} against {there}",
            remedy="image and mask must have the same name",
        )
    if without:
        raise DataError(f"{root} has no mask for {listing(without)}", remedy="add them, or move the images away")
    return FolderLayout(tuple(FolderSample(name, images[name], mask) for name, mask in found.items()))


def _mask_of(name: str, masks: Mapping[str, Path]) -> Path | None:
    return next((masks[name + suffix] for suffix in ("", *SUFFIXES) if name + suffix in masks), None)


def _voc(root: Path, args: Mapping[str, Any], has_targets: bool) -> FolderLayout:
    """Images that have a mask; with `split` those that its list of names has."""
    images, masks = files(root / VOC[0]), files(root / VOC[1], are_masks=True) if has_targets else {}
    names = [name for name in images if name in masks or not has_targets]
    if "split" in args:
        place = root / "ImageSets" / "Segmentation" / f"{args['split']}.txt"
        if not place.is_file():
            raise DataError(f"there is no file {place}", remedy="name another split")
        wanted = set(place.read_text("utf-8").split())
        names = [name for name in names if name in wanted]
    return FolderLayout(
        _some([FolderSample(name, images[name], masks.get(name)) for name in names], root), _ignoring(has_targets)
    )


def _cityscapes(root: Path, args: Mapping[str, Any], has_targets: bool) -> FolderLayout:
    """Frames of one split: `val` unless another is named, or there is only one."""
    splits = sorted(path.name for path in (root / CITYSCAPES[0]).iterdir() if _is_folder(path))
    split = str(args.get("split", splits[0] if len(splits) == 1 else "val"))
    if split not in splits:
        raise DataError(f"{root / CITYSCAPES[0]} has no {split}/", remedy=f"split={' or '.join(splits)}")
    images = _by_end(files(root / CITYSCAPES[0] / split), "_leftImg8bit")
    if not has_targets:
        return FolderLayout(_some([FolderSample(name, image, None) for name, image in images.items()], root))
    every = files(root / CITYSCAPES[1] / split, are_masks=True)
    trained, ids = (_by_end(every, f"_gtFine_{kind}") for kind in ("labelTrainIds", "labelIds"))
    are_ids = args.get("labels") == "ids" or not trained
    masks = ids if are_ids else trained
    pairs = _some(
        [FolderSample(name, image, masks[name]) for name, image in images.items() if name in masks], root
    )
    renumbered = TRAIN_IDS if are_ids and args.get("labels") != "ids" else None
    renaming = (
        ("label ids are read as the 19 train ids of Cityscapes (labels=ids keeps them)",) if renumbered else ()
    )
    return FolderLayout(pairs, (f"{root}: the split {split}", *renaming, *_ignoring(has_targets)), renumbered)


def _by_end(named: Mapping[str, Path], end: str) -> dict[str, Path]:
    return {name.removesuffix(end): path for name, path in named.items() if name.endswith(end)}


def _ignoring(has_targets: bool) -> tuple[str, ...]:
    return (f"mask value {IGNORED} is not scored, as the layout of the folder says",) if has_targets else ()


def _by_pattern(root: Path, args: Mapping[str, Any], has_targets: bool) -> FolderLayout:
    if "images" not in args or (has_targets and "masks" not in args):
        raise DataError("images and masks belong together", remedy="give --data-args images=PATTERN,masks=PATTERN")
    images = _matching(root, str(args["images"]), IMAGES)
    if not images:
        fault = f"no pairs found in {root}: no image has the path {args['images']}"
        raise DataError(fault, remedy="write it from that folder on, as in images/**/*.png")
    masks = _matching(root, str(args["masks"]), MASKS) if has_targets else {}
    without = [path.name for key, path in images.items() if has_targets and key not in masks]
    if without:
        raise DataError(
            f"{args['masks']} has no mask for {listing(without)}",
            remedy="the stars of both must mean the same text",
        )
    return FolderLayout(
        _some([FolderSample("/".join(key), path, masks.get(key)) for key, path in images.items()], root)
    )


def _matching(root: Path, pattern: str, suffixes: Sequence[str]) -> dict[tuple[str, ...], Path]:
    """What the stars stand for → file; `*` is within a name, `**` any folders. What is hidden is left alone."""
    stars_of = starred_path(pattern.removeprefix("./"))
    by_stars: dict[tuple[str, ...], Path] = {}
    for folder, below, names in os.walk(root):
        below[:] = sorted((name for name in below if not name.startswith(".")), key=natural_key)
        for name in sorted(names, key=natural_key):
            path = Path(folder, name)
            stars = stars_of(path.relative_to(root).as_posix())
            if stars is not None and path.suffix.lower() in suffixes and not name.startswith("."):
                by_stars[stars] = path
    return by_stars


def _classes(root: Path, *_: Any) -> FolderLayout:
    folders = sorted(path for path in root.iterdir() if _is_folder(path))
    if all(folder.name in PARTS for folder in folders):
        named = " and ".join(f"{folder.name}/" for folder in folders)
        raise DataError(f"{root} holds {named}", remedy=f"name one of them: --data {folders[0]}")
    by_class = [
        [FolderSample(f"{folder.name}/{name}", image, number) for name, image in files(folder).items()]
        for number, folder in enumerate(folders)
    ]
    pairs = [sample for turn in zip_longest(*by_class) for sample in turn if sample is not None]
    if not pairs:
        raise DataError(
            f"{root} has no folder images/", remedy="it needs images/ and masks/, or one folder a class"
        )
    empty = [folder.name for folder, samples in zip(folders, by_class, strict=True) if not samples]
    if empty:
        raise DataError(f"{root} has no images in {listing(empty)}", remedy="take such folders away")
    order = listing([f"{number} {folder.name}" for number, folder in enumerate(folders)], most=5)
    classes = "1 class" if len(folders) == 1 else f"{len(folders)} classes, in the sorted order of their folders"
    return FolderLayout(tuple(pairs), (f"{classes}: {order}",))


def _some(pairs: list[FolderSample], root: Path) -> tuple[FolderSample, ...]:
    if not pairs:
        raise DataError(f"no pairs found in {root}", remedy="check --data and --data-args")
    return tuple(pairs)
