"""The commands of `python -m protein_model`, one module each: options in, a call of the package, text out."""
