"""Reading here and there in a few files of the store, without opening one for each piece."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.system.access import refused

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from mlflow_ipfs.content.blockstore.local.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

_MAX_OPEN: Final = 32


class OpenFiles:
    """Files that stay open until the end of the ``with``, the least used of many excepted. For one thread.

    A file that is deleted meanwhile is read as it was: who reads it verifies what he gets.
    """

    __slots__ = ("_descriptors", "_disk", "_folder", "_prefix")

    def __init__(self, layout: Layout, disk: Disk) -> None:
        self._folder = layout.folder
        self._prefix = f"{layout.folder}{os.sep}"  # joined as text: Path is slow
        self._disk = disk
        self._descriptors: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all of them; what is read later opens its file again."""
        while self._descriptors:
            self._disk.close(self._descriptors.popitem()[1])

    def read(self, name: str, offset: int, length: int) -> bytes | None:
        """Read a piece of a file, less where the file is shorter or the disk has lost it; None if there is no file.

        Raises:
            PolicyError: this user may not read the file.
        """
        descriptor = self._descriptors.get(name)
        if descriptor is None:
            try:
                descriptor = self._disk.open_to_read(self._prefix + name)
            except FileNotFoundError:
                return None
            except PermissionError as error:
                raise refused(self._folder, error) from error
            self._descriptors[name] = descriptor
            if len(self._descriptors) > _MAX_OPEN:
                self._disk.close(self._descriptors.popitem(last=False)[1])
        elif len(self._descriptors) > 1:
            self._descriptors.move_to_end(name)
        return self._disk.read_what_is_left(descriptor, offset, length)
