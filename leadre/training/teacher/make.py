"""The teacher's rows for a training: made once, by the main process, and read by all.

Ours; LEADRE §5.1.3 (several processes train one model).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from leadre.artifacts import MANIFEST
from leadre.collaborative.cross_fit import CrossFitted
from leadre.indexing.ad_index import AdIndex
from leadre.training.data.examples import TrainingData
from leadre.training.run.processes import agreed, is_main, main_first, process_number
from leadre.training.teacher.masses import Progress, write_teacher
from leadre.training.teacher.positions import positions_of
from leadre.training.teacher.rows import TeacherRows


def teacher_rows(
    folder: Path,
    data: TrainingData,
    *,
    teacher: Callable[[], CrossFitted],
    index: AdIndex,
    temperature: float,
    progress: Progress | None = None,
) -> TeacherRows:
    """Return the teacher's rows of all targets, from their folder if they are there already.

    Args:
        folder: on this machine; a process that does not see the main one's makes its own beside it.
        data: whose targets.
        teacher: fits the teacher, when rows are to be made.
        index: whose codes.
        temperature: of the distribution over ads.
        progress: called with positions done.

    Raises:
        ArtifactIncomplete: what is there is damaged.
    """
    folder = Path(agreed(str(folder)))
    with main_first():
        if not is_main() and not (folder / MANIFEST).exists():
            folder = folder.with_name(f"{folder.name}-{process_number()}")
        if not (folder / MANIFEST).exists():
            write_teacher(
                folder,
                positions_of(data, index=index),
                teacher=teacher(),
                index=index,
                temperature=temperature,
                progress=progress,
            )
    return TeacherRows.load(folder)
