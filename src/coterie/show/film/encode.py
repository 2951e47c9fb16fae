"""A recording as a file: an animated picture, a video, or a page with a player."""

from __future__ import annotations

import contextlib
import io
import itertools
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.envs.scene import (
    PALETTE,
    Circle,
    Label,
    Line,
    Number,
    Picture,
    Polygon,
    Rect,
    Role,
    Shape,
)
from coterie.errors import UsageError
from coterie.extras import how_to_install
from coterie.runs.run import Run
from coterie.show.film.recording import FPS, MOST_FPS, Frame, Recording, record
from coterie.show.lettering import film_font, lettered
from coterie.show.numbers import two_decimals
from coterie.text import clipped

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

SUFFIXES = (".gif", ".mp4", ".html")
HOLD, HOLD_SECONDS = 6, 0.6
"""The last frame of an episode stays as long as so many, and for so long at least."""

_SIDE, _MARGIN, _LINE = 520, 24, 24
_AGENT, _ACTION = 158, 190
"""The width of what is written about an agent."""
_FINE = 2
"""Pictures are drawn so many times larger and then reduced, which smooths edges."""


def watch(
    run: Run,
    out: str | Path = "episode.gif",
    *,
    seed: int = 0,
    which: str | None = None,
    episodes: int = 1,
    greedy: bool | None = None,
    episode_seed: int = 0,
    fps: Number | None = None,
) -> Path:
    """Records episodes of a trained team, as ``coterie watch`` does; replaces ``out``.

    Args:
        out: a file that ends in .gif, .html or .mp4 (extra ``video``).
        seed: number of the team, counted from 0.
        which: ``best`` or ``last`` policies; those that stand for the run unless given.
        greedy: whether stochastic policies take their most probable actions.
        episode_seed: random seed of the episodes.
        fps: environment steps shown in a second.

    Raises:
        UsageError: another ending, no such extra, or frames a second out of range.
        NoPictures: the environment cannot be drawn.
    """
    check(Path(out), FPS if fps is None else fps)
    return film(record(run, seed, which, episodes, greedy, episode_seed), out, fps)


def film(recording: Recording, out: str | Path, fps: Number | None = None) -> Path:
    """Writes a recording as ``.gif``, ``.mp4`` (extra ``video``) or ``.html``; replaces ``out``.

    Args:
        fps: environment steps shown in a second; the recording's own unless given.

    Raises:
        UsageError: another ending, no such extra, or frames a second out of range.
    """
    out, fps = Path(out), recording.fps if fps is None else fps
    check(out, fps)
    out.parent.mkdir(parents=True, exist_ok=True)
    write = {".gif": _write_gif, ".mp4": _write_mp4, ".html": _write_html}
    write[out.suffix.lower()](recording, out, fps)
    return out


def check(out: Path, fps: Number = FPS) -> None:
    """UsageError where ``film`` would refuse: to be asked before anything is played."""
    if out.suffix.lower() not in SUFFIXES or out.is_dir():
        raise UsageError(f"{out} must be a file that ends in .gif, .mp4 or .html")
    if not 0.1 <= fps <= MOST_FPS:
        raise UsageError(f"fps must be between 0.1 and {MOST_FPS:g} frames a second; got {fps:g}")
    if out.suffix.lower() == ".mp4":
        _ffmpeg()


def _write_gif(recording: Recording, out: Path, fps: Number) -> None:
    from PIL.Image import Dither

    colours = 256 if _has_pixels(recording) else 64
    frames = (
        (p.quantize(colours, dither=Dither.NONE), hold) for p, hold in pictures_of(recording, fps)
    )
    flat, holds = zip(*frames, strict=True)
    durations = [round(1000 / fps) * hold for hold in holds]
    flat[0].save(out, save_all=True, append_images=flat[1:], duration=durations, loop=0, disposal=1)


