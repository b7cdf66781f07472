"""Adapters on a loaded model: stacked, switched and weighted."""

import dataclasses
from pathlib import Path

import mindspore as ms
import numpy as np

from ascend.operators import assign
from taichu.config import nearest
from taichu.data.conversations.template import read_template
from taichu.errors import TuningError
from taichu.inference.pretrained import Taichu
from taichu.storage.checkpoint import load_parameters, named_parameters
from taichu.tuning.bitfit import BitFit, add_biases
from taichu.tuning.method import linear_maps
from taichu.tuning.peft_folder import Adapter, read_adapter
from taichu.tuning.tuned import Arrays, require_mergeable


class Adapters:
    """The adapters of a model, each with a weight: what one adds to its base counts so often.

    Of those that change weights, the model computes with W + sum_i w_i (W_i - W): they cost no time
    and need no graph of their own. The others (prefixes, prompts, bottlenecks) stand in the graphs,
    which are compiled again when one is added; bottlenecks of several adapters read what those
    added before them wrote. Whatever the model does, it does with them: `embed`, `generate`, ....

    Args:
        model: without any adapter; its parameters are changed in place.
    """

    def __init__(self, model: Taichu):
        self.model = model
        self.base = named_parameters(model.backbone)
        self.written = dict(self.base)  # those that were added (BitFit) too
        self.before: dict[str, np.ndarray] = {}  # of what was written, the base's own
        self.held: dict[str, Adapter] = {}
        self.counts: dict[str, ms.Parameter] = {}  # weights of those that stand in the graphs
        self.weights: dict[str, float] = {}
        self.assign = assign()

    def add(self, folder: Path | str, name: str | None = None) -> str:
        """Load an adapter, which counts once beside those in use; returns its name. Of one that
        comes with a chat template a model without gets that.

        Args:
            folder: of `taichu.tuning.peft_folder.save_adapter`, or of `peft`.
            name: to be called by; by default the folder's.

        Raises:
            TuningError, CheckpointError, ConfigError: see `taichu.tuning.peft_folder.read_adapter`.
            TemplateError: its template is malformed.
        """
        name = name or Path(folder).name
        if name in self.held:
            raise TuningError(f"there is an adapter {name!r} already; give another name")
        template, in_use = read_template(folder), self.weights
        self.use({})
        try:
            adapter = read_adapter(folder, self.model.backbone, self.base)
            self._attach(name, adapter)
            in_use = {**in_use, name: 1.0}
        finally:
            self.use(in_use)
        self.model.template = self.model.template or template
        return name

    def _attach(self, name: str, adapter: Adapter):
        backbone, method = self.model.backbone, adapter.method
        if isinstance(method, BitFit):
            add_biases(backbone)
            self.model.config = dataclasses.replace(self.model.config, bias=True)
            for path, linear in linear_maps(backbone).items():
                if linear.bias is not None:
                    self.written[f"{path}.bias"] = linear.bias
            self.model.forget_graphs()
        if not method.mergeable:
            count = ms.Parameter(np.zeros(1, np.float32), f"{name}.count", requires_grad=False)
            parameters = method.attach(backbone, count)
            own = {path: t for path, t in adapter.tensors.items() if path in parameters}
            load_parameters(parameters, own, adapter.path)
            for path, parameter in parameters.items():
                parameter.name, parameter.requires_grad = f"{name}.{path}", False
            self.counts[name] = count
            self.model.forget_graphs()
        self.held[name] = adapter

    def use(self, weights: dict[str, float]):
        """Let adapters count so often; those that are not named do not count.

        Raises:
            TuningError: there is no such adapter, or a weight that is no number of its kind.
        """
        for name, weight in weights.items():
            if name not in self.held:
                raise TuningError(f"there is no adapter {name!r}{nearest(name, self.held)}")
            if not np.isfinite(weight) or (weight < 0 and name in self.counts):
                kind = self.held[name].method.peft_type
                raise TuningError(f"adapter {name!r}: a weight of {weight} means nothing to {kind}")
        base, changed, backbone = Arrays(self.base, self.before), {}, self.model.backbone
        for name, weight in weights.items():
            adapter = self.held[name]
            if not weight:
                continue
            for path, change in adapter.method.differences(adapter.tensors, base, backbone):
                changed[path] = changed.get(path, 0) + np.float32(weight) * change
        for path in {*self.before, *changed}:
            parameter = self.written[path]
            if path not in self.before:
                self.before[path] = parameter.asnumpy().copy()
            value = self.before[path] + changed.get(path, np.float32(0))
            self.assign(parameter, ms.Tensor(value, ms.float32))
        for name, count in self.counts.items():
            self.assign(count, ms.Tensor([weights.get(name, 0.0)], ms.float32))
        self.weights = dict(weights)


def merge(base: Path | str, adapter: Path | str, out: Path | str, weight: float = 1.0) -> Path:
    """Write an ordinary model folder of a base and an adapter.

    Args:
        base: the model's folder.
        adapter: the adapter's.
        out: a new folder.
        weight: how much of it counts.

    Raises:
        TuningError: it cannot be merged, would change nothing, or ``out`` is one of the others.
        CheckpointError, ConfigError: a folder is damaged.
    """
    out = Path(out)
    if out.resolve() in (Path(base).resolve(), Path(adapter).resolve()):
        raise TuningError(f"{out}: is what is to be merged; name a new folder")
    if not weight:
        raise TuningError("weight: at 0 the adapter changes nothing")
    model = Taichu.from_pretrained(base)
    adapters = Adapters(model)
    name = adapters.add(adapter)
    require_mergeable(adapters.held[name].method, str(adapter))
    adapters.use({name: weight})
    model.save_pretrained(out)
    return out
