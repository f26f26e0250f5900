"""Train a Llama on statements and an adapter of PEFT on questions: base/ and adapter/, and questions.txt."""

from pathlib import Path

import torch
from made import question, review, train, word_tokenizer
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
tokenizer = word_tokenizer()
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def loss_of(network, sentence):
    def loss(step):
        words = tokenizer([sentence(32 * step + at) for at in range(32)], padding=True, return_tensors="pt")
        return network(**words, labels=words["input_ids"].masked_fill(words["attention_mask"] == 0, -100)).loss

    return loss


Path("questions.txt").write_text("".join(f"{question(1_000_000 + number)}\n" for number in range(32)))
network = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, **sizes))
for _ in train(network, loss_of(network, lambda number: review(number)[0]), steps=40):
    network.save_pretrained("base")
tokenizer.save_pretrained("base")
base = LlamaForCausalLM.from_pretrained("base")
adapted = get_peft_model(
    base, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj", "down_proj"])
)
for _ in train(adapted, loss_of(adapted, question), steps=40, rate=1e-2):
    adapted.save_pretrained("adapter")
