"""What a linear layer is for, by the words of its path and of its siblings: attention's q, k, v and output, an
MLP's up, gate and down, the head. The words are those of the libraries that people take their networks from.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import cached_property, lru_cache

ATTENTION = re.compile(r"(?:.*_)?(?:attn|attention|selfattention|encdecattention|crossattention|mha|msa)_?\d*")
"""The modules of attention: `self_attn`, `SelfAttention`, `attn1`."""
MLP = re.compile(r"(?:.*_)?(?:mlp|ffn|ff|feed_?forward|densereludense|moe|experts?)(?:_block|_layer)?_?\d*")
WRAPPERS = ("base_layer", "original_module", "default")
"""Segments that adapters put behind a layer's own."""
LEVELS = 4
"""How many levels above a layer are looked at: a block is no farther from its layers."""

_Q = "q query q_proj query_proj q_lin wq to_q q_attn linear_q q_a_proj q_b_proj"
_K = "k key k_proj key_proj k_lin wk to_k linear_k"
_V = "v value v_proj value_proj v_lin wv to_v linear_v"
_QKV = "qkv qkv_proj wqkv c_attn query_key_value to_qkv in_proj in_proj_qkv attn_qkv"
_KV = "kv to_kv kv_proj wkv kv_a_proj_with_mqa kv_a_proj kv_b_proj"
_O = "o out o_proj out_proj dense proj c_proj wo to_out out_lin linear_out output proj_out"
_UP = "up fc1 c_fc up_proj w3 lin1 linear1 linear_1 dense1 dense_h_to_4h fc_in wi_1 pwconv1 fc1_x intermediate"
_GATE = "gate_proj wi_0 fc1_g"
_GATE_UP = "gate_up_proj weights_in"
_DOWN = "fc2 c_proj down_proj w2 wo lin2 linear2 linear_2 dense2 dense_4h_to_h fc_out pwconv2 weights_out down"
_ROUTER = "gate router shared_expert_gate"


def _table(**words: str) -> dict[str, str]:
    return {word: role for role, listed in words.items() for word in listed.split()}


_OF_ATTENTION = _table(q=_Q, k=_K, v=_V, qkv=_QKV, kv=_KV, o=_O)
_OF_MLP = _table(router=_ROUTER, up=_UP, gate=_GATE, gate_up=_GATE_UP, down=_DOWN)
_UNMISTAKABLE = {
    **{
        word: f"attn.{role}"
        for word, role in _OF_ATTENTION.items()
        if re.search("[qk]v?_|_[qkv]|qkv|q_|v_|o_proj", word)
    },
    **{
        word: f"mlp.{role}"
        for word, role in _OF_MLP.items()
        if re.search("(up|gate|down)_proj|_h|pwconv|c_fc", word)
    },
    "c_attn": "attn.qkv",
}
"""Words that tell by themselves, wherever they stand."""
_BESIDE_ATTENTION = {
    word: f"mlp.{_OF_MLP[word]}" for word in ("fc1", "fc2", "linear1", "linear2", "fc_in", "fc_out")
}
"""Words of an MLP that has no module of its own: they say so where attention stands beside them."""
_HEADS = frozenset(
    ["lm_head", "head", "classifier", "score", "qa_outputs", "embed_out", "vocab_projector", "seq_relationship"]
)
_HEADS_AT_ROOT = frozenset(["output", "proj_out"])


class Children(set[str]):
    """The names of the modules that stand in one; what is asked of all of them is looked for once."""

    @cached_property
    def has_attention(self) -> bool:
        """Whether one of them is attention's."""
        return any(ATTENTION.fullmatch(name.lower()) for name in self)

    @cached_property
    def numbers(self) -> list[str]:
        """Those that are numbers, the least first."""
        return sorted(filter(str.isdigit, self), key=lambda name: (len(name), name))


