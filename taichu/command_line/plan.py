"""Show what a recipe's training would take on so many devices, without running it.

Of the recipe's model and batches (as far as they are known without data): parameters, operations,
the memory of a device by part, what is sent, and the fastest layouts that fit, with the keys of the
recipe to copy. Times come from vendors' rates and assumed shares of them (ascend/rates.yaml), not
from measurements. Of several numbers of devices, a table in markdown.

examples:
  taichu plan pretrain model=base --devices 8 --device-type 910B
  taichu plan pretrain model=3.8b mixture.rows=2 mixture.length=4096 --devices 64 --json
  taichu plan pretrain model=3.8b mixture.rows=2 mixture.length=4096 --devices 8,16,32"""

import argparse
import json

from taichu.command_line.train import add_recipe, load_recipe


def add_options(parser: argparse.ArgumentParser):
    add_recipe(parser)
    parser.add_argument(
        "--devices",
        type=read_numbers,
        default=[8],
        metavar="N[,N...]",
        help="how many (default 8); several: a table",
    )
    parser.add_argument(
        "--device-type",
        default="910B",
        metavar="NAME",
        help="of ascend/rates.yaml, or as CANN names the chip (default 910B, which is 910B2)",
    )
    parser.add_argument("--json", action="store_true", help="print plain values")
    parser.set_defaults(run=run)


def read_numbers(text: str) -> list[int]:
    """Of "8" or "8,16"."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers, such as 8,16") from None


def run(options: argparse.Namespace):
    from ascend.rates import find_device_type
    from taichu.plan import find_plans, workload_of
    from taichu.plan.report import as_markdown, as_plain, as_text

    device = find_device_type(options.device_type)
    _, config = load_recipe(options.recipe, options.overrides)
    work = workload_of(config, device)
    found = [find_plans(work, devices, device) for devices in options.devices]
    if options.json:
        plain = [as_plain(plans) for plans in found]
        print(json.dumps(plain if len(plain) > 1 else plain[0], indent=1))
    elif len(found) > 1:
        print(as_markdown([plans[0] for plans in found]))
    else:
        print(as_text(found[0]))
