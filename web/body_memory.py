"""The memory of the request bodies that a page server holds at once.

A body takes memory as it arrives, not when its length is announced: slow senders hold nearly none.
It waits, unread, if with its next part not every body could become whole, one after another, in the
memory that is left (the banker's algorithm, E. W. Dijkstra, EWD 108, 1964): so no two bodies wait
for each other.
"""
import threading
from contextlib import contextmanager
from dataclasses import dataclass

BODY_MEMORY = 100_000_000  # bytes of all bodies together, or of the largest one alone
CLIENT_MEMORY = BODY_MEMORY // 2  # of those of one address


@dataclass(eq=False)
class Body:
    """A body that is being read or answered: address of its sender, bytes here and to come."""

    client: str
    held: int
    missing: int


class BodyMemory:
    """Limits the memory of all bodies together."""

    def __init__(self):
        self.bodies, self.changed = [], threading.Condition()

    @contextmanager
    def hold(self, length, client):
        """Yield a function that waits until the next `size` bytes of a body may be kept.

        All of its memory is free again after the block.
        """
        body = Body(client, 0, length)
        with self.changed:
            self.bodies.append(body)
        try:
            yield lambda size: self.take(body, size)
        finally:
            with self.changed:
                self.bodies.remove(body)
                self.changed.notify_all()

    def take(self, body, size):
        """Give a body memory for its next `size` bytes, once there is some."""
        def is_safe():
            body.held, body.missing = body.held + size, body.missing - size
            same = [other for other in self.bodies if other.client == body.client]
            if can_finish(self.bodies, BODY_MEMORY) and can_finish(same, CLIENT_MEMORY):
                return True
            body.held, body.missing = body.held - size, body.missing + size
            return False
        with self.changed:
            self.changed.wait_for(is_safe)


def can_finish(bodies, memory):
    """Return whether all bodies can become whole one after another, each then freeing its memory.

    A body larger than `memory` may have as much as it needs.
    """
    memory = max([memory, *(body.held + body.missing for body in bodies)])
    free = memory - sum(body.held for body in bodies)
    for body in sorted(bodies, key=lambda body: body.missing):
        if body.missing > free:
            return False
        free += body.held
    return free >= 0
