"""One line for a Hugging Face Trainer: it is watched, or rolled back in place when the collector orders it.

run = lossguard.init(project="gpt-small")
lossguard.hf.guard(trainer, run, every=50)
trainer.train()
run.finish()
"""

try:
    import transformers  # noqa: F401
except ImportError as problem:
    raise ImportError("lossguard.hf needs transformers: pip install 'lossguard[hf]'") from problem

from lossguard.hf.trainers import guard, watch

__all__ = ["guard", "watch"]
