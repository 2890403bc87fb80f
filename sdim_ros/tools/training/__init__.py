"""What 'sdim train' is made of: recipe, frames, questions, objective, steps and their record."""
