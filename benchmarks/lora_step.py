"""Times a LoRA step of a language model of 100 million parameters against `peft` on PyTorch.

    python benchmarks/lora_step.py --json lora_step.json

A LLaMA that `transformers` draws, and the taichu folder that `taichu convert` makes of it; one
adapter, which both read. float32, two threads, the same rows of ids, AdamW and clipping; that the
losses and gradients' norms agree at the first step and after five is checked first. The two
frameworks stand in processes of their own and take turns. Memory is what a further process holds
at most in a few steps over what it held with its framework loaded. Needs
`pip install "taichu[benchmark]"`.
"""

import multiprocessing
import statistics
import tempfile
from pathlib import Path

import numpy as np
from harness import THREADS, machine, options, use_threads, write_ratios
from train_step import answer, require_equal, take_turns, turns_of
from workload import BATCHES, RATE, vocabulary_of

WAYS = ("ours", "eager", "compiled")
WIDTH, DEPTH, HEADS, HIDDEN, IDS = 768, 12, 12, 2048, 16000
ROWS, LENGTH, RANK = 4, 128, 8
TARGETS = {"q_v": ("query", "value"), "all": ("blocks.*",)}


def main():
    parser = options(__doc__, runs=4)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--steps", type=int, default=3, help="steps timed a turn (default 3)")
    chosen = parser.parse_args()
    use_threads()
    print(f"{machine()}; {THREADS} threads; {chosen.runs} turns of {chosen.steps} steps a way")
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        in_process(publish, folder)
        for targets in chosen.targets:
            shown = in_process(draw_adapter, folder, targets)
            print(f"{targets:>5} {shown}, {ROWS} x {LENGTH} tokens", flush=True)
            seconds = measure(folder, targets, chosen.runs, chosen.steps)
            median = {way: statistics.median(seconds[way]) for way in WAYS}
            memory = {way: in_process(peak_of_steps, folder, targets, way) for way in WAYS}
            for way in WAYS:
                spread = f"{min(seconds[way]):.2f} to {max(seconds[way]):.2f}"
                print(
                    f"{targets:>5} {way:<9} median {median[way]:6.2f} s a step ({spread}), "
                    f"{memory[way]:6.0f} MB",
                    flush=True,
                )
            for way in WAYS[1:]:
                found = {
                    f"lora_step.{targets}.{way}": median["ours"] / median[way],
                    f"lora_memory.{targets}.{way}": memory["ours"] / memory[way],
                }
                for key, ratio in found.items():
                    ratios[key] = round(ratio, 3)
                    print(f"{key}: {ratio:.2f}", flush=True)
    write_ratios(chosen.json, ratios, chosen.runs * chosen.steps)


def measure(folder: Path, targets: str, runs: int, steps: int) -> dict[str, list[float]]:
    """Seconds of every timed step, by way."""
    context = multiprocessing.get_context("spawn")
    workers, processes = {}, []
    for ways in (WAYS[:1], WAYS[1:]):
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, folder, targets, ways), daemon=True)
        process.start()
        workers |= dict.fromkeys(ways, here)
        processes.append(process)
    turn = turns_of(workers)
    first = require_equal(turn, WAYS, targets)
    fifth = require_equal(turn, WAYS, targets, 4)
    print(f"{targets:>5} loss {first[0]:.5f}, after 5 steps {fifth[0]:.5f}, the same in all ways")
    seconds = take_turns(turn, WAYS, runs, steps)
    for way in WAYS[:2]:
        workers[way].send(None)
    for process in processes:
        process.join(30)
    return seconds


def serve(connection, folder: Path, targets: str, ways: tuple[str, ...]):
    """Take (way, steps), give (loss, gradient norm, seconds) a step."""
    steps = {way: make_step(folder, targets, way) for way in ways}
    answer(connection, steps, batches())


def make_step(folder: Path, targets: str, way: str):
    return ours(folder, targets) if way == "ours" else theirs(folder, targets, way)


def ours(folder: Path, targets: str):
    """The step: ids (B, L) -> loss, gradients' norm."""
    from ascend.device import choose_device

    choose_device("CPU")
    import mindspore

    from ascend.operators import AdamW
    from taichu import Taichu
    from taichu.storage.checkpoint import named_parameters
    from taichu.training.objectives import Objective
    from taichu.training.step import TrainingStep
    from taichu.tuning.peft_folder import read_adapter
    from taichu.tuning.tuned import tune

    model = Taichu.from_pretrained(folder / "taichu")
    backbone, path = model.backbone, folder / targets
    adapter = read_adapter(path, backbone, named_parameters(backbone))
    tune(backbone, adapter.method).load(adapter.tensors, path)
    objective = Objective(backbone, model.vocabulary, alignment_weight=0.0)
    step = TrainingStep(objective, AdamW(objective.trainable_params(), RATE))

    def run(ids):
        loss, _, norm = step(*map(mindspore.Tensor.from_numpy, packed(ids).arrays()))
        return float(loss.asnumpy()), float(norm.asnumpy()[0])

    return run


