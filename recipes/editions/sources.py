"""Fetch and unpack the packages that the mini editions are drawn from.

Packages are named with their versions and fetched through their ordinary
clients, npm and apt-get, into one work folder. What is already there is kept,
so a second build needs no network.
"""

import json
import re
import subprocess
import zipfile
from pathlib import Path

DICEBEAR_STYLES = (
    "adventurer", "big-ears", "big-smile", "croodles", "dylan", "fun-emoji", "lorelei", "micah",
    "miniavs", "notionists", "open-peeps", "personas", "pixel-art", "thumbs", "toon-head",
)  # fmt: skip
NPM_VERSIONS = {
    "@dicebear/core": "9.4.3",
    **{f"@dicebear/{style}": "9.4.3" for style in DICEBEAR_STYLES},
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/fxemoji": "1.2.2",
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/twemoji": "1.2.5",
    "@iconify-json/fluent-emoji": "1.2.7",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
}
DEBIAN_VERSIONS = {
    "sweethome3d-furniture": "1.8-1",
    "openclipart-svg": "1:0.18+dfsg-19",
}
CC0_NAMES = ("creative commons zero", "publicdomain/zero", "cc0")


def node_modules(work: Path) -> Path:
    """Folder of the npm packages, installed at their pinned versions where they are missing."""
    installed = work / "npm" / "node_modules"
    missing = [
        f"{name}@{version}"
        for name, version in NPM_VERSIONS.items()
        if _npm_version(installed / name) != version
    ]
    if missing:
        (work / "npm").mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", *missing], cwd=work / "npm", check=True)
    return installed


def debian_package(name: str, work: Path) -> Path:
    """Root folder of an unpacked Debian package, downloaded at its pinned version if missing."""
    unpacked = work / "deb" / name
    if unpacked.is_dir():
        return unpacked
    folder = unpacked.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.glob(f"{name}_*.deb")):
        subprocess.run(["apt-get", "download", f"{name}={DEBIAN_VERSIONS[name]}"], cwd=folder, check=True)
    archive = next(folder.glob(f"{name}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(archive), str(unpacked)], check=True)
    return unpacked


def furniture_library(work: Path) -> Path:
    """Unpacked CC0 furniture library: a catalogue file and one folder per OBJ model."""
    library = work / "furniture"
    if not library.is_dir():
        package = debian_package("sweethome3d-furniture", work)
        archive = next(package.rglob("BlendSwap-CC-0.sh3f"))
        with zipfile.ZipFile(archive) as models:
            models.extractall(library)
    return library


def furniture_catalogue(library: Path) -> dict[str, dict[str, str]]:
    """Catalogue entries (name, creator, model path, ...) by the model's folder name."""
    numbered: dict[str, dict[str, str]] = {}
    text = (library / "PluginFurnitureCatalog.properties").read_text("latin-1")
    for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*?)\s*$", text, flags=re.MULTILINE):
        numbered.setdefault(number, {})[key] = value
    return {Path(entry["model"]).parent.name: entry for entry in numbered.values()}


def carries_cc0_file(model_folder: Path) -> bool:
    """Whether the model's own folder holds licence files, and each of them says CC0."""
    licences = [
        path.read_text("latin-1").lower() for path in model_folder.iterdir() if "license" in path.name.lower()
    ]
    return bool(licences) and all(any(name in text for name in CC0_NAMES) for text in licences)


def _npm_version(package: Path) -> str | None:
    manifest = package / "package.json"
    return json.loads(manifest.read_text())["version"] if manifest.is_file() else None
