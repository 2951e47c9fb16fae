"""The colours of curves, on light and on dark ground (after Okabe and Ito).

Things in pictures are coloured by their role: ``envs.scene.PALETTE``.
"""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, told apart by colour-blind readers; its yellow is too pale for lines."""
DARK_COLOURS = ("#56A8E0", "#F0935A", "#35C49B", "#E3A3C8", "#F0B32E", "#B5DDF5", "#ECEDEE")
"""The colours of curves on dark ground, in the order of ``COLOURS``."""
