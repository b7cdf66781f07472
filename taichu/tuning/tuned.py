"""A backbone under a tuning method: what is trained, how it is kept, how it is merged."""

from collections import Counter

import mindspore as ms
import numpy as np

from ascend.device_matrix import device_matrix
from ascend.operators import AdamW, assign
from taichu.errors import TuningError
from taichu.model.backbone import Backbone
from taichu.storage.checkpoint import load_parameters, named_parameters
from taichu.storage.tensor_file import checksum
from taichu.tuning.method import Method, TunedCell
from taichu.tuning.patterns import select_parameters


def tune(backbone: Backbone, method: Method) -> "Tuned":
    """Put a method into a backbone and freeze the rest of it.

    Raises:
        TuningError: a pattern names nothing, or ranks share out parameters: under a tuning method
            they may share out the data alone.
    """
    refuse_shared_parameters()
    held = named_parameters(backbone)
    taught = {name for name, parameter in held.items() if parameter.requires_grad}
    fully = select_parameters(method.modules_to_save, held, "modules_to_save")
    shapes = method.shapes(backbone, held)
    around = {name.rpartition(".")[0] for name in shapes if method.brings(name)}
    for name in fully:
        if name in shapes or name.rpartition(".")[0] in around - {""}:
            raise TuningError(f"modules_to_save: {name} is what the method is put beside")
    own = method.attach(backbone)
    for parameter in held.values():
        parameter.requires_grad = False
    for name, parameter in own.items():
        parameter.requires_grad = True
        if name not in held:
            parameter.name = name
    for name in taught & {*own, *fully}:
        held[name].requires_grad = True
    return Tuned(backbone, method, held, own, {name: held[name] for name in fully})


def refuse_shared_parameters():
    """Raises: TuningError: ranks share out more than the data."""
    matrix = device_matrix()
    for axis in (matrix.tensor, matrix.pipeline, matrix.expert):
        if axis.size > 1:
            raise TuningError(f"parallel.{axis.name}: must be 1 under a tuning method")
    if matrix.shard == "parameters":
        raise TuningError("parallel.shard: must be none or optimizer under a tuning method")


class Tuned:
    """What `tune` made. As text, a table of what is trained.

    Attributes:
        backbone, method: see `tune`.
        base: the backbone's own parameters, by path.
        own: what the method trains, by path.
        fully: what modules_to_save name, by path.
        before: those of them that are the backbone's own, as they were before training.
    """

    def __init__(self, backbone, method, base, own, fully):
        self.backbone, self.method = backbone, method
        self.base: dict[str, ms.Parameter] = base
        self.own: dict[str, ms.Parameter] = own
        self.fully: dict[str, ms.Parameter] = fully
        held = {**own, **fully}
        self.before = {name: p.asnumpy().copy() for name, p in held.items() if name in base}

    @property
    def trained(self) -> dict[str, ms.Parameter]:
        """The parameters that are trained, by path."""
        return {name: p for name, p in {**self.own, **self.fully}.items() if p.requires_grad}

    def __str__(self):
        groups = Counter()
        for name, parameter in self.trained.items():
            parts = ["*" if part.isdigit() else part for part in name.split(".")]
            groups[(".".join(parts), " x ".join(map(str, parameter.shape)), parameter.size)] += 1
        lines = [
            (name, f"{count} of {shape}", f"{count * size:,}")
            for (name, shape, size), count in groups.items()
        ]
        total = sum(parameter.size for parameter in self.trained.values())
        of = sum(parameter.size for parameter in {**self.base, **self.own}.values())
        lines.append(("trained", f"{100 * total / of:.2f} % of {of:,}", f"{total:,}"))
        wide = [max(map(len, column)) for column in zip(*lines)]
        return "\n".join(f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}" for a, b, c in lines)

    def optimizer(self, *settings, **others) -> AdamW:
        """The method's optimizer over what is trained; called as `AdamW` is, without parameters."""
        return self.method.optimizer(list(self.trained.values()), *settings, **others)

    def tensors(self) -> dict[str, np.ndarray]:
        """What an adapter holds, by path.

        Raises:
            TuningError: the method has changed nothing.
        """
        kept = {**self.method.finished(self.own), **self.fully}
        tensors = {n: p.asnumpy() if isinstance(p, ms.Tensor) else p for n, p in kept.items()}
        require_effect(self.method, tensors, self.base_arrays(), self.backbone, "the adapter")
        return tensors

    def base_arrays(self) -> "Arrays":
        """The base's parameters as they were before training."""
        return Arrays(self.base, self.before)

    def fingerprint(self) -> str:
        """Of the parameters that are not in the adapter: what it was trained beside."""
        return fingerprint(self.base, {**self.own, **self.fully})

    def load(self, tensors: dict[str, np.ndarray], where: str):
        """Go on from an adapter of the same method.

        Raises:
            CheckpointError: a tensor is missing, extra or misshapen.
        """
        load_parameters({**self.own, **self.fully}, tensors, where)

    def merge(self):
        """Write what was learned into the backbone's own parameters, and take the method out.

        Biases that BitFit has added stay: the model's config is then one with ``bias``.

        Raises:
            TuningError: it cannot be merged, or has changed nothing.
        """
        require_mergeable(self.method, "the adapter")
        tensors, base, write = self.tensors(), self.base_arrays(), assign()
        for name, change in self.method.differences(tensors, base, self.backbone):
            if name in self.base:  # a bias that was added is in place
                write(self.base[name], ms.Tensor((base[name] + change).astype(np.float32)))
        take_out(self.backbone)


class Arrays(dict):
    """Parameters as arrays, made when they are asked for.

    Args:
        parameters: by path.
        before: those to be taken instead.
    """

    def __init__(self, parameters: dict[str, ms.Parameter], before: dict[str, np.ndarray]):
        super().__init__(parameters)
        self.before = before

    def __getitem__(self, name: str) -> np.ndarray:
        return self.before[name] if name in self.before else super().__getitem__(name).asnumpy()


def take_out(backbone: Backbone):
    """Put the Cells back where methods have put something beside them."""
    for cell in [cell for _, cell in backbone.cells_and_names()]:
        for name, child in list(cell.name_cells().items()):
            if isinstance(child, TunedCell) and not isinstance(cell, TunedCell):
                names = [(p, p.name) for p in child.inmost.get_parameters()]
                setattr(cell, name, child.inmost)
                for parameter, old in names:
                    parameter.name = old


def fingerprint(base, trained) -> str:
    """Checksum of the parameters of a base that are not among the trained ones."""
    left = sorted(name for name in base if name not in trained)
    return checksum({name: base[name].asnumpy() for name in left}, "")


def require_effect(method: Method, tensors, base, backbone: Backbone, where: str):
    """Raises: TuningError: an adapter changes nothing."""
    if not method.acts(tensors, base, backbone):
        raise TuningError(
            f"{where}: changes nothing ({method.peft_type}: the model with it is the model without "
            "it); it was not trained, or its rate was 0"
        )


def require_mergeable(method: Method, where: str):
    """Raises: TuningError: an adapter computes something besides."""
    if not method.mergeable:
        raise TuningError(
            f"{where}: {method.peft_type} computes something beside the weights, and cannot be "
            "merged into them; use the model with the adapter"
        )
