"""The memory of the request bodies that a page server holds at once.

A body takes memory as it arrives, not when its length is announced: slow senders hold nearly none.
It waits, unread, while all bodies together, or those of its sender, have their share. The oldest
body never waits, so that not all wait for each other; it may exceed the limits by its own size.
"""
import threading
from contextlib import contextmanager
from dataclasses import dataclass

BODY_MEMORY = 100_000_000  # bytes of all bodies together
CLIENT_MEMORY = BODY_MEMORY // 2  # of those of one address


@dataclass(eq=False)
class Body:
    """A body that is being read or answered: address of its sender, bytes here."""

    client: str
    held: int = 0


class BodyMemory:
    """Limits the memory of all bodies together."""

    def __init__(self):
        self.bodies, self.changed = [], threading.Condition()  # the oldest body first

    @contextmanager
    def hold(self, client):
        """Yield a function that waits until the next `size` bytes of a body may be kept.

        All of its memory is free again after the block.
        """
        body = Body(client)
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
        def is_free():
            same = [other for other in self.bodies if other.client == body.client]
            return all(body in some[:1] or sum(other.held for other in some) + size <= most
                       for some, most in ((self.bodies, BODY_MEMORY), (same, CLIENT_MEMORY)))
        with self.changed:
            self.changed.wait_for(is_free)
            body.held += size
