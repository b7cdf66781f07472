"""Show a model folder; without one, what is installed, which device is used and why.

examples:
  taichu info
  taichu info runs/demo/model"""

import argparse
import platform
from pathlib import Path

from taichu.command_line.options import add_device


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="a model folder")
    add_device(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace):
    lines = show_folder(Path(options.folder)) if options.folder else show_machine(options.device)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}".rstrip())


def show_folder(folder: Path) -> list[tuple[str, str]]:
    """What a model folder says of itself, without loading its weights."""
    from modality_adapters import create_adapter
    from taichu.inference.exported_model import exported_format
    from taichu.storage.model_folder import read_config, read_json
    from taichu.tokenizer import read_tokenizer
    from taichu.vocabulary import Vocabulary

    config = read_config(folder)
    vocabulary, codes = Vocabulary.of_model(config, read_tokenizer(folder)), config.code_counts
    version = read_json(folder / "config.json").get("taichu_version", "?")
    graphs = exported_format(folder)
    exported, how = graphs is not None, f", exported as {graphs}" if graphs else ""
    lines = [
        ("folder", f"{folder} ({_size(folder)}{how})"),
        ("written by", f"taichu {version}"),
        (
            "backbone",
            f"{_parameters(folder / 'model.safetensors', exported)}{config.depth} blocks of "
            f"width {config.width}, {config.heads} heads, embeddings of {config.embedding}",
        ),
        ("vocabulary", f"{vocabulary.size:,} ids, {vocabulary.pieces:,} of them text pieces"),
    ]
    if config.published:
        family = config.published.config.get("model_type", "?")
        lines.append(("converted", f"from the published form of {family}, {config.published.kind}"))
    for name, settings in config.modalities.items():
        geometry = create_adapter(name, settings).geometry
        path = folder / "codecs" / f"{name}.safetensors"
        lines.append(
            (
                name,
                f"grid {' x '.join(map(str, geometry.shape))}, {geometry.tokens} patches of "
                f"{geometry.patch_size}; {_parameters(path, exported)}{codes[name]:,} codes",
            )
        )
        if name in config.towers:
            tower, path = config.towers[name], folder / "towers" / f"{name}.safetensors"
            kept = "frozen" if tower.frozen else "trained"
            lines.append(
                (
                    f"{name}'s tower",
                    f"{tower.kind}, {_parameters(path, exported)}{tower.depth} layers of width "
                    f"{tower.width}, {kept}; projector {tower.projector}",
                )
            )
    return lines


def _parameters(path: Path, exported: bool) -> str:
    """How many a file holds; nothing of what was exported, which is laid out in other ways."""
    from taichu.storage.tensor_file import count_values

    return "" if exported else f"{count_values(path):,} parameters, "


def show_machine(device: str) -> list[tuple[str, str]]:
    """Versions, device, operators, recipes and model sizes."""
    import mindspore
    import numpy

    import taichu
    from ascend.device import choose_device
    from ascend.operators import describe_forms
    from modality_adapters import create_adapter
    from taichu.command_line.train import shipped
    from taichu.config import SIZES, load_size
    from taichu.model.backbone import count_parameters
    from taichu.vocabulary import JointIds

    reason = choose_device(device).reason
    lines = [
        ("taichu", f"{taichu.__version__} ({Path(taichu.__file__).parent})"),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("MindSpore", mindspore.__version__),
        ("NumPy", numpy.__version__),
        ("device", reason),
        ("operators", describe_forms().removeprefix("operators: ")),
        ("recipes", ", ".join(shipped(".yaml"))),
    ]
    sizes = {}
    for path in SIZES.glob("*.yaml"):
        size = load_size(path.stem)
        adapters = [create_adapter(n, s) for n, s in size.modalities.items()]
        grids = [(a.geometry.tokens, a.geometry.patch_size) for a in adapters]
        ids = JointIds(size.pieces, size.code_counts).size
        sizes[path.stem] = count_parameters(size, ids, grids)
    for name, count in sorted(sizes.items(), key=lambda item: item[1]):
        lines.append((f"size {name}", f"{count:,} parameters"))
    return lines


def _size(folder: Path) -> str:
    total = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{total / 1e6:.1f} MB"
