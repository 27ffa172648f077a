"""Files are written whole or not at all, never over an input, and under names that do not collide."""

import os
import re
import uuid
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

_SUFFIX = re.compile(r"(\.nii\.gz|\.nii|\.mgz|\.mgh)$", re.IGNORECASE)


def write_atomic(path: str | os.PathLike, writer: Callable[[Path], object], *, inputs: Iterable = ()) -> Path:
    """Write a file under a temporary name in the same folder, then rename it.

    A reader sees the old file or the whole new one; when the writer fails, nothing is left behind.

    Args:
        path: the file; its folder is made when it does not exist.
        writer: called with the temporary path, which has the same suffixes.
        inputs: paths that must not be overwritten.

    Returns:
        The path written.

    Raises:
        NotADirectoryError: if the folder, or one above it, is a file.
        IsADirectoryError: if there is a folder at the path.
        ValueError: if the path is one of the inputs.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> write_atomic(f"{folder}/a.txt", lambda temporary: temporary.write_text("whole")).read_text()
        'whole'
    """
    path = Path(path)
    make_folder(path.parent)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, a file is to be written there: give a file name.")
    refuse_overwrite(path, inputs)
    # the suffix stays last: writers such as nibabel choose the format by it
    suffix = "".join(_SUFFIX.findall(path.name)) or path.suffix
    temporary = path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex}{suffix}")
    try:
        writer(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text_atomic(path: str | os.PathLike, text: str, *, inputs: Iterable = ()) -> Path:
    """Write UTF-8 text, whole or not at all; see :func:`write_atomic`."""
    return write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), inputs=inputs)


def make_folder(folder: str | os.PathLike) -> Path:
    """Make a folder and those above it.

    Raises:
        NotADirectoryError: if it, or one above it, is a file; the message names which.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next(above for above in (folder, *folder.parents) if above.exists() and not above.is_dir())
        raise NotADirectoryError(
            f"Results cannot be written into {folder}: {file} is a file, a folder is needed. "
            "Name another output folder, or move that file away."
        ) from None
    return folder


def refuse_overwrite(path: str | os.PathLike, inputs: Iterable[str | os.PathLike | None]) -> None:
    """Refuse an output path that is an input, links followed.

    Raises:
        ValueError: if it is one of them.
    """
    path = Path(path)
    for source in inputs:
        if source is None:
            continue
        same = path.resolve() == Path(source).resolve()
        if same or (path.exists() and Path(source).exists() and path.samefile(source)):
            raise ValueError(
                f"Writing {path} would overwrite the input image {source}: "
                "give another output folder or file name; inputs are never changed."
            )


def bids_stem(path: str | os.PathLike) -> str:
    """File name without the image's suffix, safe as the start of a derivative's name.

    Letters, digits, ``_`` and ``-`` stay, so BIDS entities do; anything else becomes ``-``. Of a name without such
    letters and digits a checksum tells it from others.

    Example:
        >>> bids_stem("/data/sub-01/anat/sub-01_ses-2_T1w.nii.gz"), bids_stem("my scan (1).mgz"), bids_stem("脳.nii")
        ('sub-01_ses-2_T1w', 'my-scan-1', 'image-5537e773')
    """
    name = _SUFFIX.sub("", Path(path).name)
    safe = _safe(name)
    if re.search("[A-Za-z0-9]", safe):
        return safe
    return f"image-{zlib.crc32(name.encode(errors='surrogatepass')):08x}" if name else "image"


def unique_stems(paths: Sequence[str | os.PathLike]) -> tuple[str, ...]:
    """One stem for each path, all different, so that no image's results overwrite another's.

    Stems that are unique stay as :func:`bids_stem` gives them. Others are preceded by the names of the
    folders above, as many as tell them apart, then followed by a number. Upper and lower case count as
    equal, as they do on some file systems.

    Example:
        >>> unique_stems(["a/T1.nii.gz", "b/T1.nii.gz", "b/T2.nii"])
        ('a_T1', 'b_T1', 'T2')
    """
    paths = [Path(path).absolute() for path in paths]
    stems = [bids_stem(path) for path in paths]
    deepest = max((len(path.parts) for path in paths), default=0)
    for depth in range(1, deepest):
        repeated = _repeated(stems)
        if not repeated:
            break
        for i in repeated:
            folders = paths[i].parent.parts[-depth:]
            stems[i] = "_".join(filter(None, [*(_safe(folder) for folder in folders), bids_stem(paths[i])]))
    taken: set[str] = set()
    unique = list(stems)
    repeated = set(_repeated(stems))
    taken |= {stem.casefold() for i, stem in enumerate(stems) if i not in repeated}
    for i in sorted(repeated):
        # only the very same file given twice, or names that differ in unsafe characters, come here
        number = 1
        while f"{bids_stem(paths[i])}-{number}".casefold() in taken:
            number += 1
        unique[i] = f"{bids_stem(paths[i])}-{number}"
        taken.add(unique[i].casefold())
    return tuple(unique)


def _repeated(stems: Sequence[str]) -> list[int]:
    folded = [stem.casefold() for stem in stems]
    return [i for i, stem in enumerate(folded) if folded.count(stem) > 1]


def _safe(name: str) -> str:
    return re.sub(r"-*[^A-Za-z0-9_-]+-*", "-", name).strip("-")