def _write_mp4(recording: Recording, out: Path, fps: Number) -> None:
    frames = pictures_of(recording, fps)
    first, stay = next(frames)
    width, height = first.size
    command = [
        _ffmpeg(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-",
        "-vcodec", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(out),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as ffmpeg:
        assert ffmpeg.stdin is not None
        assert ffmpeg.stderr is not None
        with contextlib.suppress(BrokenPipeError):  # its own words follow
            for picture, hold in itertools.chain([(first, stay)], frames):
                ffmpeg.stdin.write(np.asarray(picture).tobytes() * hold)
            ffmpeg.stdin.close()
        said = ffmpeg.stderr.read().decode(errors="replace")
    if ffmpeg.returncode:
        raise RuntimeError(f"{out} could not be encoded: {said.strip() or ffmpeg.returncode}")


def _ffmpeg() -> str:
    """The encoder that the extra ``video`` brings along."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        raise UsageError(
            f"an .mp4 needs the extra video: {how_to_install('video')} (a .gif does without)"
        ) from None
    return get_ffmpeg_exe()


def _write_html(recording: Recording, out: Path, fps: Number) -> None:
    from coterie.show.report.blocks import Section, Viewer
    from coterie.show.report.page import write_report

    write_report(out, recording.title, [Section("Episodes", [Viewer(recording, fps=fps)])])


# Pictures ----------------------------------------------------------------------------------------


def pictures_of(recording: Recording, fps: Number = FPS) -> Iterator[tuple[Image, int]]:
    """Every frame as a picture, and for how many frames it stays."""
    last = max(HOLD, round(HOLD_SECONDS * fps))
    for number, frames in enumerate(recording.episodes, start=1):
        for t, frame in enumerate(frames):
            caption = f"step {t} of {len(frames) - 1}"
            if len(recording.episodes) > 1:
                caption = f"episode {number} of {len(recording.episodes)}, {caption}"
            yield picture(recording, frame, caption), last if frame.end else 1


def _has_pixels(recording: Recording) -> bool:
    """Whether its environment draws itself, with colours of its own."""
    scene = recording.episodes[0][0].scene
    return any(isinstance(shape, Picture) for shape in scene.shapes)


def picture(recording: Recording, frame: Frame, caption: str) -> Image:
    """One frame: the scene, and below it each agent's action and reward; light ground."""
    from PIL import Image, ImageDraw

    left, top, width, height = recording.view
    scale = _SIDE / max(width, height)
    wide, tall = round(width * scale), round(height * scale)
    below = _MARGIN + 1.4 * _LINE + tall + _MARGIN
    page = round(below + _LINE * (len(recording.agents) + 1)) // 2 * 2
    size = (_SIDE + 2 * _MARGIN, page)
    image = Image.new("RGB", (size[0] * _FINE, size[1] * _FINE), PALETTE["paper"][0])
    stage = Image.new("RGB", (wide * _FINE, tall * _FINE), PALETTE["paper"][0])
    pen = _Pen(stage, ImageDraw.Draw(stage), scale * _FINE, left, top)
    for shape in frame.scene.shapes:
        pen.shape(shape)
    image.paste(stage, ((size[0] - wide) * _FINE // 2, round((_MARGIN + 1.4 * _LINE) * _FINE)))
    draw = ImageDraw.Draw(image)
    _write(draw, _MARGIN, _MARGIN + 4, recording.title, 13, "faint", room=_SIDE)
    _panel(draw, recording, frame, caption, below)
    return image.resize(size, Image.Resampling.LANCZOS)


def _panel(draw: ImageDraw, recording: Recording, frame: Frame, caption: str, top: Number) -> None:
    """The step, and a line an agent."""
    end = {"terminated": ", the end", "truncated": ", time is up", "cut": ", cut off here"}
    columns = (_MARGIN, _MARGIN + 0.32 * _SIDE, _MARGIN + 0.80 * _SIDE, _MARGIN + _SIDE)
    _write(draw, columns[0], top, caption + end.get(frame.end or "", ""), 14, "ink", bold=True)
    for x, word in zip(columns[2:], ("reward", "return"), strict=True):
        _write(draw, x, top, word, 13, "faint", "r")
    for i, agent in enumerate(recording.agents):
        y = top + _LINE * (i + 1.1)
        action = frame.actions[i] if frame.actions else "–"
        _write(draw, columns[0], y, agent, 14, "ink", room=_AGENT)
        _write(draw, columns[1], y, action, 14, "ink", bold=True, room=_ACTION)
        _write(draw, columns[2], y, two_decimals(frame.rewards[i]), 14, "ink", "r")
        _write(draw, columns[3], y, two_decimals(frame.returns[i]), 14, "ink", "r")


def _write(
    draw: ImageDraw, x: Number, y: Number, text: str, size: int, role: Role,
    anchor: str = "l", bold: bool = False, room: Number | None = None,
) -> None:  # fmt: skip
    at = (x * _FINE, y * _FINE)
    text, font = lettered(text, film_font(bold)), _font(size * _FINE, bold)
    if room is not None:
        text = _fitting(text, font, room * _FINE)
    draw.text(at, text, PALETTE[role][0], font, anchor=f"{anchor}m")


def _fitting(text: str, font: FreeTypeFont, room: Number) -> str:
    """As much of a text as fits into so many pixels."""
    most = min(len(text), int(room))
    while most > 1 and font.getlength(clipped(text, most)) > room:
        most -= 1
    return clipped(text, most)


@cache
def _font(size: int, bold: bool) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(film_font(bold), size)


class _Pen:
    """Draws shapes in an environment's units onto a picture's pixels."""

    def __init__(
        self, stage: Image, draw: ImageDraw, scale: Number, left: Number, top: Number
    ) -> None:
        self.stage, self.draw = stage, draw
        self.scale, self.left, self.top = scale, left, top

    def at(self, x: Number, y: Number) -> tuple[Number, Number]:
        return (x - self.left) * self.scale, (y - self.top) * self.scale

    def _fill(self, shape: Circle | Rect | Polygon) -> dict[str, Any]:
        """Filled, or outlined: Pillow draws outlines inwards, so half a line is added before."""
        colour = PALETTE[shape.role][0]
        if shape.line:
            return {"outline": colour, "width": max(1, round(shape.line * self.scale))}
        return {"fill": colour}

    def shape(self, shape: Shape) -> None:
        match shape:
            case Picture():
                self._picture(shape)
            case Circle(x, y, radius, _, line):
                r = radius + line / 2
                corners = [self.at(x - r, y - r), self.at(x + r, y + r)]
                self.draw.ellipse(corners, **self._fill(shape))
            case Rect(x, y, width, height, _, line, corner):
                h = line / 2
                corners = [self.at(x - h, y - h), self.at(x + width + h, y + height + h)]
                self.draw.rounded_rectangle(corners, corner * self.scale, **self._fill(shape))
            case Polygon(points):
                spots = [self.at(*pair) for pair in zip(points[::2], points[1::2], strict=True)]
                self.draw.polygon(spots, **self._fill(shape))
            case Line():
                self._line(shape)
            case Label(x, y, text, size, role, bold):
                font = _font(max(1, round(size * self.scale)), bold)
                text = lettered(text, film_font(bold))
                self.draw.text(self.at(x, y), text, PALETTE[role][0], font, anchor="mm")

    def _picture(self, shape: Picture) -> None:
        from PIL import Image

        picture = Image.open(io.BytesIO(shape.png)).convert("RGB")
        size = (round(shape.width * self.scale), round(shape.height * self.scale))
        # Few pixels are cells of a grid, whose edges stay sharp.
        few = max(picture.size) * 4 <= max(size)
        how = Image.Resampling.NEAREST if few else Image.Resampling.LANCZOS
        left, top = self.at(shape.x, shape.y)
        self.stage.paste(picture.resize(size, how), (round(left), round(top)))

    def _line(self, line: Line) -> None:
        colour, width = PALETTE[line.role][0], max(1, round(line.line * self.scale))
        start, end = np.array((line.x1, line.y1), float), np.array((line.x2, line.y2), float)
        if line.head:
            along = (end - start) / max(float(np.hypot(*(end - start))), 1e-9)
            across = np.array((-along[1], along[0]))
            foot = end - 4 * line.line * along
            corners = (end, foot + 2 * line.line * across, foot - 2 * line.line * across)
            self.draw.polygon([self.at(*c.tolist()) for c in corners], fill=colour)
            end = foot
        self.draw.line([self.at(*start.tolist()), self.at(*end.tolist())], colour, width)