class Siblings:
    """Which modules stand in which, as far as it takes to tell what they are.

    >>> sorted(Siblings(["h.0.attn.qkv", "h.0.mlp.fc1"]).of("h.0.attn"))
    ['attn', 'mlp']
    """

    def __init__(self, layers: Iterable[str]) -> None:
        self._children: dict[str, Children] = defaultdict(Children)
        for layer in layers:
            for _ in range(LEVELS):
                above, dot, own = layer.rpartition(".")
                self._children[above].add(own)
                if not dot:
                    break
                layer = above

    def of(self, layer: str) -> Children:
        """The names of the modules that stand in the same one, this one's included."""
        return self._children.get(layer.rpartition(".")[0]) or Children()


@lru_cache(4096)
def form_of(word: str) -> str | None:
    """Whether a module's name says that it is attention, or an MLP.

    >>> form_of("self_attn"), form_of("mlp"), form_of("conv1")
    ('attn', 'mlp', None)
    """
    return "attn" if ATTENTION.fullmatch(word) else "mlp" if MLP.fullmatch(word) else None


def role_of(layer: str, siblings: Siblings, *, has_bias: bool) -> str | None:
    """What a linear layer is for, such as 'attn.q'; None where its name does not say.

    >>> layers = ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_proj", "fc1"]
    >>> [role_of(layer, Siblings(layers), has_bias=True) for layer in layers]
    ['attn.qkv', 'attn.o', 'mlp.down', None]
    """
    layer = bare(layer)
    path, _, own = layer.rpartition(".")
    word, above = own.lower(), path.lower().split(".")[-LEVELS + 1 :] if path else []
    if own.isdigit() and above and above[-1] == "to_out":  # diffusers: a list of the projection and its dropout
        word, above, layer, path = "to_out", above[:-1], path, path.rpartition(".")[0]
    beside = siblings.of(layer)
    place = next(filter(None, map(form_of, reversed(above))), None)
    if place == "attn" and word in _OF_ATTENTION:
        crossing = word == "c_attn" and "q_attn" in beside
        return "attn.kv" if crossing else f"attn.{_OF_ATTENTION[word]}"
    if word in _UNMISTAKABLE:
        return _UNMISTAKABLE[word]
    if place == "mlp":
        return _of_mlp(own, word, path, beside, siblings)
    if word in _BESIDE_ATTENTION and beside.has_attention:
        return _BESIDE_ATTENTION[word]
    return _of_bert(word, above, path, siblings) or _head(word, above, layer, has_bias=has_bias)


def bare(layer: str) -> str:
    """The path without what adapters put behind it."""
    parts = layer.split(".")
    while len(parts) > 1 and parts[-1] in WRAPPERS:
        parts.pop()
    return ".".join(parts)


def _of_mlp(own: str, word: str, path: str, beside: Children, siblings: Siblings) -> str | None:
    if word == "w1":
        return "mlp.gate" if "w3" in beside else "mlp.up"
    if word == "wi":  # ModernBERT's holds the gate, too, and is spelt Wi
        return "mlp.gate_up" if own == "Wi" else "mlp.up"
    if word == "dense":
        return {"output": "mlp.down", "intermediate": "mlp.up"}.get(path.rpartition(".")[2])
    if word.isdigit() and siblings.of(path).has_attention:
        numbers = beside.numbers
        return {numbers[0]: "mlp.up", numbers[-1]: "mlp.down"}.get(own) if len(numbers) == 2 else None
    return f"mlp.{_OF_MLP[word]}" if word in _OF_MLP else None


def _of_bert(word: str, above: Collection[str], path: str, siblings: Siblings) -> str | None:
    """`intermediate.dense` and `output.dense` of BERT's kin, `ffn` and `ffn_output` of ALBERT."""
    if word == "dense" and above and "intermediate" in siblings.of(path):
        return {"intermediate": "mlp.up", "output": "mlp.down"}.get(list(above)[-1])
    if word in ("ffn", "ffn_output") and above:
        return "mlp.up" if word == "ffn" else "mlp.down"
    return None


def _head(word: str, above: Collection[str], layer: str, *, has_bias: bool) -> str | None:
    parent = next(reversed(list(above)), "")
    is_head = (
        word in _HEADS
        or (word == "decoder" and parent in ("predictions", "lm_head"))
        or (word == "out_proj" and parent == "classifier")
        or (word == "fc" and parent == "head")
        or (layer in _HEADS_AT_ROOT and not has_bias)
    )
    return "head" if is_head else None
