"""The executor that needs nothing: one worker, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .driver import Executor, TaskQueue
from .perform import perform
from .work import Failed, Work


class LocalExecutor(Executor):
    """Does tasks one after the other in this process."""

    def run(self, work: Work, settings: Mapping[str, Any], queue: TaskQueue) -> None:
        """See `Executor`."""
        worker = work.open()
        queue.workers = 1
        try:
            while (attempt := queue.take()) is not None:
                ended = perform(work, settings, worker, 0, attempt, partial(queue.tell, attempt.task))
                queue.settle(ended)
                if isinstance(ended, Failed) and ended.broken:
                    worker.close()
                    worker = work.open()
        finally:
            worker.close()
