"""attribench: which training-data attribution method to trust for text-to-image diffusion models.

Importing this package loads no torch. The page that a method author reads is `attribench.interface`.
"""

__version__ = "0.1.0"
