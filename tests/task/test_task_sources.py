"""Data by name: folders of other looks, texts, arrays, data sets, random numbers; sizes and normalization."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ckptswap.errors import CkptswapError, DataError, ModelError, UsageError
from ckptswap.statistics import Drawn
from ckptswap.task import TaskSpec
from ckptswap.task.data import Data, load_data
from ckptswap.task.data.loading import implied
from ckptswap.task.data.preprocessing import normalization_of
from ckptswap.task.data.request import DataRequest
from ckptswap.task.tree import sample_at

Write = Callable[..., Path]
GREY = np.arange(16, dtype=np.uint8).reshape(4, 4)
RGB = np.stack([GREY, 2 * GREY, 3 * GREY], -1)


def mask(*values: int) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (4, 4))


def loaded(place: Any, home: Path | None = None, **how: Any) -> Data:
    return load_data(TaskSpec(data=str(place), threads=1, **how), folder=home)


def samples(data: Data) -> list[tuple[Any, Any]]:
    """Inputs and targets in the data's own order."""
    by_place: dict[int, tuple[Any, Any]] = {}
    for batch in data.batches():
        for at, place in enumerate(batch.places.tolist()):
            by_place[place] = (sample_at(batch.inputs, at), batch.targets[at])
    return [by_place[place] for place in sorted(by_place)]


# Folders --------------------------------------------------------------------------------------------------------


def test_one_folder_a_class(write_folder: Write) -> None:
    root = write_folder({f"{name}/{at}.png": GREY + at for name in ("dog", "cat", "ape") for at in range(3)})
    data = loaded(root)
    assert [int(target) for _, target in samples(data)] == [0, 1, 2] * 3, "they take turns"
    assert data.notes == ("3 classes, in the sorted order of their folders: 0 ape, 1 cat, 2 dog",)
    assert len(set(data.groups.tolist())) == 9
    image, _ = samples(data)[4]
    np.testing.assert_allclose(image[0].numpy(), (GREY + 1) / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        (("train/a/1.png", "val/a/1.png"), r"holds train/ and val/: name one of them: --data .*train"),
        (("a/1.png", "b/notes.txt"), r"has no images in b: take such folders away"),
        (("a/notes.txt",), r"has no folder images/: it needs images/ and masks/, or one folder a class"),
    ],
)
def test_class_folders_that_are_none(tmp_path: Path, files: tuple[str, ...], fault: str) -> None:
    for name in files:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY).save(path) if path.suffix == ".png" else path.write_text("?")
    with pytest.raises(DataError, match=fault):
        loaded(tmp_path / "set")


def test_nested_folders_and_masks_with_a_suffix(write_folder: Write) -> None:
    root = write_folder({
        "images/p1/a.png": GREY, "images/p2/a.png": GREY + 1, "images/b.png": GREY + 2,
        "masks/p1/a_mask.png": mask(0, 1), "masks/p2/a_mask.png": mask(1), "masks/b.png": mask(2),
        "masks/b_mask.png": mask(3),
    })  # fmt: skip
    data = loaded(root)
    assert [int(target.max()) for _, target in samples(data)] == [2, 1, 1]
    assert sorted(data.groups.tolist()) == [0, 1, 2], "two of one name are two"
    assert loaded(root, group=r"^(p\d|b)").groups.tolist() == [0, 1, 2]


def voc(write_folder: Write) -> Path:
    root = write_folder({"SegmentationClass/a.png": mask(0, 3, 255), "SegmentationClass/b.png": mask(0)})
    (root / "JPEGImages").mkdir()
    for name in "abc":
        Image.fromarray(RGB).save(root / "JPEGImages" / f"{name}.jpg")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("b\n")
    return root


