"""Build the mini editions: attribench/assets/editions/{customconcept101,artchive,mscoco,gendata}.

    python recipes/editions/build.py --work DIR            build, and replace what is committed
    python recipes/editions/build.py --work DIR --check    build aside, and compare with what is committed

Sources are fetched by package name into DIR with npm and apt-get and kept
there. The same packages give the same bytes; each edition's sha256 is printed.
"""

import argparse
import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

import artchive
import customconcept101
import gendata
import mscoco
from edition_files import contact_sheet, folder_hash, folder_size, pictures_by_concept
from edition_papers import write_papers

ROOT = Path(__file__).resolve().parents[2]
EDITIONS = ROOT / "attribench" / "assets" / "editions"
SHEETS = ROOT / "docs" / "editions"
BUILDERS = {"customconcept101": customconcept101.build, "artchive": artchive.build, "mscoco": mscoco.build}
BUILDERS["gendata"] = gendata.build  # made from the editions before it, as they are committed
SHEET_GROUPS = {
    "customconcept101": pictures_by_concept, "artchive": pictures_by_concept, "mscoco": mscoco.sheet_groups,
}  # fmt: skip
SHEET_PICTURES = {"customconcept101": 8, "artchive": 12, "mscoco": 14}


def main() -> int:
    """Build or check what the command line names."""
    arguments = _arguments()
    work = arguments.work.resolve()
    differing = []
    with tempfile.TemporaryDirectory() as aside:
        for name in [arguments.only] if arguments.only else BUILDERS:
            built = Path(aside) / name
            built.mkdir()
            BUILDERS[name](work, built)
            write_papers(name, built)
            files, size = folder_size(built)
            print(f"{name}: {files} files, {size / 1e6:.2f} MB, sha256 {folder_hash(built)}")
            if arguments.check:
                differing += [f"{name}/{file}" for file in differences(built, EDITIONS / name)]
            else:
                shutil.rmtree(EDITIONS / name, ignore_errors=True)
                shutil.copytree(built, EDITIONS / name)
                if name == "gendata":
                    gendata.sheet(built, SHEETS / f"{name}.webp")
                else:
                    contact_sheet(SHEET_GROUPS[name](built), SHEETS / f"{name}.webp", SHEET_PICTURES[name])
    if arguments.distractors:
        count = customconcept101.write_distractors(work, arguments.distractors)
        print(f"distractors: {count} pictures in {arguments.distractors}")
    for file in differing:
        print(f"differs from what is committed: {file}", file=sys.stderr)
    return 1 if differing else 0


def differences(built: Path, committed: Path) -> list[str]:
    """Files that are in only one of two folders, or whose bytes differ."""
    names = {
        path.relative_to(folder).as_posix()
        for folder in (built, committed)
        for path in folder.rglob("*")
        if path.is_file()
    }
    _, mismatched, missing = filecmp.cmpfiles(built, committed, sorted(names), shallow=False)
    return sorted(mismatched + missing)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the mini editions.")
    parser.add_argument("--only", choices=list(BUILDERS), help="build one edition")
    parser.add_argument("--work", type=Path, required=True, help="folder for fetched packages")
    parser.add_argument("--check", action="store_true", help="compare with what is committed, change nothing")
    parser.add_argument(
        "--distractors", type=Path, help="also write the 3-D objects outside the edition here"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
