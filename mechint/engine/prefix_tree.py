"""The prefix tree of token sequences: a beginning that several of them share is in it once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

# A shared beginning shorter than this is computed once for each branch: a pass of its own would cost more.
MIN_SHARED = 8
# Unless that would be so many tokens more, all branches together.
_SAVED = 16


@dataclass(frozen=True)
class Path:
    """One token sequence; a node ends at each of `cuts`."""

    tokens: tuple[int, ...]
    cuts: tuple[int, ...] = ()


@dataclass(eq=False)
class Node:
    """A run of tokens after `parent`. `members` are the paths through it, `ends` those that end with it."""

    start: int
    tokens: tuple[int, ...]
    members: tuple[int, ...]
    ends: tuple[int, ...]
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    fixed: bool = False

    @property
    def stop(self) -> int:
        """The position after its last token."""
        return self.start + len(self.tokens)

    def ancestors(self) -> list[Node]:
        """Return the nodes before this one, first to last."""
        nodes: list[Node] = []
        node = self.parent
        while node is not None:
            nodes.insert(0, node)
            node = node.parent
        return nodes

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


def build_tree(paths: Mapping[int, Path], min_shared: int = MIN_SHARED) -> list[Node]:
    """Return the roots; every token of every path lies in exactly one node on the way to its end."""
    roots = _grown(paths, list(paths), 0, None)
    return [node for root in roots for node in _without_short(root, min_shared)]


def _grown(paths: Mapping[int, Path], members: Sequence[int], start: int, parent: Node | None) -> list[Node]:
    groups: dict[int, list[int]] = {}
    for member in members:
        groups.setdefault(paths[member].tokens[start], []).append(member)
    nodes = []
    for group in groups.values():
        stop = _common_stop([paths[member] for member in group], start)
        ends = tuple(member for member in group if len(paths[member].tokens) == stop)
        tokens = paths[group[0]].tokens[start:stop]
        fixed = any(stop in paths[member].cuts for member in group)
        node = Node(start, tokens, tuple(group), ends, parent, fixed=fixed)
        node.children = _grown(paths, [member for member in group if member not in set(ends)], stop, node)
        nodes.append(node)
    return nodes


def _common_stop(paths: Sequence[Path], start: int) -> int:
    """Return how far paths that begin alike at `start` may go on in one node."""
    first = paths[0]
    limit = min(_boundary(path, start) for path in paths)
    for position in range(start, limit):
        if any(path.tokens[position] != first.tokens[position] for path in paths[1:]):
            return position
    return limit


def _boundary(path: Path, start: int) -> int:
    return min(position for position in (*path.cuts, len(path.tokens)) if position > start)


def _without_short(node: Node, min_shared: int) -> list[Node]:
    """Return the node, or its branches with its tokens put before theirs if it is too short to be worth a pass."""
    if len(node.tokens) < min_shared and not (node.fixed or node.ends or _saved(node) >= _SAVED):
        for child in node.children:
            child.start, child.tokens, child.parent = node.start, node.tokens + child.tokens, node.parent
        return [kept for child in node.children for kept in _without_short(child, min_shared)]
    node.children = [kept for child in node.children for kept in _without_short(child, min_shared)]
    return [node]


def _saved(node: Node) -> int:
    """Return how many tokens more would be computed if each branch of a node computed its tokens."""
    return len(node.tokens) * (len(node.children) - 1)
