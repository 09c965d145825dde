"""The reference trainer: GPT pre-training that uses the Lossguard SDK exactly as any user would.

    python -m trainer run --recipe tiny
    python -m trainer drill --faults 20
    python -m trainer lab

docs/architecture.md says what its modules are for.
"""
