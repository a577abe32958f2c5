"""A file of regions comes from a person: each mistake is told in one line, with its place."""

from __future__ import annotations

import pytest

from attribench.data.region import Region
from attribench.errors import UsageError
from attribench.run import regions
from attribench.run.config import RunConfig
from attribench.run.regions import QueryRegion, read_regions

ID = "mixed/<new1> cat, and <new2> dog together./0"


def written(folder, text: str | bytes):
    path = folder / "boxes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_names_queries_and_their_boxes_in_any_order_of_columns(tmp_path):
    path = written(tmp_path, f'\ufeffquery,w,h,x,y,study\n"{ID}",32,64,0,0,study-1\nplain,1,2,3,4,\n')
    assert read_regions(path) == (
        QueryRegion(query=ID, region="0,0,32,64", study="study-1"),
        QueryRegion(query="plain", region="3,4,1,2"),
    )
    assert Region.parse(" 3, 4,1,2 ") == Region(3, 4, 1, 2) and str(Region(3, 4, 1, 2)) == "3,4,1,2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("query,x,y,w\nq,1,2,3\n", "line 1: the columns must be query,x,y,w,h"),
        ("query,x,y,w,h,colour\nq,1,2,3,4,red\n", "line 1: the columns must be"),
        ("", "line 1: the columns must be .* not nothing"),
        ("query,x,y,w,h\n", "names no query"),
        ("query,x,y,w,h\nq,0,0,8,8\nq2,0,0,-8,8\n", "line 3: the region '0,0,-8,8' is not x,y,w,h"),
        ("query,x,y,w,h\nq,0,0,0,8\n", "line 2: the region '0,0,0,8' has no area"),
        ("query,x,y,w,h\na, b,0,0,8,8\n", "line 2: it has more or fewer values"),
        ("query,x,y,w,h\nq,0,0\n", "line 2: it has more or fewer values"),
        ('query,x,y,w,h\n"q,0,0,8,8\n', "it is not CSV"),
        (b"query,x,y,w,h\n\xff,0,0,8,8\n", "not UTF-8"),
        ("query,x,y,w,h\nq,99999999,0,8,8\n", "line 2: the region '99999999,0,8,8' is not x,y,w,h"),
    ],
)
def test_each_mistake_is_one_line_that_names_its_place(tmp_path, text, said):
    with pytest.raises(UsageError, match=said) as error:
        read_regions(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_too_large_is_told(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="No such file"):
        read_regions(tmp_path / "none.csv")
    monkeypatch.setattr(regions, "BYTE_LIMIT", 10)
    with pytest.raises(UsageError, match="more than 10 bytes"):
        read_regions(written(tmp_path, "query,x,y,w,h\nq,0,0,8,8\n"))


def test_a_run_toml_holds_the_boxes_themselves_and_an_option_takes_their_place(tmp_path):
    path = written(tmp_path, f'query,x,y,w,h\n"{ID}",0,0,8,8\n')
    config = RunConfig.gather(None, dataset="artchive", regions=path)
    path.unlink()
    toml = tmp_path / "run.toml"
    toml.write_text(config.to_toml())
    assert RunConfig.gather(toml).regions == config.regions
    other = RunConfig.gather(toml, region="0,0,4,4")
    assert other.region == "0,0,4,4" and other.regions == ()
    with pytest.raises(UsageError, match="give one of the two"):
        RunConfig.gather(None, dataset="artchive", region="0,0,4,4", regions=written(tmp_path, "query,x,y,w,h\nq,0,0,8,8\n"))