def test_voc_takes_images_that_have_masks_and_ignores_255(write_folder: Write) -> None:
    root = voc(write_folder)
    data = loaded(root)
    assert [sorted(target.unique().tolist()) for _, target in samples(data)] == [[0, 3, 255], [0]]
    assert implied(TaskSpec(data=str(root))).ignore == 255
    assert implied(TaskSpec(data=str(root), ignore=0)).ignore == 0
    assert data.notes == ("mask value 255 is not scored, as the layout of the folder says",)
    assert loaded(root, data_args={"split": "val"}).samples == 1
    with pytest.raises(DataError, match=r"no file .*Segmentation.train\.txt: name another split"):
        loaded(root, data_args={"split": "train"})


def test_cityscapes_reads_label_ids_as_train_ids(write_folder: Write) -> None:
    frames = {f"leftImg8bit/{part}/ulm/{at}_leftImg8bit.png": RGB for part in ("train", "val") for at in "ab"}
    ids = {
        f"gtFine/{part}/ulm/{at}_gtFine_labelIds.png": mask(7, 0, 33) for part in ("train", "val") for at in "ab"
    }
    root = write_folder(frames | ids)
    data = loaded(root)
    assert [target.flatten()[:3].tolist() for _, target in samples(data)] == [[0, 255, 18]] * 2
    assert data.notes[0].endswith("the split val")
    assert "19 train ids" in data.notes[1]
    kept = loaded(root, data_args={"labels": "ids", "split": "train"})
    assert samples(kept)[0][1].flatten()[:3].tolist() == [7, 0, 33]
    trained = {f"gtFine/val/ulm/{at}_gtFine_labelTrainIds.png": mask(5) for at in "ab"}
    assert int(samples(loaded(write_folder(trained)))[0][1].max()) == 5
    assert implied(TaskSpec(data=str(root))).ignore == 255


def test_pairs_by_pattern(write_folder: Write) -> None:
    root = write_folder({f"{at}/rgb/frame{at}.png": GREY + at for at in range(3)}
                        | {f"{at}/seg/{at}.label.png": mask(at) for at in range(3)})  # fmt: skip
    args = {"images": "*/rgb/*.png", "masks": "*/seg/*.label.png"}
    with pytest.raises(DataError, match=r"has no mask for .*the stars of both must mean the same text"):
        loaded(root, data_args=args)
    data = loaded(root, data_args={"images": "*/rgb/frame*.png", "masks": "*/seg/*.label.png"})
    assert [int(target.max()) for _, target in samples(data)] == [0, 1, 2]
    with pytest.raises(DataError, match="no pairs found in"):
        loaded(root, data_args={**args, "images": "rgb/*.png"})
    with pytest.raises(DataError, match="images and masks belong together"):
        loaded(root, data_args={"images": "*/rgb/*.png"})
    with pytest.raises(
        UsageError, match="is read by pattern, and takes no --data-args split: it takes color, images"
    ):
        loaded(root, data_args={**args, "split": "val"})


def test_patterns_of_odd_names(write_folder: Write) -> None:
    """Letters that mean something to expressions are themselves; hidden files are left alone."""
    names = ("a (1)", "b+[2]", "c$^", "d\n", "(", "ü")
    root = write_folder({f"x[1]/p/q/{at}{name}.png": GREY + at for at, name in enumerate(names)}
                        | {f"y?/p/q/{at}{name}_m.png": mask(at) for at, name in enumerate(names)}
                        | {"x[1]/.thumbs/q/0.png": GREY, "x[1]/p/q/._0a.png": GREY})  # fmt: skip
    data = loaded(root, data_args={"images": "./x[1]/**/*.png", "masks": "y?/**/*_m.png"})
    assert [int(target.max()) for _, target in samples(data)] == list(range(6))
    with pytest.raises(DataError, match=r"no image has the path /.*: write it from that folder on"):
        loaded(root, data_args={"images": f"{root}/x[1]/**/*.png", "masks": "y?/**/*_m.png"})


