"""Whatever a stranger's file is, it reads as an upright RGB picture or becomes one clear line."""

import contextlib
import os
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attribench.data import pictures
from attribench.errors import DatasetError
from attribench.files.confined import FileFault


def fault_of(root: Path, image_id: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DatasetError) as caught:
            pictures.read_rgb(root, image_id)
    message = str(caught.value)
    assert "\n" not in message and message.isprintable()
    assert message.startswith(caught.value.problem.file) and "; " in message
    return message


def png(width: int, height: int, rows: bytes = b"", mode: int = 2, depth: int = 8, extra: bytes = b"") -> bytes:
    """A PNG file made by hand, so that its header may lie."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, mode, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_every_format_reads_as_rgb(tmp_path, picture, suffix):
    picture(tmp_path / f"a{suffix}", 1)
    read = pictures.read_rgb(tmp_path, f"a{suffix}")
    assert (read.mode, read.size) == ("RGB", (24, 20))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_a_truncated_file_is_called_truncated(tmp_path, picture, suffix):
    path = picture(tmp_path / f"a{suffix}", 1, (96, 96))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert "is truncated after" in fault_of(tmp_path, f"a{suffix}")


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (10_000, 10_000)])
def test_a_huge_picture_is_refused_from_its_header(tmp_path, width, height):
    (tmp_path / "a.png").write_bytes(png(width, height, bytes(1000)))
    assert f"has {width} × {height} pixels" in fault_of(tmp_path, "a.png")


def test_a_compressed_text_chunk_that_explodes_is_refused(tmp_path):
    bomb = b"key\0\0" + zlib.compress(bytes(64 * 2**20))
    chunk = struct.pack(">I", len(bomb)) + b"zTXt" + bomb + struct.pack(">I", zlib.crc32(b"zTXt" + bomb))
    (tmp_path / "a.png").write_bytes(png(1, 1, b"\0\0\0\0", extra=chunk))
    assert "cannot be decoded" in fault_of(tmp_path, "a.png")


def test_a_file_over_the_byte_limit_is_refused_unread(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(pictures.BYTE_LIMIT + 1)
    assert "more than the 67,108,864 allowed" in fault_of(tmp_path, "a.jpg")


@pytest.mark.parametrize("content", [b"", b"not a picture", b"<html></html>", b"GIF89a\1\0\1\0", b"\xff\xd8\xff"])
def test_a_file_that_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    assert "a.jpg: " in fault_of(tmp_path, "a.jpg")


@pytest.mark.parametrize("image_id", ["../a.jpg", "b/../../a.jpg", "/etc/passwd", "b/../a.jpg"])
def test_no_path_leads_out_of_the_root(tmp_path, picture, image_id):
    picture(tmp_path / "a.jpg", 1)
    (tmp_path / "root" / "b").mkdir(parents=True)
    assert "leads out of the data root" in fault_of(tmp_path / "root", image_id)


def test_no_symlink_leads_out_of_the_root(tmp_path, picture):
    picture(tmp_path / "a.jpg", 1)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "root" / "folder").symlink_to(tmp_path)
    assert "leads out of the data root" in fault_of(tmp_path / "root", "link.jpg")
    assert "leads out of the data root" in fault_of(tmp_path / "root", "folder/a.jpg")


def test_a_symlink_inside_a_root_that_is_itself_a_symlink_reads(tmp_path, picture):
    picture(tmp_path / "real" / "a.jpg", 1)
    (tmp_path / "real" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "root").symlink_to("real")
    assert pictures.read_rgb(tmp_path / "root", "b.jpg").size == (24, 20)


def test_what_is_not_a_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert "is not a regular file" in fault_of(tmp_path, "pipe.jpg")
    assert "is not a regular file" in fault_of(tmp_path, "folder.jpg")
    assert "loop.jpg: " in fault_of(tmp_path, "loop.jpg")
    assert "is missing" in fault_of(tmp_path, "nothing.jpg")
    assert "nul" in fault_of(tmp_path, "nul\0byte.jpg")
    assert "xxx" in fault_of(tmp_path, "x" * 5000)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the right-hand side of the file is up
    stored = Image.new("RGB", (40, 20), "blue")
    stored.paste("red", (0, 0, 20, 20))
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    read = pictures.read_rgb(tmp_path, "a.jpg")
    assert read.size == (20, 40)
    assert read.getpixel((10, 5))[0] > 200 and read.getpixel((10, 35))[2] > 200


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    see_through = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    see_through.putpixel((0, 0), (0, 0, 0, 255))
    see_through.convert(mode).save(tmp_path / "a.png")
    read = pictures.read_rgb(tmp_path, "a.png")
    assert read.getpixel((0, 0)) == (0, 0, 0) and read.getpixel((3, 3)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 257 * 128, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(pictures.read_rgb(tmp_path, "a.png"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_other_colour_modes_read_as_rgb(tmp_path, mode):
    Image.new("RGB", (8, 8), "white").convert(mode).save(tmp_path / "a.jpg")
    assert pictures.read_rgb(tmp_path, "a.jpg").getpixel((4, 4)) == (255, 255, 255)


def test_pictures_are_listed_by_name_whatever_the_order_of_the_folder(tmp_path, picture, monkeypatch):
    for name in ("b.JPG", "a.png", "c.webp", ".hidden.jpg", "notes.txt"):
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / name).write_bytes(b"")
    expected = ("x/a.png", "x/b.JPG", "x/c.webp")
    assert pictures.picture_ids(tmp_path, "x") == (expected, [])
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(real(self), reverse=True)))
    assert pictures.picture_ids(tmp_path, "x") == (expected, [])


def test_pictures_that_cannot_be_listed_are_reported(tmp_path):
    (tmp_path / "x").mkdir()
    for name in (b"a.gif", b"b\xff.jpg", b"c\n.jpg"):
        (tmp_path / "x" / os.fsdecode(name)).write_bytes(b"")
    found, left_out = pictures.picture_ids(tmp_path, "x")
    assert found == () and len(left_out) == 3
    assert all(str(problem).isprintable() for problem in left_out)


def test_problems_lists_every_fault_and_survives_each(tmp_path, picture):
    whole = picture(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(whole.read_bytes())
    Image.open(whole).save(tmp_path / "c.webp", lossless=True)  # other bytes, the same pixels
    (tmp_path / "d.jpg").write_bytes(b"no picture")
    (tmp_path / "e.png").write_bytes(png(100_000, 100_000))
    picture(tmp_path / "g.png", 2)
    found = pictures.problems(tmp_path, ["a.png", "b.png", "c.webp", "d.jpg", "e.png", "f.jpg", "g.png"])
    assert [problem.file for problem in found] == ["b.png", "c.webp", "d.jpg", "e.png", "f.jpg"]
    assert "same picture as a.png" in found[0].fault and "same picture as a.png" in found[1].fault


def test_whoever_watches_hears_of_every_picture(tmp_path, picture):
    picture(tmp_path / "a.png", 1)
    heard = []
    with pictures.watched(heard.append):
        pictures.problems(tmp_path, ["a.png", "gone.png"])
    pictures.problems(tmp_path, ["a.png"])
    assert heard == ["a.png", "gone.png"]


def test_a_fault_survives_pickling(tmp_path):
    import pickle

    with pytest.raises(FileFault) as caught:
        pictures.read_rgb(tmp_path, "a.jpg")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.problem == caught.value.problem


def test_damaged_bytes_anywhere_never_escape_as_another_error(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("JPEG", "PNG", "WEBP", "BMP"):
        buffer = BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, name)
        for _ in range(60):
            data = bytearray(buffer.getvalue())
            for at in rng.integers(4, len(data), 6):
                data[at] = rng.integers(256)
            (tmp_path / "a.jpg").write_bytes(data)
            with contextlib.suppress(DatasetError):
                assert pictures.read_rgb(tmp_path, "a.jpg").mode == "RGB"
