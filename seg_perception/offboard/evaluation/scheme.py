"""How the classes of models and the categories of a labelled set meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS, ClassTable, name_key
from seg_perception.core.errors import ConfigurationError
from seg_perception.onboard.pipeline.segmenter import Segmenter

from .coco import CocoSet
from .datasets.labelled import LabelledSet
from .truth import Truths


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is evaluated.

    Attributes:
        name: short and unique.
        file: its path, as given.
        segmenter: runs it; its options say what it publishes.
        table: road groups of its classes.
        manifest: of an engine.
    """

    name: str
    file: str
    segmenter: Segmenter
    table: ClassTable
    manifest: Mapping[str, Any] | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The model's classes in label order."""
        return self.segmenter.spec.class_names


@dataclass(frozen=True, slots=True)
class Scheme:
    """Which class of a model stands for which category.

    Attributes:
        by_categories: whether average precision and panoptic quality are over the set's own categories; else over road
            groups, because a model lacks a category that there are objects of.
        labels: the truth in these terms.
        segment_names: classes of panoptic quality: things, then stuff.
        things: how many of them are things.
        true_class: index into `segment_names` by category number of the set; -1 for none.
    """

    by_categories: bool
    labels: CocoSet
    segment_names: tuple[str, ...]
    things: int
    true_class: Mapping[int, int]
    _labelled: LabelledSet
    _groups: frozenset[int]

    @classmethod
    def of(cls, labelled: LabelledSet, truths: Truths, subjects: Sequence[Subject]) -> Scheme:
        """Find how a set and some models can be compared.

        Raises:
            ConfigurationError: they have nothing in common.
        """
        content = labelled.labels.annotations
        present = {each["category_id"] for each in content["annotations"] if not each.get("iscrowd")}
        names = {int(each["id"]): str(each["name"]) for each in content["categories"]}
        wanted = {name_key(names[number]) for number in present}
        known = [{name_key(name) for name in subject.class_names} for subject in subjects]
        by_categories = bool(wanted) and all(wanted <= each for each in known)
        groups = frozenset(set(truths.groups.values()) - {NO_GROUP})
        if by_categories:
            places = {number: place for place, number in enumerate(names)}
            segments = (*names.values(), *labelled.stuff_names)
            return cls(True, labelled.labels, segments, len(names), places, labelled, groups)
        scheme = cls(
            False,
            labelled.labels.by_group() if groups else labelled.labels,
            ROAD_GROUPS,
            len(ROAD_GROUPS),
            truths.groups,
            labelled,
            groups,
        )
        for subject in subjects:
            if (scheme.groups(subject) == NO_GROUP).all():
                raise ConfigurationError(
                    f"{subject.file}: expected classes in common with {labelled.labels.path}, got "
                    f"{', '.join(subject.class_names[:6])}, ... and {', '.join(list(names.values())[:6])}, ...; "
                    "name a class table with --classes that sorts the model's classes into road groups"
                )
        return scheme

    def categories(self, subject: Subject) -> NDArray[np.int64]:
        """The category number of each of a model's classes, int64 `[C]`; -1 for none."""
        if self.by_categories:
            return self.labels.categories(subject.class_names)
        groups = self.groups(subject)
        return np.where(groups == NO_GROUP, -1, groups + 1).astype(np.int64)

    def groups(self, subject: Subject) -> NDArray[np.int32]:
        """The road group of each of a model's classes as far as the set labels them, int32 `[C]`."""
        groups = subject.table.groups(subject.class_names)
        labelled = self._labelled.labelled_names
        own = {name_key(group) for group in ROAD_GROUPS}
        for label, name in enumerate(map(name_key, subject.class_names)):
            unlabelled = labelled is not None and name not in labelled and name not in own
            if int(groups[label]) not in self._groups or unlabelled:
                groups[label] = NO_GROUP
        return groups

    def segment_classes(self, subject: Subject) -> NDArray[np.int64]:
        """The class of panoptic quality of each of a model's classes, int64 `[C]`; -1 for none."""
        if not self.by_categories:
            return self.groups(subject).astype(np.int64)
        places = {name_key(name): place for place, name in enumerate(self.segment_names)}
        return np.array([places.get(name_key(name), -1) for name in subject.class_names], np.int64)
