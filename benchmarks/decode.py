"""Tokens a second of greedy decoding, one row at a time: taichu.runtime, PyTorch, transformers.

    python benchmarks/decode.py

One network of 25 million parameters with one set of weights, in float32 on two threads: exported
and run by `taichu.runtime`; in PyTorch eager with keys and values kept in place; and as a model of
`transformers` (Qwen3, the same sizes) by its `generate`. Turns are interleaved in one process; the
first two must make the same tokens. Needs `pip install "taichu[train,runtime,benchmark]"`.
"""

import tempfile
from pathlib import Path

import numpy as np
from harness import THREADS, interleaved, machine, options, use_threads, write_ratios

PROMPT, MADE = 16, 240
KEYS = {"PyTorch eager": "eager", "transformers.generate": "transformers"}


def main():
    chosen = options(__doc__, runs=5).parse_args()
    use_threads()
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        ways, check = build(Path(folder))
        check()
        seconds = interleaved(ways, chosen.runs)
    ratios = {}
    print(f"{machine()}; {THREADS} threads; {MADE} tokens after {PROMPT}; {chosen.runs} runs")
    for name, taken in seconds.items():
        print(f"{name:<24}{MADE / taken:>8.1f} tokens a second")
        if name != "ours":
            ratios[f"decode.25m.{KEYS[name]}"] = seconds["ours"] / taken
    write_ratios(chosen.json, ratios, chosen.runs)


def build(folder: Path):
    """The three ways to call, and a check that ours and PyTorch's agree."""
    from plain_torch import Network
    from workload import network_of

    from taichu.model.rotary_frequencies import rotary_frequencies

    config, vocabulary, grids = network_of("25m")
    network = Network(config, vocabulary.size, grids, rotary_frequencies(config)).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, parameter.shape[-1] ** -0.5)
    prompt = np.random.default_rng(0).integers(0, vocabulary.pieces, PROMPT)
    ours = Ours(network, config, vocabulary.size, folder)
    eager = Eager(network, config)
    peer = transformers_model(config, vocabulary.size)

    def check():
        made, expected = ours(prompt), eager(prompt)
        same = int((made == expected).cumprod().sum())
        print(f"ours and PyTorch make the same {same} of {MADE} tokens first")
        if same < MADE // 4:  # ties of float32 may part them late
            raise SystemExit("they do not compute the same")

    ways = {"ours": lambda: ours(prompt), "PyTorch eager": lambda: eager(prompt)}
    return ways | {"transformers.generate": lambda: peer(prompt)}, check


class Ours:
    """The exported network, token by token."""

    def __init__(self, network, config, size: int, folder: Path):
        from taichu.export.backbone_graphs import BackboneGraphs
        from taichu.export.graph import Weights
        from taichu.export.onnx_folder import write_graphs
        from taichu.runtime.providers import choose_provider
        from taichu.runtime.sessions import Sessions

        tensors = {name: p.detach().numpy() for name, p in network.state_dict().items()}
        weights = Weights()
        step = BackboneGraphs(config, tensors, {}, size, weights).step()
        write_graphs([step], weights, folder)
        provider = choose_provider("cpu", folder / "step.onnx")
        self.sessions, self.config = Sessions(folder, provider, THREADS), config

    def __call__(self, prompt: np.ndarray) -> np.ndarray:
        from taichu.runtime.cache import Cache

        cache, made = Cache(self.sessions, self.config, 1, PROMPT + MADE), []
        for place in range(PROMPT + MADE - 1):
            newest = prompt[place] if place < PROMPT else made[-1]
            coords = np.full((1, 3), place, np.int32)
            logits = cache.step(np.array([newest], np.int32), coords)
            if place >= PROMPT - 1:
                made.append(int(logits[0].argmax()))
        return np.array(made)


class Eager:
    """The same network in PyTorch, keys and values written into rooms made before."""

    def __init__(self, network, config):
        import torch

        self.network, self.config = network, config
        with torch.inference_mode():
            table = network.table()
            self.table = table * config.width**0.5
            self.head = table if config.tied else network.head()

    def __call__(self, prompt: np.ndarray) -> np.ndarray:
        import torch

        config, made = self.config, []
        shape = 1, config.key_value_heads, PROMPT + MADE, config.head_size
        with torch.inference_mode():
            kept = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(config.depth)]
            places = torch.arange(PROMPT + MADE).float()[:, None].expand(-1, 3)
            angle = places @ torch.as_tensor(self.network.frequencies)
            cos, sin = angle.cos()[None, :, None], angle.sin()[None, :, None]
            for place in range(PROMPT + MADE - 1):
                newest = int(prompt[place]) if place < PROMPT else made[-1]
                now = slice(place, place + 1)
                x = self.table[newest][None, None]
                for block, (keys, values) in zip(self.network.blocks, kept):
                    x = self.block(block, x, cos[:, now], sin[:, now], keys, values, place)
                logits = self.network.norm(x)[0, 0] @ self.head.T
                if place >= PROMPT - 1:
                    made.append(int(logits.argmax()))
        return np.array(made)

    def block(self, block, x, cos, sin, keys, values, place: int):
        import torch.nn.functional as F
        from plain_torch import rotate

        attention, config = block.attention, self.config
        y = block.attention_norm(x)
        H, G, K = config.heads, config.key_value_heads, config.head_size
        q = attention.query_norm(attention.query(y).view(1, 1, H, K))
        k = attention.key_norm(attention.key(y).view(1, 1, G, K))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        keys[:, :, place] = k[:, 0]
        values[:, :, place] = attention.value(y).view(1, G, K)
        seen = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys[:, :, : place + 1],
            values[:, :, : place + 1],
            enable_gqa=H != G,
        )
        x = x + attention.output(seen.transpose(1, 2).reshape(1, 1, H * K))
        return x + block.feed_forward(block.feed_forward_norm(x))


def transformers_model(config, size: int):
    """Qwen3 of the same sizes, by `generate`, which nothing may end early."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    network = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=size,
            hidden_size=config.width,
            intermediate_size=config.hidden,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_value_heads,
            head_dim=config.head_size,
            tie_word_embeddings=config.tied,
            eos_token_id=None,
            bos_token_id=None,
            pad_token_id=0,
        )
    ).eval()

    def run(prompt: np.ndarray):
        with torch.inference_mode():
            ids = torch.as_tensor(prompt)[None]
            return network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=MADE,
                min_new_tokens=MADE,
                do_sample=False,
            )

    return run


if __name__ == "__main__":
    main()
