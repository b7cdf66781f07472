"""Take a published language model as the backbone of a new model, or write it back.

--from-hf reads a folder of LLaMA 2 or 3, Qwen2, Qwen2.5, Qwen3 or Mistral (config.json,
safetensors files, tokenizer.json or tokenizer.model) and writes a model folder whose text part is
that model; its modalities start new. --tower puts a published encoder of CLIP, SigLIP or Whisper
before a modality. --to-hf writes the text part of such a folder in the published
form again, the same bits where nothing was trained. Neither needs MindSpore, PyTorch or memory for
the model; pickles are never read.

examples:
  taichu convert --from-hf Qwen2.5-0.5B qwen --modalities image,audio
  taichu convert --from-hf Qwen2.5-0.5B seeing --tower image=siglip-base-patch16-224
  taichu convert --from-hf Qwen2.5-0.5B both --tower image=clip,projector=linear,frozen=false \
    --tower audio=whisper-tiny,pooled=5
  taichu convert --to-hf qwen Qwen2.5-0.5B-again"""

import argparse

from taichu.errors import ConfigError


def add_options(parser: argparse.ArgumentParser):
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--from-hf", action="store_true", help="published -> taichu")
    direction.add_argument("--to-hf", action="store_true", help="taichu -> published")
    parser.add_argument("folder", metavar="FOLDER", help="what is converted")
    parser.add_argument("out", metavar="OUT", help="a new folder")
    parser.add_argument(
        "--modalities",
        metavar="NAMES",
        help="that --from-hf adds to text, such as image,audio (default none)",
    )
    parser.add_argument(
        "--size",
        metavar="NAME",
        help="whose settings of modalities, codecs and embeddings --from-hf takes (default nano)",
    )
    parser.add_argument(
        "--tower",
        metavar="MODALITY=FOLDER",
        action="append",
        default=[],
        help="a published encoder (config.json and safetensors) that --from-hf puts before a "
        "modality; may be followed by ,projector=linear (default mlp, of two layers) "
        ",frozen=false ,layers=N (that are run; default all, but CLIP's last) and ,pooled=N "
        "(Whisper's outputs a token, default 10)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace):
    if options.to_hf:
        if options.modalities is not None or options.size is not None or options.tower:
            raise ConfigError("--modalities, --size and --tower are of --from-hf")
        from taichu.convert.to_hf import convert_to_hf

        print(convert_to_hf(options.folder, options.out))
        return
    from taichu.convert.from_hf import convert_from_hf

    names = tuple(name.strip() for name in (options.modalities or "").split(",") if name.strip())
    towers = read_towers(options.tower)
    print(convert_from_hf(options.folder, options.out, names, options.size or "nano", towers))


def read_towers(texts: list[str]) -> dict:
    """What --tower says, by modality."""
    from taichu.config import apply_overrides, build
    from taichu.convert.tower_settings import TowerChoice

    found = {}
    for text in texts:
        modality, _, rest = text.partition("=")
        folder, *choices = rest.split(",")
        if not modality or not folder:
            raise ConfigError(f"--tower {text!r}: it is written modality=folder")
        if modality in found:
            raise ConfigError(f"--tower {text!r}: {modality} has one already")
        content = apply_overrides({"folder": folder}, choices)
        found[modality] = build(TowerChoice, content, f"--tower {modality}")
    return found
