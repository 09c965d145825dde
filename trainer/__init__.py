"""The reference trainer: GPT pre-training that uses the Lossguard SDK exactly as any user would.

    python -m trainer run --recipe tiny
    python -m trainer drill --faults 20
    python -m trainer lab

config   recipes: what a run is made of, checked before anything is built
data     tokens, and a data order that is a pure function of (seed, batch index)
model    the GPT
objective what is minimised, and on which inputs
schedule the learning rate as a function of the step, and AdamW
faults   trouble planted on purpose
train    the loop
display  what the person at the terminal sees
drill    faults along one run, beside other rules (arms) and a clean run; judging measures what became of each
lab      the same model with each switch thrown
services the drill's own collector, as a process
"""
