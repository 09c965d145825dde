"""Callbacks for the Trainer of Lightning, imported as `lightning` or as `pytorch_lightning`.

run = lossguard.init(project="gpt-small")
trainer = L.Trainer(max_steps=N, callbacks=[Lossguard(run, every=50)])   # or Watch(run), which only reports
trainer.fit(module, loader)
run.finish()
"""

try:
    from lossguard.lightning.callback import Lossguard
    from lossguard.lightning.watch import Watch
except ModuleNotFoundError as problem:
    if problem.name not in ("lightning", "pytorch_lightning", "torch"):
        raise
    raise ModuleNotFoundError(
        "lossguard.lightning needs Lightning: pip install 'lossguard[lightning]'", name=problem.name
    ) from None

__all__ = ["Lossguard", "Watch"]
