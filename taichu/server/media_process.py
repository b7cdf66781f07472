"""Media files are read and written in processes of their own: a file that crashes a library, hangs
it or makes it take too much memory ends such a process and nothing else, and decoding goes on
meanwhile, since Python's lock is not shared."""

import asyncio
import multiprocessing
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil

from modality_adapters import create_adapter
from modality_adapters.errors import MediaError

GRID = np.float16  # as adapters give them
DONE, REFUSED = b"+", b"-"  # what an answer begins with


class MediaProcesses:
    """A few processes that turn files into grids and grids into files.

    Args:
        settings: of each modality's adapter.
        count: of processes.
        seconds: that one file may take.
        memory: bytes that a process may take beyond what it has at its start.
    """

    def __init__(self, settings: dict[str, dict], count: int, seconds: float, memory: int):
        self.settings, self.seconds, self.memory = settings, seconds, memory
        self.context = multiprocessing.get_context("spawn")
        self.folder = Path(tempfile.mkdtemp(prefix="taichu-"))
        self.processes = [self._start(number) for number in range(count)]
        self.idle: asyncio.Queue = asyncio.Queue()
        for number in range(count):
            self.idle.put_nowait(number)

    async def read(self, modality: str, data: bytes, suffix: str) -> np.ndarray:
        """The grid of a file's bytes.

        Raises:
            MediaError: it cannot be read, or takes too long or too much memory.
        """
        shape = tuple(self.settings[modality]["shape"])
        return np.frombuffer(await self._ask("read", modality, data, suffix), GRID).reshape(shape)

    async def write(self, modality: str, grid: np.ndarray, suffix: str) -> bytes:
        """A grid as a file's bytes.

        Raises:
            MediaError: it cannot be written.
        """
        return await self._ask("write", modality, grid, suffix)

    def close(self):
        """End the processes."""
        for process, connection in self.processes:
            connection.close()
            process.kill()
            process.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, number: int):
        folder = self.folder / str(number)
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        folder.mkdir()
        ours, theirs = self.context.Pipe()
        arguments = theirs, folder, self.settings, self.memory
        process = self.context.Process(target=serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return process, ours

    async def _ask(self, *question) -> bytes:
        number = await self.idle.get()

        async def exchange() -> bytes:
            try:
                return await asyncio.to_thread(self._exchange, number, question)
            finally:
                self.idle.put_nowait(number)

        # to the end even where nobody waits any more: its answer must not be taken for another's
        answer = await asyncio.shield(asyncio.create_task(exchange()))
        if answer[:1] != DONE:
            raise MediaError("file", answer[1:].decode())
        return answer[1:]

    def _exchange(self, number: int, question: tuple) -> bytes:
        process, connection = self.processes[number]
        try:
            connection.send(question)
            if connection.poll(self.seconds):
                return connection.recv_bytes()
            reason = f"takes more than {self.seconds:g} s"
        except (EOFError, OSError):
            reason = "ended the process that was to read or write it"
        process.kill()
        process.join()
        connection.close()
        self.processes[number] = self._start(number)
        return REFUSED + reason.encode()


def serve(connection, folder: Path, settings: dict[str, dict], memory: int):
    """What a process does: answer each question until there are no more.

    Answers are plain bytes and not pickled: who takes this process over by a file must not get any
    further.

    Args:
        connection: takes (what to do, modality, bytes or grid, suffix).
        folder: for the files.
        settings: of each modality's adapter.
        memory: bytes that may be taken beyond what there is now.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's business
    adapters = {name: create_adapter(name, its) for name, its in settings.items()}
    if sys.platform == "linux":  # the others do not keep to it
        import resource

        most = psutil.Process().memory_info().vms + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    while True:
        try:
            question = connection.recv()
        except (EOFError, OSError):
            return
        connection.send_bytes(answer(adapters, folder, *question))


def answer(adapters: dict, folder: Path, action: str, modality: str, what, suffix: str) -> bytes:
    """A file's grid or a grid's file, or the reason why not."""
    path = folder / f"file{suffix}"
    try:
        if action == "write":
            return DONE + adapters[modality].write(what, path).read_bytes()
        path.write_bytes(what)
        return DONE + adapters[modality].read(path).astype(GRID, copy=False).tobytes()
    except MediaError as error:
        reason = error.reason
    except MemoryError:
        reason = "takes too much memory"
    except Exception as error:  # nobody foresaw it; the process goes on
        reason = f"cannot be used: {type(error).__name__}"
    finally:
        path.unlink(missing_ok=True)
    return REFUSED + reason.encode()
