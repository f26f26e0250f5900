"""The paper's experiment: its two networks, its data, training, and its four claims (arXiv:2008.03414)."""
