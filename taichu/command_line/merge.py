"""Write a tuned adapter into the weights of its base model: an ordinary model folder.

The adapter is a folder in PEFT's layout (adapter_config.json, adapter_model.safetensors). LoRA,
rsLoRA, DoRA, AdaLoRA, (IA)^3, BitFit and partly frozen models can be merged; prefixes, prompts,
bottlenecks and Compacter compute something besides, and cannot.

examples:
  taichu merge runs/demo/model runs/tune/adapter runs/merged
  taichu merge runs/demo/model runs/tune/adapter runs/half --weight 0.5"""

import argparse
import sys

from taichu.command_line.options import add_device


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("base", metavar="BASE", help="the model folder that was tuned")
    parser.add_argument("adapter", metavar="ADAPTER", help="the adapter's folder")
    parser.add_argument("out", metavar="OUT", help="a new model folder")
    parser.add_argument(
        "--weight", type=float, default=1.0, help="how much of the adapter counts (default 1)"
    )
    add_device(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace):
    from ascend.device import choose_device
    from taichu.inference.adapters import merge

    print(choose_device(options.device).reason, file=sys.stderr)
    print(merge(options.base, options.adapter, options.out, options.weight))