@pytest.mark.parametrize(
    ("files", "args", "fault"),
    [
        (("images/a.png", "masks/a.png"), {"split": "val"}, "images and masks, and takes no --data-args split"),
        (("a/1.png", "b/1.png"), {"labels": "ids"}, "a folder a class, and takes no --data-args labels"),
        (("JPEGImages/a.png", "SegmentationClass/a.png"), {"labels": "ids"}, "it takes color, split"),
        (("a/1.png", "b/1.png"), {"splt": "ids"}, "a folder takes no --data-args splt: did you mean 'split'"),
    ],
)
def test_what_a_look_does_not_take_is_refused(
    write_folder: Write, files: tuple[str, ...], args: Any, fault: str
) -> None:
    with pytest.raises(UsageError, match=fault):
        loaded(write_folder(dict.fromkeys(files, GREY)), data_args=args)


def test_colors(write_folder: Write) -> None:
    root = write_folder(
        {"images/a.png": GREY, "images/b.png": RGB, "masks/a.png": mask(1), "masks/b.png": mask(1)}
    )
    assert {tuple(image.shape) for image, _ in samples(loaded(root, data_args={"color": "rgb"}))} == {(3, 4, 4)}
    grey = [image for image, _ in samples(loaded(root, data_args={"color": "grey"}))]
    assert {tuple(image.shape) for image in grey} == {(1, 4, 4)}
    with pytest.raises(UsageError, match="color is 'red': it must be rgb or grey"):
        loaded(root, data_args={"color": "red"})
    with pytest.raises(UsageError, match="a folder takes no --data-args colour: did you mean 'color'"):
        loaded(root, data_args={"colour": "rgb"})


def test_images_alone_are_enough_without_labels(write_folder: Write) -> None:
    assert loaded(write_folder({"images/a.png": GREY}), metrics=("kl",)).samples == 1
    assert loaded(write_folder({"other/a.png": GREY, "other/b.png": GREY}) / "other", metrics=("kl",)).samples == 2


# Sizes and normalization ----------------------------------------------------------------------------------------


def test_images_are_averaged_and_masks_are_not(write_folder: Write) -> None:
    root = write_folder({"images/a.png": np.repeat(GREY, 2, 0).repeat(2, 1), "images/b.png": GREY,
                         "masks/a.png": np.full((8, 8), 7, np.uint8), "masks/b.png": mask(0, 7)})  # fmt: skip
    data = loaded(root, resize="4x4")
    (first, whole), (second, half) = samples(data)
    assert first.shape == second.shape == (1, 4, 4)
    assert set(half.unique().tolist()) == {0, 7}
    assert set(whole.unique().tolist()) == {7}
    torch.testing.assert_close(second[0], torch.from_numpy(GREY) / 255)
    assert samples(loaded(root, resize="2"))[0][0].shape == (1, 2, 2)
    same = next(loaded(root, resize="2", target="input").batches())
    assert same.inputs is same.targets
    with pytest.raises(UsageError, match="--resize '2,2' is not HxW"):
        loaded(root, resize="2,2")


@pytest.mark.parametrize(
    ("model", "args"),
    [("smp:Unet", {"encoder_name": "resnet18"}), ("timm:resnet18", {}), ("torchvision:resnet18", {}),
     ("smp:Unet", {"encoder_name": "tu-resnet18"}), ("smp:Unet", {"encoder_name": "efficientnet-b1"}),
     ("smp:Unet", {"encoder_name": "se_resnet50"}), ("smp:Unet", {"encoder_name": "mobilenet_v2"})],
)  # fmt: skip
def test_the_models_name_says_how_images_are_normalized(model: str, args: Mapping[str, Any]) -> None:
    found = normalization_of(DataRequest(TaskSpec(model=model, model_args=args)))
    assert found.text == "0.485,0.456,0.406/0.229,0.224,0.225"
    assert re.search("as (timm|torchvision) for .* says", found.note)


