"""Which photo kills the process that looks at it? A note beside a part, for whoever tries the part again.

A photo that can't be decoded raises, and is a row with its error. One that takes the whole process with it, by a fault
in a decoder or by asking for more memory than the machine has, would be tried for ever. So a part that was begun before
is done photo by photo, each noted first; a photo at which the process died twice is a row with an error too.
"""

import json
from pathlib import Path

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import PathLike

DEATHS = 2  # so many at one photo are no accident: workers are also lost to others' doing


class Attempts:
    """The attempts at one part.

    Args:
        path: of the part's file, which is not there yet.

    Attributes:
        again: bool, whether an earlier attempt was cut short.
    """

    def __init__(self, path: PathLike) -> None:
        path = Path(path)
        self.note = path.with_name(f".{path.name}.tries")
        try:
            note = json.loads(self.note.read_text("utf-8"))
        except (OSError, ValueError):
            note = None
        self.again = note is not None
        self.deaths = note["deaths"] if note else {}
        if note and note["at"] is not None:
            self.deaths[note["at"]] = self.deaths.get(note["at"], 0) + 1
        self.look_at(None)

    def look_at(self, name: str | None) -> None:
        """Note which photo comes next; `None` for many at once."""
        with atomic_write(self.note) as file:
            json.dump({"at": name, "deaths": self.deaths}, file)

    def is_deadly(self, name: str) -> bool:
        """Whether the process died at this photo too often."""
        return self.deaths.get(name, 0) >= DEATHS

    def end(self) -> None:
        """The part is there: the note goes."""
        self.note.unlink(missing_ok=True)
