"""Keep the embeddings of a collection in a folder, which `taichu retrieve` looks through.

examples:
  taichu index build my/manifest.jsonl found --model runs/demo/model
  taichu index add found more/manifest.jsonl
  taichu index delete found a1 a2
  taichu index info found
  taichu retrieve found --text "a red seven" --top 5"""

import argparse
import os
from contextlib import contextmanager

from taichu.command_line.options import add_device, load_model, load_model_of
from taichu.errors import IndexFolderError

BUILD = """Embed every text and file of a manifest, each alone, and keep the vectors.

Search among fewer than 20,000 of a modality is exact; among more it looks where nearly all of the
nearest are. Files that cannot be read are skipped, counted and listed. When it is interrupted,
what is done is kept, and `taichu index add` goes on.

examples:
  taichu index build my/manifest.jsonl found --model runs/demo/model
  taichu index build my/manifest.jsonl found --model exported --modalities text,image"""

ADD = """Add the rows of a manifest; what is there already (id, modality, and text or path) stays.

examples:
  taichu index add found more/manifest.jsonl
  taichu index add found more/manifest.jsonl --model runs/moved/model"""

DELETE = """Delete all entries of these ids; when one of them is not there, nothing is deleted.

examples:
  taichu index delete found a1 a2"""

INFO = """Show what an index holds.

examples:
  taichu index info found"""


def add_options(parser: argparse.ArgumentParser):
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser("build", help="of a manifest", description=BUILD)
    command.add_argument("manifest", metavar="MANIFEST", help="the manifest.jsonl")
    command.add_argument("folder", metavar="OUT", help="a folder without an index")
    command.add_argument("--model", required=True, metavar="FOLDER", help="that embeds")
    _add_filling(command)
    command.set_defaults(run=build, error=command.error)
    command = commands.add_parser("add", help="the rows of a manifest", description=ADD)
    command.add_argument("folder", metavar="OUT", help="the index")
    command.add_argument("manifest", metavar="MANIFEST", help="the manifest.jsonl")
    command.add_argument("--model", metavar="FOLDER", help="where the index's model is now")
    _add_filling(command)
    command.set_defaults(run=add, error=command.error)
    command = commands.add_parser("delete", help="entries by their ids", description=DELETE)
    command.add_argument("folder", metavar="OUT", help="the index")
    command.add_argument("ids", nargs="+", metavar="ID", help="of rows")
    command.set_defaults(run=delete)
    command = commands.add_parser("info", help="what it holds", description=INFO)
    command.add_argument("folder", metavar="OUT", help="the index")
    command.set_defaults(run=info)


def _add_filling(command: argparse.ArgumentParser):
    command.add_argument(
        "--split", choices=("train", "test", "all"), default="all", help="of rows (default all)"
    )
    command.add_argument(
        "--modalities", metavar="A,B", help="that are indexed, as text,image (default all)"
    )
    command.add_argument(
        "--cache", default="runs/cache", metavar="FOLDER", help="for read media (runs/cache)"
    )
    add_device(command)


def build(options: argparse.Namespace):
    from taichu.data.one_at_a_time import one_at_a_time
    from taichu.index import Index
    from taichu.index.origin import Origin

    with one_at_a_time(options.folder):
        if Index.exists(options.folder):
            raise IndexFolderError(f"{options.folder}: holds an index; taichu index add adds to it")
        model = load_model(options, options.model)
        origin = Origin.of(model, os.path.abspath(options.model))
        _fill(Index(model.config.embedding, origin), model, options)


def add(options: argparse.Namespace):
    with _changing(options.folder) as index:
        _fill(index, load_model_of(index, options), options)


def _fill(index, model, options: argparse.Namespace):
    from taichu.index.filling import fill

    names = options.modalities.split(",") if options.modalities else None
    filled = fill(
        index, options.folder, model, options.manifest, options.split, names, options.cache
    )
    if filled.skipped:
        print(f"{len(filled.skipped)} rows were skipped:", *filled.skipped, sep="\n  ")
    print(f"{filled.added:,} entries added, {filled.known:,} were there already")
    _show(index)


def delete(options: argparse.Namespace):
    with _changing(options.folder) as index:
        count = index.delete(options.ids)
        index.save(options.folder)
    print(f"{count:,} entries deleted")
    _show(index)


def info(options: argparse.Namespace):
    from taichu.index import Index

    index = Index.open(options.folder)
    _show(index)
    print(f"{'model':<10}{index.origin.folder if index.origin else 'unknown'}")
    print(f"{'embedding':<10}{index.size} numbers")


def _show(index):
    for modality, count in index.counts.items():
        print(f"{modality:<10}{count:,} entries")


@contextmanager
def _changing(folder: str):
    """The index, which no other process changes meanwhile."""
    from taichu.data.one_at_a_time import one_at_a_time
    from taichu.index import Index

    if not Index.exists(folder):  # nothing is made in a folder that is none
        Index.open(folder)
    with one_at_a_time(folder):
        yield Index.open(folder)
