"""A schedule of requests: few connections per host, delays, pauses, budgets."""
import math
import time
from collections import Counter, defaultdict, deque
from typing import NamedTuple

from dataset_preparation.parsing.addresses import host_of
from dataset_preparation.parsing.connections import Failed, Lost, Offline
from dataset_preparation.parsing.safe_download import HostUnavailable, pause_after

PERIODS = {60: "hour", 24 * 60: "day"}  # minutes


class HostLimits(NamedTuple):
    """The limits of requests to each host."""

    connections: int  # downloads at once
    delay: float  # seconds between two starts
    attempts: int  # per address after temporary failures
    budgets: tuple = ()  # (minutes, bytes) pairs: at most this many bytes in this many minutes
    patience: float = 0.0  # seconds to wait for a host that has responded and is unreachable now


class Host:
    """One host: waiting addresses, the time when it is free again, bytes received."""

    def __init__(self):
        self.waiting = deque()  # addresses
        self.active = 0  # downloads in progress
        self.next_start = self.paused_until = 0.0  # time.monotonic()
        self.pause_reason = ""
        self.failures = 0  # in a row
        self.responded = -math.inf  # time.monotonic()
        self.outages = 0  # failures to reach it since then
        self.bytes_in_minute = Counter()  # minute of the epoch -> bytes it sent
        self.unavailable = None  # the HostUnavailable that ends it for this run

    def pause(self, seconds, reason):
        """Send no request to the host for at least this many seconds."""
        until = time.monotonic() + seconds
        if until > self.paused_until:
            self.paused_until, self.pause_reason = until, reason

    def count_bytes(self, size, sent_at, budgets):
        """Count bytes sent at a time (seconds of the epoch); pause when a budget is used up."""
        self.bytes_in_minute[int(sent_at) // 60] += size
        now = int(time.time()) // 60
        for minutes, most in budgets:
            recent = {minute: count for minute, count in self.bytes_in_minute.items()
                      if now - minute < minutes}
            if recent and sum(recent.values()) >= most:
                self.pause(60 * (min(recent) + minutes - now),
                           f"{most / 1e9:g} GB per {PERIODS[minutes]} used up")


class HostSchedule:
    """A queue of addresses; `take` returns one whose host is free, so no thread waits for a host.

    Not thread-safe: callers must hold the lock of `changed`, a threading.Condition that is notified
    when an address may be taken.
    """

    def __init__(self, limits, changed):
        self.limits, self.changed, self.hosts = limits, changed, defaultdict(Host)
        self.attempts = Counter()  # address -> attempts that failed

    def put(self, address):
        """Queue an address."""
        self.hosts[host_of(address)].waiting.append(address)
        self.changed.notify()

    def take(self):
        """Return (address, 0) of an address to fetch now, or (None, seconds to wait at most)."""
        now, wait = time.monotonic(), 1.0
        for host in self.hosts.values():
            if host.waiting and host.active < self.limits.connections:
                start = max(host.next_start, host.paused_until)
                if start <= now:
                    host.active += 1
                    host.next_start = now + (0.0 if host.unavailable else self.limits.delay)
                    return host.waiting.popleft(), 0.0
                wait = min(wait, start - now)
        return None, wait

    def unavailable(self, address):
        """Return the HostUnavailable that ended an address's host for this run, else None."""
        return self.hosts[host_of(address)].unavailable

    def finish(self, address, outcome, size=0):
        """Record the outcome of an address; return whether it is final, else queue it again."""
        host = self.hosts[host_of(address)]
        host.active -= 1
        if isinstance(outcome, Failed):
            final = self._fail(host, address, outcome)
        else:
            final, host.failures = True, 0
            host.responded, host.outages = time.monotonic(), 0
            host.count_bytes(size, time.time(), self.limits.budgets)
        if not final:
            host.waiting.append(address)
        self.changed.notify()
        return final

    def resting(self):
        """Return [(host, seconds of its pause left, reason, waiting addresses)] of paused hosts."""
        now = time.monotonic()
        return [(name, host.paused_until - now, host.pause_reason, len(host.waiting))
                for name, host in self.hosts.items() if host.waiting and host.paused_until > now]

    def count_earlier(self, address, size, sent_at):
        """Count bytes that a host sent to an earlier run, at a time in seconds of the epoch."""
        self.hosts[host_of(address)].count_bytes(size, sent_at, self.limits.budgets)

    def _fail(self, host, address, failure):
        """Record a failure and pause its host; return whether it was the last attempt."""
        if (isinstance(failure, Offline) and not isinstance(failure, Lost)
                and time.monotonic() - host.responded < self.limits.patience):
            host.outages += 1  # the host is unreachable, which is no failure of the address
            host.pause(pause_after(failure, host.outages), str(failure))
            return False
        host.failures += 1
        self.attempts[address] += 1
        if isinstance(failure, HostUnavailable):
            host.unavailable = failure
        if host.unavailable:
            return True
        host.pause(pause_after(failure, self.attempts[address]), str(failure))
        # a host that always fails gets one attempt per address: more would take hours
        hopeless = host.failures > 3 * self.limits.attempts
        return self.attempts[address] >= (1 if hopeless else self.limits.attempts)
