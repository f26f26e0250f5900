"""Two folders of a language model, a text and nothing more: scores equal a plain loop, by replay."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import ckptswap as cs

WORDS = ["<pad>", "<unk>", *"abcdefghijklmnop"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A and B, tied Llamas of another seed each, with a tokenizer; texts of other lengths, and of one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("llama")
    own = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, pad_token="<pad>", unk_token="<unk>")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = LlamaConfig(vocab_size=len(WORDS), max_position_embeddings=32, tie_word_embeddings=True, **sizes)
    for seed, name in enumerate("AB"):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 12, (10,), generator=draw).tolist()
    for name, counts in (("ragged", lengths), ("even", [8] * 10)):
        lines = [
            " ".join(WORDS[int(at)] for at in torch.randint(2, 18, (count,), generator=draw)) for count in counts
        ]
        (root / f"{name}.txt").write_text("\n".join(lines))
    return root


def plain_perplexity(root: Path, text: str, names: set[str]) -> float:
    """What people write: `from_pretrained`, copy, one document at a time without padding, the model's own loss."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    donor, model = (LlamaForCausalLM.from_pretrained(root / name) for name in "AB")
    state, theirs = model.state_dict(), donor.state_dict()
    with torch.no_grad():
        for name in names:
            state[name].copy_(theirs[name])
        tokenizer = AutoTokenizer.from_pretrained(root / "A")
        losses = []
        for line in (root / f"{text}.txt").read_text().splitlines():
            ids = tokenizer(line, return_tensors="pt")["input_ids"]
            losses.append(model.eval()(input_ids=ids, labels=ids).loss.item())
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("text", ["ragged", "even"])
def test_a_sweep_equals_the_plain_loop(folders: Path, tmp_path: Path, text: str) -> None:
    result = cs.sweep(
        folders / "A", folders / "B", data=f"text:{folders / text}.txt", metric="perplexity,kl,token-accuracy",
        by="kind", run=tmp_path / "run", batch_size=4, threads=1, engine="replay",
    )  # fmt: skip
    assert result.baseline == pytest.approx(plain_perplexity(folders, text, set()), rel=1e-6)
    scored = [row for row in result.rows if row.status == "measured"]
    assert scored
    for row in scored:
        expected = plain_perplexity(folders, text, set(row.tensors))
        assert row.score == pytest.approx(expected, rel=1e-6), row.kind
    other = cs.report(tmp_path / "run", metric="kl")
    assert other.baseline == 0
    assert all(row.drop > 0 for row in other.rows if row.status == "measured")
