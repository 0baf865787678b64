"""Structure-conditioned protein sequence design: training, resume and design."""

__version__ = "0.1.0"
