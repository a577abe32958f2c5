"""Pictures from strangers: found in a stable order, decoded to RGB within limits, checked all at once.

Nothing is decoded before its size in bytes and, from its header, its size in pixels are known to be
reasonable. Whatever is wrong with one file becomes one FileFault; no file ends the reading of the others.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from attribench.files.confined import FileFault, Problem, confined, fault, read_bytes
from attribench.files.text import is_text, shown

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
UNREAD_SUFFIXES = frozenset({".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".svg", ".psd"})
BYTE_LIMIT = 64 * 2**20
PIXEL_LIMIT = 80_000_000
"""More than any camera of the public data sets gives; decoded to RGB this is 240 MB."""

ANY_FORMAT = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
ANOTHER_FORMAT = f"save it as {ANY_FORMAT}"


def picture_ids(root: Path, folder: str) -> tuple[tuple[str, ...], list[Problem]]:
    """The ids (posix paths below `root`) of the pictures in one folder, sorted, and what had to be left out.

    Files are told by their suffix, so a damaged picture is listed and found out when it is read. Hidden files
    and files of other kinds are no pictures. Raises FileFault if the folder is missing or outside the root.
    """
    path = confined(root, folder)
    try:
        with os.scandir(path) as entries:  # a hundred thousand files, so no stat of each
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir())
    except OSError as error:
        raise fault(folder, f"is not a folder that can be read ({error.strerror})", "restore it") from error
    found, left_out = [], []
    above = "/".join(PurePosixPath(folder).parts)
    for name in names:
        identity = f"{above}/{name}" if above else name
        suffix = os.path.splitext(name)[1].lower()
        if suffix in UNREAD_SUFFIXES:
            left_out.append(Problem(shown(identity), f"is in a format that is not read ({suffix})", ANOTHER_FORMAT))
        elif suffix in SUFFIXES and not is_text(name):
            left_out.append(Problem(shown(identity), "has a name that is not clean UTF-8 text", "rename it"))
        elif suffix in SUFFIXES:
            found.append(identity)
    return tuple(found), left_out


def read_rgb(root: Path, image_id: str) -> Image.Image:
    """The RGB picture: upright by its EXIF orientation, alpha laid on white, 16-bit scaled to 8.

    Raises FileFault for a file that is missing, outside the root, too big in bytes or pixels, truncated, or
    no picture.
    """
    data = read_bytes(root, image_id, BYTE_LIMIT)
    try:
        picture = _opened(data)
        width, height = picture.size
        if width * height > PIXEL_LIMIT:
            what = f"has {width} × {height} pixels, more than the {PIXEL_LIMIT:,} allowed"
            raise fault(image_id, what, "replace it with a smaller one")
        return _rgb(ImageOps.exif_transpose(picture))
    except FileFault:
        raise
    except Exception as error:  # decoders raise anything from OSError to struct.error on damaged data
        if _is_truncated(data, error):
            raise fault(image_id, f"is truncated after {len(data):,} bytes") from error
        reason = shown(str(error)) or type(error).__name__
        raise fault(image_id, f"cannot be decoded as a picture ({reason})", f"restore it, or {ANOTHER_FORMAT}") from error


_look: ContextVar[Callable[[str], None]] = ContextVar("look", default=lambda image_id: None)


@contextmanager
def watched(look: Callable[[str], None]) -> Iterator[None]:
    """Inside, `problems` calls `look` with the id of each picture that it is done with.

    A data set's `verify()` comes between the two, whoever wrote it: so this is no argument that each would hand on.
    """
    token = _look.set(look)
    try:
        yield
    finally:
        _look.reset(token)


def problems(root: Path, ids: Iterable[str]) -> list[Problem]:
    """Every picture that cannot be read, and every one whose pixels an earlier one already has."""
    look = _look.get()
    found: list[Problem] = []
    first_with: dict[bytes, str] = {}
    for image_id in ids:
        try:
            picture = read_rgb(root, image_id)
        except FileFault as error:
            found.append(error.problem)
            continue
        finally:
            look(image_id)
        pixels = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).digest()
        twin = first_with.setdefault(pixels, image_id)
        if twin != image_id:
            found.append(Problem(shown(image_id), f"is the same picture as {shown(twin)}", "keep only one of the two"))
    return found


def _opened(data: bytes) -> Image.Image:
    """The picture with its header read. Image.open would warn on stderr of a size that is judged here anyway."""
    Image.init()
    for name in FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(data[:16]) is True:
            return factory(io.BytesIO(data), "")
    raise ValueError(f"not {ANY_FORMAT}" if data else "the file is empty")


def _is_truncated(data: bytes, error: Exception) -> bool:
    riff_bytes = int.from_bytes(data[4:8], "little") + 8 if data[:4] == b"RIFF" else 0
    return "truncated" in str(error).lower() or riff_bytes > len(data)


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey, which convert() would clip instead of scale
        grey = (np.asarray(picture).astype(np.float64) / 257).round().clip(0, 255)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return picture.convert("RGB")


def square(picture: Image.Image, side: int) -> Image.Image:
    """The centre square of a picture at `side` pixels, as Stable Diffusion's training data was cut."""
    width, height = picture.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    cut = picture.convert("RGB").crop((left, top, left + edge, top + edge))
    return cut if edge == side else cut.resize((side, side), Image.Resampling.BICUBIC)
