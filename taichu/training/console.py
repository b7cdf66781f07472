"""Where a training's progress is shown: a terminal, or a file on a disk that may be full."""

from taichu.storage.tensor_file import is_disk_full


class Console:
    """A text stream that loses what a full disk does not take, where the stream would fail.

    Args:
        stream: what is written to.
    """

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str):
        self._unless_full(self._stream.write, text)

    def flush(self):
        self._unless_full(self._stream.flush)

    def __getattr__(self, name: str):  # a progress bar asks whether it is a terminal, and how wide
        return getattr(self._stream, name)

    def _unless_full(self, act, *words):
        try:
            act(*words)
        except OSError as error:
            if not is_disk_full(error):
                raise
