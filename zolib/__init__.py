"""zolib: zeroth-order optimization for PyTorch."""

__all__: list[str] = []
