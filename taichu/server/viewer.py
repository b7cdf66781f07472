"""A 3D viewer as one HTML document that fetches nothing: three.js comes from trimesh's own viewer.

The document takes a GLB from the page that embeds it, so it may stand in a sandbox::

    frame.contentWindow.postMessage({glb: ArrayBuffer, label: "what it is"}, "*")

and answers ``{shown: true}``, or ``{shown: false}`` where the GLB or WebGL does not work.
"""

import io
import re
import zipfile
from functools import cache
from pathlib import Path

import trimesh.resources

TEMPLATE = Path(__file__).with_name("viewer.html")
# what stands in trimesh's document before its own scene: three.js, the GLB loader, the controls
LIBRARY = re.compile(r"<script>(.*?)var camera,\s*controls", re.DOTALL)


@cache
def viewer_document() -> str:
    """The document, UTF-8 text of about 700 KB.

    Raises:
        RuntimeError: trimesh's viewer is not as versions 4.6 to 5.2 have it.
    """
    packed = trimesh.resources.get_bytes("templates/viewer.zip")
    with zipfile.ZipFile(io.BytesIO(packed)) as files:
        theirs = files.read("viewer.html.template").decode("utf-8")
    library = LIBRARY.search(theirs)
    if not library:
        raise RuntimeError("trimesh's viewer.zip: holds no three.js where versions 4.6 to 5.2 do")
    return TEMPLATE.read_text(encoding="utf-8").replace("$LIBRARY", library[1])
