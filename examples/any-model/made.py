"""What the examples beside this file share: made pictures and sentences, and a training loop."""

import random
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SHAPES = ("circle", "cross", "square")
THINGS = ("soup", "film", "room", "train", "game")
PRAISE, BLAME = ("good", "lovely", "great"), ("bad", "dull", "awful")
OTHERS = ("the", "was", "not", "and", "my", "friend", "says", "that", ".", "?")


def shape(number, size=32):
    """A picture (size, size, 3) of one shape, the pixels that it covers (size, size), and which shape it is."""
    draw, kind = np.random.default_rng(number), number % len(SHAPES)
    y, x = abs(np.mgrid[:size, :size] - draw.integers(size // 3, size - size // 3, (2, 1, 1)))
    radius, near, far = draw.integers(size // 6, size // 4), np.minimum(x, y), np.maximum(x, y)
    mask = (x**2 + y**2 < radius**2, (near < radius / 3) & (far < radius), far < radius)[kind]
    picture = draw.normal(100, 25, (size, size, 3)) + draw.normal(0, 15, 3)
    picture[mask] += np.roll((80, 30, -30), kind)
    return picture.clip(0, 255).astype(np.uint8), mask.astype(np.uint8), kind


def shapes(step, samples=16):
    """A batch for training: pictures (N, 3, 32, 32) in 0…1, masks (N, 32, 32), and which shape each is (N,)."""
    pictures, masks, kinds = zip(*(shape(step * samples + at) for at in range(samples)), strict=True)
    pixels = torch.from_numpy(np.stack(pictures)).movedim(-1, 1) / 255
    return pixels, torch.from_numpy(np.stack(masks)).long(), torch.tensor(kinds)


def unseen(samples=16):
    """Pictures that no training sees, each as a number and what `shape` gives for it."""
    return [(number, *shape(1_000_000 + number)) for number in range(samples)]


def write_image(pixels, place):
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(place)


def review(number):
    """A sentence, and 1 where it praises, 0 where it blames."""
    draw = random.Random(number)
    praises, negates = draw.random() < 0.5, draw.random() < 0.4
    word = draw.choice(PRAISE if praises else BLAME)
    start = draw.choice(("", "my friend says that "))
    return f"{start}the {draw.choice(THINGS)} was {'not ' * negates}{word} .", int(praises != negates)


def question(number):
    """The same things, asked."""
    draw = random.Random(number)
    return f"was the {draw.choice(THINGS)} {draw.choice(PRAISE + BLAME)} ?"


def word_tokenizer():
    """A tokenizer of transformers' that knows these words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    words = ("[PAD]", "[UNK]", *THINGS, *PRAISE, *BLAME, *OTHERS)
    own = Tokenizer(models.WordLevel(dict(zip(words, count())), unk_token="[UNK]"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=own,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "attention_mask"],
    )


def train(network, loss, steps, rate=3e-3):
    """Train by the loss that `loss(step)` gives. Yields 'early' after an eighth of them, 'late' at the end."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    network.train()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
        if step in (steps // 8, steps):
            yield "early" if step < steps else "late"