@pytest.mark.parametrize("model", ["smp:Unet", "timm:no_such_net", "timm:resnet18.no_such_weights", "lab:unet"])
def test_a_model_that_names_no_normalization_is_told(model: str) -> None:
    with pytest.raises(UsageError, match=f"nothing says how images are normalized for {model}: give --normalize"):
        normalization_of(DataRequest(TaskSpec(model=model, model_args={"encoder_name": "mit_b0"})))


def test_a_file_beside_the_checkpoint_says_how_images_are_normalized(tmp_path: Path, write_folder: Write) -> None:
    said = {"image_mean": [0.5], "image_std": [0.25], "rescale_factor": 1 / 255, "do_normalize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    root = write_folder({"images/a.png": GREY, "masks/a.png": mask(1)})
    auto = loaded(root, tmp_path, normalize="auto")
    assert auto.notes == (f"images are normalized by 0.5/0.25, as preprocessor_config.json in {tmp_path} says",)
    assert auto.fingerprint() == loaded(root, normalize="0.5/0.25").fingerprint()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**said, "rescale_factor": 1 / 127.5}))
    with pytest.raises(UsageError, match=r"wants images that are scaled by 0\.00784"):
        loaded(root, tmp_path, normalize="auto")
    with pytest.raises(UsageError, match="nothing says how images are normalized for lab:unet: give --normalize"):
        loaded(root, normalize="auto", model="lab:unet")


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"image_mean": "0.5", "image_std": 0.25}, "gives the mean '0.5' and the standard deviation 0.25"),
        ({"image_mean": [0.5, None], "image_std": 0.25}, "gives the mean"),
        ({"image_mean": 0.5, "image_std": 0.0}, "a STD is not above 0"),
        ({"image_mean": 0.5, "image_std": 0.25, "do_rescale": False}, "are scaled by 1, not to 0…1"),
        ({"image_mean": 0.5, "image_std": 0.25, "rescale_factor": "x"}, "are scaled by x, not to 0…1"),
        ({"image_processor": "x", "size": 3}, "nothing says how images are normalized for the model"),
    ],
)
def test_odd_preprocessing_is_one_sentence(tmp_path: Path, write_folder: Write, said: Any, fault: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    root = write_folder({"images/a.png": GREY, "masks/a.png": mask(1)})
    with pytest.raises(UsageError, match=fault):
        loaded(root, tmp_path, normalize="auto")


def test_one_number_for_all_channels_and_no_normalization_at_all(tmp_path: Path, write_folder: Write) -> None:
    root = write_folder({"images/a.png": RGB, "masks/a.png": mask(1)})
    told = {"image_processor": {"image_mean": 0.5, "image_std": 0.25}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    assert (
        loaded(root, tmp_path, normalize="auto").fingerprint() == loaded(root, normalize="0.5/0.25").fingerprint()
    )
    told = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_normalize": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    assert loaded(root, tmp_path, normalize="auto").fingerprint() == loaded(root).fingerprint()


# Texts ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    words = {word: number for number, word in enumerate(["<pad>", "<unk>", "a", "b", "c", "d"])}
    own = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=own, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"vocab_size": 6, "max_position_embeddings": 5}))
    return folder


def test_a_line_is_a_document(tmp_path: Path, home: Path) -> None:
    (tmp_path / "a.txt").write_text("a b c\n\nd\nb b x\na b c d a b c\n")
    data = loaded(f"text:{tmp_path / 'a.txt'}", home)
    first, _, last = samples(data)
    assert first[0]["input_ids"].tolist() == [2, 3, 4, 0, 0]
    assert first[0]["attention_mask"].tolist() == [1, 1, 1, 0, 0]
    assert first[1].tolist() == [2, 3, 4, -100, -100]
    assert last[1].tolist() == [2, 3, 4, 5, 2]
    assert data.groups.tolist() == [0, 1, 2]
    assert [note.partition(": ")[2] for note in data.notes] == [
        "1 of 4 documents are longer than 5 tokens, and cut there",
        "1 of 4 documents have fewer than two tokens, and are left out",
    ]
    few = loaded(f"text:{tmp_path / 'a.txt'}", home, limit=2)
    assert (few.samples, few.drawn) == (2, Drawn(4, (), 3411))
    assert {few.number(place) for place in range(2)} < {0, 1, 2, 3}
    assert loaded(f"text:{tmp_path / 'a.txt'}", home, limit="first:2").drawn == Drawn(4)


