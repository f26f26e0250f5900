"""Train a BERT to tell praise from blame: early/ and late/ with their tokenizer, and reviews.jsonl."""

import json
from pathlib import Path

import torch
from made import review, train, word_tokenizer
from transformers import BertConfig, BertForSequenceClassification

torch.manual_seed(0)
tokenizer = word_tokenizer()
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
network = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=16, **sizes))


def loss(step):
    texts, labels = zip(*(review(32 * step + at) for at in range(32)), strict=True)
    words = tokenizer(list(texts), padding=True, return_tensors="pt")
    return network(**words, labels=torch.tensor(labels)).loss


lines = [dict(zip(("text", "label"), review(1_000_000 + number), strict=True)) for number in range(48)]
Path("reviews.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
for stage in train(network, loss, steps=60):
    network.save_pretrained(stage)
    tokenizer.save_pretrained(stage)
