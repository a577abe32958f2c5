"""Render an OBJ model from several sides as cut-outs on a transparent ground.

The camera sees one model at a time under two lamps that move with it. Poses
are drawn from a seed of the model and the view, in shuffled order, so that the
number of a view says nothing about its pose.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import vtk
from PIL import Image
from vtk.util.numpy_support import vtk_to_numpy

RENDER_SIZE = 448
VIEW_ANGLE_DEGREES = 24
KEY_LAMP = ((-0.7, 1.0, 1.0), 0.72)
FILL_LAMP = ((1.0, 0.2, 0.8), 0.36)
AMBIENT = 0.30
AZIMUTH_JITTER_DEGREES = 12
FRONT_HALF_ANGLE_DEGREES = 62
ELEVATION_DEGREES = {"round": (6, 38), "front": (2, 32), "above": (38, 70)}

# The importer complains of materials that some models name but lack: they are drawn grey.
vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)


@dataclass(frozen=True)
class Pose:
    """Where the camera stands, in degrees: azimuth 0 looks at the model's front."""

    azimuth: float
    elevation: float


def seeded(*key: object) -> np.random.Generator:
    """Random generator that depends on nothing but the key."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def poses(model: str, kind: str, count: int) -> list[Pose]:
    """Poses of a model spread evenly over the sides that `kind` allows, in seeded order.

    `round` goes all the way round, `front` stays before a flat model, `above`
    goes round and looks down on a thing that lies.
    """
    rng = seeded("poses", model)
    if kind == "front":
        azimuths = np.linspace(-FRONT_HALF_ANGLE_DEGREES, FRONT_HALF_ANGLE_DEGREES, count)
    else:
        azimuths = rng.uniform(0, 360) + np.arange(count) * 360 / count
    azimuths = azimuths + rng.uniform(-1, 1, count) * AZIMUTH_JITTER_DEGREES
    elevations = rng.uniform(*ELEVATION_DEGREES[kind], count)
    return [Pose(float(a), float(e)) for a, e in zip(rng.permutation(azimuths), elevations)]


def readable_copy(model: Path, folder: Path) -> Path:
    """Copy of a model that the importer can read: no broken faces, texture names without paths."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = model.read_text("latin-1").splitlines()
    faces_with_area = [line for line in lines if not line.startswith("f ") or len(line.split()) > 3]
    copy = folder / model.name
    copy.write_text("\n".join(faces_with_area) + "\n", "latin-1")
    textures = {path.name for path in model.parent.iterdir()}
    materials = [
        line.strip() if _texture_name(line) is None else f"map_Kd {_texture_name(line)}"
        for line in model.with_suffix(".mtl").read_text("latin-1").splitlines()
        if not line.strip().startswith("map_") or _texture_name(line) in textures
    ]
    copy.with_suffix(".mtl").write_text("\n".join(materials) + "\n", "latin-1")
    return copy


class ObjectScene:
    """One model, lit and ready to be photographed from any pose."""

    def __init__(self, model: Path, texture_folder: Path):
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetAlphaBitPlanes(1)
        self._window.SetMultiSamples(0)
        self._window.SetSize(RENDER_SIZE, RENDER_SIZE)
        self._renderer = vtk.vtkRenderer()
        self._window.AddRenderer(self._renderer)
        importer = vtk.vtkOBJImporter()
        importer.SetFileName(str(model))
        importer.SetFileNameMTL(str(model.with_suffix(".mtl")))
        importer.SetTexturePath(str(texture_folder))
        importer.SetRenderWindow(self._window)
        importer.Update()
        self._renderer.SetBackground(0, 0, 0)
        self._renderer.SetBackgroundAlpha(0)
        self._renderer.SetUseDepthPeeling(1)
        self._hang_lamps()
        self._soften_materials()

    def cutout(self, pose: Pose) -> Image.Image:
        """The model seen from a pose, cropped to what is drawn: RGBa (premultiplied) picture."""
        self._place_camera(pose)
        self._window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self._window)
        grab.SetInputBufferTypeToRGBA()
        grab.ReadFrontBufferOff()
        grab.Update()
        pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars())
        upright = np.ascontiguousarray(pixels.reshape(RENDER_SIZE, RENDER_SIZE, 4)[::-1])
        picture = Image.frombytes("RGBa", (RENDER_SIZE, RENDER_SIZE), upright.tobytes())
        return picture.crop(picture.getchannel("a").getbbox() or (0, 0, 1, 1))

    def close(self) -> None:
        """Give back the window's memory."""
        self._window.Finalize()

    def _hang_lamps(self) -> None:
        self._renderer.RemoveAllLights()
        self._renderer.AutomaticLightCreationOff()
        for position, intensity in (KEY_LAMP, FILL_LAMP):
            lamp = vtk.vtkLight()
            lamp.SetLightTypeToCameraLight()
            lamp.SetPosition(*position)
            lamp.SetFocalPoint(0, 0, 0)
            lamp.SetIntensity(intensity)
            self._renderer.AddLight(lamp)

    def _soften_materials(self) -> None:
        actors = self._renderer.GetActors()
        actors.InitTraversal()
        for _ in range(actors.GetNumberOfItems()):
            actor = actors.GetNextActor()
            material = actor.GetProperty()
            if actor.GetTexture():
                material.SetDiffuseColor(1, 1, 1)
            material.SetAmbientColor(material.GetDiffuseColor())
            material.SetAmbient(AMBIENT)

    def _place_camera(self, pose: Pose) -> None:
        bounds = self._renderer.ComputeVisiblePropBounds()
        low, high = np.array(bounds[0::2]), np.array(bounds[1::2])
        centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
        azimuth, elevation = math.radians(pose.azimuth), math.radians(pose.elevation)
        direction = np.array(
            [
                math.sin(azimuth) * math.cos(elevation),
                math.sin(elevation),
                math.cos(azimuth) * math.cos(elevation),
            ]
        )
        distance = 1.02 * radius / math.sin(math.radians(VIEW_ANGLE_DEGREES / 2))
        camera = self._renderer.GetActiveCamera()
        camera.SetViewAngle(VIEW_ANGLE_DEGREES)
        camera.SetFocalPoint(*centre)
        camera.SetPosition(*(centre + distance * direction))
        camera.SetViewUp(0, 1, 0)
        self._renderer.ResetCameraClippingRange()


def _texture_name(material_line: str) -> str | None:
    match = re.match(r"\s*map_Kd\s+(?:.*[/\\])?(.+?)\s*$", material_line)
    return match[1] if match else None