def test_documents_are_cut_into_pieces(tmp_path: Path, home: Path) -> None:
    (tmp_path / "a.txt").write_text("a b c d a b\nd c b a d c\n")
    data = loaded(f"text:{tmp_path / 'a.txt'}", home, data_args={"block": 3})
    assert data.names == ("attention_mask", "input_ids"), "also where nothing is padded"
    assert data.groups.tolist() == [0, 0, 1, 1]
    assert loaded(f"text:{tmp_path / 'a.txt'}", data_args={"tokenizer": str(home), "length": 2}).samples == 2


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_lines_end_as_any_system_ends_them(tmp_path: Path, home: Path, end: str) -> None:
    (tmp_path / "a.txt").write_bytes(f"a b{end}{end}b\x0cc{end}".encode())
    assert [inputs["input_ids"].tolist() for inputs, _ in samples(loaded(f"text:{tmp_path / 'a.txt'}", home))] == [
        [2, 3], [3, 4]
    ]  # fmt: skip
    rows = [{"text": "a\u2028b", "label": 1}, {"text": "c\x85d", "label": 0}]
    (tmp_path / "a.jsonl").write_bytes(end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    assert loaded(f"text:{tmp_path / 'a.jsonl'}", home).samples == 2


def test_labels_and_groups_of_a_jsonl(tmp_path: Path, home: Path) -> None:
    rows = [{"text": "a b", "label": 1, "group": "x"}, {"text": "c", "label": 0, "group": "x"}]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = loaded(f"text:{path}", home)
    assert [int(target) for _, target in samples(data)] == [1, 0]
    assert data.groups.tolist() == [0, 0]
    path.write_text("\n".join(json.dumps({"body": row["text"] + " d"}) for row in rows))
    assert loaded(f"text:{path}", home, data_args={"field": "body"}).samples == 2
    with pytest.raises(DataError, match=r"line 1 of .*a\.jsonl has no text 'text'.*--data-args field=NAME"):
        loaded(f"text:{path}", home)


@pytest.mark.parametrize("labels", [(1.0, 0.0), ("good", "bad"), (1, None), (True, False)])
def test_labels_that_are_no_classes_are_said_to_be_left_out(tmp_path: Path, home: Path, labels: Any) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "a b c", "label": label}) + "\n" for label in labels))
    given = sum(label is not None for label in labels)
    (note,) = loaded(f"text:{path}", home).notes
    assert note.endswith(f": {given} labels are left out: each of the 2 documents needs one, a whole number")


@pytest.mark.parametrize(
    ("content", "args", "fault"),
    [
        ("a b c a b c\n", {}, r"is one line, and a line is a document: put each .*--data-args block=256"),
        ("a\nb\n", {}, "holds no document of two tokens or more"),
        ("a b\nb c\n", {"lenght": 3}, "takes no --data-args lenght: did you mean 'length'"),
        ("a b\nb c\n", {"length": "x"}, "length of text:.* is 'x'"),
        (b"\xff\xfe\x00", {}, r"cannot be read as text \(.*\): save it as UTF-8"),
        (None, {}, "cannot be read as text"),
    ],
)
def test_texts_that_cannot_be_used(tmp_path: Path, home: Path, content: Any, args: Any, fault: str) -> None:
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CkptswapError, match=fault):
        loaded(f"text:{path}", home, data_args=args)


