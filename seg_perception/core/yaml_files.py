"""YAML files of somebody else: read with bounds, and with errors that give nothing of their content away.

A parameter of the node names such a file, so whoever can set parameters chooses which file is read and sees the error.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from .files import read_regular

# A table of 10,000 classes with groups and numbers has half of it.
MOST_BYTES = 1 << 20
# Ours have four levels. More are followed by nobody, and those of thousands end the interpreter.
MOST_LEVELS = 16
# In C where it is there: fifty times as fast, which a node that runs meanwhile notices.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlFileError(Exception):
    """A file is not read; the message quotes nothing of it."""


def read_yaml(path: Path) -> object:
    """Read a YAML file.

    Args:
        path: of a regular file of at most `MOST_BYTES`, without aliases, nested at most `MOST_LEVELS` deep.

    Returns:
        Mappings, lists, text, numbers and dates. Nothing is shared: the value is no larger than the file.

    Raises:
        FileNotFoundError: it does not exist.
        YamlFileError: anything else.
    """
    text = _text(path)
    try:
        _refuse_what_grows(text)
        return yaml.load(text, _LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise YamlFileError(f"is not YAML{where}") from None
    # Numbers and dates that do not exist, keys that cannot be keys, characters that YAML forbids.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError):
        raise YamlFileError("is not YAML: a number, date, key or character in it is none that YAML allows") from None


def _text(path: Path) -> str:
    try:
        data = read_regular(path, MOST_BYTES)
        if len(data) > MOST_BYTES:
            raise YamlFileError(f"cannot be read: expected at most {MOST_BYTES >> 20} MiB")
        return data.decode("utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise YamlFileError(f"cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError:  # the path holds a NUL; or UnicodeDecodeError, whose text quotes bytes
        raise YamlFileError("cannot be read: expected text in UTF-8") from None


def _refuse_what_grows(text: str) -> None:
    """Go through the file without building anything."""
    level = 0
    for event in yaml.parse(text, _LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 0
        # A few lines of aliases of aliases are gigabytes, and a list that holds itself has no end.
        if isinstance(event, yaml.AliasEvent):
            raise YamlFileError(f"cannot be read: line {line} has an alias; write it out")
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            raise YamlFileError(f"cannot be read: line {line} is nested deeper than {MOST_LEVELS} levels")
