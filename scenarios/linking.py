"""Groups of names that belong together, directly or through others (union-find with path compression)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Links(Generic[T]):
    """Names and their groups; a name never seen is a group of its own."""

    def __init__(self) -> None:
        self._parent: dict[T, T] = {}

    def __iter__(self) -> Iterator[T]:
        """Every name met so far, in the order met."""
        return iter(list(self._parent))

    def find(self, name: T) -> T:
        """The name that stands for its group; another one once two groups are joined."""
        root = name
        while self._parent.setdefault(root, root) != root:
            root = self._parent[root]
        while self._parent[name] != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, one: T, other: T) -> None:
        """The groups of both become one, under the first's name."""
        first = self.find(one)
        self._parent[self.find(other)] = first
