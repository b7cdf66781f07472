"""What the parts of a backbone are called in published LLaMA, Qwen and Mistral models."""

# tables of ids' vectors
TABLES = {"table": "model.embed_tokens", "head": "lm_head"}
OUTSIDE = TABLES | {"norm": "model.norm"}  # of the blocks
# of a block
OURS_TO_THEIRS = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
THEIRS_TO_OURS = {theirs: ours for ours, theirs in OURS_TO_THEIRS.items()}