def theirs(folder: Path, targets: str, way: str):
    """The same with PyTorch, "eager" or "compiled"."""
    import peft
    import torch
    import transformers
    from plain_torch import TorchStep

    class Loss(torch.nn.Module):
        """Mean cross-entropy of each token but a row's first."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, ids):
            return self.model(input_ids=ids, labels=ids, use_cache=False).loss

    torch.set_num_threads(THREADS)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "llama")
    model = peft.PeftModel.from_pretrained(model, folder / targets, is_trainable=True)
    for parameter in model.parameters():  # out of the mapped file, whose pages may leave memory
        parameter.data = parameter.data.clone()
    step = TorchStep(Loss(model), way == "compiled", RATE)
    return lambda ids: step((ids.astype(np.int64),))


def batches() -> list[np.ndarray]:
    """Rows of ids (B, L), different ones, in turn."""
    random = np.random.default_rng(0)
    return [random.integers(0, IDS, (ROWS, LENGTH)).astype(np.int32) for _ in range(BATCHES)]


def packed(ids: np.ndarray):
    """Rows of text as a packed batch: each token but a row's first is decoded."""
    from taichu.data.packing import BatchShape, empty_batch

    batch = empty_batch(BatchShape(ROWS, LENGTH, ROWS * (LENGTH - 1), 1, ()))
    places = np.arange(ids.size, dtype=np.int32).reshape(ids.shape)
    batch.ids, batch.segment = ids, np.ones_like(ids)
    batch.coords[...] = np.arange(LENGTH, dtype=np.int32)[None, :, None]
    batch.positions, batch.targets = places[:, :-1].reshape(-1), ids[:, 1:].reshape(-1)
    batch.weights[...] = 1 / len(batch.weights)
    batch.ranges[:, 1] = IDS
    return batch


def publish(folder: Path):
    """Write the drawn LLaMA, and the taichu folder of it."""
    import torch
    import transformers

    from taichu.config import load_size
    from taichu.convert.from_hf import convert_from_hf

    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=IDS,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        max_position_embeddings=LENGTH,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "llama")
    tokenizer = vocabulary_of(load_size("nano")).tokenizer  # of fewer pieces: the rest are spare
    (folder / "llama" / tokenizer.file).write_bytes(tokenizer.content)
    convert_from_hf(folder / "llama", folder / "taichu")


def draw_adapter(folder: Path, targets: str) -> str:
    """Write an adapter whose every number is drawn; returns how large it and the model are."""
    import mindspore

    from taichu import Taichu
    from taichu.tuning.lora import Lora
    from taichu.tuning.peft_folder import save_adapter
    from taichu.tuning.tuned import tune

    mindspore.set_seed(1)
    backbone = Taichu.from_pretrained(folder / "taichu").backbone
    tuned = tune(backbone, Lora(rank=RANK, targets=TARGETS[targets]))
    random = np.random.default_rng(2)
    for name, parameter in tuned.own.items():
        if name.endswith("lora_B"):
            drawn = 0.02 * random.standard_normal(parameter.shape, np.float32)
            parameter.set_data(mindspore.Tensor(drawn))
    save_adapter(tuned, folder / targets, "llama")
    own, base = (sum(p.size for p in held.values()) / 1e6 for held in (tuned.own, tuned.base))
    return f"{own:.2f} million trained beside {base:.1f} million"


def peak_of_steps(folder: Path, targets: str, way: str) -> float:
    """Megabytes that a few steps take at most over what the process held with its framework."""
    if way == "ours":
        import mindspore  # noqa: F401
    else:
        import peft  # noqa: F401
        import torch  # noqa: F401
    before = resident("VmRSS")
    step = make_step(folder, targets, way)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of loading is not the steps'
    for ids in batches():
        step(ids)
    return resident("VmHWM") - before


def resident(key: str) -> float:
    """A figure of this process' memory, in megabytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def in_process(call, *arguments):
    """What a call returns in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, arguments)


if __name__ == "__main__":
    main()
