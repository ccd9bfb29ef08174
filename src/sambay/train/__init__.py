"""Training: recipes, the optimiser, the loop, and the vocabulary of the bundled model."""
