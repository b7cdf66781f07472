"""Turn a model folder into graphs that run without this framework's model code.

onnx: for `taichu.runtime` (pip install "taichu[runtime]": no MindSpore), and the commands embed,
retrieve and generate take the folder in place of the model's. Graphs take any number of rows and
tokens; one file holds the weights of all. mindir: MindSpore's own format, for its `nn.GraphCell`
and MindSpore Lite.

examples:
  taichu export runs/demo/model exported
  taichu generate exported --into image --text "a red seven" --out seven.png
  taichu export runs/demo/model exported.mindir --format mindir"""

import argparse


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("folder", metavar="FOLDER", help="a model folder")
    parser.add_argument("out", metavar="OUT", help="a new folder, or one of an earlier export")
    parser.add_argument(
        "--format", choices=("onnx", "mindir"), default="onnx", help="of the graphs (default onnx)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace):
    if options.format == "onnx":
        from taichu.export.onnx_folder import export_onnx as export
    else:
        from taichu.export.mindir_folder import export_mindir as export
    print(export(options.folder, options.out))