def test_a_text_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b\nc d\n")
    for data in (f"text:{tmp_path / 'a.txt'}", "random:tokens:8"):  # it is no question of tokens
        with pytest.raises(ModelError, match=r"there is no file nowhere/config\.json"):
            load_data(TaskSpec(model="hf:nowhere", data=data, threads=1))
    with pytest.raises(DataError, match="nothing says which tokenizer the text is for"):
        loaded(f"text:{tmp_path / 'a.txt'}")
    with pytest.raises(
        DataError, match=r"there is no tokenizer in .*: save the tokenizer there, or name its folder"
    ):
        loaded(f"text:{tmp_path / 'a.txt'}", tmp_path)


# Arrays, data sets, random numbers ------------------------------------------------------------------------------


def test_arrays_of_an_npz(tmp_path: Path) -> None:
    x, y = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([0, 1, 1])
    np.savez(tmp_path / "a.npz", x=x, y=y, groups=np.array([7, 7, 9]))
    data = loaded(f"npz:{tmp_path / 'a.npz'}")
    assert [(image.tolist(), int(target)) for image, target in samples(data)] == [
        (row.tolist(), number) for row, number in zip(x, y.tolist(), strict=True)
    ]
    assert data.groups.tolist() == [0, 0, 1]
    np.savez(tmp_path / "c.npz", x=x, groups=np.array(["u", "v", "u"]))
    assert loaded(f"npz:{tmp_path / 'c.npz'}", metrics=("kl",)).groups.tolist() == [0, 1, 0], "without labels too"
    with pytest.raises(
        DataError, match="holds no targets, only x, groups: add an array targets, labels, masks or y"
    ):
        loaded(f"npz:{tmp_path / 'c.npz'}")
    np.savez(tmp_path / "b.npz", image=np.stack([GREY, GREY]), scale=np.ones(2), masks=np.stack([GREY, GREY]))
    data = loaded(f"npz:{tmp_path / 'b.npz'}")
    assert data.names == ("image", "scale")
    torch.testing.assert_close(samples(data)[0][0]["image"], torch.from_numpy(GREY)[None] / 255)


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"x": np.zeros(2), "y": np.zeros(3)}, r"has \{'x': 2, 'y': 3\}: give as many samples of each"),
        ({"y": np.zeros(3)}, "holds no inputs, only y"),
        (
            {"x": np.zeros(2), "y": np.zeros(2), "groups": np.zeros((2, 2), int)},
            "are not one number or text a sample",
        ),
        ({"x": np.array([{}], object), "y": np.zeros(1)}, "cannot be read"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, arrays: Any, fault: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=fault):
        loaded(f"npz:{tmp_path / 'a.npz'}")
    with pytest.raises(UsageError, match=r"a.npz takes no --data-args limit: it takes none"):
        loaded(f"npz:{tmp_path / 'a.npz'}", data_args={"limit": 3})


