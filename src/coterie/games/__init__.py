"""Theory on tables of payoffs and values: solution concepts, decomposition, games of few states."""
