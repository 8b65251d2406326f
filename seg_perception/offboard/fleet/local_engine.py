"""The engine that needs nothing: one worker, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .driver import Board, Engine
from .perform import perform
from .work import Failed, Work


class LocalEngine(Engine):
    """Does tasks one after the other in this process."""

    def run(self, work: Work, terms: Mapping[str, Any], board: Board) -> None:
        """See `Engine`."""
        worker = work.open()
        board.workers = 1
        try:
            while (attempt := board.take()) is not None:
                ended = perform(work, terms, worker, 0, attempt, partial(board.tell, attempt.task))
                board.settle(ended)
                if isinstance(ended, Failed) and ended.broken:
                    worker.close()
                    worker = work.open()
        finally:
            worker.close()