def test_data_sets_of_images_of_texts_and_of_numbers(tmp_path: Path, home: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
    from datasets import Image as Picture

    rows = {"image": [Image.fromarray(RGB), Image.fromarray(RGB)], "label": ["cat", "dog"]}
    features = Features({"image": Picture(), "label": ClassLabel(names=["dog", "cat"])})
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "images")
    found = samples(loaded(f"datasets:{tmp_path / 'images'}"))
    assert [int(target) for _, target in found] == [1, 0]
    torch.testing.assert_close(found[0][0], torch.from_numpy(RGB).permute(2, 0, 1) / 255)
    grey = samples(loaded(f"datasets:{tmp_path / 'images'}", data_args={"color": "grey"}))
    assert grey[0][0].shape == (1, 4, 4)
    with pytest.raises(UsageError, match="color is 'red': it must be rgb or grey"):
        loaded(f"datasets:{tmp_path / 'images'}", data_args={"color": "red"})
    parts = {name: Dataset.from_dict({"text": ["a b", "c d"], "id": [1, 2]}) for name in ("train", "test")}
    DatasetDict(parts).save_to_disk(tmp_path / "texts")
    with pytest.raises(DataError, match="has the splits train, test: name one: --data-args split=NAME"):
        loaded(f"datasets:{tmp_path / 'texts'}", home)
    texts = loaded(f"datasets:{tmp_path / 'texts'}", home, data_args={"split": "test"})
    assert samples(texts)[1][1].tolist() == [4, 5]
    numbers = {"x": [[1.0, 2.0], [3.0, 4.0]], "labels": [0, 1]}
    Dataset.from_dict(
        numbers, features=Features({"x": [Value("float32")], "labels": Value("int64")})
    ).save_to_disk(tmp_path / "numbers")
    assert samples(loaded(f"datasets:{tmp_path / 'numbers'}"))[1][0]["x"].tolist() == [3.0, 4.0]
    with pytest.raises(DataError, match="cannot be read as a data set"):
        loaded(f"datasets:{tmp_path}")


def test_random_numbers_say_what_they_are(home: Path) -> None:
    data = loaded("random:2x3x4", metrics=("kl",), data_args={"samples": 5})
    assert (data.samples, samples(data)[0][0].shape) == (5, (2, 3, 4))
    assert data.notes == ("these are random numbers: scores say how far outputs move, and nothing of a task",)
    assert data.fingerprint() == loaded("random:2x3x4", metrics=("kl",), data_args={"samples": 5}).fingerprint()
    tokens = loaded("random:tokens:7", home, metrics=("loss",), data_args={"seed": 3})
    (inputs, labels), *_ = samples(tokens)
    assert torch.equal(inputs["input_ids"], labels)
    assert int(labels.max()) < 6
    with pytest.raises(DataError, match=r"it must be .*; kl, agreement and output-mse need no target"):
        loaded("random:4")
    with pytest.raises(DataError, match="random:4x has no shape"):
        loaded("random:4x", metrics=("kl",))
    with pytest.raises(DataError, match=r"nothing says how many tokens .*--data-args vocab=N"):
        loaded("random:tokens:4")
    with pytest.raises(UsageError, match="random:4 takes no --data-args vocab: it takes samples, seed"):
        loaded("random:4", metrics=("kl",), data_args={"vocab": 4})


@pytest.mark.parametrize(
    ("shape", "args", "fault"),
    [
        ("1e9", {}, "random:1e9 has no shape: write random:3x64x64"),
        ("999999999", {}, "size of a sample of random:999999999 is 999,999,999: 134,217,728 is the most"),
        ("9x99999x99999", {}, "size of a sample .* is the most"),
        ("4", {"samples": 10**9}, "samples of random:4 is 1,000,000,000: 1,000,000 is the most"),
        ("4", {"samples": 0}, "it must be a whole number, 1 or more"),
        ("4", {"seed": True}, "seed of random:4 is True"),
        ("4", {"seed": 10**30}, "seed of random:4 is .* is the most"),
        ("tokens:4", {"vocab": 10**30}, "vocab of random:tokens:4 is .* is the most"),
        ("tokens:4x4", {"vocab": 9}, "random:tokens:4x4 has no shape"),
        ("token:4", {"vocab": 9}, "random:token:4 has no shape"),
        ("", {}, "random: has no shape"),
    ],
)
def test_random_numbers_that_nobody_can_draw(shape: str, args: Any, fault: str) -> None:
    with pytest.raises(CkptswapError, match=fault):
        loaded(f"random:{shape}", metrics=("kl",), data_args=args)


def test_a_key_of_older_runs_stays_what_it_was() -> None:
    spec = TaskSpec(data="scans", threads=1)
    assert "resize" not in spec.as_dict()
    assert replace(spec, resize="4").as_dict()["resize"] == "4"
