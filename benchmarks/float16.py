"""Times MindSpore's matrix products of the training step in float16 against float32, on the CPU.

    python benchmarks/float16.py

By the profiler's times of the kernels alone, without casts. Both types are slower here than in a
step, alike: MindSpore waits for each product in a loop that takes part of a core. Needs nothing but
taichu.
"""

from harness import THREADS, machine, options, use_threads, write_ratios

SHAPES = {  # of y (N, O) = x (N, I) W^T: N, I, O
    "nano, attention": (4096, 128, 128),
    "nano, feed-forward": (4096, 128, 256),
    "nano, head": (1792, 128, 1249),
    "25m, attention": (1024, 384, 384),
    "25m, feed-forward": (1024, 384, 1024),
}


def main():
    chosen = options(__doc__, runs=30).parse_args()
    use_threads()
    from ascend.device import choose_device

    choose_device("CPU")
    print(f"{machine()}; {THREADS} threads; means of {chosen.runs}")
    print("| product | float32, ms | float16, ms | ratio |\n|---|---:|---:|---:|")
    ratios = {}
    for name, shape in SHAPES.items():
        taken = [milliseconds(*shape, half, chosen.runs) for half in (False, True)]
        for way, wide, half in zip(("forward", "dX", "dW"), *taken):
            ratios[f"float16.{name}, {way}"] = round(half / wide, 3)
            print(f"| {name}, {way} | {wide:.2f} | {half:.2f} | {half / wide:.2f} |", flush=True)
    write_ratios(chosen.json, ratios, chosen.runs)


def milliseconds(rows: int, inputs: int, outputs: int, half: bool, runs: int) -> list[float]:
    """Of y = x W^T, dX = dY W and dW = dY^T x; means of so many calls."""
    import mindspore as ms
    import numpy as np
    from mindspore import nn, ops

    from ascend.profile import profile_kernels

    class Product(nn.Cell):
        def __init__(self, transpose_a: bool, transpose_b: bool):
            super().__init__()
            self.matmul = ops.MatMul(transpose_a, transpose_b)

        def construct(self, a, b):
            return self.matmul(a, b)

    def measure(a, b, transpose_a: bool, transpose_b: bool) -> float:
        product = ms.jit(Product(transpose_a, transpose_b).construct)
        product(a, b).asnumpy()
        kernels = profile_kernels(lambda: [product(a, b).asnumpy() for _ in range(runs)])
        return sum(kernel.seconds for kernel in kernels) / runs * 1e3

    random = np.random.default_rng(0)
    dtype = np.float16 if half else np.float32
    x, weight, dy = (
        ms.Tensor(random.standard_normal(shape).astype(dtype))
        for shape in ((rows, inputs), (outputs, inputs), (rows, outputs))
    )
    return [
        measure(x, weight, False, True),
        measure(dy, weight, False, False),
        measure(dy, x, True, False),
    ]


if __name__ == "__main__":
    main()
