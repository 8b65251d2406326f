"""Reading ahead and writing behind, in threads, so that the model need not wait for files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
# How often a thread that waits looks whether it is still wanted.
_LOOK_SECONDS = 0.2


class Prefetcher(Generic[T]):
    """Iterates over something in a thread, a few items ahead; to be used with `with`, so that the thread ends."""

    def __init__(self, items: Iterable[T], depth: int) -> None:
        """Begin; `depth` items at most are kept ready."""
        self._queue: Queue[T | _End] = Queue(depth)
        self._unwanted = Event()
        self._thread = Thread(target=self._run, args=(items,), name="ahead", daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, *details: object) -> None:
        self._unwanted.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        """Yield the items; what the iteration in the thread raises is raised here."""
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _run(self, items: Iterable[T]) -> None:
        end = _End()
        try:
            for item in items:
                if not self._put(item):
                    return
        except BaseException as error:
            end = _End(error)
        self._put(end)

    def _put(self, item: T | _End) -> bool:
        """Hand an item over; false when nobody wants it any more."""
        while not self._unwanted.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_SECONDS)
            except Full:
                continue
            return True
        return False


class BackgroundWriter(Generic[T]):
    """Does something with each item in a thread; to be used with `with`, which ends when all is done."""

    def __init__(self, work: Callable[[T], None], depth: int) -> None:
        """Begin; whoever gives more than `depth` items ahead of the work waits."""
        self._work = work
        self._queue: Queue[T | _End] = Queue(depth)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="behind", daemon=True)
        self._thread.start()

    def __enter__(self) -> BackgroundWriter[T]:
        return self

    def __exit__(self, kind: object, *details: object) -> None:
        self._queue.put(_End())
        self._thread.join()
        if kind is None:
            self._check()

    def give(self, item: T) -> None:
        """Have something done; raises what was raised of an earlier item."""
        self._check()
        self._queue.put(item)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                return
            # After an error items are only taken away, so that nobody waits for ever.
            if self._error is None:
                try:
                    self._work(item)
                except BaseException as error:
                    self._error = error


class _End:
    """Nothing more comes; `error` is why, if it is one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
