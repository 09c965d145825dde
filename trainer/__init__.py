"""The reference trainer: GPT pre-training that uses the Lossguard SDK exactly as any user would.

    python -m trainer run --recipe tiny
    python -m trainer drill --faults 20
    python -m trainer lab

config     recipes: the settings of a run, checked before anything is built
data       tokens, and a data order that is a pure function of (seed, batch index)
model      the GPT
objective  the loss that is minimised, and its inputs
schedule   the learning rate as a function of the step, and AdamW
faults     faults that are injected on purpose
train      the training loop
display    progress in the terminal
drill      faults in one run: Lossguard, other strategies and a clean run compared
lab        the same model with each switch changed
replay     the cause of an incident, by training checkpoints again
"""
