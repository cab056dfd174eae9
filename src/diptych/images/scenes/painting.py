"""What the functions that paint shapes need to know about the picture."""

from __future__ import annotations

from dataclasses import dataclass, field

from diptych.images.scenes.canvas import Canvas, Colour
from diptych.images.scenes.palette import NAMED, Palette
from diptych.images.scenes.rng import RandomStream
from diptych.images.scenes.understanding import Scene, Thing


@dataclass(frozen=True)
class Luminary:
    """The position, size and colour of the sun or the moon."""

    kind: str
    x: float
    y: float
    r: float
    colour: Colour


@dataclass
class Painting:
    """A picture while it is painted."""

    canvas: Canvas
    scene: Scene
    palette: Palette
    rng: RandomStream
    luminary: Luminary | None = None
    shore: float | None = None  # the height at which water begins; None until a subject has painted water
    stand: float = 0.9  # the height at which objects stand on the ground
    taken: list[float] = field(default_factory=list)  # the x of objects already placed

    @property
    def w(self) -> float:
        """The picture's width in units."""
        return self.canvas.w

    @property
    def h(self) -> float:
        """The picture's height in units."""
        return self.canvas.h

    @property
    def light_from(self) -> float:
        """The side from which the light comes: -1 for left, 1 for right."""
        x = self.luminary.x if self.luminary else self.w * 0.3
        return -1.0 if x < self.w * 0.5 else 1.0

    def y(self, part: float) -> float:
        """Converts a height from a fraction of the picture to units."""
        return part * self.canvas.h

    def has(self, name: str) -> bool:
        """Whether the scene holds an object of this name."""
        return any(thing.name == name for thing in self.scene.objects or ())

    def thing(self, name: str) -> Thing | None:
        """The object of this name, or None."""
        return next((thing for thing in self.scene.objects or () if thing.name == name), None)

    def colour(self, wanted: str | None, material: str, depth: float = 0.0) -> Colour:
        """The colour that the prompt names for an object, otherwise that of its material, in this light."""
        return self.palette.of(NAMED[wanted] if wanted else material, depth)
