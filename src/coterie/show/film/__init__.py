"""A team playing, recorded and drawn."""

from coterie.show.film.encode import film
from coterie.show.film.recording import NoPictures, Recording, record

__all__ = ["NoPictures", "Recording", "film", "record"]
