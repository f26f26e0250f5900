"""Train a Llama whose output layer is its embedding: early/ and late/ with their tokenizer, and sentences.txt."""

from pathlib import Path

import torch
from made import review, train, word_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
tokenizer = word_tokenizer()
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
network = LlamaForCausalLM(
    LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, tie_word_embeddings=True, **sizes)
)


def loss(step):
    words = tokenizer([review(32 * step + at)[0] for at in range(32)], padding=True, return_tensors="pt")
    return network(**words, labels=words["input_ids"].masked_fill(words["attention_mask"] == 0, -100)).loss


Path("sentences.txt").write_text("".join(f"{review(1_000_000 + number)[0]}\n" for number in range(32)))
for stage in train(network, loss, steps=60):
    network.save_pretrained(stage)
    tokenizer.save_pretrained(stage)
