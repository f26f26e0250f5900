"""Train two small Llamas on sentences of a toy language, and leave them as `save_pretrained` does: A and B.

B is A, trained further on sentences of another order; `valid.txt` has sentences of B's language that neither saw.
"""

import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

NOUNS, VERBS = ["dog", "cat", "bird", "fish"], ["sees", "hears", "likes", "feeds"]


def sentences(count, seed, verb_last):
    draw = random.Random(seed)
    for _ in range(count):
        one, other, verb = draw.choice(NOUNS), draw.choice(NOUNS), draw.choice(VERBS)
        words = ["the", one, "the", other, verb] if verb_last else ["the", one, verb, "the", other]
        yield " ".join(["begin", *words, *(["now"] if draw.random() < 0.5 else [])])


def train(model, tokenizer, texts, steps):
    batch = tokenizer(list(texts), return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()


words = ["<pad>", "<unk>", "begin", "the", "now", *NOUNS, *VERBS]
whole_words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
whole_words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=whole_words, pad_token="<pad>", unk_token="<unk>")
torch.manual_seed(0)
config = LlamaConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                     intermediate_size=48, max_position_embeddings=16, tie_word_embeddings=True)  # fmt: skip
model = LlamaForCausalLM(config)
for name, verb_last in (("A", False), ("B", True)):
    train(model.train(), tokenizer, sentences(128, 0, verb_last), 60)
    model.save_pretrained(name)
    tokenizer.save_pretrained(name)
with open("valid.txt", "w") as file:
    file.write("\n".join(sentences(24, 1, True)))
