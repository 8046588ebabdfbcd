"""Diffusion models, from a folder of pictures to a measured model.

    import neblina
    model = neblina.load("demo/model")
    pictures = model.generate(labels=[7], n=16, seed=1)     # (16, 1, 8, 8), float in [−1, 1]

Nothing heavy is imported before it is used: names are looked up when they are asked for.
"""

from typing import TYPE_CHECKING, Any

from neblina.version import __version__

if TYPE_CHECKING:
    from neblina.tasks.loading import load
    from neblina.tasks.model import Model
    from neblina.tasks.token_model import TokenModel, load_tokens

__all__ = ["Model", "TokenModel", "__version__", "load", "load_tokens"]


def __getattr__(name: str) -> Any:
    if name in ("Model", "load"):
        from neblina.tasks import loading, model

        return loading.load if name == "load" else model.Model
    if name in ("TokenModel", "load_tokens"):
        from neblina.tasks import token_model

        return getattr(token_model, name)
    raise AttributeError(f"module 'neblina' has no attribute {name!r}")
